package doctor

import (
	"context"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// BalancersConfig is what the doctor of load balancers looks at, and how strict it is.
type BalancersConfig struct {
	Rules
	Cloud      *cloud.Cloud
	Kubernetes kubernetes.Interface
	// Cluster is the cluster as ccm's configuration names it.
	Cluster plan.Cluster
	// Class is the loadBalancerClass that ccm serves besides none.
	Class string
}

// Balancers examines the load balancers of one cluster and one account.
type Balancers struct{ config BalancersConfig }

// NewBalancers makes a doctor of load balancers.
func NewBalancers(config BalancersConfig) (*Balancers, error) {
	if err := config.Rules.check(); err != nil {
		return nil, err
	}
	return &Balancers{config: config}, nil
}

// Examine finds the leftovers. It changes nothing. Errors: ErrMismatch.
func (b *Balancers) Examine(ctx context.Context) (*Report, error) {
	// The account is read first: what was made after is not in its lists, and cannot be mistaken for a leftover.
	e, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.checkMismatch(ctx); err != nil {
		return nil, err
	}
	e.report = &Report{
		Subject: "load-balancers", ClusterUID: e.uid, Made: e.now, ExaminedBalancers: len(e.balancers), treatment: e.treatment(),
		Findings: []*Finding{}, Kept: []*Finding{}, Undecided: []*Finding{},
	}
	e.stop = e.unknown()
	e.report.Stopped = e.stop
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
	e.report.order()
	return e.report, nil
}

// look is both sides as they were read once.
type look struct {
	*Balancers
	uid       string
	now       time.Time // by the account's clock
	balancers []cloud.LoadBalancer
	bundles   []cloud.CertificateBundle
	services  []corev1.Service
	record    *record
	stop      string // why nothing may go on without a person
	report    *Report
}

// cluster is how the configuration names the cluster, with the UID that it has.
func (e *look) cluster() plan.Cluster {
	cluster := e.config.Cluster
	cluster.UID = e.uid
	return cluster
}

func (b *Balancers) read(ctx context.Context) (e *look, err error) {
	e = &look{Balancers: b}
	if e.balancers, err = b.config.Cloud.LoadBalancers(ctx, nil); err != nil {
		return nil, err
	}
	if e.bundles, err = b.config.Cloud.CertificateBundles(ctx, nil); err != nil {
		return nil, err
	}
	if e.now, err = b.config.Cloud.AccountTime(ctx); err != nil {
		return nil, err
	}
	if e.uid, err = clusterUID(ctx, b.config.Kubernetes); err != nil {
		return nil, err
	}
	if e.record, err = readRecord(ctx, b.config.Kubernetes, "load-balancers"); err != nil {
		return nil, err
	}
	services, err := b.config.Kubernetes.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, unreadable("services", err)
	}
	e.services = services.Items
	return e, whole("services", services)
}

// knows finds the Service that something was made for, and that a controller still looks after: none does after one that has been of
// another type all along, and is held by no finalizer.
func (e *look) knows(trace plan.Trace) *corev1.Service {
	return e.service(func(s *corev1.Service) bool {
		tended := s.Spec.Type == corev1.ServiceTypeLoadBalancer || s.DeletionTimestamp != nil || len(s.Finalizers) > 0
		return tended && trace.Of(e.cluster(), s)
	})
}

// elsewhere reports whether another controller serves a Service: it has a class that is not ccm's, and no finalizer.
func (e *look) elsewhere(s *corev1.Service) bool {
	class := s.Spec.LoadBalancerClass
	return class != nil && *class != e.config.Class && len(s.Finalizers) == 0
}

// named finds a Service whose annotation names a load balancer.
func (e *look) named(id string) *corev1.Service {
	return e.service(func(s *corev1.Service) bool { return strings.EqualFold(s.Annotations[settings.AnnotationID], id) })
}

