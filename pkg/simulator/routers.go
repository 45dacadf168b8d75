package simulator

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
)

const (
	// defaultMaxStaticRoutes is a guess: that there is a limit, only its error code tells.
	defaultMaxStaticRoutes = 50
	maxRouteName           = 64 // a guess, too
)

// routeOfService is the type of static routes that UpCloud's own services make, such as a NAT gateway's default route.
const routeOfService = "service"

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
	r := &router{uuid: s.newUUID(routerKind), kind: "normal"}
	if err := s.changeRouter(r, &req); err != nil {
		return nil, err
	}
	s.routers.put(r.uuid, r)
	s.carryRoutes(r.uuid)
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
	if err := s.changeRouter(r, &req); err != nil {
		return nil, err
	}
	s.carryRoutes(r.uuid)
	return routerAnswer{s.routerEntry(r)}, nil
}

// changeRouter applies a request; static routes of users, and labels, are replaced as a whole.
func (s *Simulator) changeRouter(r *router, req *routerBody) error {
	if req.Router.Labels != nil {
		if err := checkLabels(*req.Router.Labels); err != nil {
			return err
		}
	}
	if req.Router.StaticRoutes != nil {
		routes, err := checkRoutes(*req.Router.StaticRoutes, cmp.Or(s.cfg.MaxStaticRoutes, defaultMaxStaticRoutes))
		if err != nil {
			return err
		}
		ofUsers := func(route staticRoute) bool { return route.Type != routeOfService }
		r.routes = append(slices.DeleteFunc(slices.Clone(r.routes), ofUsers), routes...)
	}
	if req.Router.Labels != nil {
		r.labels = *req.Router.Labels
	}
	r.name = or(req.Router.Name, r.name)
	return nil
}

func checkRoutes(asked []staticRoute, most int) ([]staticRoute, error) {
	if len(asked) > most {
		return nil, conflict("STATIC_ROUTE_LIMIT_REACHED", "A router has at most %d static routes.", most)
	}
	out := make([]staticRoute, 0, len(asked))
	seen, names := map[netip.Prefix]bool{}, map[string]bool{}
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
		switch {
		case route.Type == routeOfService:
			return nil, badRequest("INVALID_ROUTE", "The route '%s' is a service's, and not a user's to give.", route.Route)
		case len(route.Name) > maxRouteName:
			return nil, badRequest("INVALID_ROUTE", "The name of the route '%s' has more than %d characters.", route.Route, maxRouteName)
		case route.Name != "" && names[route.Name]:
			return nil, badRequest("DUPLICATE_RESOURCE", "The name '%s' is given to two routes.", route.Name)
		}
		names[route.Name] = true
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
	s.carryRoutes(r.uuid)
	return nil, nil
}

// AddServiceRoute gives a router a static route as UpCloud's own services do. Users see it, and no change of theirs
// concerns it.
func (s *Simulator) AddServiceRoute(router, name, prefix, nexthop string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changing()
	r, ok := s.routers.get(router)
	if !ok {
		return fmt.Errorf("there is no router %s", router)
	}
	checked, err := checkRoutes([]staticRoute{{Name: name, Route: prefix, Nexthop: nexthop}}, 1)
	if err != nil {
		return err
	}
	checked[0].Type = routeOfService
	r.routes = append(checked, r.routes...)
	s.carryRoutes(router)
	return nil
}

// carryRoutes tells the data plane what a router does now.
func (s *Simulator) carryRoutes(uuid string) {
	if s.cfg.Routers == nil || uuid == "" {
		return
	}
	r, ok := s.routers.get(uuid)
	if !ok {
		s.reportPlane("remove router", uuid, s.cfg.Routers.Remove(uuid))
		return
	}
	spec := RouterSpec{UUID: uuid}
	for n := range s.networks.all() {
		for _, ip := range n.ip {
			if prefix, err := netip.ParsePrefix(ip.Address); err == nil && n.router == uuid {
				spec.Networks = append(spec.Networks, prefix.Masked())
			}
		}
	}
	for _, route := range r.routes {
		prefix, err := netip.ParsePrefix(route.Route)
		hop, hopErr := netip.ParseAddr(route.Nexthop)
		if err == nil && hopErr == nil {
			spec.Routes = append(spec.Routes, RouterRoute{Prefix: prefix, NextHop: hop})
		}
	}
	s.reportPlane("carry the routes of router", uuid, s.cfg.Routers.Apply(spec))
}
