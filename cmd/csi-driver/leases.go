package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/fence"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// The sidecars of Kubernetes elect a leader each, so that a call to this controller comes from a leader. But a process may be
// stopped, or cut off, in the middle of a call, until another Pod has become the leader and has changed what the call is about.
// So the lease of the sidecar that makes a call is looked at before each change of the account.

// The names of the sidecars' leases, as the sidecars make them of the driver's name.
var (
	provisionerLease = leaseName(driver.Name)
	attacherLease    = leaseName("external-attacher-leader-" + driver.Name)
	resizerLease     = leaseName("external-resizer-" + driver.Name)
	snapshotterLease = leaseName("external-snapshotter-leader-" + driver.Name)
)

// leaseOf tells which sidecar makes a call that changes the account.
var leaseOf = map[string]string{
	"CreateVolume": provisionerLease, "DeleteVolume": provisionerLease,
	"ControllerPublishVolume": attacherLease, "ControllerUnpublishVolume": attacherLease,
	"ControllerExpandVolume": resizerLease, "ControllerModifyVolume": resizerLease,
	"CreateSnapshot": snapshotterLease, "DeleteSnapshot": snapshotterLease, "ListSnapshots": snapshotterLease,
}

var notInLeaseNames = regexp.MustCompile("[^a-zA-Z0-9-]")

// leaseName is what csi-lib-utils makes of names of leases, and of the names of those who hold them.
func leaseName(name string) string {
	name = notInLeaseNames.ReplaceAllString(name, "-")
	if strings.HasSuffix(name, "-") {
		name += "X"
	}
	return name
}

// abandoned is for how long a lease must not have been renewed to be one that no sidecar uses any more, as after leader election
// was switched off. It is much longer than the clocks of two machines differ.
const abandoned = 5 * time.Minute

// sidecarLeases checks the leases of the sidecars of this Pod.
type sidecarLeases struct {
	leases    *kubenode.Leases
	namespace string
	self      string // under which the sidecars of this Pod hold their leases
	fences    map[string]*fence.Fence
	unknown   sync.Once
}

// newSidecarLeases returns nil outside of Kubernetes.
func newSidecarLeases() (*sidecarLeases, error) {
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	return sidecarLeasesOf(config, ownNamespace(), hostname)
}

func sidecarLeasesOf(config *rest.Config, namespace, hostname string) (*sidecarLeases, error) {
	leases, err := kubenode.NewLeases(config)
	if err != nil {
		return nil, err
	}
	s := &sidecarLeases{leases: leases, namespace: namespace, self: leaseName(hostname), fences: map[string]*fence.Fence{}}
	for _, name := range leaseOf {
		s.fences[name] = fence.New(func(ctx context.Context) (fence.Lease, error) { return s.look(ctx, name) })
	}
	return s, nil
}

// namespaceFile tells the namespace of the Pod.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// ownNamespace is where the sidecars have their leases.
func ownNamespace() string {
	if namespace := os.Getenv("POD_NAMESPACE"); namespace != "" {
		return namespace
	}
	if text, err := os.ReadFile(namespaceFile); err == nil && strings.TrimSpace(string(text)) != "" {
		return strings.TrimSpace(string(text))
	}
	return "default"
}

// check is an error unless the account may be changed for the call that ctx belongs to.
func (s *sidecarLeases) check(ctx context.Context) error {
	method, _ := grpc.Method(ctx)
	guard, known := s.fences[leaseOf[path.Base(method)]]
	if !known {
		return fmt.Errorf("call %q does not change the account", method) // a mistake of this program
	}
	return guard.Check(ctx)
}

// look reads a lease. It is an error where another Pod holds it. Where no sidecar uses the lease, there is no election, and
// nothing to lose.
func (s *sidecarLeases) look(ctx context.Context, name string) (fence.Lease, error) {
	read, err := s.leases.Lease(ctx, s.namespace, name)
	switch {
	case errors.Is(err, kubenode.ErrNotFound):
		return fence.Lease{}, nil
	case errors.Is(err, kubenode.ErrForbidden):
		// The sidecars have the same service account: they could not hold a lease either.
		s.unknown.Do(func() {
			klog.FromContext(ctx).Info("Cannot read the leases of the sidecars; changes do not depend on them", "err", err)
		})
		return fence.Lease{}, nil
	case err != nil:
		return fence.Lease{}, fmt.Errorf("nothing is changed until lease %s/%s tells that this Pod is the leader: %w", s.namespace, name, err)
	case !read.Renewed.IsZero() && time.Since(read.Renewed) > max(abandoned, 10*read.Duration):
		return fence.Lease{}, nil
	case read.Holder != s.self:
		holder := "another Pod"
		if read.Holder == "" {
			holder = "no Pod"
		}
		return fence.Lease{}, fmt.Errorf("nothing is changed, as %s holds lease %s/%s now", strings.TrimSpace(holder+" "+read.Holder), s.namespace, name)
	}
	return fence.Lease(*read), nil
}
