package simulator

import (
	"slices"
	"strconv"
)

func (s *Simulator) serverNIC(c *call) (*server, *nic, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, nil, err
	}
	index, err := strconv.Atoi(c.path("index"))
	if err != nil || v.nic(index) == nil {
		return nil, nil, notFound("INTERFACE_NOT_FOUND", "The server %s has no interface %s.", v.uuid, c.path("index"))
	}
	return v, v.nic(index), nil
}

type interfaceBody struct {
	Interface interfaceRequest `json:"interface"`
}

func (s *Simulator) createInterface(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req interfaceBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if err := v.requireState(serverStopped); err != nil {
		return nil, err
	}
	if len(v.devices)+len(v.nics) >= maxDevicesAndNICs {
		return nil, conflict("INTERFACE_FORBIDDEN", "The server %s has %d storage devices and network interfaces, which is the most it can have.",
			v.uuid, maxDevicesAndNICs)
	}
	n, err := s.addNIC(v, req.Interface)
	if err != nil {
		return nil, err
	}
	return interfaceAnswer{n.entry()}, nil
}

func (s *Simulator) modifyInterface(c *call) (any, error) {
	v, n, err := s.serverNIC(c)
	if err != nil {
		return nil, err
	}
	var req interfaceBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := req.Interface
	if err := v.requireState(serverStopped); err != nil {
		return nil, err
	}
	if r.Index != 0 && int(r.Index) != n.index {
		if v.nic(int(r.Index)) != nil {
			return nil, conflict("INTERFACE_EXISTS", "The server %s has an interface %d.", v.uuid, r.Index)
		}
		n.index = int(r.Index)
		slices.SortFunc(v.nics, func(a, b *nic) int { return a.index - b.index })
	}
	if r.Bootable != nil {
		n.bootable = bool(*r.Bootable)
	}
	if r.SourceIPFiltering != nil {
		if !*r.SourceIPFiltering && n.kind != networkPrivate {
			return nil, badRequest("SOURCE_IP_FILTERING_INVALID", "Only private interfaces can do without source IP filtering.")
		}
		n.sourceIPFiltering = bool(*r.SourceIPFiltering)
	}
	return interfaceAnswer{n.entry()}, nil
}

func (s *Simulator) deleteInterface(c *call) (any, error) {
	v, n, err := s.serverNIC(c)
	if err != nil {
		return nil, err
	}
	if err := v.requireState(serverStopped); err != nil {
		return nil, err
	}
	s.removeNIC(n)
	return nil, nil
}
