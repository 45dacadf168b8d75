package driver

import (
	"context"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// What UpCloud lets a server have: 16 storage devices, and 24 storage devices and network interfaces together.
const (
	deviceLimit             = 16
	deviceAndInterfaceLimit = 24
	// reservedDevices are left to what is not ours: the disk that the server boots from, and one more (a disk added by
	// hand, a CD-ROM). UpCloud's own driver leaves as many.
	reservedDevices = 2
)

// roomTimeout bounds each question that the count of volumes takes: a kubelet waits for the answer.
const roomTimeout = 2 * time.Second

// room counts how many volumes the server can have, which changes with the disks and network interfaces that others
// attach to it.
type room struct {
	fixed      int // what the user says, 0 to count
	interfaces func(context.Context) (int, error)
	kubernetes *kubenode.Client
	seen       func(*kubenode.Node) // gets the Node whenever it is read

	mu             sync.Mutex
	lastInterfaces int // as far as is known
}

// volumes is for how many volumes the server has room, those included that it has. It is never 0, which to Kubernetes
// would mean that there is no limit. What cannot be found out now counts as it was known last.
func (r *room) volumes(ctx context.Context) int64 {
	r.lookAtNode(ctx)
	if r.fixed > 0 {
		return int64(r.fixed)
	}
	return roomFor(r.countInterfaces(ctx), reservedDevices)
}

// roomFor is how many volumes fit beside so many interfaces, and disks that are no volumes.
func roomFor(interfaces, others int) int64 {
	return int64(max(1, min(deviceLimit, deviceAndInterfaceLimit-interfaces)-others))
}

// countInterfaces asks the metadata service.
func (r *room) countInterfaces(ctx context.Context) int {
	if r.interfaces == nil {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	count, err := r.interfaces(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		klog.FromContext(ctx).Info("Cannot ask how many network interfaces the server has", "assumed", r.lastInterfaces,
			"reason", err.Error())
		return r.lastInterfaces
	}
	r.lastInterfaces = count
	return count
}

// lookAtNode reads the Node, so that what has become of it is seen.
func (r *room) lookAtNode(ctx context.Context) {
	if r.kubernetes == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	node, err := r.kubernetes.Node(ctx)
	if err != nil {
		klog.FromContext(ctx).Info("Cannot read the Node", "reason", err.Error())
		return
	}
	r.seen(node)
}
