// Command upcloud-sim serves a local UpCloud: the API, instance metadata and, on request, real disks and load balancers.
//
// It turns flags into a pkg/simulator and serves it; it has no logic of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

// version is set when the program is built: -ldflags "-X main.version=v1.2.3".
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "upcloud-sim:", err)
		stop()
		os.Exit(1)
	}
}
