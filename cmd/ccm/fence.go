package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/klog/v2"
)

const (
	// fenceAge is for how long a look at the lease serves. A leader that fails to renew its lease gives up 5 s before the lease
	// ends, by the defaults of k8s.io/cloud-provider; a lease that was ours stays so for longer than this.
	fenceAge = 2 * time.Second
	// fenceTimeout bounds one look.
	fenceTimeout = 5 * time.Second
	// fenceLooks is how many answers in a row may be too old when they come.
	fenceLooks = 3
)

var errNotLeader = errors.New("another ccm has become the leader: this one changes nothing any more")

// fence keeps a process that lost the leadership from changing anything, even if it was stopped in the middle of an operation
// for so long that it does not know yet: the lease is looked at before a change.
type fence struct {
	lease string

	mu     sync.Mutex
	leases coordinationv1.LeaseInterface // nil: there is no election, or it has not been won yet
	holder string
	looked time.Time
}

// begin is called when the election is won, and finds out who we are: the identity is made up inside k8s.io/cloud-provider. Where
// that fails, the first check does it.
func (f *fence) begin(ctx context.Context, leases coordinationv1.LeaseInterface) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases, f.holder, f.looked = leases, "", time.Time{}
	if err := f.look(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "The lease that was won could not be looked at; it is tried again before the first change")
	}
}

// check is an error unless we are the leader.
func (f *fence) check(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.leases == nil {
		return nil
	}
	// A process that was stopped while it looked gets an answer of long ago.
	for range fenceLooks {
		if fresh(f.looked) {
			return nil
		}
		if err := f.look(ctx); err != nil {
			return err
		}
	}
	if !fresh(f.looked) {
		return fmt.Errorf("nothing is changed while it takes the Kubernetes API server more than %s to tell who leads", fenceAge)
	}
	return nil
}

// look is an error unless the lease is ours, as it was when the look began.
func (f *fence) look(ctx context.Context) error {
	now := time.Now()
	ctx, cancel := context.WithTimeout(ctx, fenceTimeout)
	defer cancel()
	lease, err := f.leases.Get(ctx, f.lease, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("nothing is changed while it cannot be made sure that this ccm is the leader: %w", err)
	}
	holder := ""
	if lease.Spec.HolderIdentity != nil {
		holder = *lease.Spec.HolderIdentity
	}
	if f.holder == "" {
		// The process's name for itself begins with the machine's name.
		if hostname, err := os.Hostname(); err == nil && strings.HasPrefix(holder, hostname+"_") {
			f.holder = holder
		}
	}
	if holder == "" || holder != f.holder {
		return errNotLeader
	}
	f.looked = now
	return nil
}

// fresh goes by both clocks: the monotonic one stands still while the machine sleeps, the other one can be set.
func fresh(looked time.Time) bool {
	monotonic, wall := time.Since(looked), time.Now().Round(0).Sub(looked.Round(0))
	return monotonic < fenceAge && wall < fenceAge && wall >= 0
}
