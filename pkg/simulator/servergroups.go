package simulator

import "slices"

// Policies of a server group: whether its servers may be on one host.
const (
	affinityStrict = "strict"
	affinityYes    = "yes" // not if it can be helped
	affinityNo     = "no"
)

type serverGroup struct {
	uuid, title, antiAffinity string
	labels                    []Label
	servers                   []string // UUIDs, in the order given
}

type serverGroupEntry struct {
	AntiAffinity       string           `json:"anti_affinity"`
	AntiAffinityStatus []affinityStatus `json:"anti_affinity_status"`
	Labels             labelList        `json:"labels"`
	Servers            serverUUIDs      `json:"servers"`
	Title              string           `json:"title"`
	UUID               string           `json:"uuid"`
}

type affinityStatus struct {
	Status string `json:"status"` // met or unmet
	UUID   string `json:"uuid"`
}

type serverGroupAnswer struct {
	ServerGroup serverGroupEntry `json:"server_group"`
}

type serverGroupList struct {
	ServerGroups struct {
		ServerGroup []serverGroupEntry `json:"server_group"`
	} `json:"server_groups"`
}

type serverGroupBody struct {
	ServerGroup struct {
		AntiAffinity string       `json:"anti_affinity"`
		Labels       *labelList   `json:"labels"`
		Servers      *serverUUIDs `json:"servers"`
		Title        string       `json:"title"`
	} `json:"server_group"`
}

func (s *Simulator) serverGroupEntry(g *serverGroup) serverGroupEntry {
	e := serverGroupEntry{
		AntiAffinity: g.antiAffinity, AntiAffinityStatus: []affinityStatus{}, Labels: labelList{labelsOrNone(g.labels)},
		Servers: serverUUIDs{append([]string{}, g.servers...)}, Title: g.title, UUID: g.uuid,
	}
	for _, uuid := range g.servers {
		status := "met"
		if s.sharesHost(g, uuid) {
			status = "unmet"
		}
		e.AntiAffinityStatus = append(e.AntiAffinityStatus, affinityStatus{status, uuid})
	}
	return e
}

// sharesHost says whether a server of the group is on the same host as another of it.
func (s *Simulator) sharesHost(g *serverGroup, uuid string) bool {
	v, ok := s.servers.get(uuid)
	return ok && v.state != serverStopped && s.holds(v.host, g, v)
}

func (s *Simulator) serverGroup(uuid string) (*serverGroup, error) {
	if !validUUID(uuid) {
		return nil, badRequest("GROUP_INVALID", "The server group UUID is invalid.")
	}
	g, ok := s.groups.get(uuid)
	if !ok {
		return nil, notFound("GROUP_NOT_FOUND", "The server group %s does not exist.", uuid)
	}
	return g, nil
}

func (s *Simulator) listServerGroups(c *call) (any, error) {
	filters := labelFilters(c.request.URL.Query())
	var out serverGroupList
	out.ServerGroups.ServerGroup = []serverGroupEntry{}
	for g := range s.groups.all() {
		if matchLabels(g.labels, filters) {
			out.ServerGroups.ServerGroup = append(out.ServerGroups.ServerGroup, s.serverGroupEntry(g))
		}
	}
	return out, nil
}

