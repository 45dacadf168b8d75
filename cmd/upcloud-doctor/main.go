// Command upcloud-doctor finds what a Kubernetes cluster left behind in an UpCloud account, and what it misses there. It
// is wiring only: flags to configuration to pkg/doctor, and findings to text.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/logs"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// Exit statuses besides 0, which means that nothing was found, or nothing is left.
const (
	statusError       = 1
	statusFindings    = 3
	statusMismatch    = 4   // credentials, kubeconfig or cluster ID are not of one cluster: nothing was judged
	statusInterrupted = 130 // as shells have it
)

func main() {
	logs.HideBodies()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	err := newCommand().ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errFindings) {
		fmt.Fprintf(os.Stderr, "upcloud-doctor: %v\n", err)
	}
	os.Exit(status(err))
}

func status(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFindings):
		return statusFindings
	case errors.Is(err, doctor.ErrMismatch):
		return statusMismatch
	case errors.Is(err, context.Canceled):
		return statusInterrupted
	}
	return statusError
}
