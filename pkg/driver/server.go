package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

const (
	// DefaultStopTimeout bounds how long calls in flight may take after a stop was asked for: less than the 30 s that
	// Kubernetes gives a pod.
	DefaultStopTimeout = 20 * time.Second
	// commandTimeout bounds how long commands on disks (mkfs, fsck) are waited for after that. Those that format end with the
	// driver then (see pkg/disk), others are not killed.
	commandTimeout = 5 * time.Second
)

// socket is the path of a unix socket, and the endpoint as the user gave it.
type socket struct{ path, endpoint string }

// parseEndpoint accepts unix:///absolute/path, unix:/absolute/path and the bare path.
func parseEndpoint(endpoint string) (socket, error) {
	path := endpoint
	if parsed, err := url.Parse(endpoint); err == nil && parsed.Scheme != "" {
		path = parsed.Path
		if parsed.Scheme != "unix" || parsed.Host != "" {
			path = ""
		}
	}
	if !filepath.IsAbs(path) {
		return socket{}, fmt.Errorf("--endpoint: %q is no absolute path of a unix socket; give one such as unix:///csi/csi.sock", endpoint)
	}
	if len(path) > 107 { // sun_path of unix(7), without its end
		return socket{}, fmt.Errorf("--endpoint: %s is longer than the 107 bytes that the path of a unix socket can have", path)
	}
	return socket{path: path, endpoint: endpoint}, nil
}

// listen takes the socket over from a server that has ended, but not from one that answers, and never removes anything
// that is no socket.
func (s socket) listen(ctx context.Context) (net.Listener, error) {
	// Of two that start at once, one would remove the socket that the other has just made.
	unlock, err := lockFolder(filepath.Dir(s.path))
	if err != nil {
		return nil, fmt.Errorf("--endpoint: cannot listen on %s: %w; check that its folder exists and can be written to", s.path, cause(err))
	}
	defer unlock()
	info, err := os.Lstat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("--endpoint: %w", err)
	case info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("--endpoint: %s exists and is not a socket; remove it or choose another path", s.path)
	default:
		if err := s.removeStale(ctx); err != nil {
			return nil, err
		}
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "unix", s.path)
	if err != nil {
		return nil, fmt.Errorf("--endpoint: cannot listen on %s: %w; check that its folder exists and can be written to", s.path, cause(err))
	}
	return listener, nil
}

// lockFolder keeps other copies of the program from claiming a socket in the folder. It leaves nothing there.
func lockFolder(path string) (unlock func(), err error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX); err != nil {
		folder.Close()
		return nil, err
	}
	return func() { folder.Close() }, nil
}

func (s socket) removeStale(ctx context.Context) error {
	dialer := net.Dialer{Timeout: 2 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", s.path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("--endpoint: %s is in use by another csi-driver; stop it or choose another path", s.path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("--endpoint: %s exists, and whether it is in use cannot be told: %w", s.path, cause(err))
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--endpoint: the socket that another run left at %s cannot be removed: %w", s.path, err)
	}
	return nil
}

// cause is the last error of a chain: "permission denied" without the words of the layers above.
func cause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// Listen claims the endpoint. It is separate from Serve so that start-up errors come before anything else happens.
func (d *Driver) Listen(ctx context.Context) (net.Listener, error) { return d.socket.listen(ctx) }

// Run claims the endpoint and serves until ctx is done, then finishes the calls in flight.
func (d *Driver) Run(ctx context.Context) error {
	listener, err := d.Listen(ctx)
	if err != nil {
		return err
	}
	return d.Serve(ctx, listener)
}

// Serve answers on listener until ctx is done, then finishes the calls in flight, within limits, and removes the socket.
func (d *Driver) Serve(ctx context.Context, listener net.Listener) error {
	defer d.stopping.Store(true)
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(listener) }()
	registering, unregister := context.WithCancel(ctx)
	var registration sync.WaitGroup
	registration.Go(func() { d.registration.run(registering) })
	defer func() {
		unregister()
		registration.Wait()
	}()
	d.log.Info("Serving CSI", "driver", Name, "version", d.config.Version, "mode", d.config.Mode,
		"endpoint", d.socket.endpoint, "node", d.config.NodeID, "zone", d.config.Zone)
	select {
	case err := <-served:
		d.calls.close()
		return fmt.Errorf("serving on %s: %w", d.socket.path, err)
	case <-ctx.Done():
	}
	d.stopping.Store(true)
	d.log.Info("Stopping: finishing the calls in flight")
	d.stop()
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

func (d *Driver) stop() {
	stopped := make(chan struct{})
	go func() {
		d.server.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(d.config.StopTimeout):
		d.log.Info("Some calls did not end in time; they are cut off and will be retried", "timeout", d.config.StopTimeout)
		d.server.Stop()
		<-stopped
	}
	d.calls.close()
	if d.config.Disk == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	if err := d.config.Disk.Close(ctx); err != nil {
		d.log.Info("A command on a disk is still running; if it formats, it ends with the driver and is begun anew by the next")
	}
}
