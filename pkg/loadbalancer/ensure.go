package loadbalancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

const (
	// refusedRetry is when a Service that cannot have a load balancer is looked at again. A change of the Service comes
	// before that by itself; this is only so that its event does not fade away.
	refusedRetry = 15 * time.Minute
	// secretRetry is when a Service is looked at again whose Secret is missing or wrong.
	secretRetry = 30 * time.Second
	// certificateRetry is when a Service is looked at again that waits for a certificate.
	certificateRetry = 2 * time.Minute
)

// work is one Service on its way to a load balancer.
type work struct {
	*LoadBalancers
	service  *v1.Service
	identity plan.Identity
	settings *settings.Settings
	secrets  map[string]secret
	awaits   []settings.Problem       // Secrets that cannot be used yet
	access   []settings.SharedAccess  // the entries of sharedLoadBalancers, as they are for the Service
	nodes    []*v1.Node               // eligible, with addresses
	told     []*v1.Node               // all that the controller names
	pods     map[string][]plan.Target // see Input
	serving  map[string]bool          // see Input
	adopted  bool                     // the load balancer was another Service's a moment ago
	// componentsOnly: the nodes are not known, and members stay as they are.
	componentsOnly bool
}

// ensure makes the Service's load balancer be as desired, one step nearer each time it is called.
func (l *LoadBalancers) ensure(
	ctx context.Context, identity plan.Identity, service *v1.Service, nodes []*v1.Node,
) (*v1.LoadBalancerStatus, error) {
	asked, problems := settings.Parse(service)
	denied, err := l.denials(ctx, identity, service, asked)
	if err != nil {
		return nil, err
	}
	if problems = slices.Concat(l.problems(service, asked), denied, problems); len(problems) > 0 {
		if err := l.claim(ctx, identity, service); err != nil {
			return nil, err
		}
		return nil, l.refuseAndTend(ctx, identity, service, nodes, problems)
	}
	if asked.Shared != nil {
		l.tending.forget(service.UID)
		return l.ensureSharing(ctx, identity, service, asked, nodes)
	}
	l.tending.note(service, nodes)
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: asked, told: nodes}
	if w.secrets, w.awaits, err = l.readSecrets(ctx, service, asked); err != nil {
		if failed := l.claim(ctx, identity, service); failed != nil {
			return nil, failed
		}
		return nil, l.tend(ctx, identity, service, nodes, err)
	}
	lb, err := l.find(ctx, service, identity)
	var shares *sharesError
	if errors.As(err, &shares) && len(w.awaits) > 0 { // it keeps what it shares until it can have its own
		return nil, l.tend(ctx, identity, service, nodes, l.refuseSecrets(ctx, identity, service, asked, w.awaits))
	}
	l.membership.forget(service)
	if errors.As(err, &shares) {
		lb, err = l.findAfterLeaving(ctx, service, identity)
	}
	if err != nil {
		return nil, err
	}
	if lb != nil && lb.State.Deleting() {
		return nil, api.NewRetryError(fmt.Sprintf("load balancer %s (%s) is being deleted: a new one is made when it is gone",
			lb.ID, lb.Name), retryWhile(lb))
	}
	if err := w.readPods(ctx); err != nil {
		return nil, err
	}
	missed, err := w.readNodes(ctx, nodes, asked.Selector)
	if err != nil {
		return nil, err
	}
	w.readServing(ctx)
	if lb == nil {
		if lb, err = w.adopt(ctx); err != nil {
			return nil, err
		}
	}
	if lb == nil {
		if lb, err = w.create(ctx); err != nil {
			return nil, err
		}
	} else if err := w.change(ctx, lb); err != nil {
		return nil, err
	}
	l.records.change(service.UID, func(r *serviceRecord) { r.labelled = lb.ID })
	l.noteUploaded(service, w.secrets)
	l.annotate(ctx, service, map[string]any{settings.AnnotationID: lb.ID, settings.AnnotationName: lb.Name})
	if missed != nil {
		return nil, missed
	}
	return w.withAwaited(w.published(lb))
}

