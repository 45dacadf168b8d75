package simulator

import (
	"encoding/json"
	"slices"
	"time"
)

// planePause is how often a deletion looks whether the data plane has finished.
const planePause = 20 * time.Millisecond

func (s *Simulator) loadBalancerRoutes() []route {
	const service = "/load-balancer/{uuid}"
	out := []route{
		{operation: "GET /load-balancer", status: 200, serve: s.listLoadBalancers},
		{operation: "POST /load-balancer", status: 201, serve: s.createLoadBalancer},
		{operation: "GET /load-balancer/plans", status: 200, serve: s.listLoadBalancerPlans},
		{operation: "GET /load-balancer/plans/{name}", status: 200, serve: s.getLoadBalancerPlan},
		{operation: "GET " + service, status: 200, serve: s.getLoadBalancer},
		{operation: "GET " + service + "/metrics", status: 200, serve: s.getLoadBalancerMetrics},
		{operation: "PATCH " + service, status: 200, serve: s.modifyLoadBalancer},
		{operation: "PUT " + service, status: 200, serve: s.replaceLoadBalancer},
		{operation: "DELETE " + service, status: 204, serve: s.deleteLoadBalancer},
		{operation: "PATCH " + service + "/networks/{network}", status: 200, serve: s.renameNetwork},
		{operation: "GET " + service + "/ip-addresses", status: 200, serve: s.listFloating},
		{operation: "POST " + service + "/ip-addresses", status: 201, serve: s.createFloatingOfLoadBalancer},
		{operation: "GET " + service + "/ip-addresses/{address}", status: 200, serve: s.getFloatingOfLoadBalancer},
		{operation: "DELETE " + service + "/ip-addresses/{address}", status: 204, serve: s.deleteFloatingOfLoadBalancer},
		{operation: "GET /load-balancer/certificate-bundles", status: 200, serve: s.listBundles},
		{operation: "POST /load-balancer/certificate-bundles", status: 201, serve: s.createBundle},
		{operation: "GET /load-balancer/certificate-bundles/dns-challenge-domain", status: 200, serve: s.challengeDomain},
		{operation: "GET /load-balancer/certificate-bundles/{bundle}", status: 200, serve: s.getBundle},
		{operation: "PATCH /load-balancer/certificate-bundles/{bundle}", status: 200, serve: s.modifyBundle},
		{operation: "DELETE /load-balancer/certificate-bundles/{bundle}", status: 204, serve: s.deleteBundle},
	}
	out = append(out, componentRoutes(s, service+"/frontends", "frontend", component[Frontend]{
		what: "Frontend", name: func(f *Frontend) string { return f.Name }, touch: (*Frontend).touch,
		list: func(lb *LoadBalancer, _ *call) (*[]Frontend, error) { return &lb.Frontends, nil },
	})...)
	out = append(out, componentRoutes(s, service+"/backends", "backend", component[Backend]{
		what: "Backend", name: func(k *Backend) string { return k.Name }, touch: (*Backend).touch,
		list: func(lb *LoadBalancer, _ *call) (*[]Backend, error) { return &lb.Backends, nil },
	})...)
	out = append(out, componentRoutes(s, service+"/resolvers", "name", component[Resolver]{
		what: "Resolver", name: func(r *Resolver) string { return r.Name }, touch: (*Resolver).touch,
		list: func(lb *LoadBalancer, _ *call) (*[]Resolver, error) { return &lb.Resolvers, nil },
	})...)
	out = append(out, componentRoutes(s, service+"/labels", "key", component[Label]{
		what: "Label", name: func(l *Label) string { return l.Key }, touch: func(*Label, time.Time) {},
		list: func(lb *LoadBalancer, _ *call) (*[]Label, error) { return &lb.Labels, nil },
	})...)
	out = append(out, componentRoutes(s, service+"/backends/{backend}/members", "name", component[Member]{
		what: "Member", name: func(m *Member) string { return m.Name }, touch: (*Member).touch,
		list: func(lb *LoadBalancer, c *call) (*[]Member, error) {
			k, err := lb.backend(c.path("backend"))
			if err != nil {
				return nil, err
			}
			return &k.Members, nil
		},
	})...)
	out = append(out, componentRoutes(s, service+"/backends/{backend}/tls-configs", "name", component[TLSConfig]{
		what: "TLS config", name: func(t *TLSConfig) string { return t.Name }, touch: (*TLSConfig).touch,
		list: func(lb *LoadBalancer, c *call) (*[]TLSConfig, error) {
			k, err := lb.backend(c.path("backend"))
			if err != nil {
				return nil, err
			}
			return &k.TLSConfigs, nil
		},
	})...)
	out = append(out, componentRoutes(s, service+"/frontends/{frontend}/rules", "name", component[Rule]{
		what: "Rule", name: func(r *Rule) string { return r.Name }, touch: (*Rule).touch,
		list: func(lb *LoadBalancer, c *call) (*[]Rule, error) {
			f, err := lb.frontend(c.path("frontend"))
			if err != nil {
				return nil, err
			}
			return &f.Rules, nil
		},
	})...)
	return append(out, componentRoutes(s, service+"/frontends/{frontend}/tls-configs", "name", component[TLSConfig]{
		what: "TLS config", name: func(t *TLSConfig) string { return t.Name }, touch: (*TLSConfig).touch,
		list: func(lb *LoadBalancer, c *call) (*[]TLSConfig, error) {
			f, err := lb.frontend(c.path("frontend"))
			if err != nil {
				return nil, err
			}
			return &f.TLSConfigs, nil
		},
	})...)
}

