package cloud

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Router joins private networks, and sends what its static routes name to one of their servers.
type Router struct {
	ID   string `json:"uuid"`
	Name string `json:"name"`
	// Routes are the static routes that users have made. Those of UpCloud's own services (a NAT gateway's default route) are not
	// among them: the API keeps them apart, and no change of ours concerns them.
	Routes []StaticRoute `json:"static_routes"`
	// NetworkIDs are the networks attached to it, sorted; nil where the answer does not tell.
	NetworkIDs []string `json:"-"`
	// Type is normal, or service for a router that UpCloud keeps for itself.
	Type string `json:"type"`
}

// UnmarshalJSON reads the attached networks, which the API wraps twice.
func (r *Router) UnmarshalJSON(data []byte) error {
	type plain Router
	var wire struct {
		*plain
		Attached *struct {
			Network []struct {
				UUID string `json:"uuid"`
			} `json:"network"`
		} `json:"attached_networks"`
	}
	wire.plain = (*plain)(r)
	if err := json.Unmarshal(data, &wire); err != nil {
		return err
	}
	r.NetworkIDs = nil
	if wire.Attached != nil {
		r.NetworkIDs = []string{}
		for _, network := range wire.Attached.Network {
			r.NetworkIDs = append(r.NetworkIDs, network.UUID)
		}
		slices.Sort(r.NetworkIDs)
	}
	return nil
}

// StaticRoute sends what is for Prefix to the server that has the address NextHop. Fields of the API that are not listed
// here survive in extra, because the API replaces all static routes of a router at once.
type StaticRoute struct {
	Name    string `json:"name"`
	Prefix  string `json:"route"`   // 10.244.1.0/24
	NextHop string `json:"nexthop"` // 172.16.0.12

	extra map[string]json.RawMessage
}

// staticRouteService is the type of routes that users cannot change.
const staticRouteService = "service"

// UnmarshalJSON keeps the fields that StaticRoute does not list.
func (r *StaticRoute) UnmarshalJSON(data []byte) error {
	type plain StaticRoute
	if err := json.Unmarshal(data, (*plain)(r)); err != nil {
		return err
	}
	r.extra = nil
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return err
	}
	for _, name := range []string{"name", "route", "nexthop"} {
		delete(all, name)
	}
	if len(all) > 0 {
		r.extra = all
	}
	return nil
}

// MarshalJSON writes the kept fields beside the listed ones.
func (r StaticRoute) MarshalJSON() ([]byte, error) {
	all := map[string]any{"name": r.Name, "route": r.Prefix, "nexthop": r.NextHop}
	for name, value := range r.extra {
		all[name] = value
	}
	return json.Marshal(all)
}

// Leads says that the route sends what is for prefix to hop, however the API writes the two.
func (r StaticRoute) Leads(prefix netip.Prefix, hop netip.Addr) bool {
	address, err := netip.ParseAddr(r.NextHop)
	return err == nil && address.Unmap() == hop.Unmap() && r.IsTo(prefix)
}

// IsTo says that the route is for just this prefix.
func (r StaticRoute) IsTo(prefix netip.Prefix) bool {
	parsed, err := netip.ParsePrefix(r.Prefix)
	return err == nil && parsed.Masked() == prefix.Masked()
}

func (r StaticRoute) ofService() bool {
	var kind string
	return json.Unmarshal(r.extra["type"], &kind) == nil && kind == staticRouteService
}

type routerAnswer struct {
	Router Router `json:"router"`
}

// of checks that an answer is about that router and its routes, and leaves out the routes of services. One that has no list of
// routes is not one of a router without any: what is written on the strength of it would take away all that there are.
func (a *routerAnswer) of(id string) (*Router, error) {
	if !strings.EqualFold(a.Router.ID, id) {
		return nil, notAbout("router " + id)
	}
	if a.Router.Routes == nil {
		return nil, notAbout("the static routes of router " + id)
	}
	a.Router.leaveOutServices()
	return &a.Router, nil
}

func (r *Router) leaveOutServices() {
	users := make([]StaticRoute, 0, len(r.Routes))
	for _, route := range r.Routes {
		if !route.ofService() {
			users = append(users, route)
		}
	}
	r.Routes = users
}

// Router reads one router. Errors: ErrNotFound.
func (c *Cloud) Router(ctx context.Context, id string) (*Router, error) {
	var answer routerAnswer
	if err := c.call(ctx, http.MethodGet, routerPath(id), nil, &answer); err != nil {
		return nil, explain(err, Error{Op: "read", Resource: "router", ID: id})
	}
	return answer.of(id)
}