// input is what the desired state follows from, on these networks.
func (w *work) input(networks []cloud.LoadBalancerNetwork) plan.Input {
	targets, _ := plan.Targets(w.nodes)
	serving := w.serving
	if !w.isCrowded() {
		serving = nil // there is no choice
	}
	return plan.Input{
		Identity: w.identity, Service: w.service, Settings: w.settings, Targets: targets, Pods: w.pods, Serving: serving, MaxMembers: w.config.MaxMembers,
		DefaultMode: w.config.DefaultMode, DefaultPlan: w.config.Plan, Networks: networks, Fingerprints: fingerprintsOf(w.secrets),
	}
}

// create makes the load balancer. A name that is taken may be by one of our own, whose making was never answered.
func (w *work) create(ctx context.Context) (*cloud.LoadBalancer, error) {
	place, err := w.place(ctx, w.settings, w.nodes)
	if err != nil {
		return nil, err
	}
	if err := w.placeNodes(ctx, place.Networks); err != nil {
		return nil, err
	}
	size, err := w.plan(ctx, cmp.Or(w.settings.Load.Plan, w.config.Plan))
	if err != nil {
		return nil, err
	}
	if err := w.checkOwnHosts(ctx); err != nil {
		return nil, err
	}
	desired := plan.DesiredState(w.input(place.Networks))
	if err := w.checkAddresses(ctx, desired, &cloud.LoadBalancer{}); err != nil {
		return nil, err
	}
	if err := w.provideCertificates(ctx, w.service, w.settings, w.secrets, desired, nil, false); err != nil {
		return nil, err
	}
	w.remark(nil, place.Outside, place.NetworkID)
	made := false
	lb, err := w.withRoom(ctx, func() (*cloud.LoadBalancer, error) {
		spec := desired.Create(place, size.Name, size.SessionsPerServer)
		lb, err := w.config.Cloud.CreateLoadBalancer(ctx, spec)
		if errors.Is(err, cloud.ErrAlreadyExists) || errors.Is(err, cloud.ErrBusy) {
			if lb, err = w.takenName(ctx, desired, err); err == nil || !w.isBlocked(ctx, desired, err) {
				return lb, err
			}
			spec.Name = plan.NamedLike(spec.Name, w.identity.ServiceUID)
			lb, err = w.config.Cloud.CreateLoadBalancer(ctx, spec)
		}
		made = err == nil
		return lb, err
	})
	if err != nil {
		return nil, err
	}
	if !made {
		return lb, nil
	}
	w.membership.set(w.service, lb, desired.MemberDigest())
	klog.FromContext(ctx).Info("Made a load balancer", "service", klog.KObj(w.service), "loadBalancer", lb.ID, "name", lb.Name)
	w.tell(w.service, "NewLoadBalancer", "Made load balancer %s (%s) in %s", lb.ID, lb.Name, lb.Zone)
	return lb, nil
}

func (w *work) takenName(ctx context.Context, desired plan.Desired, conflict error) (*cloud.LoadBalancer, error) {
	all, err := w.findByLabels(ctx, w.service, w.identity)
	if err != nil {
		return nil, err
	}
	if len(all) > 0 {
		return &all[0], nil
	}
	if len(desired.Addresses) > 0 && !errors.Is(conflict, cloud.ErrAlreadyExists) {
		return nil, conflict // of an address that is still attached elsewhere
	}
	return nil, because(ReasonNameTaken, fmt.Errorf("a load balancer named %[1]s exists, and its labels do not say that it is this Service's: %[2]s; if it is "+
		"another cluster's, give each cluster its own clusterID; else delete or rename it: %[3]w", cmp.Or(desired.Load.Name, w.identity.Name),
		w.adoptionOf(ctx, cmp.Or(desired.Load.Name, w.identity.Name)), conflict))
}

