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

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/fence"
)

var errNotLeader = errors.New("another ccm has become the leader: this one changes nothing any more")

// leadership keeps a process that lost the election from changing anything. The identity is made up inside
// k8s.io/cloud-provider: it is found out by the first look.
type leadership struct {
	lease string
	fence *fence.Fence

	mu     sync.Mutex
	leases coordinationv1.LeaseInterface // nil: there is no election, or it has not been won yet
	holder string
}

func newLeadership(lease string) *leadership {
	l := &leadership{lease: lease}
	l.fence = fence.New(l.look)
	return l
}

// begin is called when the election is won, and finds out who we are. Where that fails, the first check does it.
func (l *leadership) begin(ctx context.Context, leases coordinationv1.LeaseInterface) {
	l.mu.Lock()
	l.leases, l.holder = leases, ""
	l.mu.Unlock()
	l.fence.Forget()
	if err := l.fence.Check(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "The lease that was won could not be looked at; it is tried again before the first change")
	}
}

// check is an error unless we are the leader.
func (l *leadership) check(ctx context.Context) error {
	l.mu.Lock()
	elected := l.leases != nil
	l.mu.Unlock()
	if !elected {
		return nil
	}
	return l.fence.Check(ctx)
}

// look is an error unless the lease is ours.
func (l *leadership) look(ctx context.Context) (fence.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	read, err := l.leases.Get(ctx, l.lease, metav1.GetOptions{})
	if err != nil {
		return fence.Lease{}, fmt.Errorf("nothing is changed while it cannot be made sure that this ccm is the leader: %w", err)
	}
	lease := fence.Lease{}
	if read.Spec.HolderIdentity != nil {
		lease.Holder = *read.Spec.HolderIdentity
	}
	if read.Spec.RenewTime != nil {
		lease.Renewed = read.Spec.RenewTime.Time
	}
	if read.Spec.LeaseDurationSeconds != nil {
		lease.Duration = time.Duration(*read.Spec.LeaseDurationSeconds) * time.Second
	}
	if l.holder == "" {
		// The process's name for itself begins with the machine's name.
		if hostname, err := os.Hostname(); err == nil && strings.HasPrefix(lease.Holder, hostname+"_") {
			l.holder = lease.Holder
		}
	}
	if lease.Holder == "" || lease.Holder != l.holder {
		return fence.Lease{}, errNotLeader
	}
	return lease, nil
}
