// Package install takes the Helm chart and the single files of a release through their lives on a real kube-apiserver, by Helm's
// own code and by kubectl: installed, upgraded, refused, and uninstalled with nothing left that is not to be left. There are no
// kubelets and no controllers of Kubernetes: what is shown is that the API server takes every object, and every change of one.
//
// The tests share one API server, one after the other: each compares all that is in it before and after.
package install
