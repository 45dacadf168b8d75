package local

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// forwarder lets programs on the host reach one address inside a namespace, over a port on loopback. So the host needs
// no interface and no route of ours.
type forwarder struct {
	listener  net.Listener
	namespace *machine.Namespace
	target    string
	running   sync.WaitGroup
	ctx       context.Context
	cancel    context.CancelFunc
}

func newForwarder(namespace *machine.Namespace, target string) (*forwarder, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &forwarder{listener: listener, namespace: namespace, target: target}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.running.Go(f.accept)
	return f, nil
}

// Address is the loopback address and port.
func (f *forwarder) Address() string { return f.listener.Addr().String() }

// Close ends the forwarder and every connection through it.
func (f *forwarder) Close() {
	f.cancel()
	_ = f.listener.Close()
	f.running.Wait()
}

func (f *forwarder) accept() {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.running.Go(func() { f.forward(conn) })
	}
}

func (f *forwarder) forward(outside net.Conn) {
	defer outside.Close()
	inside, err := f.namespace.Dial(f.ctx, "tcp", f.target)
	if err != nil {
		return
	}
	defer inside.Close()
	stop := context.AfterFunc(f.ctx, func() {
		_ = outside.Close()
		_ = inside.Close()
	})
	defer stop()
	var directions sync.WaitGroup
	directions.Go(func() { pass(inside, outside) })
	directions.Go(func() { pass(outside, inside) })
	directions.Wait()
}

// pass copies one direction to its end, and passes the end on.
func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