// change brings an existing load balancer up to date.
func (w *work) change(ctx context.Context, lb *cloud.LoadBalancer) error {
	w.identity = w.identity.Of(lb)
	if err := w.placeNodes(ctx, lb.Networks); err != nil {
		return err
	}
	desired := plan.DesiredState(w.input(lb.Networks))
	foreign, foreignRules := plan.Foreign(desired, lb), plan.ForeignRules(desired, lb)
	desired = desired.Without(foreign)
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	if err := w.checkAddresses(ctx, desired, lb); err != nil {
		return err
	}
	if err := w.checkOwnHosts(ctx); err != nil {
		return err
	}
	if err := w.provideCertificates(ctx, w.service, w.settings, w.secrets, desired, lb, w.adopted); err != nil {
		return err
	}
	w.remark(lb, nil, "")
	changes := plan.JoinAside(desired, lb, plan.Diff(desired, lb, limits))
	if losesOwnCertificate(w.identity, changes) {
		if err := w.claimOwnBundle(ctx, w.identity, lb); err != nil {
			return err
		}
	}
	if err := w.applyAll(ctx, w.service, lb, changes); err != nil {
		return err
	}
	w.joinings.see(w.service, lb, changes, w.now())
	if len(foreign)+len(foreignRules) == 0 {
		if !w.componentsOnly {
			w.membership.set(w.service, lb, desired.MemberDigest())
		}
		return w.awaited(desired)
	}
	problem := fmt.Sprintf("load balancer %s (%s) has frontends, backends or rules called %s that were not made for this Service: they "+
		"are left alone, and what should have been in their place is not there; rename the Service's ports or rules, or delete those",
		lb.ID, lb.Name, strings.Join(slices.Concat(foreign, foreignRules), ", "))
	w.warn(w.service, "ForeignComponent", "%s", problem)
	return because("ForeignComponent", api.NewRetryError(problem, refusedRetry))
}

// awaited asks to be called again while a frontend waits for a certificate.
func (w *work) awaited(desired plan.Desired) error {
	if len(desired.Awaited) == 0 {
		return nil
	}
	return because(ReasonCertificatePending, api.NewRetryError(fmt.Sprintf("the new certificate of %s is not issued yet, which UpCloud does once its host names lead to the load "+
		"balancer: until then the former one is presented", strings.Join(slices.Sorted(maps.Keys(desired.Awaited)), ", ")), certificateRetry))
}

// remark tells, once each, of what the Service asks for and does not get. lb is nil if it is just being made.
func (w *work) remark(lb *cloud.LoadBalancer, outside []string, network string) {
	if w.componentsOnly {
		return
	}
	remarks := slices.Concat(w.awaits, settings.Remarks(w.service, w.settings))
	if lb != nil {
		remarks = append(remarks, fixedAtCreation(w.settings, lb)...)
		remarks = append(remarks, hasAnother(w.settings, lb)...)
	}
	remarks = slices.Concat(remarks, plan.ForwardedRemarks(w.settings), w.foreignNodes(), w.localRemarks())
	if len(outside) > 0 {
		remarks = append(remarks, settings.Problem{Reason: "NodesOutsideNetwork", Message: fmt.Sprintf("Nodes %s have no internal address in network %s, to which "+
			"the load balancer is attached: it cannot reach them", strings.Join(outside, ", "), network)})
	}
	viaNodes := slices.ContainsFunc(w.service.Spec.Ports, func(p v1.ServicePort) bool { return p.NodePort > 0 })
	if targets, _ := plan.Targets(w.nodes); lb != nil && len(targets) == 0 && viaNodes {
		remarks = append(remarks, settings.Problem{Reason: "NoEligibleNodes", Message: "No node is left to get traffic: the members of the load balancer stay as they " +
			"are; look at the node labels and at annotation " + settings.AnnotationPrefix + settings.NodeSelectorName})
	}
	w.said.say(w.service, remarks, w.warn)
}