func (lb *LoadBalancer) frontend(name string) (*Frontend, error) {
	for i := range lb.Frontends {
		if lb.Frontends[i].Name == name {
			return &lb.Frontends[i], nil
		}
	}
	return nil, problemNotFound("Frontend")
}

func (lb *LoadBalancer) backend(name string) (*Backend, error) {
	for i := range lb.Backends {
		if lb.Backends[i].Name == name {
			return &lb.Backends[i], nil
		}
	}
	return nil, problemNotFound("Backend")
}

// component is one kind of thing that a load balancer is made of: a list in it, whose items have names.
type component[T any] struct {
	what  string // for "… not found."
	name  func(*T) string
	touch func(*T, time.Time)
	list  func(*LoadBalancer, *call) (*[]T, error)
}

func (k component[T]) find(list []T, name string) int {
	return slices.IndexFunc(list, func(v T) bool { return k.name(&v) == name })
}

// componentRoutes serves a list of components and its items.
func componentRoutes[T any](s *Simulator, path, key string, k component[T]) []route {
	item := path + "/{" + key + "}"
	return []route{
		{operation: "GET " + path, status: 200, serve: func(c *call) (any, error) {
			lb, err := s.loadBalancer(c)
			if err != nil {
				return nil, err
			}
			list, err := k.list(&lb.LoadBalancer, c)
			if err != nil {
				return nil, err
			}
			return *list, nil
		}},
		{operation: "GET " + item, status: 200, serve: func(c *call) (any, error) {
			lb, err := s.loadBalancer(c)
			if err != nil {
				return nil, err
			}
			list, err := k.list(&lb.LoadBalancer, c)
			if err != nil {
				return nil, err
			}
			i := k.find(*list, c.path(key))
			if i < 0 {
				return nil, problemNotFound(k.what)
			}
			return (*list)[i], nil
		}},
		{operation: "POST " + path, status: 201, serve: func(c *call) (any, error) {
			var v T
			if err := c.decodeNew(&v); err != nil {
				return nil, err
			}
			k.touch(&v, s.now())
			return changeComponents(s, c, k, k.name(&v), func(list *[]T) error {
				if k.find(*list, k.name(&v)) >= 0 {
					return problemConflict(k.what + " with the name '" + k.name(&v) + "' already exists.")
				}
				*list = append(*list, v)
				return nil
			})
		}},
		{operation: "PATCH " + item, status: 200, serve: changeItem(s, k, key, func(old T, body []byte) (T, error) {
			err := json.Unmarshal(body, &old)
			return old, err
		})},
		{operation: "PUT " + item, status: 200, serve: changeItem(s, k, key, func(_ T, body []byte) (T, error) {
			var v T
			err := json.Unmarshal(body, &v)
			return v, err
		})},
		{operation: "DELETE " + item, status: 204, serve: func(c *call) (any, error) {
			_, err := changeComponents(s, c, k, "", func(list *[]T) error {
				i := k.find(*list, c.path(key))
				if i < 0 {
					return problemNotFound(k.what)
				}
				*list = slices.Delete(*list, i, i+1)
				return nil
			})
			return nil, err
		}},
	}
}

// changeItem serves a change of one item: change makes the new one of the old one and the request's body.
func changeItem[T any](s *Simulator, k component[T], key string, change func(T, []byte) (T, error)) func(*call) (any, error) {
	return func(c *call) (any, error) {
		renamed := c.path(key)
		lb, err := s.mutableLoadBalancer(c)
		if err != nil {
			return nil, err
		}
		next := lb.LoadBalancer.clone()
		list, err := k.list(&next, c)
		if err != nil {
			return nil, err
		}
		i := k.find(*list, renamed)
		if i < 0 {
			return nil, problemNotFound(k.what)
		}
		v, err := change((*list)[i], c.body)
		if err != nil {
			return nil, invalid(invalidParam{"", "Request body is not valid: " + err.Error()})
		}
		if other := k.find(*list, k.name(&v)); other >= 0 && other != i {
			return nil, problemConflict(k.what + " with the name '" + k.name(&v) + "' already exists.")
		}
		k.touch(&v, s.now())
		(*list)[i] = v
		next.rename(k.what, renamed, k.name(&v))
		next.fillFrontendNetworks()
		if err := s.replaceConfiguration(lb, next); err != nil {
			return nil, err
		}
		return (*list)[i], nil
	}
}

// rename makes what refers to a renamed component refer to its new name.
func (lb *LoadBalancer) rename(what, from, to string) {
	if from == to {
		return
	}
	for i := range lb.Frontends {
		if what == "Backend" && lb.Frontends[i].DefaultBackend == from {
			lb.Frontends[i].DefaultBackend = to
		}
	}
	for i := range lb.Backends {
		if what == "Resolver" && lb.Backends[i].Resolver == from {
			lb.Backends[i].Resolver = to
		}
	}
}

// changeComponents changes a list of components; the answer is the item of that name, if one is wanted.
func changeComponents[T any](s *Simulator, c *call, k component[T], answer string, change func(*[]T) error) (any, error) {
	lb, err := s.mutableLoadBalancer(c)
	if err != nil {
		return nil, err
	}
	next := lb.LoadBalancer.clone()
	list, err := k.list(&next, c)
	if err != nil {
		return nil, err
	}
	if err := change(list); err != nil {
		return nil, err
	}
	next.fillFrontendNetworks()
	if err := s.replaceConfiguration(lb, next); err != nil {
		return nil, err
	}
	if i := k.find(*list, answer); i >= 0 {
		return (*list)[i], nil
	}
	return nil, nil
}
