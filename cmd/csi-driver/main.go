// Command csi-driver provisions, attaches, formats and mounts UpCloud block storage for container orchestrators that
// speak CSI. It is wiring only: flags to configuration to pkg/driver.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "csi-driver: %v\n", err)
		os.Exit(1)
	}
}
