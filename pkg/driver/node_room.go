package driver

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// What UpCloud lets a server have: 16 storage devices, and 24 storage devices and network interfaces together.
const (
	deviceLimit             = 16
	deviceAndInterfaceLimit = 24
)

// roomTimeout bounds each question that the count of volumes takes: a kubelet waits for the answer.
const roomTimeout = 2 * time.Second

// room counts how many volumes the server can have, which changes with the disks and network interfaces that others
// attach to it.
type room struct {
	disk       *disk.Node
	fixed      int // what the user says, 0 to count
	interfaces func(context.Context) (int, error)
	kubernetes *kubenode.Client
	seen       func(*kubenode.Node) // gets the Node whenever it is read

	mu             sync.Mutex
	lastInterfaces int             // as far as is known
	ours           map[string]bool // serial numbers of disks that are volumes, of those that were there at the last count
}

// volumes is for how many volumes the server has room, those included that it has. It is never 0, which to Kubernetes
// would mean that there is no limit. What cannot be found out now counts as it was known last.
func (r *room) volumes(ctx context.Context) int64 {
	ids := r.attached(ctx)
	if r.fixed > 0 {
		return int64(r.fixed)
	}
	interfaces := r.countInterfaces(ctx)
	disks, err := r.disk.Disks(ctx)
	if err != nil {
		klog.FromContext(ctx).Info("Cannot list the server's disks; assuming that one is not a volume", "reason", err.Error())
		return roomFor(interfaces, 1)
	}
	return roomFor(interfaces, r.countOthers(disks, ids))
}

// roomFor is how many volumes fit beside so many interfaces, and disks that are no volumes.
func roomFor(interfaces, others int) int64 {
	return int64(max(1, min(deviceLimit, deviceAndInterfaceLimit-interfaces)-others))
}

// took notes that the driver was given the disk.
func (r *room) took(volumeID string) {
	serial, err := disk.Serial(volumeID)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remember(serial)
}

func (r *room) remember(serial string) {
	if r.ours == nil {
		r.ours = make(map[string]bool)
	}
	r.ours[serial] = true
}

// countOthers counts the disks that are not the driver's. Its own are those that Kubernetes says it has attached, those
// that the driver has staged, and those that were its own before: Kubernetes takes a volume off its list before it
// detaches it, and what the driver has unstaged waits to be detached.
func (r *room) countOthers(disks []disk.DiskInfo, volumeIDs []string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range volumeIDs {
		if serial, err := disk.Serial(id); err == nil {
			r.remember(serial)
		}
	}
	others, there := 0, make(map[string]bool, len(disks))
	for _, d := range disks {
		serial := disk.VirtioSerial(d.Serial) // what volumes are known by here, on whatever bus
		there[serial] = true
		if serial != "" && slices.ContainsFunc(d.Mounts, isStagingPath) {
			r.remember(serial)
		}
		if !r.ours[serial] {
			others++
		}
	}
	// A disk that has left may come back as somebody else's.
	maps.DeleteFunc(r.ours, func(serial string, _ bool) bool { return !there[serial] })
	return others
}

// isStagingPath tells whether something is mounted where container orchestrators let CSI drivers stage volumes: kubelets
// below plugins/kubernetes.io/csi, Nomad below csi/staging. It counts where nobody can be asked, and the driver has been
// started anew since.
func isStagingPath(path string) bool { return strings.Contains(path, "/csi/") }

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

// attached asks Kubernetes which volumes of the driver it has attached to the Node.
func (r *room) attached(ctx context.Context) []string {
	if r.kubernetes == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	node, err := r.kubernetes.Node(ctx)
	if err != nil {
		klog.FromContext(ctx).Info("Cannot ask Kubernetes which volumes are attached here; going by what is staged",
			"reason", err.Error())
		return nil
	}
	r.seen(node)
	return slices.Clip(node.Volumes(Name))
}
