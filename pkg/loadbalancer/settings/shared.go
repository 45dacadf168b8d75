package settings

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Reference names a load balancer that Services share: one of the three is set.
type Reference struct {
	Group string // made for a group of Services, called like it
	ID    string // made by a person or a program
	Name  string // the same
}

// String is the annotation's value.
func (r Reference) String() string {
	switch {
	case r.Group != "":
		return GroupPrefix + r.Group
	case r.ID != "":
		return r.ID
	}
	return r.Name
}

// GroupPrefix begins a reference to a load balancer that is made for a group.
const GroupPrefix = "create/"

// Route sends some requests to the Service.
type Route struct {
	Host     string `json:"host"` // empty: any; may begin with *. for one label
	Path     string `json:"path"` // begins with a slash
	PathType string `json:"pathType"`
	// Rewrite takes the place of the path, or of the part that a prefix matched; empty: the path stays.
	Rewrite string `json:"rewrite"`
	Port    string `json:"port"` // of the Service, a name or number; empty: every one
}

// Kinds of path.
const (
	PathExact  = "Exact"
	PathPrefix = "Prefix" // of whole elements: /foo matches /foo and /foo/bar, and not /foobar
)

// String names the route in messages.
func (r Route) String() string {
	host := r.Host
	if host == "" {
		host = "*"
	}
	return fmt.Sprintf("%s%s (%s)", host, r.Path, r.PathType)
}

const (
	SharedName      = "shared"
	RoutesName      = "routes"
	HubFrontendName = "frontend"
	deletionKeep    = "keep"
	deletionLast    = "last"
)

var sharedTable = []Setting{
	forAll(Setting{
		Name: SharedName, Default: "a load balancer of the Service's own", Example: "create/web", MapsTo: "names of frontends, rules and backends",
		About: "Share a load balancer with other Services, of other clusters too: `create/NAME` is made for all that say so, a UUID or " +
			"an exact name is one that a person or Terraform made, which the controller's configuration must allow.",
	}, referenceKind, func(s *Settings, v Reference) { s.Shared = &v }),
	forAll(Setting{
		Name: RoutesName, Default: "the ports belong to the Service as a whole", Example: `[{host: saas.example, path: /foo}]`,
		MapsTo: "frontends[].rules: use_backend", About: "On a shared load balancer: the requests that go to the Service, so that others " +
			"can have the other ones of the same port. See below.",
	}, routesKind, func(s *Settings, v []Route) { s.Routes = v }),
	forPort(Setting{
		Name: HubFrontendName, Default: "one that is made for the routes of all", Example: "https=public-https", MapsTo: "frontends[].rules",
		About: "On a shared load balancer: the frontend of mode http, made by somebody else, that the routes are added to.",
	}, text("frontend", "the name of a frontend: 1 to 64 letters, digits, dashes and underscores", `[a-zA-Z0-9_-]{1,64}`),
		func(p *PortSettings, v string) { p.Hub = v }),
	forAll(Setting{
		Name: "shared-deletion", Default: deletionKeep, Example: deletionLast, MapsTo: "nothing",
		About: "What becomes of a load balancer made for a group when its last Service goes: it stays, with its address, or, if that " +
			"Service says `last`, is deleted.",
	}, oneOf(deletionKeep, deletionLast), func(s *Settings, v string) { s.DeleteLast = v == deletionLast }),
}

var referenceKind = kind[Reference]{
	name: "create/NAME, UUID, name", pattern: `(?:create/)?[a-zA-Z0-9_-]{1,64}`,
	allowed: "create/NAME for one that is made for a group of Services, or the UUID or the exact name of one that there is",
	parse: func(text string) (Reference, error) {
		if group, ok := strings.CutPrefix(text, GroupPrefix); ok && ValidName(group) {
			return Reference{Group: group}, nil
		}
		if id, err := uuid.Parse(text); err == nil && len(text) == len(id.String()) {
			return Reference{ID: id.String()}, nil
		}
		if !ValidName(text) {
			return Reference{}, errNotAllowed
		}
		return Reference{Name: text}, nil
	},
}

// maxRoutes is how many routes one Service may have.
const maxRoutes = 50

var routesShape = list(with(object(map[string]shape{
	"host": optional(like(hostname)), "path": like(routePath), "pathType": optional(word(PathPrefix, PathExact)),
	"rewrite": optional(like(routePath)), "port": like(text("port", "the name or number of a port of the Service", `[a-z0-9-]{1,15}`)),
}), "path"), 1, maxRoutes)

// routePath has no backslash, which would mean something where paths are rewritten.
var routePath = text("path", "a path that begins with a slash, at most 200 characters, without blanks, backslashes, ?, # and semicolons",
	`/[!"$->@-\[\]-~]{0,199}`)

