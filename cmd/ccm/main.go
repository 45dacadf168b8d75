// Command ccm is the cloud controller manager for UpCloud: it connects a Kubernetes cluster's Nodes and its Services of type
// LoadBalancer with UpCloud's servers and load balancers. It is wiring only: flags to configuration to pkg/instances
// and pkg/loadbalancer, inside the controllers of k8s.io/cloud-provider.
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // metrics of the Kubernetes client
	_ "k8s.io/component-base/metrics/prometheus/version"  // metric kubernetes_build_info

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/logs"
)

func main() {
	logs.HideBodies()
	err := cli.RunNoErrOutput(newCommand(wait.NeverStop))
	if err == nil {
		return
	}
	var shown *shownError
	if !errors.As(err, &shown) {
		fmt.Fprintln(os.Stderr, "ccm:", oneLine(err))
	}
	os.Exit(1)
}

// shownError is an error that the controller manager has printed already.
type shownError struct{ error }

// oneLine makes one line of an error that has several.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
