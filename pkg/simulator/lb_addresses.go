package simulator

import (
	"net/netip"
	"slices"
	"time"
)

// renameNetwork changes a network's name, which is all of it that can be changed; frontends and nodes follow.
func (s *Simulator) renameNetwork(c *call) (any, error) {
	lb, err := s.mutableLoadBalancer(c)
	if err != nil {
		return nil, err
	}
	var req struct{ Name string }
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	from := c.path("network")
	next := lb.LoadBalancer.clone()
	i := slices.IndexFunc(next.Networks, func(n LoadBalancerNetwork) bool { return n.Name == from })
	if i < 0 {
		return nil, problemNotFound("Network")
	}
	if other := slices.IndexFunc(next.Networks, func(n LoadBalancerNetwork) bool { return n.Name == req.Name }); other >= 0 && other != i {
		return nil, problemConflict("Network with the name '" + req.Name + "' already exists.")
	}
	next.Networks[i].Name, next.Networks[i].UpdatedAt = req.Name, stamp(s.now())
	for f := range next.Frontends {
		for n := range next.Frontends[f].Networks {
			if next.Frontends[f].Networks[n].Name == from {
				next.Frontends[f].Networks[n].Name = req.Name
			}
		}
	}
	for n := range next.Nodes {
		next.Nodes[n].Networks = slices.Clone(next.Nodes[n].Networks)
		for m := range next.Nodes[n].Networks {
			if next.Nodes[n].Networks[m].Name == from {
				next.Nodes[n].Networks[m].Name = req.Name
			}
		}
	}
	for a := range next.IPAddresses {
		if next.IPAddresses[a].NetworkName == from {
			next.IPAddresses[a].NetworkName = req.Name
		}
	}
	if err := s.replaceConfiguration(lb, next); err != nil {
		return nil, err
	}
	return next.Networks[i], nil
}

func (s *Simulator) listFloating(c *call) (any, error) {
	lb, err := s.loadBalancer(c)
	if err != nil {
		return nil, err
	}
	return lb.IPAddresses, nil
}

func (s *Simulator) getFloatingOfLoadBalancer(c *call) (any, error) {
	lb, err := s.loadBalancer(c)
	if err != nil {
		return nil, err
	}
	for _, f := range lb.IPAddresses {
		if f.Address == c.path("address") {
			return f, nil
		}
	}
	return nil, problemNotFound("IP address")
}

func (s *Simulator) createFloatingOfLoadBalancer(c *call) (any, error) {
	lb, err := s.mutableLoadBalancer(c)
	if err != nil {
		return nil, err
	}
	var req FloatingAddress
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	if err := s.addFloating(lb, req.Address, req.NetworkName, s.now()); err != nil {
		return nil, err
	}
	s.loadBalancerChanged(lb)
	return lb.IPAddresses[len(lb.IPAddresses)-1], nil
}

// addFloating attaches a floating IP address of the account to a public network of the load balancer.
func (s *Simulator) addFloating(lb *loadBalancer, text, networkName string, now time.Time) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return invalid(invalidParam{"address", "Must be an IP address."})
	}
	a, ok := s.addresses[addr]
	plan, _ := loadBalancerPlanByName(lb.Plan)
	switch {
	case len(lb.IPAddresses) >= plan.ServerNumber: // the OpenAPI document: one for each node
		return invalid(invalidParam{"ip_addresses", "The plan '" + lb.Plan + "' has " + itoa(plan.ServerNumber) +
			" nodes, and as many floating IP addresses at most."})
	case !ok || !a.floating:
		return invalid(invalidParam{"address", "The floating IP address '" + text + "' does not exist."})
	case !s.inZone(a.zone, lb.Zone):
		return invalid(invalidParam{"address", "The floating IP address is in the zone '" + a.zone + "'."})
	case a.nic != nil || a.loadBalancer != "":
		return problemConflict("The floating IP address '" + text + "' is attached already.")
	}
	public := func(n LoadBalancerNetwork) bool { return n.Name == networkName && n.Type == networkPublic }
	if !slices.ContainsFunc(lb.Networks, public) {
		return invalid(invalidParam{"network_name", "The public network '" + networkName + "' does not exist."})
	}
	if s.cfg.LoadBalancers != nil {
		listening, err := s.cfg.LoadBalancers.Listen(addr)
		if err != nil {
			return err
		}
		lb.floating[addr.String()] = listening
	}
	a.loadBalancer = lb.UUID
	lb.IPAddresses = append(slices.Clone(lb.IPAddresses),
		FloatingAddress{Address: addr.String(), CreatedAt: stamp(now), NetworkName: networkName, UpdatedAt: stamp(now)})
	return nil
}

func (s *Simulator) deleteFloatingOfLoadBalancer(c *call) (any, error) {
	lb, err := s.mutableLoadBalancer(c)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(lb.IPAddresses, func(f FloatingAddress) bool { return f.Address == c.path("address") })
	if i < 0 {
		return nil, problemNotFound("IP address")
	}
	s.releaseFloating(lb, lb.IPAddresses[i].Address)
	lb.IPAddresses = slices.Delete(slices.Clone(lb.IPAddresses), i, i+1)
	s.loadBalancerChanged(lb)
	return nil, nil
}

func (s *Simulator) releaseFloating(lb *loadBalancer, text string) {
	if listening, ok := lb.floating[text]; ok {
		s.reportPlane("give up address", text, s.cfg.LoadBalancers.Unlisten(listening))
		delete(lb.floating, text)
	}
	if addr, err := netip.ParseAddr(text); err == nil {
		a, ok := s.addresses[addr]
		if !ok {
			return
		}
		a.loadBalancer = ""
		if a.releasePolicy == "release" {
			a.network.release(addr)
			delete(s.addresses, addr)
		}
	}
}

// dropFloating gives up all floating addresses of a load balancer that goes; they stay the account's.
func (s *Simulator) dropFloating(lb *loadBalancer) {
	for _, f := range lb.IPAddresses {
		s.releaseFloating(lb, f.Address)
	}
	lb.IPAddresses = []FloatingAddress{}
}
