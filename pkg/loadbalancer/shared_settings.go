package loadbalancer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

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
		return groupPrefix + r.Group
	case r.ID != "":
		return r.ID
	}
	return r.Name
}

const groupPrefix = "create/"

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
	pathExact  = "Exact"
	pathPrefix = "Prefix" // of whole elements: /foo matches /foo and /foo/bar, and not /foobar
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
	sharedName      = "shared"
	routesName      = "routes"
	hubFrontendName = "frontend"
	deletionKeep    = "keep"
	deletionLast    = "last"
)

var sharedTable = []Setting{
	forAll(Setting{
		Name: sharedName, Default: "a load balancer of the Service's own", Example: "create/web", MapsTo: "names of frontends, rules and backends",
		About: "Share a load balancer with other Services, of other clusters too: `create/NAME` is made for all that say so, a UUID or " +
			"an exact name is one that a person or Terraform made, which the controller's configuration must allow.",
	}, referenceKind, func(s *Settings, v Reference) { s.Shared = &v }),
	forAll(Setting{
		Name: routesName, Default: "the ports belong to the Service as a whole", Example: `[{host: saas.example, path: /foo}]`,
		MapsTo: "frontends[].rules: use_backend", About: "On a shared load balancer: the requests that go to the Service, so that others " +
			"can have the other ones of the same port. See below.",
	}, routesKind, func(s *Settings, v []Route) { s.Routes = v }),
	forPort(Setting{
		Name: hubFrontendName, Default: "one that is made for the routes of all", Example: "https=public-https", MapsTo: "frontends[].rules",
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
		if group, ok := strings.CutPrefix(text, groupPrefix); ok && validName(group) {
			return Reference{Group: group}, nil
		}
		if id, err := uuid.Parse(text); err == nil && len(text) == len(id.String()) {
			return Reference{ID: id.String()}, nil
		}
		if !validName(text) {
			return Reference{}, errNotAllowed
		}
		return Reference{Name: text}, nil
	},
}

// maxRoutes is how many routes one Service may have.
const maxRoutes = 50

var routesShape = list(with(object(map[string]shape{
	"host": optional(like(hostname)), "path": like(routePath), "pathType": optional(word(pathPrefix, pathExact)),
	"rewrite": optional(like(routePath)), "port": like(text("port", "the name or number of a port of the Service", `[a-z0-9-]{1,15}`)),
}), "path"), 1, maxRoutes)

// routePath has no backslash, which would mean something where paths are rewritten.
var routePath = text("path", "a path that begins with a slash, at most 200 characters, without blanks, backslashes, ?, # and semicolons",
	`/[!"$->@-\[\]-~]{0,199}`)

var routesKind = kind[[]Route]{
	name: "list of routes", allowed: `a list such as [{host: saas.example, path: /foo}], with host, path, pathType (Prefix or Exact), ` +
		`rewrite and port`,
	parse: func(text string) ([]Route, error) {
		if len(text) > 64<<10 {
			return nil, errors.New("it is longer than 64 KiB")
		}
		plain, err := yaml.YAMLToJSONStrict([]byte(text))
		if err != nil {
			return nil, firstLine(err)
		}
		checked, err := parseShape(string(plain), routesShape)
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
		r.PathType = pathPrefix
	}
	if trimmed := strings.TrimRight(r.Path, "/"); r.PathType == pathPrefix {
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
	given := func(name string) bool { _, ok := c.service.Annotations[AnnotationPrefix+name]; return ok }
	if s.Shared == nil {
		for _, name := range []string{routesName, hubFrontendName, "shared-deletion"} {
			if given(name) {
				c.add("annotation %s%s: it is about a shared load balancer: set annotation %s%s too", AnnotationPrefix, name,
					AnnotationPrefix, sharedName)
			}
		}
		return
	}
	never := []string{"config", "floating-ips", "labels", "maintenance-window", retainName, protectionName}
	if s.Shared.Group == "" {
		never = append(never, "plan", "zone", "private-networks", "shared-deletion")
	}
	if len(s.Routes) > 0 {
		never = append(never, "mode", "visibility", "timeout-client", "inbound-proxy-protocol", "http2")
	}
	for _, name := range never {
		if given(name) {
			c.add("annotation %s%s: it is not one Service's to say of what it shares (annotation %s%s): remove it",
				AnnotationPrefix, name, AnnotationPrefix, sharedName)
		}
	}
	if c.service.Spec.LoadBalancerIP != "" {
		c.add("spec.loadBalancerIP %s: it is not one Service's to say of a shared load balancer: remove it", c.service.Spec.LoadBalancerIP)
	}
	if given(hubFrontendName) && len(s.Routes) == 0 {
		c.add("annotation %s%s: the frontend is somebody else's, and only routes can be added to it: set annotation %s%s",
			AnnotationPrefix, hubFrontendName, AnnotationPrefix, routesName)
	}
	c.checkRoutes()
}

// maxRouteRanges is how many source ranges there may be with routes: each route takes one rule for each.
const maxRouteRanges = 10

func (c *checker) checkRoutes() {
	seen := map[string]bool{}
	for i, route := range c.settings.Routes {
		known := route.Port == "" || slices.ContainsFunc(c.service.Spec.Ports, func(p v1.ServicePort) bool { return routeHasPort(route, p) })
		if !known {
			c.add("annotation %s%s: [%d].port is %q, which is no port of the Service", AnnotationPrefix, routesName, i, route.Port)
		}
		for _, port := range c.service.Spec.Ports {
			claim := fmt.Sprintf("%d %s", port.Port, route)
			if routeHasPort(route, port) && seen[claim] {
				c.add("annotation %s%s: %s is there twice", AnnotationPrefix, routesName, route)
			}
			seen[claim] = seen[claim] || routeHasPort(route, port)
		}
	}
	if ranges, err := sourceRanges(c.service); err == nil && len(c.settings.Routes) > 0 && len(ranges) > maxRouteRanges {
		c.add("loadBalancerSourceRanges has %d networks, and with annotation %s%s there can be %d: use fewer, larger ones", len(ranges),
			AnnotationPrefix, routesName, maxRouteRanges)
	}
}

func routeHasPort(route Route, port v1.ServicePort) bool {
	return route.Port == "" || route.Port == port.Name || route.Port == fmt.Sprint(port.Port)
}

// inferShared undoes what is inferred for frontends of a Service's own: those with routes are somebody else's.
func (s *Settings) inferShared() {
	if s.Shared == nil || len(s.Routes) == 0 {
		return
	}
	for i := range s.Ports {
		s.Ports[i].Mode = "http"
		s.Ports[i].Certificates = slices.DeleteFunc(s.Ports[i].Certificates, Certificate.own)
	}
}

// SharedAccess says who may use a load balancer that this program did not make.
type SharedAccess struct {
	// LoadBalancer is a UUID, an exact name, or create/NAME, which then is no longer open to all Services.
	LoadBalancer string `json:"loadBalancer"`
	// Namespaces of the Services; empty: all.
	Namespaces []string `json:"namespaces,omitempty"`
	// Ports that Services may claim, or add routes to; empty: all.
	Ports []int `json:"ports,omitempty"`
	// Hosts that routes may have, *.example for those below; if there are any, Services may have routes only.
	Hosts []string `json:"hosts,omitempty"`
}

// Validate names the mistakes in an entry.
func (a SharedAccess) Validate() error {
	var faults []error
	if _, err := referenceKind.parse(a.LoadBalancer); err != nil {
		faults = append(faults, fmt.Errorf("loadBalancer is %q: want %s", a.LoadBalancer, referenceKind.allowed))
	}
	for _, port := range a.Ports {
		if port < 1 || port > 65535 {
			faults = append(faults, fmt.Errorf("ports has %d: want 1 to 65535", port))
		}
	}
	for _, host := range a.Hosts {
		if _, err := hostname.parse(host); err != nil {
			faults = append(faults, fmt.Errorf("hosts has %q: want %s", host, hostname.allowed))
		}
	}
	return errors.Join(faults...)
}

// mayShare returns why a Service may not use a load balancer; nil: it may.
func mayShare(entries []SharedAccess, lb *cloud.LoadBalancer, reference Reference, service *v1.Service, settings *Settings) *Problem {
	var about []SharedAccess
	for _, entry := range entries {
		same := strings.EqualFold(entry.LoadBalancer, lb.ID) || entry.LoadBalancer == lb.Name
		if reference.Group != "" {
			same = entry.LoadBalancer == reference.String()
		}
		if same {
			about = append(about, entry)
		}
	}
	if reference.Group != "" && len(about) == 0 {
		return nil
	}
	if slices.ContainsFunc(about, func(a SharedAccess) bool { return a.allows(service, settings) }) {
		return nil
	}
	return &Problem{"SharingDenied", fmt.Sprintf("annotation %s%s=%s: the controller's configuration does not let this Service use load "+
		"balancer %s (%s): ask for an entry in sharedLoadBalancers with its namespace, ports and hosts", AnnotationPrefix, sharedName,
		reference, lb.ID, lb.Name)}
}

func (a SharedAccess) allows(service *v1.Service, settings *Settings) bool {
	if len(a.Namespaces) > 0 && !slices.Contains(a.Namespaces, service.Namespace) {
		return false
	}
	for _, port := range service.Spec.Ports {
		if len(a.Ports) > 0 && !slices.Contains(a.Ports, int(port.Port)) {
			return false
		}
	}
	if len(a.Hosts) == 0 {
		return true
	}
	for _, route := range settings.Routes {
		if !slices.ContainsFunc(a.Hosts, func(host string) bool { return coversHost(host, route.Host) }) {
			return false
		}
	}
	return len(settings.Routes) > 0
}

// coversHost says whether a host is the one allowed, or below it.
func coversHost(allowed, host string) bool {
	if below, wild := strings.CutPrefix(allowed, "*"); wild {
		return strings.HasSuffix(host, below) && host != below
	}
	return allowed == host
}
