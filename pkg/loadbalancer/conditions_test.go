package loadbalancer

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// ready is the condition of a Service.
func (a *account) ready(s *v1.Service) metav1.Condition {
	a.t.Helper()
	if condition := meta.FindStatusCondition(a.current(s).Status.Conditions, ConditionReady); condition != nil {
		return *condition
	}
	return metav1.Condition{}
}

func (a *account) wantCondition(s *v1.Service, status metav1.ConditionStatus, reason, says string) {
	a.t.Helper()
	if got := a.ready(s); got.Status != status || got.Reason != reason || !strings.Contains(got.Message, says) {
		a.t.Errorf("condition %+v, want %s %s, %q", got, status, reason, says)
	}
}

// conditionWrites counts the patches of Services' statuses so far.
func (a *account) conditionWrites() int {
	return len(slices.DeleteFunc(slices.Clone(a.client.Actions()), func(action clienttesting.Action) bool {
		return action.GetVerb() != "patch" || action.GetSubresource() != "status"
	}))
}

func TestConditionFollowsTheService(t *testing.T) {
	clock := simulator.NewManualClock()
	a := newAccount(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	a.addNodeInTime(clock, "n1")
	l := a.balancers()
	l.deleteWait = time.Millisecond
	s := a.addService(example.Service("http 80 30080"))
	other := metav1.Condition{Type: "example.com/Mine", Status: metav1.ConditionTrue, Reason: "R", LastTransitionTime: metav1.NewTime(time.Unix(1, 0))}
	a.change(s, func(s *v1.Service) {
		example.Annotated(s, "mode", "quic")
		s.Status.Conditions = []metav1.Condition{other}
	})
	ensure := func() error {
		_, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
		return err
	}
	if ensure() == nil {
		t.Fatal("a wrong annotation is taken")
	}
	a.wantCondition(s, metav1.ConditionFalse, "InvalidAnnotation", "quic")
	a.change(s, func(s *v1.Service) { example.Annotated(s, "mode", "tcp") })
	if ensure() == nil {
		t.Fatal("it serves at once")
	}
	a.wantCondition(s, metav1.ConditionFalse, ReasonSettingUp, "is being set up")
	refused := a.ready(s).LastTransitionTime
	clock.Advance(time.Hour)
	if err := ensure(); err != nil {
		t.Fatal(err)
	}
	a.wantCondition(s, metav1.ConditionTrue, ReasonReady, "")
	if now := a.ready(s).LastTransitionTime; now.Before(&refused) {
		t.Errorf("it turned at %s, and was refused at %s", now, refused)
	}

	writes := a.conditionWrites()
	for range 3 {
		if err := ensure(); err != nil {
			t.Fatal(err)
		}
	}
	if again := a.conditionWrites(); again != writes {
		t.Errorf("%d writes of what was there", again-writes)
	}
	if got := a.current(s).Status.Conditions; len(got) != 2 || !slices.Contains(got, other) {
		t.Errorf("another's condition is gone: %+v", got)
	}

	a.change(s, func(s *v1.Service) {
		example.Annotated(s, "deletion-protection", "true")
		s.Spec.Type = v1.ServiceTypeClusterIP
	})
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s)); err == nil {
		t.Error("what is protected is deleted")
	}
	a.wantCondition(s, metav1.ConditionFalse, "DeletionProtected", "deletion-protection")
	a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+"deletion-protection") })
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s)); err == nil {
		t.Error("it is gone at once")
	}
	a.wantCondition(s, metav1.ConditionFalse, ReasonDeleting, "is being deleted")
	clock.Advance(time.Hour)
	if err := l.EnsureLoadBalancerDeleted(t.Context(), "prod", a.current(s)); err != nil {
		t.Fatal(err)
	}
	if got := a.current(s).Status.Conditions; len(got) != 1 || got[0] != other {
		t.Errorf("conditions of a Service without a load balancer: %+v", got)
	}
}

// What a Service does not get is told by the condition, and one that serves all the same is ready.
func TestConditionTellsRemarksAndConflicts(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	sticky := example.Service("http 80 30080")
	sticky.Spec.SessionAffinity = v1.ServiceAffinityClientIP
	sticky = a.addService(sticky)
	a.ensure(l, sticky)
	a.wantCondition(sticky, metav1.ConditionTrue, "UnsupportedSessionAffinity", "")

	first := a.addService(sharingService("first", "create/group", []string{"http 80 30080"}))
	second := a.addService(sharingService("second", "create/group", []string{"http 80 30080", "https 443 30443"}))
	third := a.addService(sharingService("third", "create/group", []string{"http 80 30080"}))
	a.ensure(l, first)
	a.wantCondition(first, metav1.ConditionTrue, ReasonReady, "")
	a.ensure(l, second) // gets one of its ports
	a.wantCondition(second, metav1.ConditionFalse, "PortConflict", "port 80")
	_, _ = a.fails(l, third)
	a.wantCondition(third, metav1.ConditionFalse, "PortConflict", "port 80")
	absent := a.addService(sharingService("absent", "nowhere", []string{"http 80 30080"}))
	_, _ = a.fails(l, absent)
	a.wantCondition(absent, metav1.ConditionFalse, "NoSuchLoadBalancer", "nowhere")
	a.delete(l, first)
	a.ensure(l, second)
	a.wantCondition(second, metav1.ConditionTrue, ReasonReady, "")
}

