package simulator

type relocateRequest struct {
	Zone string `json:"zone"`
}

// relocateServer moves a stopped server and its storages between a public zone and a private one beside it. The
// addresses stay, as recorded.
func (s *Simulator) relocateServer(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req relocateRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if err := s.checkZone(req.Zone); err != nil {
		return nil, err
	}
	if err := v.requireState(serverStopped); err != nil {
		return nil, err
	}
	if s.parentZone(req.Zone) != v.zone && s.parentZone(v.zone) != req.Zone {
		return nil, conflict("ZONE_MISMATCH", "The server %s cannot be moved from the zone %s to %s.", v.uuid, v.zone, req.Zone)
	}
	disks := s.ownDisks(v)
	for _, st := range disks {
		if err := requireOnline(st); err != nil {
			return nil, err
		}
	}
	v.zone = req.Zone
	for _, st := range disks {
		st.zone = req.Zone
	}
	return s.serverDetails(v), nil
}

// parentZone returns the public zone beside a private one; empty: the zone is public.
func (st *state) parentZone(id string) string {
	for _, z := range st.zones {
		if z.ID == id {
			return z.ParentZone
		}
	}
	return ""
}
