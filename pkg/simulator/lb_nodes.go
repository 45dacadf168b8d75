package simulator

import (
	"net/netip"
	"slices"
)

func (lb *loadBalancer) emptyNodes() []Node {
	plan, _ := loadBalancerPlanByName(lb.Plan)
	nodes := make([]Node, plan.ServerNumber)
	for i := range nodes {
		nodes[i] = Node{Networks: []NodeNetwork{}, OperationalState: "pending"}
	}
	return nodes
}

// giveNodesAddresses takes addresses for each node: one of each public network, and two of each private one, of which
// the second is for frontends to listen on.
func (s *Simulator) giveNodesAddresses(lb *loadBalancer) error {
	nodes := lb.emptyNodes()
	for i := range nodes {
		if err := s.giveNodeAddresses(lb, &nodes[i]); err != nil {
			return err
		}
	}
	lb.Nodes = nodes
	return nil
}

func (s *Simulator) giveNodeAddresses(lb *loadBalancer, node *Node) error {
	for _, n := range lb.Networks {
		addresses, err := s.nodeAddresses(lb, n)
		if err != nil {
			return err
		}
		node.Networks = append(node.Networks, NodeNetwork{IPAddresses: addresses, Name: n.Name, Type: n.Type})
	}
	return nil
}

// fitNodes gives the load balancer as many nodes as its plan has.
func (s *Simulator) fitNodes(lb *loadBalancer) error {
	plan, known := loadBalancerPlanByName(lb.Plan)
	if !known || len(lb.Nodes) == plan.ServerNumber {
		return nil
	}
	lb.Nodes = slices.Clone(lb.Nodes)
	for len(lb.Nodes) > plan.ServerNumber {
		last := len(lb.Nodes) - 1
		s.takeNodeAddresses(lb, lb.Nodes[last])
		lb.Nodes = lb.Nodes[:last]
	}
	for len(lb.Nodes) < plan.ServerNumber {
		node := Node{Networks: []NodeNetwork{}, OperationalState: lbPending}
		if err := s.giveNodeAddresses(lb, &node); err != nil {
			return err
		}
		lb.Nodes = append(lb.Nodes, node)
	}
	return nil
}

func (s *Simulator) takeNodeAddresses(lb *loadBalancer, node Node) {
	for _, n := range node.Networks {
		for _, a := range n.IPAddresses {
			addr, err := netip.ParseAddr(a.Address)
			if err != nil {
				continue
			}
			if a.Listen && s.cfg.LoadBalancers != nil {
				s.reportPlane("give up address", a.Address, s.cfg.LoadBalancers.Unlisten(addr))
			}
			if from, own := lb.reserved[addr]; own {
				from.release(addr)
				delete(lb.reserved, addr)
			}
		}
	}
}

func (s *Simulator) nodeAddresses(lb *loadBalancer, n LoadBalancerNetwork) ([]NodeAddress, error) {
	var from *network
	var err error
	if n.Type == networkPrivate {
		from, err = s.network(n.UUID)
	} else {
		from, err = s.networkFor(lb.Zone, interfaceRequest{Type: networkPublic}, n.Family)
	}
	if err != nil {
		return nil, err
	}
	var out []NodeAddress
	if n.Type == networkPrivate {
		own, err := s.reserve(lb, from, n.Family)
		if err != nil {
			return nil, err
		}
		out = append(out, NodeAddress{Address: own.String()})
	}
	listening, err := s.reserve(lb, from, n.Family)
	if err != nil {
		return nil, err
	}
	if s.cfg.LoadBalancers != nil {
		if listening, err = s.cfg.LoadBalancers.Listen(listening); err != nil {
			return nil, err
		}
	}
	return append(out, NodeAddress{Address: listening.String(), Listen: true}), nil
}

func (s *Simulator) reserve(lb *loadBalancer, from *network, family string) (netip.Addr, error) {
	a, err := from.allocate(family, netip.Addr{})
	if err == nil {
		lb.reserved[a] = from
	}
	return a, err
}

func (lb *loadBalancer) setNodes(s *Simulator, state string) {
	lb.Nodes = slices.Clone(lb.Nodes)
	for i := range lb.Nodes {
		lb.Nodes[i].OperationalState = state
	}
	lb.setState(s, state)
}

// dropPublicAddresses: while the servers go, nodes show private addresses only.
func (lb *loadBalancer) dropPublicAddresses() {
	lb.Nodes = slices.Clone(lb.Nodes)
	for i := range lb.Nodes {
		lb.Nodes[i].Networks = slices.Clone(lb.Nodes[i].Networks)
		for j := range lb.Nodes[i].Networks {
			if n := &lb.Nodes[i].Networks[j]; n.Type == networkPublic {
				n.IPAddresses = []NodeAddress{}
			}
		}
	}
}
