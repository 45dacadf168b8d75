package simulator

import (
	"context"
	"net/netip"
)

// DiskPlane gives storages bytes. Storages are named by UUID, sizes are in GiB. The simulator calls Create, Resize,
// Detach and Delete with its lock held, so they must be quick; Copy and Attach may take their time.
type DiskPlane interface {
	// Create makes an empty disk: every byte reads as zero.
	Create(storage string, size int) error
	// Copy makes to a copy of from as it is now, size GiB large, and replaces what to held.
	Copy(ctx context.Context, from, to string, size int) error
	// Resize makes the disk larger, attached or not.
	Resize(storage string, size int) error
	// Attach makes the disk appear in the server, at a device address such as virtio:1.
	Attach(ctx context.Context, server, storage, address string) error
	// Detach makes the disk disappear from the server. A disk that is not there is no error.
	Detach(server, storage string) error
	// Delete removes the disk and its bytes. A disk that is not there is no error.
	Delete(storage string) error
	// Close removes everything the plane made.
	Close() error
}

// DiskUnplugger is a DiskPlane of machines that have a say in when a disk goes. Without it, and where there is no machine
// to ask any more, because its server was deleted, Detach takes the disk away at once.
type DiskUnplugger interface {
	DiskPlane
	// Unplug makes the disk disappear from the server when the machine lets go of it, and may take its time. After an
	// error the disk is still attached. A disk that is not there is no error.
	Unplug(ctx context.Context, server, storage string) error
}

// DiskKeeper is a DiskPlane whose disks outlive the process.
type DiskKeeper interface {
	DiskPlane
	// Keep tells a new plane which disks there are to be, by storage UUID, before anything else is called: it returns
	// those whose bytes are missing, or makes them, empty, when create says so. Files of other disks are left alone; their
	// paths are returned, too.
	Keep(disks map[string]KeptDisk, create bool) (missing, unknown []string, err error)
}

// KeptDisk is a disk as the state has it.
type KeptDisk struct {
	Size   int    // GiB
	Server string // to which it is attached, and will be again; empty: none
}

// LoadBalancerPlane makes load balancers carry traffic.
type LoadBalancerPlane interface {
	// Listen makes an address for the load balancer's traffic usable and returns the one to show in the API: the
	// proposed one, or another where the plane cannot have that.
	Listen(proposed netip.Addr) (netip.Addr, error)
	// Unlisten gives an address up that Listen returned. One that is not there is no error.
	Unlisten(netip.Addr) error
	// Apply makes the load balancer carry traffic as it is now described. The first call starts it.
	Apply(ctx context.Context, spec LoadBalancerSpec) error
	// Remove stops the load balancer and gives up its addresses. One that is not there is no error.
	Remove(uuid string) error
	// Close removes everything the plane made.
	Close() error
}

// LoadBalancerWatcher is a LoadBalancerPlane that notices when a load balancer stops working by itself.
type LoadBalancerWatcher interface {
	// Watch has failed called then. It is called before anything else, and failed may call Apply.
	Watch(failed func(uuid string, err error))
}

// LoadBalancerMeter is a LoadBalancerPlane that counts traffic.
type LoadBalancerMeter interface {
	// Measure returns the counts of each frontend, backend and member of the load balancer.
	Measure(ctx context.Context, uuid string) ([]Measured, error)
}

// Measured is what was counted of a frontend, a backend, or a member of it.
type Measured struct {
	Frontend        string // name; empty: a backend, or a member
	Backend, Member string
	Status          string           // of a member: UP, DOWN 1/3, MAINT, no check
	Check           string           // outcome of the last health check: L4OK, L7STS
	CheckText       string           // what it said
	Counts          map[string]int64 // by HAProxy's name: stot, bin, hrsp_2xx
}

// LoadBalancerSpec is what a data plane needs to know of a load balancer. The simulator does not change it afterwards.
type LoadBalancerSpec struct {
	LoadBalancer LoadBalancer
	Addresses    map[string][]netip.Addr // listening addresses by the name of the load balancer's network
	MaxSessions  int                     // sessions at one time, by plan
	Certificates map[string][]byte       // PEM, certificate chain and key, by UUID of the certificate bundle
}

// RouterPlane makes routers carry traffic. The simulator calls it with its lock held, so it must be quick.
type RouterPlane interface {
	// Apply makes the router do as it is now described. The first call starts it.
	Apply(spec RouterSpec) error
	// Remove stops the router. One that is not there is no error.
	Remove(uuid string) error
	// Close removes everything the plane made.
	Close() error
}

// RouterSpec is what a data plane needs to know of a router.
type RouterSpec struct {
	UUID     string
	Networks []netip.Prefix // of the private networks that it joins
	Routes   []RouterRoute  // static ones
}

// RouterRoute sends what is for Prefix to NextHop, if that is an address of a server that runs on one of the networks.
type RouterRoute struct {
	Prefix  netip.Prefix
	NextHop netip.Addr
}
