package cloud

import (
	"context"
	"net/http"
)

// Each of these calls is about one component of a load balancer and leaves all others alone.

// CreateFrontend adds a frontend; the backend that it names must be there. Errors: ErrAlreadyExists.
func (c *Cloud) CreateFrontend(ctx context.Context, id string, frontend Frontend) error {
	return c.call(ctx, http.MethodPost, loadBalancerPath(id, "frontends"), frontend, nil)
}

// ModifyFrontend changes what the patch holds.
func (c *Cloud) ModifyFrontend(ctx context.Context, id, name string, patch FrontendPatch) error {
	return c.call(ctx, http.MethodPatch, loadBalancerPath(id, "frontends", name), patch, nil)
}

// DeleteFrontend removes a frontend with its rules. Already gone: nil.
func (c *Cloud) DeleteFrontend(ctx context.Context, id, name string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id, "frontends", name), nil, nil))
}

// CreateBackend adds a backend with its members. Errors: ErrAlreadyExists.
func (c *Cloud) CreateBackend(ctx context.Context, id string, backend Backend) error {
	return c.call(ctx, http.MethodPost, loadBalancerPath(id, "backends"), backend, nil)
}

// ModifyBackend changes what the patch holds.
func (c *Cloud) ModifyBackend(ctx context.Context, id, name string, patch BackendPatch) error {
	return c.call(ctx, http.MethodPatch, loadBalancerPath(id, "backends", name), patch, nil)
}

// DeleteBackend removes a backend with its members. Already gone: nil.
func (c *Cloud) DeleteBackend(ctx context.Context, id, name string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id, "backends", name), nil, nil))
}

// CreateLoadBalancerLabel adds one label and leaves the others alone. Errors: ErrAlreadyExists.
func (c *Cloud) CreateLoadBalancerLabel(ctx context.Context, id, key, value string) error {
	return c.call(ctx, http.MethodPost, loadBalancerPath(id, "labels"), label{Key: key, Value: value}, nil)
}

// ModifyLoadBalancerLabel changes one label's value and leaves the others alone.
func (c *Cloud) ModifyLoadBalancerLabel(ctx context.Context, id, key, value string) error {
	return c.call(ctx, http.MethodPatch, loadBalancerPath(id, "labels", key), label{Key: key, Value: value}, nil)
}

// DeleteLoadBalancerLabel removes one label and leaves the others alone. Already gone: nil.
func (c *Cloud) DeleteLoadBalancerLabel(ctx context.Context, id, key string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id, "labels", key), nil, nil))
}

// CreateRule adds a rule to a frontend. Errors: ErrAlreadyExists.
func (c *Cloud) CreateRule(ctx context.Context, id, frontend string, rule Rule) error {
	return c.call(ctx, http.MethodPost, loadBalancerPath(id, "frontends", frontend, "rules"), rule, nil)
}

// ReplaceRule puts a rule in the place of the one of its name: the API changes matchers and actions in no other way.
func (c *Cloud) ReplaceRule(ctx context.Context, id, frontend string, rule Rule) error {
	return c.call(ctx, http.MethodPut, loadBalancerPath(id, "frontends", frontend, "rules", rule.Name), rule, nil)
}

// DeleteRule removes a rule. Already gone: nil.
func (c *Cloud) DeleteRule(ctx context.Context, id, frontend, name string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id, "frontends", frontend, "rules", name), nil, nil))
}

// TLSOwner is what a TLS configuration belongs to: a frontend, or a backend.
type TLSOwner struct {
	Frontend, Backend string // the name of one of them
}

func (o TLSOwner) path(id string, parts ...string) string {
	if o.Frontend != "" {
		return loadBalancerPath(id, append([]string{"frontends", o.Frontend, "tls-configs"}, parts...)...)
	}
	return loadBalancerPath(id, append([]string{"backends", o.Backend, "tls-configs"}, parts...)...)
}

// CreateTLSConfig gives a frontend or backend a certificate. Errors: ErrAlreadyExists.
func (c *Cloud) CreateTLSConfig(ctx context.Context, id string, owner TLSOwner, config TLSConfig) error {
	return c.call(ctx, http.MethodPost, owner.path(id), config, nil)
}

// ModifyTLSConfig makes the TLS configuration of that name be config, whose name may be another.
func (c *Cloud) ModifyTLSConfig(ctx context.Context, id string, owner TLSOwner, name string, config TLSConfig) error {
	return c.call(ctx, http.MethodPatch, owner.path(id, name), config, nil)
}

// DeleteTLSConfig takes a certificate away. Already gone: nil.
func (c *Cloud) DeleteTLSConfig(ctx context.Context, id string, owner TLSOwner, name string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, owner.path(id, name), nil, nil))
}

// CreateResolver adds a resolver. Errors: ErrAlreadyExists.
func (c *Cloud) CreateResolver(ctx context.Context, id string, resolver Resolver) error {
	return c.call(ctx, http.MethodPost, loadBalancerPath(id, "resolvers"), resolver, nil)
}

// ReplaceResolver puts a resolver in the place of the one of its name.
func (c *Cloud) ReplaceResolver(ctx context.Context, id string, resolver Resolver) error {
	return c.call(ctx, http.MethodPut, loadBalancerPath(id, "resolvers", resolver.Name), resolver, nil)
}

// DeleteResolver removes a resolver. Already gone: nil.
func (c *Cloud) DeleteResolver(ctx context.Context, id, name string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id, "resolvers", name), nil, nil))
}