// ReplaceStaticRoutes makes these the router's static routes, in place of all that it has: the API knows no other change,
// and no condition on it, so whoever calls reads the router just before, and again afterwards. It is sent once, as routes that
// others made meanwhile would be lost; an answer that is lost leaves open whether it took effect. Errors: ErrNotFound; ErrExhausted where the API allows no more routes; ErrInvalid.
func (c *Cloud) ReplaceStaticRoutes(ctx context.Context, id string, routes []StaticRoute) error {
	if routes == nil {
		routes = []StaticRoute{} // null would be no change
	}
	var request struct {
		Router struct {
			Routes []StaticRoute `json:"static_routes"`
		} `json:"router"`
	}
	request.Router.Routes = routes
	err := c.call(withLook(ctx, time.Now()), http.MethodPatch, routerPath(id), request, nil)
	return explain(err, Error{Op: "replace the static routes of", Resource: "router", ID: id})
}

// RoutersLabelled lists the routers that carry a label.
func (c *Cloud) RoutersLabelled(ctx context.Context, key, value string) ([]Router, error) {
	return c.routers(ctx, "?"+url.Values{"label": {key + "=" + value}}.Encode())
}

// Routers lists all routers of the account, with their routes.
func (c *Cloud) Routers(ctx context.Context) ([]Router, error) { return c.routers(ctx, "") }

func (c *Cloud) routers(ctx context.Context, query string) ([]Router, error) {
	var answer struct {
		Routers struct {
			Router []Router `json:"router"`
		} `json:"routers"`
	}
	if err := c.call(ctx, http.MethodGet, "/router"+query, nil, &answer); err != nil {
		return nil, explain(notMissing(err), Error{Op: "list", Resource: "routers"})
	}
	for i := range answer.Routers.Router {
		answer.Routers.Router[i].leaveOutServices()
	}
	return answer.Routers.Router, nil
}

// CreateRouter makes a router without networks. An answer that is lost leaves one behind, so whoever calls again must look
// for it first, by its labels.
func (c *Cloud) CreateRouter(ctx context.Context, name string, labels Labels) (*Router, error) {
	var request struct {
		Router struct {
			Name   string `json:"name"`
			Labels Labels `json:"labels"`
		} `json:"router"`
	}
	request.Router.Name, request.Router.Labels = name, labels
	var answer routerAnswer
	if err := c.call(ctx, http.MethodPost, "/router", request, &answer); err != nil {
		return nil, explain(err, Error{Op: "create", Resource: "router", ID: name})
	}
	if answer.Router.ID == "" {
		return nil, notAbout("the router " + name)
	}
	return &answer.Router, nil
}

// AttachRouter joins a private network to a router. It takes the place of the one that the network had.
func (c *Cloud) AttachRouter(ctx context.Context, network, router string) error {
	body := map[string]any{"network": map[string]any{"router": router}}
	err := c.call(withLook(ctx, time.Now()), http.MethodPut, "/network/"+url.PathEscape(network), body, nil)
	c.shared.networks.changed()
	return explain(err, Error{Op: "attach", Resource: "network", ID: network, Target: "to router " + router})
}

// NetworksSince lists the private networks of all zones, as read at that moment or later: one call for all readers.
func (c *Cloud) NetworksSince(ctx context.Context, moment time.Time) ([]PrivateNetwork, error) {
	networks, err := c.shared.networks.since(ctx, c, moment, func(ctx context.Context) ([]PrivateNetwork, error) {
		return c.privateNetworks(ctx, "")
	})
	if err != nil {
		return nil, explain(notMissing(err), Error{Op: "list", Resource: "private networks"})
	}
	return networks, nil
}

// AllowForeignSources lets a server send packets from addresses that are not its own, over one of its private interfaces.
// The API was only seen to change interfaces of stopped servers: others give ErrBusy or ErrServerState.
func (c *Cloud) AllowForeignSources(ctx context.Context, server string, interfaceIndex int) error {
	path := "/server/" + url.PathEscape(server) + "/networking/interface/" + strconv.Itoa(interfaceIndex)
	body := map[string]any{"interface": map[string]any{"source_ip_filtering": "no"}}
	err := c.call(withLook(ctx, time.Now()), http.MethodPut, path, body, nil)
	c.shared.serverDetails.forget(server)
	return explain(err, Error{Op: "switch off the source IP filtering of", Resource: "server", ID: server,
		Target: "interface " + strconv.Itoa(interfaceIndex)})
}

func routerPath(id string) string { return "/router/" + url.PathEscape(id) }
