package loadbalancer

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
)

// Where several teams share a cluster, Config.Tenants says what the Services of each namespace may ask for. This file finds the limits of
// a Service's namespace, and what in the Service goes beyond them.

// ReasonDenied is the reason of events and conditions about what the policy for tenants does not allow.
const ReasonDenied = "DeniedByPolicy"

// namespaceLabels remembers the labels of namespaces for a while.
type namespaceLabels struct {
	mu     sync.Mutex
	byName map[string]readLabels
}

type readLabels struct {
	labels labels.Set
	at     time.Time
}

// namespaceAge is for how long the labels of a namespace are believed.
const namespaceAge = 30 * time.Second

// limitsOf returns the limits of a namespace; nil: the cluster has no tenants. Errors: the namespace's labels cannot be read.
func (l *LoadBalancers) limitsOf(ctx context.Context, namespace string) (*tenants.Limits, error) {
	if l.config.Tenants == nil {
		return nil, nil
	}
	var set labels.Set
	if l.config.Tenants.NeedsLabels() {
		var err error
		if set, err = l.labelsOf(ctx, namespace); err != nil {
			return nil, fmt.Errorf("read the labels of namespace %s, which the policy for tenants needs: %w", namespace, err)
		}
	}
	limits := l.config.Tenants.For(namespace, set)
	return &limits, nil
}

func (l *LoadBalancers) labelsOf(ctx context.Context, namespace string) (labels.Set, error) {
	l.namespaces.mu.Lock()
	have, known := l.namespaces.byName[namespace]
	l.namespaces.mu.Unlock()
	if known && l.now().Sub(have.at) < namespaceAge {
		return have.labels, nil
	}
	read, err := l.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) { // a Service may be the last to go
		return nil, err
	}
	set := labels.Set{}
	if err == nil {
		set = read.Labels
	}
	l.namespaces.mu.Lock()
	defer l.namespaces.mu.Unlock()
	if l.namespaces.byName == nil {
		l.namespaces.byName = map[string]readLabels{}
	}
	l.namespaces.byName[namespace] = readLabels{set, l.now()}
	return set, nil
}

// denials are why a Service may not have what it asks for, though it could be had: a reserved name, and what goes beyond the limits of
// its namespace.
func (l *LoadBalancers) denials(ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings) ([]settings.Problem, error) {
	problems := reservedName(l.config.Shared, identity, asked)
	limits, err := l.limitsOf(ctx, service.Namespace)
	if err != nil || limits == nil {
		return problems, err
	}
	request := l.request(service, asked)
	if shared := asked.Shared; shared != nil && l.entryNames(shared.String(), service.Namespace) {
		request.Group = "" // sharedLoadBalancers allows it
	}
	for _, violation := range limits.Check(request, cmp.Or(l.config.Plan, DefaultPlan)) {
		problems = append(problems, settings.Problem{Reason: ReasonDenied, Message: violation.Message(service.Namespace)})
		if len(problems) == mostDenials {
			break
		}
	}
	return problems, nil
}

// entryNames says whether sharedLoadBalancers has an entry for what a Service asks to share that names its namespace.
func (l *LoadBalancers) entryNames(shared, namespace string) bool {
	return slices.ContainsFunc(l.config.Shared, func(a settings.SharedAccess) bool {
		return a.LoadBalancer == shared && slices.Contains(a.Namespaces, namespace)
	})
}

// policyShares says whether a Service's namespace may join what is named so in an annotation, as far as the policy for tenants goes: by its
// limits, or by an entry of sharedLoadBalancers that names the namespace.
func (l *LoadBalancers) policyShares(ctx context.Context, shared, namespace string) (bool, error) {
	if l.config.Tenants == nil || l.entryNames(shared, namespace) {
		return true, nil
	}
	limits, err := l.limitsOf(ctx, namespace)
	if err != nil {
		return false, err
	}
	return limits.Shares(shared), nil
}

// mostDenials is how many events one look at a Service may make.
const mostDenials = 8

// refused says whether a Service waits to be corrected: it has a mistake, or asks for what it may not have. Whoever cannot know says so.
func (l *LoadBalancers) refused(ctx context.Context, identity plan.Identity, service *v1.Service, asked *settings.Settings, slips []settings.Problem) bool {
	denied, err := l.denials(ctx, identity, service, asked)
	return err != nil || len(slips)+len(denied)+len(l.problems(service, asked)) > 0
}

