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
)

// Exit statuses besides 0, which means that nothing was found, or nothing is left.
const (
	statusError    = 1
	statusFindings = 3
)

func main() {
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
	}
	return statusError
}
