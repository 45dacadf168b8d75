package disk

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/mount-utils"
)

// Config says where a machine keeps its devices. The zero value is right for a real server.
type Config struct {
	// DeviceDir holds the links by serial. Default /dev/disk/by-id.
	DeviceDir string
	// DevDir is where device nodes are. Default /dev.
	DevDir string
	// SysDir is where sysfs is mounted. Default /sys.
	SysDir string
	// DeviceTimeout is how long a device is waited for, if the caller waits that long. Default 30 s: long enough
	// for a slow udev, and less than the timeouts of kubelet, so that the reason reaches the user.
	DeviceTimeout time.Duration
	// ResizeTimeout is how long Grow waits for a disk to have the size asked for. Default 5 s: servers see the growth of a storage at
	// once, and it is finished before the node is asked.
	ResizeTimeout time.Duration
	// ReleaseTimeout is how long Unstage waits for the kernel to let go of a device that was unmounted. Default 10 s.
	ReleaseTimeout time.Duration
	// FormatLimit is how many volumes are formatted at a time; others wait. Default [DefaultFormatLimit].
	FormatLimit int
	// Registerer takes the metrics, nil for none.
	Registerer prometheus.Registerer
}

// Node is the machine we run on. Its methods may be called from many goroutines at once: work on one volume is done
// in order, equal work is done once, and volumes do not wait for each other.
type Node struct {
	deviceDir, devDir, sysDir string
	hostMountInfo             string
	deviceTimeout             time.Duration
	resizeTimeout             time.Duration
	releaseTimeout            time.Duration
	keyCost                   []string
	formats                   *turns

	newWatcher func() (*fsnotify.Watcher, error)

	mounter  mount.Interface
	jobs     *jobs
	looks    *jobs // what only reads or flushes, and may hang with its device: keyed by what it looks at
	duration *prometheus.HistogramVec
}

// New returns the machine we run on.
func New(cfg Config) (*Node, error) {
	n := &Node{
		deviceDir:      orDefault(cfg.DeviceDir, "/dev/disk/by-id"),
		devDir:         orDefault(cfg.DevDir, "/dev"),
		sysDir:         orDefault(cfg.SysDir, "/sys"),
		hostMountInfo:  hostMountInfoFile,
		deviceTimeout:  cfg.DeviceTimeout,
		resizeTimeout:  cmp.Or(max(cfg.ResizeTimeout, 0), 5*time.Second),
		releaseTimeout: cmp.Or(max(cfg.ReleaseTimeout, 0), 10*time.Second),
		keyCost:        keyCost,
		formats:        newTurns(cmp.Or(max(cfg.FormatLimit, 0), DefaultFormatLimit)),
		newWatcher:     fsnotify.NewWatcher,
		// Scopes of systemd are for filesystems with a daemon in user space; ours have none.
		mounter: mount.NewWithoutSystemd(""),
		jobs:    newJobs(),
		looks:   newJobs(),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "upcloud_csi_disk_operation_duration_seconds",
			Help:    "Time that operations on block devices, filesystems and mounts took on this node.",
			Buckets: []float64{.005, .02, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"operation", "outcome"}),
	}
	n.jobs.early = true
	if n.deviceTimeout <= 0 {
		n.deviceTimeout = 30 * time.Second
	}
	if cfg.Registerer != nil {
		if err := cfg.Registerer.Register(n.duration); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Close waits until the commands that are running have ended, or until ctx is done. Those that format end with this process,
// others are not killed.
func (n *Node) Close(ctx context.Context) error {
	return errors.Join(n.jobs.close(ctx), n.looks.close(ctx))
}

// observe records how long an operation took; use it as defer n.observe("find", time.Now(), &err).
func (n *Node) observe(operation string, start time.Time, err *error) {
	outcome := "ok"
	if *err != nil {
		outcome = "error"
	}
	n.duration.WithLabelValues(operation, outcome).Observe(time.Since(start).Seconds())
}

func orDefault(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}