func (s *Simulator) getServerGroup(c *call) (any, error) {
	g, err := s.serverGroup(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	return serverGroupAnswer{s.serverGroupEntry(g)}, nil
}

func (s *Simulator) createServerGroup(c *call) (any, error) {
	var req serverGroupBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if err := checkTitle(req.ServerGroup.Title); err != nil {
		return nil, err
	}
	g := &serverGroup{uuid: s.newUUID(serverGroupKind), antiAffinity: affinityNo}
	if err := s.changeServerGroup(g, &req); err != nil {
		return nil, err
	}
	s.groups.put(g.uuid, g)
	return serverGroupAnswer{s.serverGroupEntry(g)}, nil
}

func (s *Simulator) modifyServerGroup(c *call) (any, error) {
	g, err := s.serverGroup(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req serverGroupBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if err := s.changeServerGroup(g, &req); err != nil {
		return nil, err
	}
	return serverGroupAnswer{s.serverGroupEntry(g)}, nil
}

// changeServerGroup applies a request; labels and servers are replaced as a whole, what it leaves out stays.
func (s *Simulator) changeServerGroup(g *serverGroup, req *serverGroupBody) error {
	r := &req.ServerGroup
	if len(r.Title) > maxTitle {
		return badRequest("TITLE_INVALID", "The attribute 'title' has more than %d characters.", maxTitle)
	}
	if !slices.Contains([]string{"", affinityStrict, affinityYes, affinityNo}, r.AntiAffinity) {
		return badRequest("INVALID_REQUEST", "The anti-affinity policy '%s' is not valid.", r.AntiAffinity)
	}
	if r.Labels != nil {
		if err := checkLabels(r.Labels.Label); err != nil {
			return err
		}
	}
	if r.Servers != nil {
		for i, uuid := range r.Servers.Server {
			if err := s.checkGroupMember(g, uuid); err != nil {
				return err
			}
			if slices.Contains(r.Servers.Server[:i], uuid) {
				return badRequest("INVALID_REQUEST", "The server %s is given twice.", uuid)
			}
		}
		s.setGroupMembers(g, r.Servers.Server)
	}
	if r.Labels != nil {
		g.labels = r.Labels.Label
	}
	g.title, g.antiAffinity = or(r.Title, g.title), or(r.AntiAffinity, g.antiAffinity)
	return nil
}

// checkGroupMember refuses servers that do not exist or are in another group: a server is in one at most.
func (s *Simulator) checkGroupMember(g *serverGroup, uuid string) error {
	v, err := s.server(uuid)
	if err != nil {
		return err
	}
	if v.group != "" && v.group != g.uuid {
		return conflict("ALREADY_IN_SERVER_GROUP", "The server %s is in the server group %s.", uuid, v.group)
	}
	return nil
}

func (s *Simulator) setGroupMembers(g *serverGroup, uuids []string) {
	for _, uuid := range g.servers {
		if v, ok := s.servers.get(uuid); ok {
			v.group = ""
		}
	}
	g.servers = append([]string{}, uuids...)
	for _, uuid := range uuids {
		if v, ok := s.servers.get(uuid); ok {
			v.group = g.uuid
		}
	}
}

func (s *Simulator) addGroupMember(c *call) (any, error) {
	g, err := s.serverGroup(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req struct {
		Server struct {
			UUID string `json:"uuid"`
		} `json:"server"`
	}
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	uuid := req.Server.UUID
	if err := s.checkGroupMember(g, uuid); err != nil {
		return nil, err
	}
	if slices.Contains(g.servers, uuid) {
		return nil, conflict("ALREADY_IN_SERVER_GROUP", "The server %s is in the server group %s.", uuid, g.uuid)
	}
	s.setGroupMembers(g, append(g.servers, uuid))
	return nil, nil
}

func (s *Simulator) removeGroupMember(c *call) (any, error) {
	g, err := s.serverGroup(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	v, err := s.server(c.path("server"))
	if err != nil {
		return nil, err
	}
	if v.group != g.uuid {
		return nil, notFound("SERVER_NOT_FOUND", "The server %s is not in the server group %s.", v.uuid, g.uuid)
	}
	s.leaveGroup(v)
	return nil, nil
}

// leaveGroup takes a server out of its group, if it is in one.
func (s *Simulator) leaveGroup(v *server) {
	if g, ok := s.groups.get(v.group); ok {
		g.servers = slices.DeleteFunc(g.servers, func(uuid string) bool { return uuid == v.uuid })
	}
	v.group = ""
}

func (s *Simulator) deleteServerGroup(c *call) (any, error) {
	g, err := s.serverGroup(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	s.setGroupMembers(g, nil)
	s.groups.remove(g.uuid)
	return nil, nil
}
