package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer"
)

// BalancersConfig is what the doctor of load balancers looks at, and how strict it is.
type BalancersConfig struct {
	Cloud      *cloud.Cloud
	Kubernetes kubernetes.Interface
	// Cluster is the cluster as ccm's configuration names it.
	Cluster loadbalancer.Cluster
	// SafetyAge is how old a thing must be to be called a leftover: a younger one may be waited for by somebody.
	SafetyAge time.Duration
	// Unclaimed is what becomes of things that carry the cluster's name and no cluster ID.
	Unclaimed Unclaimed
}

// Balancers examines the load balancers of one cluster and one account.
type Balancers struct {
	config   BalancersConfig
	goneWait time.Duration
}

// goneWait is how long a removed load balancer's certificates are waited with: UpCloud was seen to take three minutes to let go of
// a load balancer.
const goneWait = 6 * time.Minute

// NewBalancers makes a doctor of load balancers.
func NewBalancers(config BalancersConfig) (*Balancers, error) {
	if err := checkRules(config.Unclaimed, config.SafetyAge); err != nil {
		return nil, err
	}
	return &Balancers{config: config, goneWait: goneWait}, nil
}

// Examine finds the leftovers. It changes nothing.
func (b *Balancers) Examine(ctx context.Context) (*Report, error) {
	// The account is read first: what was made after is not in its lists, and cannot be mistaken for a leftover.
	e, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	for i := range e.balancers {
		e.judgeBalancer(&e.balancers[i])
	}
	for i := range e.bundles {
		e.judgeBundle(&e.bundles[i])
	}
	e.judgeTwins()
	if err := e.judgeServices(ctx); err != nil {
		return nil, err
	}
	e.report.ExaminedBalancers = len(e.balancers)
	e.report.order()
	return &e.report, nil
}

// look is both sides as they were read once.
type look struct {
	*Balancers
	balancers []cloud.LoadBalancer
	bundles   []cloud.CertificateBundle
	services  []corev1.Service
	report    Report
}

func (b *Balancers) read(ctx context.Context) (*look, error) {
	e := &look{Balancers: b}
	var err error
	if e.balancers, err = b.config.Cloud.LoadBalancers(ctx, nil); err != nil {
		return nil, err
	}
	if e.bundles, err = b.config.Cloud.CertificateBundles(ctx, nil); err != nil {
		return nil, err
	}
	services, err := b.config.Kubernetes.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, unreadable("services", err)
	}
	e.services = services.Items
	return e, nil
}

// knows finds the Service that something was made for, and that a controller still looks after: one that has been of another type
// all along, and is held by no finalizer, nobody looks after.
func (e *look) knows(trace loadbalancer.Trace) *corev1.Service {
	i := slices.IndexFunc(e.services, func(s corev1.Service) bool {
		tended := s.Spec.Type == corev1.ServiceTypeLoadBalancer || s.DeletionTimestamp != nil || len(s.Finalizers) > 0
		return tended && trace.Of(e.config.Cluster, &s)
	})
	if i < 0 {
		return nil
	}
	return &e.services[i]
}

// named finds a Service whose annotation names a load balancer.
func (e *look) named(id string) *corev1.Service {
	i := slices.IndexFunc(e.services, func(s corev1.Service) bool { return strings.EqualFold(s.Annotations[loadbalancer.AnnotationID], id) })
	if i < 0 {
		return nil
	}
	return &e.services[i]
}

