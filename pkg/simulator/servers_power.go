package simulator

type stopRequest struct {
	StopServer struct {
		StopType string `json:"stop_type"`
		Timeout  number `json:"timeout"` // seconds
	} `json:"stop_server"`
}

func checkStopType(t string) error {
	if t != "" && t != "soft" && t != "hard" {
		return badRequest("STOP_TYPE_INVALID", "The stop type '%s' is not valid.", t)
	}
	return nil
}

// stopServer answers while the server still is started, as recorded.
func (s *Simulator) stopServer(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req stopRequest
	if len(c.body) > 0 {
		if err := c.decode(&req); err != nil {
			return nil, err
		}
	}
	if err := checkStopType(req.StopServer.StopType); err != nil {
		return nil, err
	}
	if err := v.requireState(serverStarted); err != nil {
		return nil, err
	}
	v.busy, v.settles = true, serverStopped
	s.after(s.durationOf(realistic.serverStop), func() { v.busy, v.state = false, serverStopped })
	return s.serverDetails(v), nil
}

type startRequest struct {
	Server struct {
		Host      int64 `json:"host"` // in private zones alone
		AvoidHost int64 `json:"avoid_host"`
	} `json:"server"`
}

// startServer answers `started`, as recorded.
func (s *Simulator) startServer(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	if err := v.requireState(serverStopped); err != nil {
		return nil, err
	}
	var req startRequest
	if len(c.body) > 0 {
		if err := c.decode(&req); err != nil {
			return nil, err
		}
	}
	if err := s.place(v, req.Server.Host, req.Server.AvoidHost); err != nil {
		return nil, err
	}
	v.state = serverStarted
	return s.serverDetails(v), nil
}

type restartRequest struct {
	RestartServer struct {
		StopType      string `json:"stop_type"`
		Timeout       number `json:"timeout"`
		TimeoutAction string `json:"timeout_action"`
	} `json:"restart_server"`
}

// restartServer answers `started`; then comes maintenance, then started again, as recorded.
func (s *Simulator) restartServer(c *call) (any, error) {
	v, err := s.server(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req restartRequest
	if len(c.body) > 0 {
		if err := c.decode(&req); err != nil {
			return nil, err
		}
	}
	if err := checkStopType(req.RestartServer.StopType); err != nil {
		return nil, err
	}
	if a := req.RestartServer.TimeoutAction; a != "" && a != "destroy" && a != "ignore" {
		return nil, badRequest("TIMEOUT_ACTION_INVALID", "The timeout action '%s' is not valid.", a)
	}
	if err := v.requireState(serverStarted); err != nil {
		return nil, err
	}
	v.busy, v.settles = true, serverStarted
	half := s.durationOf(realistic.serverRestart) / 2
	s.after(half/8, func() {
		v.state = serverMaintenance
		s.after(half, func() { v.busy, v.state = false, serverStarted })
	})
	return s.serverDetails(v), nil
}
