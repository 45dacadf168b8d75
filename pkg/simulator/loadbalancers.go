package simulator

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

type loadBalancer struct {
	LoadBalancer
	stage    string // of the setup; empty: that is over
	ready    bool   // set up once: changes go to the data plane from then on
	deleting bool
	applying bool // the data plane is being told
	again    bool // there was a change since

	reserved map[netip.Addr]*network // addresses taken of networks
	floating map[string]netip.Addr   // where the data plane listens for a floating address
}

type loadBalancerPlan struct {
	Name                 string `json:"name"`
	PerServerMaxSessions int    `json:"per_server_max_sessions"`
	ServerNumber         int    `json:"server_number"`
}

var loadBalancerPlans = []loadBalancerPlan{
	{"development", 1000, 1},
	{"production-small", 50000, 2},
}

func loadBalancerPlanByName(name string) (loadBalancerPlan, bool) {
	for _, p := range loadBalancerPlans {
		if p.Name == name {
			return p, true
		}
	}
	return loadBalancerPlan{}, false
}

const defaultPageSize, maxPageSize = 10, 100

// page returns the part of a list that ?limit and ?offset ask for.
func page[T any](c *call, all []T) ([]T, error) {
	limit, err := pageNumber(c, "limit", defaultPageSize, 1, maxPageSize)
	if err != nil {
		return nil, err
	}
	offset, err := pageNumber(c, "offset", 0, 0, 1<<31)
	if err != nil {
		return nil, err
	}
	start := min(offset, len(all))
	return append([]T{}, all[start:min(start+limit, len(all))]...), nil
}