// judgeBalancer finds out whether a load balancer, or what is on it, was left behind.
func (e *look) judgeBalancer(lb *cloud.LoadBalancer) {
	if lb.State.Deleting() {
		return
	}
	cluster := e.config.Cluster
	if trace, made := cluster.TraceOf(lb); made && !e.ignored(trace) {
		switch service := e.knows(trace); {
		case service == nil:
			e.orphan(&Finding{Kind: OrphanBalancer, balancer: balancer{trace: trace, lb: lb}})
		case !lb.State.Running() && lb.ConfiguredStatus != "stopped" && time.Since(lb.Created) >= e.config.SafetyAge:
			e.report.known++
			e.report.Findings = append(e.report.Findings, balancerFinding(StuckBalancer, lb, trace.Claim, serviceName(service)))
		default:
			e.report.known++
		}
	}
	for _, trace := range cluster.TracesOn(lb) {
		switch {
		case e.ignored(trace):
		case e.knows(trace) != nil:
			e.report.known++
		default:
			e.orphan(&Finding{Kind: OrphanComponents, balancer: balancer{trace: trace, lb: lb}})
		}
	}
	e.judgeGroup(lb)
}

// judgeGroup finds load balancers that were made to be shared, and that nobody does.
func (e *look) judgeGroup(lb *cloud.LoadBalancer) {
	group, claim, used := e.config.Cluster.GroupOf(lb)
	young := time.Since(lb.Created) < e.config.SafetyAge
	if group == "" || used || young || e.ignored(loadbalancer.Trace{Claim: claim}) {
		return
	}
	if slices.ContainsFunc(e.services, func(s corev1.Service) bool { return loadbalancer.SharesGroup(&s, group) }) {
		return
	}
	e.report.Findings = append(e.report.Findings, balancerFinding(UnusedGroup, lb, claim, ""))
}

// judgeBundle finds out whether a certificate bundle was left behind.
func (e *look) judgeBundle(bundle *cloud.CertificateBundle) {
	trace, made := e.config.Cluster.TraceOfBundle(bundle)
	if !made || e.ignored(trace) {
		return
	}
	service := e.knows(trace)
	if service != nil && (e.userOf(bundle.ID) != nil || service.DeletionTimestamp != nil || e.config.Cluster.AsksFor(service, bundle.Name)) {
		e.report.known++
		return
	}
	e.orphan(&Finding{Kind: OrphanCertificate, balancer: balancer{trace: trace, bundle: bundle}})
}

// orphan notes what was left behind, if it can be told already.
func (e *look) orphan(f *Finding) {
	f.describe()
	if young := time.Since(f.trace.Created) < e.config.SafetyAge; young && !f.trace.Created.IsZero() {
		f.Note = fmt.Sprintf("younger than %s: it may be waited for", e.config.SafetyAge)
		e.report.Undecided = append(e.report.Undecided, f)
		return
	}
	f.Kept = e.whyKept(f)
	e.report.Findings = append(e.report.Findings, f)
}

func (e *look) ignored(trace loadbalancer.Trace) bool {
	return trace.Claim == cloud.ClaimOther || trace.Claim == cloud.ClaimNone && e.config.Unclaimed == UnclaimedIgnore
}

// userOf finds a load balancer that uses a certificate bundle.
func (e *look) userOf(bundle string) *cloud.LoadBalancer {
	uses := func(configs []cloud.TLSConfig) bool {
		return slices.ContainsFunc(configs, func(config cloud.TLSConfig) bool { return config.BundleID == bundle })
	}
	i := slices.IndexFunc(e.balancers, func(lb cloud.LoadBalancer) bool {
		return slices.ContainsFunc(lb.Frontends, func(f cloud.Frontend) bool { return uses(f.TLSConfigs) }) ||
			slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return uses(b.TLSConfigs) })
	})
	if i < 0 {
		return nil
	}
	return &e.balancers[i]
}

// checkRules checks how strict a doctor shall be.
func checkRules(unclaimed Unclaimed, safetyAge time.Duration) error {
	if known := []Unclaimed{UnclaimedReport, UnclaimedIgnore, UnclaimedRemove}; !slices.Contains(known, unclaimed) {
		return fmt.Errorf("%q says not what to do with what is unclaimed: use one of report, ignore, remove", unclaimed)
	}
	if safetyAge < 0 {
		return fmt.Errorf("the safety age %s is negative: use a duration such as 1h", safetyAge)
	}
	return nil
}
