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
)

const (
	// refusedRetry is when a Service that cannot have a load balancer is looked at again. A change of the Service comes
	// before that by itself; this is only so that its event does not fade away.
	refusedRetry = 15 * time.Minute
	// secretRetry is when a Service is looked at again whose Secret is missing or wrong: nothing tells of the first Secret
	// that anybody names.
	secretRetry = 30 * time.Second
	// certificateRetry is when a Service is looked at again that waits for a certificate.
	certificateRetry = 2 * time.Minute
)

// work is one Service on its way to a load balancer.
type work struct {
	*LoadBalancers
	service  *v1.Service
	identity Identity
	settings *Settings
	secrets  map[string]secret
	nodes    []*v1.Node          // eligible, with addresses
	told     []*v1.Node          // as the controller told them
	pods     map[string][]Target // see Input
	// componentsOnly: the nodes are not known, and members stay as they are.
	componentsOnly bool
}

// ensure makes the Service's load balancer be as desired, one step nearer each time it is called.
func (l *LoadBalancers) ensure(
	ctx context.Context, identity Identity, service *v1.Service, nodes []*v1.Node,
) (*v1.LoadBalancerStatus, error) {
	l.membership.forget(service)
	settings, problems := ParseSettings(service)
	if problems = slices.Concat(l.problems(service, settings), problems); len(problems) > 0 {
		return nil, l.refuseAndTend(ctx, identity, service, nodes, problems)
	}
	if settings.Shared != nil {
		l.tending.forget(service.UID)
		return l.ensureSharing(ctx, identity, service, settings, nodes)
	}
	l.tending.note(service, nodes)
	w := &work{LoadBalancers: l, service: service, identity: identity, settings: settings}
	var err error
	if w.secrets, err = l.readSecrets(ctx, service, settings); err != nil {
		return nil, l.refuseSecret(service, err)
	}
	lb, err := l.findAfterLeaving(ctx, service, identity)
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
	var missed error
	w.nodes, missed = l.withAddresses(ctx, Eligible(nodes, l.config.Scope, settings.Selector))
	if lb == nil {
		if lb, err = w.create(ctx); err != nil {
			return nil, err
		}
	} else if err := w.change(ctx, lb); err != nil {
		return nil, err
	}
	l.annotate(ctx, service, map[string]any{AnnotationID: lb.ID, AnnotationName: lb.Name})
	if missed != nil {
		return nil, missed
	}
	return w.published(lb)
}

// refuse returns an error, and puts events on the Service: it cannot have a load balancer.
func (l *LoadBalancers) refuse(service *v1.Service, problems []Problem) error {
	consequence := "No load balancer"
	if len(service.Status.LoadBalancer.Ingress) > 0 || service.Annotations[AnnotationID] != "" {
		// It is not to be believed closed by who has just asked for that.
		consequence = "The load balancer that there is stays as it was, open to the same clients"
	}
	var messages []string
	for _, problem := range problems {
		l.warn(service, problem.Reason, "%s: %s", consequence, problem.Message)
		messages = append(messages, problem.Message)
	}
	text := strings.ToLower(consequence[:1]) + consequence[1:] + ": " + strings.Join(messages, "; ")
	return because(problems[0].Reason, api.NewRetryError(text, refusedRetry))
}

// refuseAndTend is refuse for a Service that may have a load balancer whose members are Pods: others may have come, and gone, since
// somebody looked.
func (l *LoadBalancers) refuseAndTend(
	ctx context.Context, identity Identity, service *v1.Service, nodes []*v1.Node, problems []Problem,
) error {
	refused := l.refuse(service, problems)
	if _, slips := ParseSettings(service); !l.byPods(service) && (!l.config.PodMembers || len(slips) == 0) {
		return refused // no Pods are members
	}
	if err := l.update(ctx, identity, service, nodes); err != nil { // is tried again sooner than what is refused
		return notFollowed(refused, err)
	}
	return refused
}

// notFollowed is the error for a Service that is told of something, and of which Pods may be members that could not be followed
// meanwhile.
func notFollowed(told, failed error) error {
	return because(reasonOf(told), fmt.Errorf("%s; and Pods that came or went meanwhile are not followed yet: %w", told.Error(), failed))
}

