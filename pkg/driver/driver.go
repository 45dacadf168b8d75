package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// Name is the driver's name, the same as that of UpCloud's own driver, whose volumes this one takes over.
const Name = "storage.csi.upcloud.com"

// Mode says which of the CSI services a process offers.
type Mode string

const (
	ModeController Mode = "controller"
	ModeNode       Mode = "node"
	ModeAll        Mode = "all"
)

// ParseMode reads the name of a mode.
func ParseMode(name string) (Mode, error) {
	modes := []string{string(ModeController), string(ModeNode), string(ModeAll)}
	if !slices.Contains(modes, name) {
		return "", fmt.Errorf("unknown mode %q: use one of %s", name, strings.Join(modes, ", "))
	}
	return Mode(name), nil
}

// Controller tells whether the mode has the controller service.
func (m Mode) Controller() bool { return m == ModeController || m == ModeAll }

// Node tells whether the mode has the node service.
func (m Mode) Node() bool { return m == ModeNode || m == ModeAll }

// Config is what a driver is made of.
type Config struct {
	// Endpoint is the socket to serve on: unix:///csi/csi.sock.
	Endpoint string
	Mode     Mode
	// Version of the program, told to the container orchestrator.
	Version string
	// Zone is where this process runs. The controller makes volumes there when the request names no zone; it may be
	// empty in the mode controller. The node reports it as its topology.
	Zone string

	// Cloud is the UpCloud account. Needed by the controller.
	Cloud *cloud.Cloud

	// Disk is the machine. Needed by the node.
	Disk *disk.Node
	// NodeID is the UUID of the server that the node service runs on.
	NodeID string
	// MaxVolumes is how many volumes the server is said to have room for. 0: what UpCloud lets a server have, less the
	// disks and network interfaces of it that are not the driver's.
	MaxVolumes int
	// Interfaces tells how many network interfaces the server has, each time that it is asked for the room for volumes.
	// nil: that is not known, and no volume goes without its place for them.
	Interfaces func(context.Context) (int, error)
	// Kubernetes is the Node that the node service runs on, nil outside Kubernetes.
	Kubernetes *kubenode.Client

	// StopTimeout bounds how long calls in flight may take after the end was asked for. 0: DefaultStopTimeout.
	StopTimeout time.Duration
	// Registerer takes the metrics, nil for none.
	Registerer prometheus.Registerer
	// Logger gets the log, nil for klog's.
	Logger *klog.Logger
}

// Driver is a CSI driver ready to run.
type Driver struct {
	config  Config
	log     klog.Logger
	socket  socket
	metrics *metrics
	calls   *inflight
	server  *grpc.Server

	registration *registration
	stopping     atomic.Bool // set as soon as the end is asked for
}

// New checks the configuration and makes a driver of it. Run serves it.
func New(cfg Config) (*Driver, error) {
	sock, err := parseEndpoint(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	if _, err := ParseMode(string(cfg.Mode)); err != nil {
		return nil, err
	}
	switch {
	case cfg.Mode.Controller() && cfg.Cloud == nil:
		return nil, errors.New("the controller service needs an UpCloud account")
	case cfg.Mode.Node() && cfg.Disk == nil:
		return nil, errors.New("the node service needs the machine's disks")
	case cfg.Mode.Node() && (cfg.NodeID == "" || cfg.Zone == ""):
		return nil, errors.New("the node service needs the UUID of its server and its zone")
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = DefaultStopTimeout
	}
	metrics, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	d := &Driver{config: cfg, log: klog.Background(), socket: sock, metrics: metrics, calls: newInflight(metrics)}
	if cfg.Logger != nil {
		d.log = *cfg.Logger
	}
	d.registration = newRegistration(cfg.Kubernetes, cfg.NodeID, d.log)
	d.server = d.newServer()
	return d, nil
}

func (d *Driver) newServer() *grpc.Server {
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(d.observe, d.limit, d.once, d.answer))
	csi.RegisterIdentityServer(server, &identity{
		version: d.config.Version, controller: d.config.Mode.Controller(), answers: d.calls.answers,
	})
	if d.config.Mode.Controller() {
		csi.RegisterControllerServer(server, &controller{cloud: d.config.Cloud, zone: d.config.Zone})
	}
	if d.config.Mode.Node() {
		csi.RegisterNodeServer(server, &node{
			disk: d.config.Disk, id: d.config.NodeID, zone: d.config.Zone,
			room: &room{
				disk: d.config.Disk, fixed: d.config.MaxVolumes, interfaces: d.config.Interfaces,
				kubernetes: d.config.Kubernetes, seen: d.registration.seen,
			},
		})
	}
	return server
}