var routesKind = kind[[]Route]{
	name: "list of routes", document: &routesLimits, allowed: `a list such as [{host: saas.example, path: /foo}], with host, path, pathType (Prefix or Exact), ` +
		`rewrite and port`,
	parse: func(text string) ([]Route, error) {
		plain, err := routesLimits.YAMLToJSON([]byte(text))
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(text) == "" {
			return nil, errNotAllowed
		}
		checked, err := parseShape(string(plain), routesShape, nil)
		if err != nil {
			return nil, err
		}
		if plain, err = json.Marshal(checked); err != nil {
			return nil, err
		}
		var routes []Route
		if err := json.Unmarshal(plain, &routes); err != nil {
			return nil, err
		}
		for i := range routes {
			routes[i] = routes[i].normal()
		}
		return routes, nil
	},
}

// normal is the one form of routes that mean the same: a prefix does not end in a slash.
func (r Route) normal() Route {
	if r.PathType == "" {
		r.PathType = PathPrefix
	}
	if trimmed := strings.TrimRight(r.Path, "/"); r.PathType == PathPrefix {
		r.Path = trimmed
		if trimmed == "" {
			r.Path = "/"
		}
	}
	return r
}

// checkShared finds what does not go together with a shared load balancer: what is about all of it is not one Service's to say.
func (c *checker) checkShared() {
	s := c.settings
	given := func(name string) bool {
		_, ok := c.service.Annotations[AnnotationPrefix+name]
		return ok && (name != RoutesName || len(s.Routes) > 0) // null asks for no routes
	}
	if s.Shared == nil {
		for _, name := range []string{RoutesName, HubFrontendName, "shared-deletion"} {
			if given(name) {
				c.add("annotation %s%s: it is about a shared load balancer: set annotation %s%s too", AnnotationPrefix, name,
					AnnotationPrefix, SharedName)
			}
		}
		return
	}
	never := []string{"config", "floating-ips", "labels", "maintenance-window", RetainName, ProtectionName, AdoptName}
	if s.Shared.Group == "" {
		never = append(never, "plan", "zone", "private-networks", "shared-deletion")
	}
	if len(s.Routes) > 0 {
		never = append(never, "mode", "visibility", "timeout-client", "inbound-proxy-protocol", "http2")
	}
	for _, name := range never {
		if given(name) {
			c.add("annotation %s%s: it is not one Service's to say of what it shares (annotation %s%s): remove it",
				AnnotationPrefix, name, AnnotationPrefix, SharedName)
		}
	}
	if c.service.Spec.LoadBalancerIP != "" {
		c.add("spec.loadBalancerIP %s: it is not one Service's to say of a shared load balancer: remove it", c.service.Spec.LoadBalancerIP)
	}
	if given(HubFrontendName) && len(s.Routes) == 0 {
		c.add("annotation %s%s: the frontend is somebody else's, and only routes can be added to it: set annotation %s%s",
			AnnotationPrefix, HubFrontendName, AnnotationPrefix, RoutesName)
	}
	c.checkRoutes()
}

// maxRouteRanges is how many source ranges there may be with routes: each route takes one rule for each.
const maxRouteRanges = 10

func (c *checker) checkRoutes() {
	seen := map[string]bool{}
	for i, route := range c.settings.Routes {
		known := route.Port == "" || slices.ContainsFunc(c.service.Spec.Ports, func(p v1.ServicePort) bool { return RouteHasPort(route, p) })
		if !known {
			c.add("annotation %s%s: [%d].port is %q, which is no port of the Service", AnnotationPrefix, RoutesName, i, route.Port)
		}
		for _, port := range c.service.Spec.Ports {
			claim := fmt.Sprintf("%d %s", port.Port, route)
			if !IsTCP(port) {
				continue
			}
			if RouteHasPort(route, port) && seen[claim] {
				c.add("annotation %s%s: %s is there twice", AnnotationPrefix, RoutesName, route)
			}
			seen[claim] = seen[claim] || RouteHasPort(route, port)
		}
	}
	if len(c.settings.Routes) > 0 && len(c.ranges) > maxRouteRanges {
		c.add("loadBalancerSourceRanges has %d networks, and with annotation %s%s there can be %d: use fewer, larger ones", len(c.ranges),
			AnnotationPrefix, RoutesName, maxRouteRanges)
	}
}

// RouteHasPort says whether a route is for a port of the Service; one that names none is for all.
func RouteHasPort(route Route, port v1.ServicePort) bool {
	return route.Port == "" || route.Port == port.Name || route.Port == fmt.Sprint(port.Port)
}

// inferShared undoes what is inferred for frontends of a Service's own: those with routes are somebody else's.
func (s *Settings) inferShared() {
	if s.Shared == nil || len(s.Routes) == 0 {
		return
	}
	for i := range s.Ports {
		s.Ports[i].Mode = "http"
		s.Ports[i].Certificates = slices.DeleteFunc(s.Ports[i].Certificates, Certificate.Own)
	}
}

// LabelSharedGroup is on load balancers made for a group: its name. It tells them from what a person called the same.
const LabelSharedGroup = "ccm_shared_group"

// Names says whether a load balancer is the one that a reference means.
func (r Reference) Names(lb *cloud.LoadBalancer) bool {
	switch {
	case r.Group != "":
		return lb.Name == r.Group && lb.Labels[LabelSharedGroup] == r.Group
	case r.ID != "":
		return lb.ID == r.ID
	}
	return lb.Name == r.Name
}