// fixedAtCreation tells what a Service asks for that can only be had by a new load balancer.
func fixedAtCreation(asked *settings.Settings, lb *cloud.LoadBalancer) []settings.Problem {
	var problems []settings.Problem
	add := func(what, have string) {
		problems = append(problems, settings.Problem{Reason: "FixedAtCreation", Message: fmt.Sprintf("The Service asks for %s, and load balancer %s (%s) was made with %s: "+
			"that cannot be changed; delete the Service and make it anew, if it must be", what, lb.ID, lb.Name, have)})
	}
	if asked.Zone != "" && asked.Zone != lb.Zone {
		add("zone "+asked.Zone, "zone "+lb.Zone)
	}
	if asked.Visibility != "" && len(plan.Visible(lb.Networks, asked.Visibility)) == 0 {
		add(asked.Visibility+" visibility", "no such network")
	}
	has := func(id string) bool {
		return slices.ContainsFunc(lb.Networks, func(n cloud.LoadBalancerNetwork) bool { return n.ID == id })
	}
	ids := slices.Clone(asked.Private)
	for _, network := range asked.Networks {
		ids = append(ids, network.ID)
	}
	for _, id := range ids {
		if id != "" && !has(id) {
			add("network "+id, "others")
		}
	}
	return problems
}

// sessions returns how many sessions members may have, asking for the plans only if any will be new or the plan changes.
func (w *work) sessions(ctx context.Context, desired plan.Desired, lb *cloud.LoadBalancer) (plan.SessionLimits, error) {
	var limits plan.SessionLimits
	want := desired.Load.Plan
	if want == "" && plan.NotesOf(lb.Labels, settings.LabelComponents).Has(plan.NoteLoad("plan")) {
		want = desired.DefaultPlan
	}
	if want != "" && want != lb.Plan {
		from, err := w.plan(ctx, lb.Plan)
		if err != nil && !errors.Is(err, errNoSuchPlan) {
			return limits, err
		}
		to, err := w.plan(ctx, want)
		if err != nil {
			return limits, err
		}
		return plan.SessionLimits{Fresh: to.SessionsPerServer, From: from.SessionsPerServer, To: to.SessionsPerServer}, nil
	}
	if !plan.NewMembers(desired, lb) && !resetsSessions(desired, lb) {
		return limits, nil
	}
	if !resetsSessions(desired, lb) {
		for _, backend := range lb.Backends { // a plan that is no longer offered is not in the list of plans
			for _, member := range backend.Members {
				if !plan.IsJoining(member) && !slices.ContainsFunc(desired.Backends, func(b plan.Backend) bool { return b.Name == backend.Name && b.MaxSessions != nil }) {
					return plan.SessionLimits{Fresh: member.MaxSessions}, nil
				}
			}
		}
	}
	size, err := w.plan(ctx, lb.Plan)
	return plan.SessionLimits{Fresh: size.SessionsPerServer}, err
}

// resetsSessions says whether a number of sessions is no longer asked for.
func resetsSessions(desired plan.Desired, lb *cloud.LoadBalancer) bool {
	ours := plan.NotesOf(lb.Labels, settings.LabelComponents)
	return slices.ContainsFunc(desired.Backends, func(b plan.Backend) bool {
		return b.MaxSessions == nil && ours.Has(plan.NoteBackend(b.Name, "max_sessions"))
	})
}

var errNoSuchPlan = errors.New("does not exist")

// plan returns a plan by name.
func (l *LoadBalancers) plan(ctx context.Context, name string) (cloud.LoadBalancerPlan, error) {
	plans, err := l.config.Cloud.LoadBalancerPlans(ctx)
	if err != nil {
		return cloud.LoadBalancerPlan{}, err
	}
	var known []string
	for _, size := range plans {
		if size.Name == name {
			return size, nil
		}
		known = append(known, size.Name)
	}
	return cloud.LoadBalancerPlan{}, fmt.Errorf("load balancer plan %q %w: set annotation %splan of the Service, or loadBalancerPlan "+
		"in the controller's configuration, to one of %s", name, errNoSuchPlan, settings.AnnotationPrefix, strings.Join(known, ", "))
}