// A fault of the API is told; that another copy leads is not this one's to tell.
func TestConditionTellsFaults(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.change(s, func(s *v1.Service) { example.Annotated(s, "plan", "huge") })
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes); err == nil {
		t.Fatal("there is such a plan")
	}
	a.wantCondition(s, metav1.ConditionFalse, ReasonNoSuchPlan, "huge")

	fenced, err := cloud.New(cloud.Config{Token: a.Token, BaseURL: a.URL, BeforeChange: func(context.Context) error {
		return errors.New("another leads")
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fenced.Close)
	a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+"plan") })
	writes := a.conditionWrites()
	_, err = a.balancers(func(c *Config) { c.Cloud = fenced }).EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
	if err == nil || !strings.Contains(err.Error(), "another leads") || a.conditionWrites() != writes {
		t.Errorf("error %v, %d conditions written by a copy that does not lead", err, a.conditionWrites()-writes)
	}
}

// A Service that an informer shows late gets its condition once; one whose condition somebody took away gets it again.
func TestConditionIsWrittenOnce(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	now := time.Now()
	l.now = func() time.Time { return now }
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	stale := a.current(s)
	stale.Status.Conditions = nil
	writes := a.conditionWrites()
	for _, wait := range []time.Duration{0, informerLag / 2} {
		now = now.Add(wait)
		if _, err := l.EnsureLoadBalancer(t.Context(), "prod", stale, a.nodes); err != nil {
			t.Fatal(err)
		}
	}
	if again := a.conditionWrites(); again != writes {
		t.Errorf("%d writes of what was there", again-writes)
	}
	now = now.Add(informerLag)
	if _, err := l.EnsureLoadBalancer(t.Context(), "prod", stale, a.nodes); err != nil {
		t.Fatal(err)
	}
	if again := a.conditionWrites(); again != writes+1 {
		t.Errorf("%d writes of what somebody took away", again-writes)
	}
}

// The service controller's own write leaves the condition, and the condition leaves what it wrote.
func TestConditionBesideTheControllersStatus(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	before := a.current(s)
	a.ensure(l, s)
	if err := l.republish(before, &v1.LoadBalancerStatus{Ingress: []v1.LoadBalancerIngress{{Hostname: "a.example"}}}); err != nil {
		t.Fatal(err)
	}
	a.wantCondition(s, metav1.ConditionTrue, ReasonReady, "")
	l.reportOutcome(t.Context(), a.current(s), errors.New("x"))
	a.wantCondition(s, metav1.ConditionFalse, ReasonSyncFailed, "x")
	if got := a.current(s).Status.LoadBalancer.Ingress; len(got) == 0 || got[len(got)-1].Hostname != "a.example" {
		t.Errorf("published: %+v", got)
	}
}

// Drift that is mended ends what the condition told before.
func TestConditionFollowsTheCheck(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	id := a.only().ID
	a.Do(t, http.MethodDelete, "/load-balancer/"+id+"/frontends/http", "", nil)
	l.reportOutcome(t.Context(), a.current(s), errors.New("x"))
	a.check(l)
	a.wantCondition(s, metav1.ConditionTrue, ReasonReady, "")
}

// The controller asks whether there is a load balancer before it deletes one, and gets no further if the API refuses the credentials: the
// condition does not go on saying that all is well.
func TestConditionOfAServiceThatGoesWithoutCredentials(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := a.addService(example.Service("http 80 30080"))
	a.ensure(l, s)
	a.change(s, func(s *v1.Service) { s.Spec.Type = v1.ServiceTypeClusterIP })
	a.Inject(simulator.Fault{Status: http.StatusUnauthorized})
	if _, _, err := l.GetLoadBalancer(t.Context(), "prod", a.current(s)); err == nil {
		t.Fatal("there is an answer without credentials")
	}
	a.wantCondition(s, metav1.ConditionFalse, ReasonUnauthorized, "")
}

// A floating IP address that is not the account's is named before the API refuses the whole load balancer for it.
func TestAddressOfAnotherAccountAtCreation(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	s := example.Service("http 80 30080")
	s.Spec.LoadBalancerIP = "198.51.100.7"
	s = a.addService(s)
	a.ResetRequests()
	if _, text := a.fails(l, s); !strings.Contains(text, "spec.loadBalancerIP 198.51.100.7") {
		t.Errorf("error %s", text)
	}
	if said := strings.Join(a.said(), "\n"); !strings.Contains(said, "UnsupportedLoadBalancerIP") {
		t.Errorf("events: %s", said)
	}
	if n := a.Requests().Of("POST /load-balancer"); n > 0 {
		t.Errorf("%d load balancers were asked for", n)
	}
	a.wantCondition(s, metav1.ConditionFalse, "UnsupportedLoadBalancerIP", "198.51.100.7")
}
