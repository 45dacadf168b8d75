// Package machine makes the simulated machines of the local cluster out of Linux namespaces: their networks, the
// processes in them, their file systems and cgroups. It knows nothing of Kubernetes.
//
// Nothing it makes has a name on the host: network namespaces live as long as a process or a file descriptor holds
// them, processes end with the one that started them. A crash therefore leaves only what Cleanup functions find by
// path (cgroups), never a namespace or a link.
package machine

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace, held open by a file descriptor.
type Namespace struct{ file *os.File }

// NewNamespace makes an empty network namespace with its loopback interface up. It ends when it is closed and the
// last process in it has ended.
func NewNamespace() (*Namespace, error) {
	var ns *Namespace
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace: %w", err)
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return err
		}
		ns = &Namespace{file}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return ns, ns.UpLoopback()
}

// NamespaceOf opens the network namespace of the process pid.
func NamespaceOf(pid int) (*Namespace, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	return &Namespace{file}, nil
}

// Close lets go of the namespace.
func (n *Namespace) Close() error { return n.file.Close() }

// Do runs fn on a thread that is inside the namespace. Goroutines that fn starts are not inside.
func (n *Namespace) Do(fn func() error) error {
	return onOwnThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return fn()
	})
}

// Dial connects from inside the namespace. The address must be a literal IP address and port: name resolution would
// happen on other threads, outside.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

func (n *Namespace) enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	return nil
}

// onOwnThread runs fn on an operating system thread that is thrown away afterwards, so that what fn changes about
// its thread is seen by nobody else.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- fn()
	}()
	return <-done
}