// refuseSecret is refuse for a Secret, whose mending nothing may tell of.
func (l *LoadBalancers) refuseSecret(service *v1.Service, err error) error {
	var mistake errSecret
	if !errors.As(err, &mistake) {
		return err
	}
	l.said.say(service, []Problem{{"InvalidSecret", mistake.text}}, l.warn)
	return because("InvalidSecret", api.NewRetryError(mistake.text, secretRetry))
}

// input is what the desired state follows from, on these networks.
func (w *work) input(networks []cloud.LoadBalancerNetwork) Input {
	targets, _ := Targets(w.nodes)
	return Input{
		Identity: w.identity, Service: w.service, Settings: w.settings, Targets: targets, Pods: w.pods, MaxMembers: w.config.MaxMembers,
		DefaultMode: w.config.DefaultMode, DefaultPlan: w.config.Plan, Networks: networks, Fingerprints: fingerprintsOf(w.secrets),
	}
}

// create makes the load balancer. A name that is taken may be by one of our own, whose making was never answered.
func (w *work) create(ctx context.Context) (*cloud.LoadBalancer, error) {
	place, err := w.place(ctx, w.settings, w.nodes)
	if err != nil {
		return nil, err
	}
	plan, err := w.plan(ctx, cmp.Or(w.settings.Load.Plan, w.config.Plan))
	if err != nil {
		return nil, err
	}
	desired := DesiredState(w.input(place.Networks))
	if err := w.provideCertificates(ctx, w.service, w.settings, w.secrets, desired, nil); err != nil {
		return nil, err
	}
	w.remark(nil, place.Outside, place.NetworkID)
	lb, err := w.config.Cloud.CreateLoadBalancer(ctx, desired.Create(place, plan.Name, plan.SessionsPerServer))
	if errors.Is(err, cloud.ErrAlreadyExists) || errors.Is(err, cloud.ErrBusy) {
		return w.takenName(ctx, desired, err)
	}
	if err != nil {
		return nil, err
	}
	w.membership.set(w.service, lb.ID, desired.members())
	klog.FromContext(ctx).Info("Made a load balancer", "service", klog.KObj(w.service), "loadBalancer", lb.ID, "name", lb.Name)
	w.tell(w.service, "NewLoadBalancer", "Made load balancer %s (%s) in %s", lb.ID, lb.Name, lb.Zone)
	return lb, nil
}

func (w *work) takenName(ctx context.Context, desired Desired, conflict error) (*cloud.LoadBalancer, error) {
	all, err := w.findByLabels(ctx, w.identity)
	if err != nil {
		return nil, err
	}
	if len(all) > 0 {
		return &all[0], nil
	}
	if len(desired.Addresses) > 0 && !errors.Is(conflict, cloud.ErrAlreadyExists) {
		return nil, conflict // of an address that is still attached elsewhere
	}
	return nil, because(ReasonNameTaken, fmt.Errorf("a load balancer named %s exists, and its labels do not say that it is this Service's: if it is, "+
		"name its UUID in annotation %s of the Service; if it is another cluster's, give each cluster its own clusterID; else delete "+
		"or rename it: %w", cmp.Or(desired.Load.Name, w.identity.Name), AnnotationID, conflict))
}

