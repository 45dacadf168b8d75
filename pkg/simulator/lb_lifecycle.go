package simulator

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// States of a load balancer.
const (
	lbPending     = "pending"
	lbSetupServer = "setup-server"
	lbRunning     = "running"
	lbStopped     = "stopped"
	lbFailing     = "failing" // of the OpenAPI document: the nodes do not work as configured

	lbNotResponding = "not-responding" // of a node
)

// step is a state that is passed through, and how long it takes.
type step struct {
	state string
	takes time.Duration
}

// setupSteps lead to running, in the 147 s of a recording, and deleteSteps to where nothing is any more. The recordings
// show setup-server within a second of the creation, and without addresses for a minute at least; delete-network within a
// second of the deletion, and delete-server for most of the rest.
var (
	setupSteps = []step{
		{lbPending, 300 * time.Millisecond}, {"setup-agent", 300 * time.Millisecond}, {lbSetupServer, 90 * time.Second},
		{"setup-network", 10 * time.Second}, {"setup-lb", 15 * time.Second}, {"setup-dns", 15 * time.Second},
		{"checkup", 16400 * time.Millisecond},
	}
	deleteSteps = []step{
		{lbPending, 500 * time.Millisecond}, {"delete-dns", 200 * time.Millisecond}, {"delete-network", 2 * time.Second},
		{"delete-server", 20 * time.Second}, {"delete-service", 2 * time.Second},
	}
)

// noticed is how long a change shows as pending before the servers are set up anew.
const noticed = 100 * time.Millisecond

func indexOfStep(steps []step, state string) int {
	return max(0, slices.IndexFunc(steps, func(s step) bool { return s.state == state }))
}

// setUpLoadBalancer takes a load balancer through its setup, from the step given.
func (s *Simulator) setUpLoadBalancer(lb *loadBalancer, n int) {
	if n == len(setupSteps) {
		lb.ready = true
		s.applyLoadBalancer(lb)
		return
	}
	lb.stage = setupSteps[n].state
	lb.setState(s, lb.stage)
	switch lb.stage {
	case "setup-agent":
		lb.Nodes = lb.emptyNodes()
	case "setup-network":
		if err := s.giveNodesAddresses(lb); err != nil {
			s.reportPlane("give addresses to load balancer", lb.UUID, err)
			s.after(max(healingPause, s.durationOf(setupSteps[n].takes)), func() { // it waits for addresses
				if !lb.deleting {
					s.setUpLoadBalancer(lb, n)
				}
			})
			return
		}
	}
	s.after(s.durationOf(setupSteps[n].takes), func() {
		if !lb.deleting {
			s.setUpLoadBalancer(lb, n+1)
		}
	})
}

func (lb *loadBalancer) setState(s *Simulator, state string) {
	lb.OperationalState = state
	lb.UpdatedAt = stamp(s.now())
}

// loadBalancerChanged makes a running load balancer pending until the data plane works as is now configured.
func (s *Simulator) loadBalancerChanged(lb *loadBalancer) {
	if lb.deleting {
		return
	}
	if lb.ready {
		s.applyLoadBalancer(lb)
		return
	}
	lb.setState(s, lbPending) // noticed, and then the setup goes on
	s.after(s.durationOf(noticed), func() {
		if !lb.ready && !lb.deleting {
			lb.setState(s, lb.stage)
		}
	})
}

// applyLoadBalancer tells the data plane, one change at a time; changes that come meanwhile go together.
func (s *Simulator) applyLoadBalancer(lb *loadBalancer) {
	first := lb.stage != ""
	lb.stage = ""
	if !first {
		lb.setState(s, lbPending)
	}
	if lb.applying {
		lb.again = true
		return
	}
	lb.applying = true
	if err := s.fitNodes(lb); err != nil {
		s.operate(0, nil, func(error) { s.loadBalancerApplied(lb, err) })
		return
	}
	d := s.durationOf(realistic.loadBalancerChange)
	if first {
		d = 0
	}
	var work func(context.Context) error
	if s.cfg.LoadBalancers != nil {
		spec := s.loadBalancerSpec(lb)
		work = func(ctx context.Context) error { return s.cfg.LoadBalancers.Apply(ctx, spec) }
	}
	if !first {
		s.after(s.durationOf(noticed), func() {
			if lb.applying && !lb.deleting {
				lb.setState(s, lbSetupServer)
			}
		})
	}
	s.operate(d, work, func(err error) { s.loadBalancerApplied(lb, err) })
}

