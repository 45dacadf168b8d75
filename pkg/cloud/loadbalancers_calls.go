package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// loadBalancerPage is how many entries one list call of the load balancers' API asks for: the most that it was seen to
// give. It gives ten when not asked.
const loadBalancerPage = 100

// LoadBalancers lists the load balancers that carry all the given labels, one call for each hundred of them.
func (c *Cloud) LoadBalancers(ctx context.Context, labels Labels) ([]LoadBalancer, error) {
	query := url.Values{}
	for key, value := range labels {
		query.Add("label", key+"="+value)
	}
	return pages(ctx, c, "/load-balancer", query, func(lb LoadBalancer) string { return lb.ID })
}

// pages reads a list of the load balancers' API to its end.
func pages[T any](ctx context.Context, c *Cloud, path string, query url.Values, id func(T) string) ([]T, error) {
	var all []T
	first := ""
	for {
		query.Set("limit", strconv.Itoa(loadBalancerPage))
		query.Set("offset", strconv.Itoa(len(all)))
		var page []T
		if err := c.call(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		if len(page) > 0 && len(all) > 0 && id(page[0]) == first { // it would go on so without end
			return nil, &Error{
				Kind: ErrUnavailable, Op: operation(http.MethodGet, path), Message: "the API answers the same page at every offset",
			}
		}
		all = append(all, page...)
		if len(page) < loadBalancerPage {
			return all, nil
		}
		first = id(page[0])
	}
}

// LoadBalancer reads one load balancer. Errors: ErrNotFound.
func (c *Cloud) LoadBalancer(ctx context.Context, id string) (*LoadBalancer, error) {
	lb := &LoadBalancer{}
	if err := c.call(ctx, http.MethodGet, loadBalancerPath(id), nil, lb); err != nil {
		return nil, err
	}
	if !strings.EqualFold(lb.ID, id) {
		return nil, notAbout("load balancer " + id)
	}
	return lb, nil
}

// CreateLoadBalancer makes a load balancer; it is running some minutes later. Names are unique in the account: one that
// is taken gives ErrAlreadyExists. An answer that is lost leaves a load balancer behind, so whoever calls again must look
// for it first, by its labels.
func (c *Cloud) CreateLoadBalancer(ctx context.Context, spec LoadBalancer) (*LoadBalancer, error) {
	if spec.Resolvers == nil {
		spec.Resolvers = []json.RawMessage{}
	}
	lb := &LoadBalancer{}
	if err := c.call(ctx, http.MethodPost, "/load-balancer", spec, lb); err != nil {
		return nil, err
	}
	if lb.ID == "" {
		return nil, notAbout("the load balancer " + spec.Name)
	}
	return lb, nil
}

// DeleteLoadBalancer begins to take down a load balancer, which then is there for some minutes still. Already gone: nil.
func (c *Cloud) DeleteLoadBalancer(ctx context.Context, id string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id), nil, nil))
}

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

// loadBalancerPlansAge is for how long a list of plans serves: UpCloud adds one every few months.
const loadBalancerPlansAge = time.Hour

// loadBalancerPlans remembers the plans.
type loadBalancerPlans struct {
	mu      sync.Mutex
	plans   []LoadBalancerPlan
	fetched time.Time
}

// LoadBalancerPlans lists the plans that exist, at most an hour old.
func (c *Cloud) LoadBalancerPlans(ctx context.Context) ([]LoadBalancerPlan, error) {
	memory := &c.shared.loadBalancerPlans
	memory.mu.Lock()
	plans, fresh := memory.plans, time.Since(memory.fetched) < loadBalancerPlansAge
	memory.mu.Unlock()
	if fresh {
		return plans, nil
	}
	plans, err := pages(ctx, c, "/load-balancer/plans", url.Values{}, func(p LoadBalancerPlan) string { return p.Name })
	if err != nil {
		return nil, err
	}
	memory.mu.Lock()
	defer memory.mu.Unlock()
	memory.plans, memory.fetched = plans, time.Now()
	return plans, nil
}

func loadBalancerPath(id string, parts ...string) string {
	path := "/load-balancer/" + url.PathEscape(id)
	for _, part := range parts {
		path += "/" + url.PathEscape(part)
	}
	return path
}

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