// mentioned says which Service has the UUID of a load balancer or a certificate bundle in an annotation, or asks to share a load balancer
// of that name; empty where none does. One to share, and the certificates of a port, are named so before anything of the Service's is
// on them.
func (e *look) mentioned(id, name string) string {
	service := e.service(func(s *corev1.Service) bool {
		for key, value := range s.Annotations {
			if strings.HasPrefix(key, settings.AnnotationPrefix) && strings.Contains(strings.ToLower(value), strings.ToLower(id)) {
				return true
			}
		}
		return name != "" && strings.TrimSpace(s.Annotations[settings.AnnotationPrefix+settings.SharedName]) == name
	})
	if service == nil {
		return ""
	}
	return serviceName(service) + " names it"
}

func (e *look) service(which func(*corev1.Service) bool) *corev1.Service {
	for i := range e.services {
		if which(&e.services[i]) {
			return &e.services[i]
		}
	}
	return nil
}

// judgeBalancer finds out whether a load balancer, or what is on it, was left behind.
func (e *look) judgeBalancer(lb *cloud.LoadBalancer) {
	if lb.State.Deleting() {
		return
	}
	if trace, made := e.cluster().TraceOf(lb); made && !e.ignored(trace) {
		e.judgeOwn(lb, trace)
	}
	for _, trace := range e.cluster().TracesOn(lb) {
		if e.ignored(trace) || e.knows(trace) != nil {
			continue
		}
		f := &Finding{Kind: OrphanComponents, balancer: balancer{trace: trace, lb: lb}}
		f.describe()
		e.addOrWait(f)
	}
	e.judgeGroup(lb)
	e.judgeAdoptable(lb)
}

// judgeOwn judges a load balancer that was made for one Service.
func (e *look) judgeOwn(lb *cloud.LoadBalancer, trace plan.Trace) {
	switch service := e.knows(trace); {
	case service == nil:
		e.addOrWait(e.judgeOrphan(lb, trace, false))
	case carriesStage(lb.Labels):
		f := e.restoringBalancer(lb, trace)
		f.Note = serviceName(service) + " is its Service"
		e.report.Findings = append(e.report.Findings, f)
	case e.elsewhere(service):
		e.report.Findings = append(e.report.Findings, balancerFinding(OtherClassBalancer, lb, trace.Claim, serviceName(service)))
	case !lb.State.Running() && lb.ConfiguredStatus != "stopped" && !e.config.young(e.now, lb.Created):
		e.report.Findings = append(e.report.Findings, balancerFinding(StuckBalancer, lb, trace.Claim, serviceName(service)))
	}
}

// addOrWait puts a finding where it belongs in the report.
func (e *look) addOrWait(f *Finding) {
	if f.subject != nil {
		f.Fingerprint = fingerprint(f.subject)
	}
	switch created := f.trace.Created; {
	case !created.IsZero() && e.config.young(e.now, created):
		f.Action, f.Kept, f.Note = "", "", "younger than "+e.config.SafetyAge.String()+": it may be waited for"
		e.report.Undecided = append(e.report.Undecided, f)
	case f.onPurpose:
		e.report.Kept = append(e.report.Kept, f)
	default:
		e.report.Findings = append(e.report.Findings, f)
	}
}

// judgeGroup finds load balancers that were made to be shared, and that no Service here asks for.
func (e *look) judgeGroup(lb *cloud.LoadBalancer) {
	group, claim, used := e.cluster().GroupOf(lb)
	young := e.config.young(e.now, lb.Created)
	if group == "" || used || young || e.ignored(plan.Trace{Claim: claim}) {
		return
	}
	if slices.ContainsFunc(e.services, func(s corev1.Service) bool { return plan.SharesGroup(&s, group) }) {
		return
	}
	e.report.Findings = append(e.report.Findings, balancerFinding(UnusedGroup, lb, claim, ""))
}

// ignored reports whether something does not concern this cluster. The UID wins over ID and name, which people give.
func (e *look) ignored(trace plan.Trace) bool {
	if trace.ClusterUID != "" {
		return trace.ClusterUID != e.uid
	}
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
