package simulator

func (s *Simulator) modifyServer(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req serverRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.Server
	if r.Hostname != "" {
		if err := checkHostname(r.Hostname); err != nil {
			return nil, err
		}
	}
	if len(r.Title) > maxTitle {
		return nil, badRequest("SERVER_TITLE_INVALID", "The attribute 'title' has more than %d characters.", maxTitle)
	}
	if err := req.checkServerChoices(); err != nil {
		return nil, err
	}
	if r.Labels != nil {
		if err := checkLabels(r.Labels.Label); err != nil {
			return nil, err
		}
	}
	if err := v.requireSettled(); err != nil {
		return nil, err
	}
	if r.Plan != "" || r.CoreNumber != 0 || r.MemoryAmount != 0 {
		if err := v.requireState(serverStopped); err != nil {
			return nil, err
		}
		next := *v
		if err := next.setPlan(or(r.Plan, v.plan), int(r.CoreNumber), int(r.MemoryAmount)); err != nil {
			return nil, err
		}
		if err := s.checkServerLimits(v, next.cores, next.memory); err != nil {
			return nil, err
		}
		v.plan, v.cores, v.memory = next.plan, next.cores, next.memory
	}
	v.hostname, v.title = or(r.Hostname, v.hostname), or(r.Title, v.title)
	v.bootOrder, v.firewall = or(r.BootOrder, v.bootOrder), or(r.Firewall, v.firewall)
	v.nicModel, v.videoModel = or(r.NICModel, v.nicModel), or(r.VideoModel, v.videoModel)
	v.timezone, v.simpleBackup = or(r.Timezone, v.timezone), or(r.SimpleBackup, v.simpleBackup)
	v.remoteAccessType, v.remoteAccessPassword = or(r.RemoteType, v.remoteAccessType), or(r.RemotePassword,
		v.remoteAccessPassword)
	if r.Metadata != nil {
		v.metadata = bool(*r.Metadata)
	}
	if r.RemoteAccess != nil {
		v.remoteAccess = bool(*r.RemoteAccess)
	}
	if r.Labels != nil {
		v.labels = r.Labels.Label
	}
	return s.serverDetails(v), nil
}
