// Package upstream names what of Kubernetes' own tests is run on the local cluster.
package upstream

import _ "k8s.io/kubernetes/test/e2e"
