package cloud

import (
	"context"
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
		spec.Resolvers = []Resolver{}
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

// ModifyLoadBalancer changes what the patch holds of the load balancer itself.
func (c *Cloud) ModifyLoadBalancer(ctx context.Context, id string, patch LoadBalancerPatch) error {
	return c.call(ctx, http.MethodPatch, loadBalancerPath(id), patch, nil)
}

// AttachFloatingAddress makes a floating IP address of the account lead to the load balancer. Errors: ErrBusy,
// ErrAlreadyExists when it is attached already.
func (c *Cloud) AttachFloatingAddress(ctx context.Context, id string, address FloatingAddress) error {
	return c.call(ctx, http.MethodPost, loadBalancerPath(id, "ip-addresses"), address, nil)
}

// FreeFloatingAddress says whether an address is a floating IP address of the account that leads to no server. Whether it leads to
// another load balancer the API does not say.
func (c *Cloud) FreeFloatingAddress(ctx context.Context, address string) (bool, error) {
	var answer struct {
		Address wireAddress `json:"ip_address"`
	}
	err := c.call(ctx, http.MethodGet, "/ip_address/"+url.PathEscape(address), nil, &answer)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return answer.Address.Floating == "yes" && answer.Address.Server == "", err
}

// DetachFloatingAddress takes a floating IP address off the load balancer; it stays the account's. Already gone: nil.
func (c *Cloud) DetachFloatingAddress(ctx context.Context, id, address string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id, "ip-addresses", address), nil, nil))
}

// DeleteLoadBalancer begins to take down a load balancer, which then is there for some minutes still. Already gone: nil.
func (c *Cloud) DeleteLoadBalancer(ctx context.Context, id string) error {
	return ignoreNotFound(c.call(ctx, http.MethodDelete, loadBalancerPath(id), nil, nil))
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
