package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// Config says what to run. The folders hold programs that package toolchain has built.
type Config struct {
	Kubernetes string   // folder of etcd, kube-apiserver, …, kubectl
	Containerd string   // folder of containerd, its shim and ctr
	Programs   string   // folder of the project's own programs
	Images     []string // archives that every node imports
	PauseImage string   // one of the images
	CoreDNS    string   // the program; empty: Pods cannot ask for Services by name
	Nodes      int
	Profile    string // the simulator's time profile
	OutputDir  string // kubeconfig and logs
}

// Cluster is a running local Kubernetes.
type Cluster struct {
	config  Config
	self    string // this program, which is also the first process of a node
	logDir  string
	spawner *machine.Spawner
	report  func(step string, took time.Duration)

	lock       net.Listener
	fabric     *machine.Namespace
	forwarders []*forwarder
	processes  []*machine.Process // in the order of their start
	nodes      []*node
	ended      chan error // the first process that ended by itself

	pki      string
	caBundle []byte
	tokens   map[string]string
	client   kubernetes.Interface
	account  *service.Service
	zone     string
	status   Status
	power    sync.WaitGroup // the goroutine that follows the servers' states
	powerEnd context.CancelFunc

	mu       sync.Mutex                // guards processes, expected and what of status changes while the cluster runs
	expected map[*machine.Process]bool // processes that were told to end
}

// Start brings the cluster up, telling report each step and how long it took. On error everything is taken down again.
func Start(ctx context.Context, config Config, report func(step string, took time.Duration)) (*Cluster, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &Cluster{config: config, self: self, report: report, spawner: machine.NewSpawner(), zone: "fi-hel1", expected: map[*machine.Process]bool{},
		logDir: filepath.Join(config.OutputDir, "logs"), ended: make(chan error, 1)}
	if c.lock, err = lock(); err != nil {
		return nil, err
	}
	if err := c.up(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) up(ctx context.Context) error {
	if err := c.prepare(); err != nil {
		return err
	}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"networks of the simulated world", func(context.Context) (err error) {
			c.fabric, err = makeFabric()
			return err
		}},
		{"simulated UpCloud", c.startSimulator},
		{"control plane", c.startControlPlane},
		{fmt.Sprintf("%d nodes: servers, containerd, images, kubelet, kube-proxy", c.config.Nodes), c.startNodes},
		{"a host on the internet, and a workstation", c.startHosts},
		{"each machine's power follows its server's state", c.startPower},
	}
	for _, step := range steps {
		begin := time.Now()
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		c.report(step.name, time.Since(begin))
	}
	return nil
}

// tellStatus writes the status file.
func (c *Cluster) tellStatus() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.PID = os.Getpid()
	c.status.LogDir = c.logDir
	c.status.Kubectl = filepath.Join(c.config.Kubernetes, "kubectl")
	c.status.Machines = map[string]int{}
	for _, n := range c.nodes {
		if n.machine != nil {
			c.status.Machines[n.name] = n.machine.PID()
		}
	}
	return c.status.write()
}

// prepare removes what a killed cluster left and makes the folders.
func (c *Cluster) prepare() error {
	if err := sweep(); err != nil {
		return fmt.Errorf("clean up after an earlier cluster: %w", err)
	}
	if err := os.RemoveAll(c.logDir); err != nil {
		return err
	}
	for _, dir := range []string{c.logDir, stateDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	return makeByIDDir()
}

// Close ends every process of the cluster and removes every trace of it but the logs.
func (c *Cluster) Close() error {
	_ = os.WriteFile(endingMark(), nil, 0o600) // goes with the rest; without it others are told sooner that a cluster is there
	if c.powerEnd != nil {
		c.powerEnd()
		c.power.Wait()
	}
	for _, forward := range c.forwarders {
		forward.Close()
	}
	c.mu.Lock()
	processes := c.processes
	c.processes = nil
	c.mu.Unlock()
	for i := len(processes) - 1; i >= 0; i-- {
		processes[i].Stop(context.Background(), 20*time.Second)
	}
	if c.fabric != nil {
		_ = c.fabric.Close()
	}
	_ = os.Remove(filepath.Join(c.config.OutputDir, "kubeconfig"))
	return errors.Join(sweep(), c.lock.Close())
}

// Ended tells of the first process that ended without being asked to: the cluster is broken then.
func (c *Cluster) Ended() <-chan error { return c.ended }

func (c *Cluster) start(program machine.Program) error {
	_, err := c.startProcess(program)
	return err
}

func (c *Cluster) startProcess(program machine.Program) (*machine.Process, error) {
	program.LogDir = c.logDir
	process, err := c.spawner.Start(program)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.processes = append(c.processes, process)
	c.mu.Unlock()
	go func() { // ends with the process, which Close ends
		<-process.Done()
		c.mu.Lock()
		expected := c.expected[process]
		c.mu.Unlock()
		if expected {
			return
		}
		select {
		case c.ended <- process.Err():
		default:
		}
	}()
	return process, nil
}

// patience is how long anything may take on the way up: many times what it takes, for machines that are slow or busy.
const patience = 5 * time.Minute

// until calls check until it succeeds; when patience is at its end or a process of the cluster has ended the error says
// what was waited for and the last answer.
func (c *Cluster) until(ctx context.Context, what string, check func(context.Context) error) error {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case ended := <-c.ended:
			return fmt.Errorf("waiting until %s: %w", what, ended)
		case <-ctx.Done():
			return fmt.Errorf("waited %.0f s until %s: %w", time.Since(begin).Seconds(), what, err)
		}
	}
}

func (c *Cluster) nodeNames() []string {
	names := make([]string, c.config.Nodes)
	for i := range names {
		names[i] = fmt.Sprintf("node-%d", i+1)
	}
	return names
}

// startHosts keeps two namespaces outside the cluster: a host on the internet, which reaches public addresses only, and the
// workstation of an administrator, which has a way into the private network as well.
func (c *Cluster) startHosts(context.Context) (err error) {
	if c.status.InternetPID, err = c.startHost("internet", internetHost); err != nil {
		return err
	}
	if c.status.WorkstationPID, err = c.startHost("workstation", workstation); err != nil {
		return err
	}
	namespace, err := machine.NamespaceOf(c.status.WorkstationPID)
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := namespace.AddRoute(privateNetwork, publicGateway.Addr()); err != nil {
		return err
	}
	c.status.WorkstationKubeconfig = filepath.Join(c.pki, "workstation.kubeconfig")
	return c.kubeconfig(c.status.WorkstationKubeconfig, "admin", apiServerURL())
}

// startHost keeps a namespace with a public address. A process holds it, so that others can enter it by the process's ID.
func (c *Cluster) startHost(name string, address netip.Prefix) (pid int, err error) {
	namespace, err := machine.NewNamespace()
	if err != nil {
		return 0, err
	}
	defer namespace.Close()
	if err := c.fabric.Connect(publicBridge, namespace, "eth0", name, address); err != nil {
		return 0, err
	}
	holder, err := c.startProcess(machine.Program{Name: name, Args: []string{"sleep", "infinity"}, Namespace: namespace})
	if err != nil {
		return 0, err
	}
	return holder.PID(), nil
}
