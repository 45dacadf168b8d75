package simulator

import (
	"net/http"
	"slices"
)

// hosts is how many machines the simulated cloud has for servers.
const hosts = 64

func hostNumber(n int) int64 { return 4714676867 + int64(n%hosts)*4096 }

// place chooses the host that a server starts on: the one it was on, unless that is to be avoided or holds others of
// its group; then the first that will do. A host can be asked for in private zones only.
func (s *Simulator) place(v *server, wanted, avoid int64) error {
	if wanted != 0 {
		if s.parentZone(v.zone) == "" {
			return refuse(http.StatusForbidden, "HOST_FORBIDDEN", "The host can be chosen in private zones only.")
		}
		v.host = wanted
		return nil
	}
	g, grouped := s.groups.get(v.group)
	fits := func(host int64) bool {
		return host != avoid && (!grouped || g.antiAffinity == affinityNo || !s.holds(host, g, v))
	}
	if fits(v.host) {
		return nil
	}
	for n := range hosts {
		if fits(hostNumber(n)) {
			v.host = hostNumber(n)
			return nil
		}
	}
	if g.antiAffinity == affinityStrict {
		return conflict("STRICT_ANTI_AFFINITY_NOT_MET", "No host is free of other servers of the group %s.", g.uuid)
	}
	return nil
}

// holds says whether a server of the group, other than v, is on the host.
func (s *Simulator) holds(host int64, g *serverGroup, v *server) bool {
	return slices.ContainsFunc(g.servers, func(uuid string) bool {
		o, ok := s.servers.get(uuid)
		return ok && o != v && o.state != serverStopped && o.host == host
	})
}
