package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/kernelroutes"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/loopdisk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/qemudisk"
)

const shutdownTimeout = 3 * time.Second

// run serves until ctx ends, and removes everything it made.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stdout)
	if err != nil {
		return err
	}
	if o.version {
		fmt.Fprintln(stdout, "upcloud-sim", version)
		return nil
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	log := &logger{out: stderr}
	cfg.ErrorLog = log.failure
	if o.logRequests {
		cfg.RequestLog = log.request
	}
	tlsConfig, err := o.tlsConfig()
	if err != nil {
		return err
	}
	// addresses first: a second simulator with the same disks must end before it touches them
	api, err := listen("--listen", o.listen)
	if err != nil {
		return err
	}
	api = overTLS(api, tlsConfig)
	defer closeAll(api)
	metadata, err := listen("--metadata-listen", o.metadataListen)
	if err != nil {
		return err
	}
	defer closeAll(metadata)
	if err := o.openPlanes(&cfg); err != nil {
		return err
	}
	sim, err := simulator.New(cfg)
	if err != nil {
		return errors.Join(err, closePlanes(cfg))
	}
	banner(stdout, o, cfg, api)
	warnOfAllAddresses(stderr, api)
	err = serve(ctx, sim, api, metadata)
	fmt.Fprintln(stdout, "Stopping.")
	return errors.Join(err, sim.Close())
}

// openPlanes makes the data planes asked for.
func (o *options) openPlanes(cfg *simulator.Config) (err error) {
	if o.disks != "none" {
		dir := o.disksDir
		if dir == "" {
			dir = o.state
		}
		if dir == "" {
			dir = filepath.Join(os.TempDir(), fmt.Sprintf("upcloud-sim-%d", os.Getpid()))
		}
		if cfg.Disks, err = o.openDisks(dir, cfg.ErrorLog); err != nil {
			return fmt.Errorf("--disks %s: %w", o.disks, err)
		}
		o.disksDir = dir
	}
	if o.loadBalancersDir == "" && o.state != "" {
		o.loadBalancersDir = filepath.Join(o.state, "load-balancers")
	}
	if o.loadBalancers == "haproxy" {
		cfg.LoadBalancers, err = haproxy.New(haproxy.Config{Dir: o.loadBalancersDir, Interface: o.loadBalancerInterface,
			Rules: haproxy.RuleEvaluation(o.loadBalancerRules)})
		if err != nil {
			return errors.Join(fmt.Errorf("--load-balancers haproxy: %w", err), closePlanes(*cfg))
		}
	}
	if o.routers == "kernel" {
		plane, err := kernelroutes.New()
		if err != nil {
			return errors.Join(fmt.Errorf("--routers kernel: %w", err), closePlanes(*cfg))
		}
		cfg.Routers = plane
	}
	return nil
}

// openDisks makes the disk plane; the disks of a state outlive it.
func (o *options) openDisks(dir string, errorLog func(error)) (simulator.DiskPlane, error) {
	keep := o.state != ""
	switch {
	case o.disks == "qemu":
		return qemudisk.New(qemudisk.Config{Dir: dir, Keep: keep, ErrorLog: errorLog})
	case keep:
		return loopdisk.Open(dir)
	}
	return loopdisk.New(dir)
}

func closePlanes(cfg simulator.Config) error {
	var errs []error
	if cfg.Disks != nil {
		errs = append(errs, cfg.Disks.Close())
	}
	if cfg.LoadBalancers != nil {
		errs = append(errs, cfg.LoadBalancers.Close())
	}
	if cfg.Routers != nil {
		errs = append(errs, cfg.Routers.Close())
	}
	return errors.Join(errs...)
}

func listen(flag string, addresses []string) ([]net.Listener, error) {
	var out []net.Listener
	for _, address := range addresses {
		l, err := net.Listen("tcp", address)
		if err != nil {
			closeAll(out)
			return nil, fmt.Errorf("%s %s: %s", flag, address, remedy(err))
		}
		out = append(out, l)
	}
	return out, nil
}

// remedy says what to do about an address that cannot be listened on.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "the address is in use: choose another port, or stop the program that has it"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address: choose one of its own, or add it to an interface"
	case errors.Is(err, syscall.EACCES):
		return "not permitted: choose a port above 1023, or run as root"
	}
	return err.Error() + ": give host and port, such as 127.0.0.1:8100"
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// serve answers requests on all listeners until ctx ends, or one of them fails.
func serve(ctx context.Context, sim *simulator.Simulator, api, metadata []net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var servers []*http.Server
	var running sync.WaitGroup
	start := func(l net.Listener, h http.Handler) {
		server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
		servers = append(servers, server)
		running.Go(func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cancel(err)
			}
		})
	}
	for _, l := range api {
		start(l, sim.Handler())
	}
	for _, l := range metadata {
		start(l, sim.MetadataHandler())
	}
	<-ctx.Done()
	stop, done := context.WithTimeout(context.Background(), shutdownTimeout)
	defer done()
	for _, server := range servers {
		if server.Shutdown(stop) != nil {
			server.Close() // requests that wait for a transition would wait on
		}
	}
	running.Wait()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}
