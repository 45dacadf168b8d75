// Command helm makes what is made from the Helm chart in deploy/helm: the manifests of deploy/kubernetes, the single files of a
// release, the chart's README, and the list of images. Its tests hold the chart, kustomize and the Kubernetes API together. It is a
// module of its own, so that Helm's dependencies are not the product's.
package main