// change brings an existing load balancer up to date.
func (w *work) change(ctx context.Context, lb *cloud.LoadBalancer) error {
	w.identity = w.identity.of(lb)
	desired := DesiredState(w.input(lb.Networks))
	foreign, foreignRules := Foreign(desired, lb), ForeignRules(desired, lb)
	desired = desired.without(foreign)
	limits, err := w.sessions(ctx, desired, lb)
	if err != nil {
		return err
	}
	if err := w.checkAddresses(ctx, desired, lb); err != nil {
		return err
	}
	if err := w.provideCertificates(ctx, w.service, w.settings, w.secrets, desired, lb); err != nil {
		return err
	}
	w.remark(lb, nil, "")
	changes := joinAside(desired, lb, Diff(desired, lb, limits))
	if err := w.apply(ctx, w.service, lb, changes); err != nil {
		return err
	}
	w.joinings.see(w.service, lb, changes, w.now())
	if len(foreign)+len(foreignRules) == 0 {
		if !w.componentsOnly {
			w.membership.set(w.service, lb.ID, desired.members())
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
func (w *work) awaited(desired Desired) error {
	if len(desired.awaited) == 0 {
		return nil
	}
	return because(ReasonCertificatePending, api.NewRetryError(fmt.Sprintf("the new certificate of %s is not issued yet, which UpCloud does once its host names lead to the load "+
		"balancer: until then the former one is presented", strings.Join(slices.Sorted(maps.Keys(desired.awaited)), ", ")), certificateRetry))
}

// remark tells, once each, of what the Service asks for and does not get. lb is nil if it is just being made.
func (w *work) remark(lb *cloud.LoadBalancer, outside []string, network string) {
	if w.componentsOnly {
		return
	}
	remarks := Remarks(w.service, w.settings)
	if lb != nil {
		remarks = append(remarks, fixedAtCreation(w.settings, lb)...)
	}
	if len(outside) > 0 {
		remarks = append(remarks, Problem{"NodesOutsideNetwork", fmt.Sprintf("Nodes %s have no internal address in network %s, to which "+
			"the load balancer is attached: it cannot reach them", strings.Join(outside, ", "), network)})
	}
	viaNodes := slices.ContainsFunc(w.service.Spec.Ports, func(p v1.ServicePort) bool { return p.NodePort > 0 })
	if targets, _ := Targets(w.nodes); lb != nil && len(targets) == 0 && viaNodes {
		remarks = append(remarks, Problem{"NoEligibleNodes", "No node is left to get traffic: the members of the load balancer stay as they " +
			"are; look at the node labels and at annotation " + AnnotationPrefix + nodeSelectorName})
	}
	w.said.say(w.service, remarks, w.warn)
}

// fixedAtCreation tells what a Service asks for that can only be had by a new load balancer.
func fixedAtCreation(settings *Settings, lb *cloud.LoadBalancer) []Problem {
	var problems []Problem
	add := func(what, have string) {
		problems = append(problems, Problem{"FixedAtCreation", fmt.Sprintf("The Service asks for %s, and load balancer %s (%s) was made with %s: "+
			"that cannot be changed; delete the Service and make it anew, if it must be", what, lb.ID, lb.Name, have)})
	}
	if settings.Zone != "" && settings.Zone != lb.Zone {
		add("zone "+settings.Zone, "zone "+lb.Zone)
	}
	if settings.Visibility != "" && len(visible(lb.Networks, settings.Visibility)) == 0 {
		add(settings.Visibility+" visibility", "no such network")
	}
	has := func(id string) bool {
		return slices.ContainsFunc(lb.Networks, func(n cloud.LoadBalancerNetwork) bool { return n.ID == id })
	}
	ids := slices.Clone(settings.Private)
	for _, network := range settings.Networks {
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
func (w *work) sessions(ctx context.Context, desired Desired, lb *cloud.LoadBalancer) (sessionLimits, error) {
	var limits sessionLimits
	want := desired.Load.Plan
	if want == "" && notesOf(lb.Labels, LabelComponents).has(noteLoad("plan")) {
		want = desired.defaultPlan
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
		return sessionLimits{fresh: to.SessionsPerServer, from: from.SessionsPerServer, to: to.SessionsPerServer}, nil
	}
	if !NewMembers(desired, lb) && !resetsSessions(desired, lb) {
		return limits, nil
	}
	if !resetsSessions(desired, lb) {
		for _, backend := range lb.Backends { // a plan that is no longer offered is not in the list of plans
			for _, member := range backend.Members {
				if !isJoining(member) && !slices.ContainsFunc(desired.Backends, func(b Backend) bool { return b.Name == backend.Name && b.MaxSessions != nil }) {
					return sessionLimits{fresh: member.MaxSessions}, nil
				}
			}
		}
	}
	plan, err := w.plan(ctx, lb.Plan)
	return sessionLimits{fresh: plan.SessionsPerServer}, err
}

// resetsSessions says whether a number of sessions is no longer asked for.
func resetsSessions(desired Desired, lb *cloud.LoadBalancer) bool {
	ours := notesOf(lb.Labels, LabelComponents)
	return slices.ContainsFunc(desired.Backends, func(b Backend) bool {
		return b.MaxSessions == nil && ours.has(noteBackend(b.Name, "max_sessions"))
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
	for _, plan := range plans {
		if plan.Name == name {
			return plan, nil
		}
		known = append(known, plan.Name)
	}
	return cloud.LoadBalancerPlan{}, fmt.Errorf("load balancer plan %q %w: set annotation %splan of the Service, or loadBalancerPlan "+
		"in the controller's configuration, to one of %s", name, errNoSuchPlan, AnnotationPrefix, strings.Join(known, ", "))
}
