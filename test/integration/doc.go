// Package integration runs the ccm program, with the real controllers of k8s.io/cloud-provider in it, against a real
// kube-apiserver and the simulator. Nodes are made by the tests. Every ccm has the service account and the rights of
// deploy/kubernetes/base/ccm/rbac.yaml, and no others.
//
// The tests share one API server. Each has a simulated account and a ccm of its own, whose nodeScopeSelector selects the
// test's nodes: so each ccm also shows, with the nodes of all other tests, that it leaves alone what is not its own.
package integration
