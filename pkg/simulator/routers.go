package simulator

import (
	"net/http"
	"net/netip"
)

const maxStaticRoutes = 50

type router struct {
	uuid, name, kind string
	routes           []staticRoute
	labels           []Label
}

type staticRoute struct {
	Name    string `json:"name"`
	Nexthop string `json:"nexthop"`
	Route   string `json:"route"`
	Type    string `json:"type,omitempty"`
}

type routerEntry struct {
	AttachedNetworkGateways []struct{}    `json:"attached_network_gateways"`
	AttachedNetworks        networkUUIDs  `json:"attached_networks"`
	Labels                  []Label       `json:"labels"`
	Name                    string        `json:"name"`
	StaticRoutes            []staticRoute `json:"static_routes"`
	Type                    string        `json:"type"`
	UUID                    string        `json:"uuid"`
}

type networkUUIDs struct {
	Network []networkUUID `json:"network"`
}

type networkUUID struct {
	UUID string `json:"uuid"`
}

type routerAnswer struct {
	Router routerEntry `json:"router"`
}

type routerList struct {
	Routers struct {
		Router []routerEntry `json:"router"`
	} `json:"routers"`
}

func (s *Simulator) routerEntry(r *router) routerEntry {
	e := routerEntry{
		AttachedNetworkGateways: []struct{}{}, AttachedNetworks: networkUUIDs{[]networkUUID{}}, Labels: labelsOrNone(r.labels),
		Name: r.name, StaticRoutes: append([]staticRoute{}, r.routes...), Type: r.kind, UUID: r.uuid,
	}
	for n := range s.networks.all() {
		if n.router == r.uuid {
			e.AttachedNetworks.Network = append(e.AttachedNetworks.Network, networkUUID{n.uuid})
		}
	}
	return e
}

func (s *Simulator) router(uuid string) (*router, error) {
	if !validUUID(uuid) {
		return nil, badRequest("ROUTER_INVALID", "The router UUID is invalid.")
	}
	r, ok := s.routers.get(uuid)
	if !ok {
		return nil, notFound("ROUTER_NOT_FOUND", "The router %s does not exist.", uuid)
	}
	return r, nil
}

func (s *Simulator) listRouters(c *call) (any, error) {
	filters := labelFilters(c.request.URL.Query())
	var out routerList
	out.Routers.Router = []routerEntry{}
	for r := range s.routers.all() {
		if matchLabels(r.labels, filters) {
			out.Routers.Router = append(out.Routers.Router, s.routerEntry(r))
		}
	}
	return out, nil
}

func (s *Simulator) getRouter(c *call) (any, error) {
	r, err := s.router(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	return routerAnswer{s.routerEntry(r)}, nil
}

type routerBody struct {
	Router struct {
		Name         string         `json:"name"`
		Labels       *[]Label       `json:"labels"`
		StaticRoutes *[]staticRoute `json:"static_routes"`
	} `json:"router"`
}

func (s *Simulator) createRouter(c *call) (any, error) {
	var req routerBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if req.Router.Name == "" {
		return nil, badRequest("ROUTER_NAME_MISSING", "The required attribute 'name' is missing from the request.")
	}
	r := &router{uuid: newUUID(routerKind), kind: "normal"}
	if err := r.change(&req); err != nil {
		return nil, err
	}
	s.routers.put(r.uuid, r)
	return routerAnswer{s.routerEntry(r)}, nil
}

func (s *Simulator) modifyRouter(c *call) (any, error) {
	r, err := s.router(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	if r.kind != "normal" {
		return nil, refuse(http.StatusForbidden, "ROUTER_FORBIDDEN", "The router %s is not yours to change.", r.uuid)
	}
	var req routerBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	if err := r.change(&req); err != nil {
		return nil, err
	}
	return routerAnswer{s.routerEntry(r)}, nil
}

// change applies a request; static routes and labels are replaced as a whole.
func (r *router) change(req *routerBody) error {
	if req.Router.Labels != nil {
		if err := checkLabels(*req.Router.Labels); err != nil {
			return err
		}
	}
	if req.Router.StaticRoutes != nil {
		routes, err := checkRoutes(*req.Router.StaticRoutes)
		if err != nil {
			return err
		}
		r.routes = routes
	}
	if req.Router.Labels != nil {
		r.labels = *req.Router.Labels
	}
	r.name = or(req.Router.Name, r.name)
	return nil
}

func checkRoutes(asked []staticRoute) ([]staticRoute, error) {
	if len(asked) > maxStaticRoutes {
		return nil, conflict("STATIC_ROUTE_LIMIT_REACHED", "A router has at most %d static routes.", maxStaticRoutes)
	}
	out := make([]staticRoute, 0, len(asked))
	seen := map[netip.Prefix]bool{}
	for i, route := range asked {
		prefix, err := netip.ParsePrefix(route.Route)
		if err != nil || prefix != prefix.Masked() {
			return nil, badRequest("INVALID_ROUTE", "The route '%s' is not valid.", route.Route)
		}
		hop, err := netip.ParseAddr(route.Nexthop)
		if err != nil {
			return nil, badRequest("NEXTHOP_INVALID", "The next hop '%s' is not valid.", route.Nexthop)
		}
		if hop.Is4() != prefix.Addr().Is4() {
			return nil, badRequest("INVALID_ROUTE_FAMILY", "The route '%s' and the next hop '%s' are of different families.",
				route.Route, route.Nexthop)
		}
		if seen[prefix] {
			return nil, badRequest("DUPLICATE_ROUTE", "The route '%s' is given twice.", route.Route)
		}
		seen[prefix] = true
		route.Name, route.Type = or(route.Name, "static-route-"+itoa(i)), "" // service routes alone have a type, as recorded
		out = append(out, route)
	}
	return out, nil
}

func (s *Simulator) deleteRouter(c *call) (any, error) {
	r, err := s.router(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	if r.kind != "normal" {
		return nil, refuse(http.StatusForbidden, "ROUTER_FORBIDDEN", "The router %s is not yours to delete.", r.uuid)
	}
	for n := range s.networks.all() {
		if n.router == r.uuid {
			return nil, conflict("ROUTER_ATTACHED", "The router %s is attached to the network %s.", r.uuid, n.uuid)
		}
	}
	s.routers.remove(r.uuid)
	return nil, nil
}