// request is what a Service asks for, as limits see it.
func (l *LoadBalancers) request(service *v1.Service, asked *settings.Settings) tenants.Request {
	r := tenants.Request{
		Plan: asked.Load.Plan, Name: asked.Load.Name, Zone: asked.Zone, Networks: slices.Clone(asked.Private),
		Retain: asked.Retain, Protected: asked.Protected, Adopt: asked.Adopt, Resolvers: len(asked.Resolvers) > 0,
		Frontends: len(asked.Ports) + len(asked.MoreFrontends), Backends: len(asked.Ports) + len(asked.MoreBackends),
	}
	ranges, _ := settings.SourceRanges(service) // mistakes in them are told of elsewhere
	for _, network := range asked.Networks {
		r.Networks = append(r.Networks, network.ID)
	}
	for _, address := range asked.Addresses {
		r.FloatingIPs = append(r.FloatingIPs, address.Address)
	}
	if ip := service.Spec.LoadBalancerIP; ip != "" {
		r.FloatingIPs = append(r.FloatingIPs, ip)
	}
	if asked.Shared != nil && asked.Shared.Group != "" {
		r.Group = asked.Shared.String()
	}
	for _, port := range asked.EveryPort() {
		r.Bundles = append(r.Bundles, port.Bundles()...)
		r.Rules += len(plan.RulesOfPort(ranges, port, ""))
		r.Members = append(r.Members, membersBeside(port.Members, port.Backend)...)
		for _, certificate := range port.Certificates {
			if asked.Shared == nil || len(asked.Routes) == 0 { // else the hosts of routes bound them
				r.Hosts = append(r.Hosts, certificate.Hostnames...)
			}
		}
	}
	for _, backend := range asked.MoreBackends {
		r.Members = append(r.Members, membersBeside(backend.Members, backend.Properties)...)
		for _, config := range backend.TLSConfigs {
			r.Bundles = append(r.Bundles, config.BundleID)
		}
	}
	for _, port := range service.Spec.Ports {
		for _, route := range asked.Routes {
			if settings.RouteHasPort(route, port) {
				r.Rules += max(1, len(ranges))
			}
		}
	}
	return r
}

// asksMembers is the URL of a health check that asks the members themselves: a path, or a port of theirs. What stands before an @ is no port,
// and what follows two slashes is a host.
var asksMembers = regexp.MustCompile(`^(/|/[^/\\].*|` + settings.LocalHealthCheckPrefix + `[0-9]{1,5}(/.*)?)$`)

// membersBeside are the addresses of members that are given one by one, and a health check that is not only a path.
func membersBeside(members []cloud.Member, properties cloud.Properties) []string {
	var all []string
	for _, member := range members {
		all = append(all, member.IP)
	}
	url, _ := properties["health_check_url"].(string)
	if url != "" && !asksMembers.MatchString(url) {
		all = append(all, "with health check "+url)
	}
	return all
}

// withoutDeniedKeeping is the Service without the annotations that would keep its load balancer in the account, and that its namespace
// may not have.
func (l *LoadBalancers) withoutDeniedKeeping(ctx context.Context, service *v1.Service) (*v1.Service, error) {
	limits, err := l.limitsOf(ctx, service.Namespace)
	if err != nil || limits == nil {
		return service, err
	}
	service = service.DeepCopy()
	if !*limits.Retain {
		delete(service.Annotations, settings.AnnotationPrefix+settings.RetainName)
	}
	if !*limits.DeletionProtection {
		delete(service.Annotations, settings.AnnotationPrefix+settings.ProtectionName)
	}
	return service, nil
}

// portsAsStood are the ports of a Service whose load balancer stays as it was. With tenants, and where the Service shares a load balancer,
// members that the JSON configuration lists are left out: they may be what is refused.
func (l *LoadBalancers) portsAsStood(asked *settings.Settings) []settings.PortSettings {
	ports := slices.Clone(asked.Ports)
	for i := range ports {
		if l.config.Tenants != nil || asked.Shared != nil {
			ports[i].Members = nil
		}
	}
	return ports
}

// accessOf are the entries of sharedLoadBalancers, as they are for a Service's namespace. With tenants, an entry is for the namespaces
// that it names, and for those whose limits name the load balancer.
func (l *LoadBalancers) accessOf(ctx context.Context, service *v1.Service, reference settings.Reference) ([]settings.SharedAccess, error) {
	limits, err := l.limitsOf(ctx, service.Namespace)
	if err != nil || limits == nil {
		return l.config.Shared, err
	}
	bounds := limits.Hosts
	if bounds == nil {
		bounds = []string{}
	}
	var all []settings.SharedAccess
	for _, entry := range l.config.Shared {
		named := slices.Contains(entry.Namespaces, service.Namespace)
		if len(entry.Namespaces) == 0 && !limits.Shares(entry.LoadBalancer) {
			entry.Namespaces = []string{""} // nobody's
		}
		if !named || len(entry.Hosts) == 0 {
			entry.TenantHosts = &bounds
		}
		all = append(all, entry)
	}
	if len(settings.EntriesFor(all, &cloud.LoadBalancer{}, reference)) == 0 && reference.Group != "" {
		all = append(all, settings.SharedAccess{LoadBalancer: reference.String(), TenantHosts: &bounds}) // which denials let pass
	}
	return all, nil
}

// checkOwnHosts refuses certificates, on a load balancer of the Service's own, that are for other hosts than its namespace may serve.
func (w *work) checkOwnHosts(ctx context.Context) error {
	limits, err := w.limitsOf(ctx, w.service.Namespace)
	if err != nil || limits == nil || limits.Hosts == nil || slices.Contains(limits.Hosts, tenants.Any) {
		return err
	}
	certificates, err := w.presented(ctx)
	if err != nil {
		return err
	}
	text, configs := beyondHosts(limits.Hosts, certificates)
	if len(configs) == 0 {
		return nil
	}
	return w.deny(reasonCertificateDenied, fmt.Sprintf("namespace %s: %s, allowed are certificates for %s; the cluster's operator can change "+
		"data.tenants in the CCM's configuration", w.service.Namespace, text, cmp.Or(strings.Join(limits.Hosts, ", "), "no host")))
}