func pageNumber(c *call, name string, otherwise, smallest, largest int) (int, error) {
	text := c.query(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < smallest || n > largest {
		return 0, invalid(invalidParam{name, "Must be an integer between " + itoa(smallest) + " and " + itoa(largest) + "."})
	}
	return n, nil
}

// decodeNew reads the request's body into v as the newer resources do.
func (c *call) decodeNew(v any) error {
	if err := json.Unmarshal(c.body, v); err != nil {
		return &problem{status: http.StatusBadRequest, code: "INVALID_REQUEST",
			title: "Request body is not valid: " + err.Error()}
	}
	return nil
}

func (s *Simulator) loadBalancer(c *call) (*loadBalancer, error) {
	lb, ok := s.loadBalancers.get(c.path("uuid"))
	if !ok {
		return nil, problemNotFound("Service")
	}
	return lb, nil
}

// mutableLoadBalancer refuses load balancers that are going.
func (s *Simulator) mutableLoadBalancer(c *call) (*loadBalancer, error) {
	lb, err := s.loadBalancer(c)
	if err == nil && lb.deleting {
		return nil, &problem{status: http.StatusConflict, code: "SERVICE_STATE_ILLEGAL", title: "Service is being deleted."}
	}
	return lb, err
}

func (s *Simulator) listLoadBalancers(c *call) (any, error) {
	filters := labelFilters(c.request.URL.Query())
	all := make([]*LoadBalancer, 0, s.loadBalancers.len())
	for lb := range s.loadBalancers.all() {
		if matchLabels(lb.Labels, filters) {
			all = append(all, &lb.LoadBalancer)
		}
	}
	slices.SortStableFunc(all, func(a, b *LoadBalancer) int { return time.Time(a.CreatedAt).Compare(time.Time(b.CreatedAt)) })
	return page(c, all)
}

func (s *Simulator) getLoadBalancer(c *call) (any, error) {
	lb, err := s.loadBalancer(c)
	if err != nil {
		return nil, err
	}
	return lb.LoadBalancer, nil
}

func (s *Simulator) getLoadBalancerPlan(c *call) (any, error) {
	plan, ok := loadBalancerPlanByName(c.path("name"))
	if !ok {
		return nil, problemNotFound("Plan")
	}
	return plan, nil
}

func (s *Simulator) listLoadBalancerPlans(c *call) (any, error) { return page(c, loadBalancerPlans) }

// loadBalancerRequest is the body of POST, PUT and PATCH of a load balancer.
type loadBalancerRequest struct {
	Name             *string                `json:"name"`
	Plan             *string                `json:"plan"`
	Zone             *string                `json:"zone"`
	NetworkUUID      *string                `json:"network_uuid"`
	Networks         *[]LoadBalancerNetwork `json:"networks"`
	IPAddresses      *[]FloatingAddress     `json:"ip_addresses"`
	ConfiguredStatus *string                `json:"configured_status"`
	Frontends        *[]Frontend            `json:"frontends"`
	Backends         *[]Backend             `json:"backends"`
	Resolvers        *[]Resolver            `json:"resolvers"`
	Labels           *[]Label               `json:"labels"`
	MaintenanceDOW   *string                `json:"maintenance_dow"`
	MaintenanceTime  *string                `json:"maintenance_time"`
}

func assign[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// applyTo puts what the request says into lb, in place of what is there.
func (r *loadBalancerRequest) applyTo(lb *LoadBalancer) {
	assign(&lb.Name, r.Name)
	assign(&lb.Plan, r.Plan)
	assign(&lb.ConfiguredStatus, r.ConfiguredStatus)
	assign(&lb.Frontends, r.Frontends)
	assign(&lb.Backends, r.Backends)
	assign(&lb.Resolvers, r.Resolvers)
	assign(&lb.Labels, r.Labels)
	assign(&lb.MaintenanceDOW, r.MaintenanceDOW)
	assign(&lb.MaintenanceTime, r.MaintenanceTime)
}

// emptyLoadBalancer holds the defaults.
func emptyLoadBalancer() LoadBalancer {
	return LoadBalancer{
		ConfiguredStatus: "started", MaintenanceDOW: "sunday", MaintenanceTime: "03:00:00Z",
		Backends: []Backend{}, Frontends: []Frontend{}, Resolvers: []Resolver{}, Labels: []Label{},
		Networks:    []LoadBalancerNetwork{},
		IPAddresses: []FloatingAddress{}, Nodes: []Node{},
	}
}

func (s *Simulator) createLoadBalancer(c *call) (any, error) {
	var req loadBalancerRequest
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	lb := &loadBalancer{LoadBalancer: emptyLoadBalancer(), reserved: map[netip.Addr]*network{},
		floating: map[string]netip.Addr{}}
	req.applyTo(&lb.LoadBalancer)
	assign(&lb.Zone, req.Zone)
	lb.UUID, lb.OperationalState = s.newUUID(loadBalancerKind), lbPending
	now := s.now()
	lb.CreatedAt = s.creation()
	lb.UpdatedAt = lb.CreatedAt
	setNetworks(&lb.LoadBalancer, &req, now)
	lb.fillFrontendNetworks()
	lb.touchAll(now)
	if err := s.checkLoadBalancer(&lb.LoadBalancer); err != nil {
		return nil, err
	}
	if err := s.checkUniqueName(&lb.LoadBalancer); err != nil {
		return nil, err
	}
	if req.IPAddresses != nil {
		for _, a := range *req.IPAddresses {
			if err := s.addFloating(lb, a.Address, a.NetworkName, now); err != nil {
				s.dropFloating(lb)
				return nil, err
			}
		}
	}
	s.loadBalancers.put(lb.UUID, lb)
	s.setUpLoadBalancer(lb, 0)
	return lb.LoadBalancer, nil
}

// setNetworks gives a new load balancer its networks, or those that the deprecated network_uuid stands for.
func setNetworks(lb *LoadBalancer, req *loadBalancerRequest, now time.Time) {
	if req.Networks != nil && len(*req.Networks) > 0 {
		lb.Networks = *req.Networks
	} else if req.NetworkUUID != nil && *req.NetworkUUID != "" {
		lb.NetworkUUID = *req.NetworkUUID
		lb.Networks = []LoadBalancerNetwork{
			{Name: "public-IPv4", Type: networkPublic, Family: familyIPv4},
			{Name: "private-IPv4", Type: networkPrivate, Family: familyIPv4, UUID: lb.NetworkUUID},
		}
	}
	for i := range lb.Networks {
		n := &lb.Networks[i]
		n.CreatedAt, n.UpdatedAt = stamp(now), stamp(now)
		n.DNSName = "lb-" + strings.ReplaceAll(lb.UUID, "-", "") + "-" + itoa(i+1) + ".upcloudlb.com"
		if n.Type == networkPublic && lb.DNSName == "" {
			lb.DNSName = n.DNSName
		}
	}
	if lb.DNSName == "" && len(lb.Networks) > 0 {
		lb.DNSName = lb.Networks[0].DNSName
	}
}

// fillFrontendNetworks makes frontends that name no network listen on the public ones, or on all when there is none.
func (lb *LoadBalancer) fillFrontendNetworks() {
	for i := range lb.Frontends {
		f := &lb.Frontends[i]
		if len(f.Networks) > 0 {
			continue
		}
		for _, n := range lb.Networks {
			if n.Type == networkPublic {
				f.Networks = append(f.Networks, FrontendNetwork{n.Name})
			}
		}
		if len(f.Networks) == 0 {
			for _, n := range lb.Networks {
				f.Networks = append(f.Networks, FrontendNetwork{n.Name})
			}
		}
	}
}

func (lb *LoadBalancer) touchAll(now time.Time) {
	lb.UpdatedAt = stamp(now)
	for i := range lb.Networks {
		lb.Networks[i].UpdatedAt = stamp(now)
	}
	for i := range lb.Frontends {
		lb.Frontends[i].touch(now)
	}
	for i := range lb.Backends {
		lb.Backends[i].touch(now)
	}
	for i := range lb.Resolvers {
		lb.Resolvers[i].touch(now)
	}
}

func (s *Simulator) checkUniqueName(lb *LoadBalancer) error {
	for other := range s.loadBalancers.all() {
		if other.Name == lb.Name && other.UUID != lb.UUID {
			return problemConflict("Service with the name '" + lb.Name + "' already exists.")
		}
	}
	return nil
}

// modifyLoadBalancer serves PATCH: what the request leaves out stays.
func (s *Simulator) modifyLoadBalancer(c *call) (any, error) {
	return s.changeWhole(c, func(next *LoadBalancer, req *loadBalancerRequest) { req.applyTo(next) })
}

// replaceLoadBalancer serves PUT: what the request leaves out gets its default. Zone and networks stay.
func (s *Simulator) replaceLoadBalancer(c *call) (any, error) {
	return s.changeWhole(c, func(next *LoadBalancer, req *loadBalancerRequest) {
		fresh := emptyLoadBalancer()
		fresh.UUID, fresh.Zone, fresh.Networks, fresh.NetworkUUID = next.UUID, next.Zone, next.Networks, next.NetworkUUID
		fresh.DNSName, fresh.Nodes, fresh.CreatedAt = next.DNSName, next.Nodes, next.CreatedAt
		fresh.OperationalState, fresh.IPAddresses = next.OperationalState, next.IPAddresses
		req.applyTo(&fresh)
		*next = fresh
	})
}

func (s *Simulator) changeWhole(c *call, change func(*LoadBalancer, *loadBalancerRequest)) (any, error) {
	var req loadBalancerRequest
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	lb, err := s.mutableLoadBalancer(c)
	if err != nil {
		return nil, err
	}
	if req.Zone != nil && *req.Zone != lb.Zone {
		return nil, invalid(invalidParam{"zone", "Zone cannot be changed."})
	}
	next := lb.LoadBalancer.clone()
	change(&next, &req)
	next.fillFrontendNetworks()
	next.touchAll(s.now())
	if err := s.checkUniqueName(&next); err != nil {
		return nil, err
	}
	if err := s.replaceConfiguration(lb, next); err != nil {
		return nil, err
	}
	return lb.LoadBalancer, nil
}

// replaceConfiguration makes next the load balancer's configuration if it is valid.
func (s *Simulator) replaceConfiguration(lb *loadBalancer, next LoadBalancer) error {
	if err := s.checkLoadBalancer(&next); err != nil {
		return err
	}
	lb.LoadBalancer = next
	s.loadBalancerChanged(lb)
	return nil
}

func (s *Simulator) deleteLoadBalancer(c *call) (any, error) {
	lb, err := s.mutableLoadBalancer(c)
	if err != nil {
		return nil, err
	}
	s.tearDownLoadBalancer(lb, 0)
	return nil, nil
}
