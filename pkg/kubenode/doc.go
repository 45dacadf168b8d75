// Package kubenode is what the node plugin knows of Kubernetes: its own Node and CSINode. It reads them with single
// requests, and takes one taint off the Node.
//
// It knows nothing of CSI calls and of other Nodes, and it watches nothing: an informer, and the types that it needs,
// would cost every node more memory than the whole plugin has.
package kubenode
