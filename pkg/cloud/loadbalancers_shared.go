package cloud

import (
	"context"
	"net/http"
	"time"
)

// SharedLoadBalancer is a load balancer that others use too: persons, Terraform, other Services, other clusters. It has calls
// on single components only. There is none here that changes or deletes the load balancer itself, or that replaces a frontend's
// rules, certificates or networks.
//
// Some names are free for whoever takes them first: those of frontends and rules. What takes one away is sent once. Sent again
// after a lost answer, it could meet what somebody else has made of that name in between.
type SharedLoadBalancer struct {
	ID string
	c  *Cloud
}

// Shared returns the load balancer of that ID as one that others use too.
func (c *Cloud) Shared(id string) SharedLoadBalancer { return SharedLoadBalancer{ID: id, c: c} }

// SharedFrontendPatch holds what shall change of a frontend; what is zero stays as it is.
type SharedFrontendPatch struct {
	Mode           string     `json:"mode,omitempty"`
	DefaultBackend string     `json:"default_backend,omitempty"`
	Properties     Properties `json:"properties,omitempty"`
}

// Read reads the load balancer. Errors: ErrNotFound.
func (s SharedLoadBalancer) Read(ctx context.Context) (*LoadBalancer, error) {
	return s.c.LoadBalancer(ctx, s.ID)
}

// CreateFrontend adds a frontend. Errors: ErrAlreadyExists.
func (s SharedLoadBalancer) CreateFrontend(ctx context.Context, frontend Frontend) error {
	return s.c.CreateFrontend(ctx, s.ID, frontend)
}

// ModifyFrontend changes what the patch holds.
func (s SharedLoadBalancer) ModifyFrontend(ctx context.Context, name string, patch SharedFrontendPatch) error {
	return s.c.call(ctx, http.MethodPatch, loadBalancerPath(s.ID, "frontends", name), patch, nil)
}

// RenameFrontend gives a frontend another name. Errors: ErrNotFound, ErrAlreadyExists.
func (s SharedLoadBalancer) RenameFrontend(ctx context.Context, name, to string) error {
	patch := struct {
		Name string `json:"name"`
	}{to}
	return s.c.call(withLook(ctx, time.Now()), http.MethodPatch, loadBalancerPath(s.ID, "frontends", name), patch, nil)
}

// DeleteFrontend removes a frontend with its rules. Already gone: nil.
func (s SharedLoadBalancer) DeleteFrontend(ctx context.Context, name string) error {
	return s.c.DeleteFrontend(withLook(ctx, time.Now()), s.ID, name)
}

// CreateBackend adds a backend with its members. Errors: ErrAlreadyExists.
func (s SharedLoadBalancer) CreateBackend(ctx context.Context, backend Backend) error {
	return s.c.CreateBackend(ctx, s.ID, backend)
}

// ModifyBackend changes what the patch holds.
func (s SharedLoadBalancer) ModifyBackend(ctx context.Context, name string, patch BackendPatch) error {
	return s.c.ModifyBackend(ctx, s.ID, name, patch)
}

// DeleteBackend removes a backend with its members. Already gone: nil.
func (s SharedLoadBalancer) DeleteBackend(ctx context.Context, name string) error {
	return s.c.DeleteBackend(withLook(ctx, time.Now()), s.ID, name)
}

// CreateRule adds a rule to a frontend. Errors: ErrAlreadyExists, ErrNotFound without the frontend.
func (s SharedLoadBalancer) CreateRule(ctx context.Context, frontend string, rule Rule) error {
	return s.c.CreateRule(ctx, s.ID, frontend, rule)
}

// ReplaceRule puts a rule in the place of the one of its name.
func (s SharedLoadBalancer) ReplaceRule(ctx context.Context, frontend string, rule Rule) error {
	return s.c.ReplaceRule(withLook(ctx, time.Now()), s.ID, frontend, rule)
}

// DeleteRule removes a rule. Already gone: nil.
func (s SharedLoadBalancer) DeleteRule(ctx context.Context, frontend, name string) error {
	return s.c.DeleteRule(withLook(ctx, time.Now()), s.ID, frontend, name)
}

// CreateTLSConfig gives a frontend or backend a certificate. Errors: ErrAlreadyExists.
func (s SharedLoadBalancer) CreateTLSConfig(ctx context.Context, owner TLSOwner, config TLSConfig) error {
	return s.c.CreateTLSConfig(ctx, s.ID, owner, config)
}

// ModifyTLSConfig makes the TLS configuration of that name be config, whose name may be another.
func (s SharedLoadBalancer) ModifyTLSConfig(ctx context.Context, owner TLSOwner, name string, config TLSConfig) error {
	return s.c.ModifyTLSConfig(ctx, s.ID, owner, name, config)
}

// DeleteTLSConfig takes a certificate away. Already gone: nil.
func (s SharedLoadBalancer) DeleteTLSConfig(ctx context.Context, owner TLSOwner, name string) error {
	return s.c.DeleteTLSConfig(ctx, s.ID, owner, name)
}

// GroupLoadBalancer is a shared load balancer that the Services of a group made for themselves, and that the last of them may
// take down.
type GroupLoadBalancer struct {
	SharedLoadBalancer
}

// Group returns the load balancer of that ID as one that was made for a group.
func (c *Cloud) Group(id string) GroupLoadBalancer { return GroupLoadBalancer{c.Shared(id)} }

// CreateLabel adds a label. Errors: ErrAlreadyExists.
func (g GroupLoadBalancer) CreateLabel(ctx context.Context, key, value string) error {
	return g.c.CreateLoadBalancerLabel(ctx, g.ID, key, value)
}

// DeleteLabel removes a label. Already gone: nil.
func (g GroupLoadBalancer) DeleteLabel(ctx context.Context, key string) error {
	return g.c.DeleteLoadBalancerLabel(withLook(ctx, time.Now()), g.ID, key)
}

// Delete begins to take the load balancer down. Already gone: nil.
func (g GroupLoadBalancer) Delete(ctx context.Context) error {
	return g.c.DeleteLoadBalancer(ctx, g.ID)
}