func (s *Simulator) loadBalancerApplied(lb *loadBalancer, err error) {
	lb.applying = false
	s.reportPlane("configure load balancer", lb.UUID, err)
	if lb.deleting {
		return
	}
	if lb.again {
		lb.again = false
		s.applyLoadBalancer(lb)
		return
	}
	if err != nil {
		lb.fail(s)
		return
	}
	if lb.ConfiguredStatus == lbStopped {
		lb.setNodes(s, lbStopped)
		return
	}
	lb.setNodes(s, lbRunning)
	s.issueCertificates()
}

// loadBalancerFailed is told by the data plane that a load balancer stopped working by itself. As a managed service does,
// the simulator starts it again.
func (s *Simulator) loadBalancerFailed(uuid string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lb, ok := s.loadBalancers.get(uuid)
	if s.closed || !ok || lb.deleting {
		return
	}
	s.reportPlane("run load balancer", uuid, err)
	s.changing()
	lb.setNodes(s, lbNotResponding)
	lb.setState(s, lbFailing)
	s.after(max(healingPause, s.durationOf(realistic.loadBalancerChange)), func() {
		if lb.OperationalState == lbFailing && !lb.deleting {
			s.applyLoadBalancer(lb)
		}
	})
	s.setTimer()
}

// healingPause is the least time after which a load balancer is started again.
const healingPause = time.Second

// fail makes the API show that the load balancer does not do what is configured, until a change goes well.
func (lb *loadBalancer) fail(s *Simulator) { lb.setNodes(s, lbFailing) }

// loadBalancerSpec describes the load balancer to the data plane. Names of networks may change; nodes have them in the
// order of the load balancer.
func (s *Simulator) loadBalancerSpec(lb *loadBalancer) LoadBalancerSpec {
	plan, _ := loadBalancerPlanByName(lb.Plan)
	spec := LoadBalancerSpec{
		LoadBalancer: lb.LoadBalancer.clone(), Addresses: map[string][]netip.Addr{},
		MaxSessions: plan.PerServerMaxSessions * plan.ServerNumber, Certificates: map[string][]byte{},
	}
	for _, node := range lb.Nodes {
		for _, n := range node.Networks {
			for _, a := range n.IPAddresses {
				if addr, err := netip.ParseAddr(a.Address); err == nil && a.Listen {
					spec.Addresses[n.Name] = append(spec.Addresses[n.Name], addr)
				}
			}
		}
	}
	for _, f := range lb.IPAddresses {
		if addr, listens := lb.floating[f.Address]; listens {
			spec.Addresses[f.NetworkName] = append(spec.Addresses[f.NetworkName], addr)
		}
	}
	s.addCertificates(&spec)
	return spec
}

// tearDownLoadBalancer takes a load balancer through its deletion, from the step given.
func (s *Simulator) tearDownLoadBalancer(lb *loadBalancer, n int) {
	lb.deleting = true
	if n == len(deleteSteps) {
		s.forgetLoadBalancer(lb)
		return
	}
	lb.setState(s, deleteSteps[n].state)
	switch lb.OperationalState {
	case "delete-network":
		s.removeFromPlane(lb)
	case "delete-server":
		lb.dropPublicAddresses()
	}
	s.after(s.durationOf(deleteSteps[n].takes), func() { s.tearDownLoadBalancer(lb, n+1) })
}

// removeFromPlane stops the traffic, without the lock: it waits for a process.
func (s *Simulator) removeFromPlane(lb *loadBalancer) {
	if s.cfg.LoadBalancers == nil {
		return
	}
	uuid := lb.UUID
	lb.applying = true
	s.operate(0, func(context.Context) error { return s.cfg.LoadBalancers.Remove(uuid) }, func(err error) {
		lb.applying = false
		s.reportPlane("remove load balancer", uuid, err)
	})
}

func (s *Simulator) forgetLoadBalancer(lb *loadBalancer) {
	if lb.applying { // the data plane still is at it
		s.after(planePause, func() { s.forgetLoadBalancer(lb) })
		return
	}
	for a, n := range lb.reserved {
		n.release(a)
	}
	s.dropFloating(lb)
	s.loadBalancers.remove(lb.UUID)
}
