package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// component is a part of a load balancer, and whose it is: a Service's key, shared for what hubs consist of, or empty for others'.
type component struct{ owner, content string }

const ofHubs = "hub"

// componentsOf takes a load balancer apart. Rules are found by their port, as the name of their frontend may change.
func componentsOf(lb map[string]any) map[string]component {
	all := map[string]component{}
	if lb == nil {
		return all
	}
	text, _ := json.Marshal(lb)
	var read cloud.LoadBalancer
	if err := json.Unmarshal(text, &read); err != nil {
		panic(err)
	}
	add := func(name, owner string, content any) {
		text, _ := json.Marshal(content)
		all[name] = component{owner, string(text)}
	}
	add("itself", "", []any{read.Name, read.Plan, read.Networks, read.Addresses, read.Resolvers, read.Labels["made-by"]})
	for _, b := range read.Backends {
		owner := plan.KeyOf(b.Name)
		if b.Name == plan.NoneBackend {
			owner = ofHubs
		}
		add("backend "+b.Name, owner, b)
	}
	for _, f := range read.Frontends {
		owner := plan.KeyOf(f.DefaultBackend)
		if plan.FrontendOwner(f) == "" {
			owner = ""
		}
		if plan.IsHub(f) {
			owner = ofHubs
		}
		for _, r := range f.Rules {
			key, backend := plan.RuleOwner(r)
			if key != "" {
				key = plan.KeyOf(backend)
			}
			add(fmt.Sprintf("rule %s on port %d", r.Name, f.Port), key, r)
		}
		for _, t := range f.TLSConfigs {
			add(fmt.Sprintf("certificate %s on port %d", t.Name, f.Port), plan.KeyOf(t.Name), t)
		}
		f.Rules, f.TLSConfigs = nil, nil
		name := f.Name
		if owner == ofHubs {
			name, f.Name = "ccm-"+plan.HubPort(f.Name), ""
		}
		add("frontend "+name, owner, f)
	}
	return all
}

// onlyOwn returns what a step of a Service's controller has done to what is not the Service's.
func onlyOwn(key string, before, after map[string]component) error {
	for name, was := range before {
		is, there := after[name]
		switch {
		case was.owner == key, was.owner == ofHubs && (!there || is == was || is.owner == key):
		case !there:
			return fmt.Errorf("%s of %q is gone", name, was.owner)
		case is != was:
			return fmt.Errorf("%s of %q has changed: %s", name, was.owner, cmp.Diff(was.content, is.content))
		}
	}
	for name, is := range after {
		if _, there := before[name]; !there && is.owner != key && is.owner != ofHubs && len(before) > 0 {
			return fmt.Errorf("%s of %q was made", name, is.owner)
		}
	}
	return nil
}

// settled lets the controllers of the Services that are left come to an end, and looks whether all is as it should be.
func (w *world) settled() error {
	for _, a := range w.acts {
		a.gate.open.Store(true)
	}
	live := w.s.live(w)
	var losers []string
	for range 2 {
		losers = nil
		for i, s := range live {
			if s == nil {
				continue // it was deleted
			}
			l := w.controller(w.acts[i].cluster, w.acts[i].gate.cloud)
			err := ensuring(w, s)(klog.NewContext(w.t.Context(), logr.Discard()), l)
			if err != nil {
				return fmt.Errorf("%s does not get what it wants: %w", s.Name, err)
			}
			if !w.serves(w.acts[i].cluster, s) {
				losers = append(losers, s.Name)
			}
		}
	}
	if len(losers) != w.s.losers {
		return fmt.Errorf("without anything: %v, want %d of them", losers, w.s.losers)
	}
	for _, name := range losers {
		if !slices.ContainsFunc(w.told, func(event string) bool {
			return strings.HasPrefix(event, name+" ") && strings.Contains(event, "Conflict")
		}) {
			return fmt.Errorf("%s was not told", name)
		}
	}
	keys := map[string]bool{"": true}
	hubs := false
	for _, s := range live {
		if s != nil {
			keys[(plan.Identity{ServiceUID: string(s.UID)}).ServiceKey()] = true
			hubs = hubs || s.Annotations[settings.AnnotationPrefix+settings.RoutesName] != ""
		}
	}
	for name, c := range componentsOf(w.read()) {
		if !keys[c.owner] && !(c.owner == ofHubs && hubs) {
			return fmt.Errorf("%s is an orphan", name)
		}
	}
	return nil
}

// serves says whether a Service has everything that it wants, with its members.
func (w *world) serves(cluster string, s *v1.Service) bool {
	asked, problems := settings.Parse(s)
	if len(problems) > 0 {
		w.t.Fatal(problems)
	}
	text, _ := json.Marshal(w.read())
	lb := &cloud.LoadBalancer{}
	if err := json.Unmarshal(text, lb); err != nil {
		w.t.Fatal(err)
	}
	targets, _ := plan.Targets(w.account.nodes)
	want := plan.SharedState(plan.Input{Identity: plan.NewIdentity("", cluster, s), Service: s, Settings: asked, Targets: targets, MaxMembers: 10,
		Networks: lb.Networks}, lb)
	shares := plan.ShareDiff(want, lb, plan.SessionLimits{Fresh: 1000})
	if len(shares.Changes) > 0 {
		w.t.Errorf("%s: left to do for %s: %v", w.s.name, s.Name, fmt.Sprint(shares.Changes))
	}
	return len(shares.Conflicts) == 0
}

// ensuring is what the service controller calls for a Service that is wanted. A conflict is an end: it is told, and tried again
// later.
func ensuring(w *world, s *v1.Service) func(context.Context, *LoadBalancers) error {
	return func(ctx context.Context, l *LoadBalancers) error {
		_, err := l.EnsureLoadBalancer(ctx, "", s, w.account.nodes)
		var later *api.RetryError
		if errors.As(err, &later) && (strings.Contains(err.Error(), "belongs to") || strings.Contains(err.Error(), "carries the routes") ||
			strings.Contains(err.Error(), "being set up") || strings.Contains(err.Error(), "about to be deleted")) {
			return nil
		}
		return err
	}
}

func deleting(w *world, s *v1.Service) func(context.Context, *LoadBalancers) error {
	return func(ctx context.Context, l *LoadBalancers) error {
		_, exists, err := l.GetLoadBalancer(ctx, "", s)
		if err != nil || !exists {
			return err
		}
		return l.EnsureLoadBalancerDeleted(ctx, "", s)
	}
}

// savedEdge is a load balancer as every schedule of a scenario finds it.
type savedEdge struct{ id, name, body string }

// edge makes a load balancer as Terraform would, with these Services on it already; or, if there is one from another schedule, makes
// it be as it was.
func edge(services ...func(w *world) *v1.Service) func(*world) {
	return func(w *world) {
		w.kept = true
		if saved := w.edges[w.s.name]; saved != nil {
			w.lbID, w.lbName = saved.id, saved.name
			if status, text := w.call(http.MethodPut, "/load-balancer/"+saved.id, saved.body); status != http.StatusOK {
				w.t.Fatalf("%d %s", status, text)
			}
			return
		}
		lb := w.account.foreign(w.lbName)
		w.account.settle(lb.ID)
		w.lbID = lb.ID
		for i, make := range services {
			s := make(w)
			if err := ensuring(w, s)(w.t.Context(), w.controller(clusters[i], w.gates[i].cloud)); err != nil {
				w.t.Fatal(err)
			}
		}
		w.account.settle(lb.ID)
		state := w.read()
		whole := map[string]any{}
		for _, field := range []string{"name", "plan", "configured_status", "frontends", "backends", "resolvers", "labels"} {
			whole[field] = state[field]
		}
		w.edges[w.s.name] = &savedEdge{lb.ID, w.lbName, example.JSON(w.t, whole)}
	}
}

var clusters = []string{"x", "y", "z"}

// onEdge is a Service that is on the load balancer, or wants to be.
func onEdge(s *v1.Service) func(*world) *v1.Service {
	return func(w *world) *v1.Service {
		s := s.DeepCopy()
		s.Annotations[settings.AnnotationPrefix+settings.SharedName] = w.lbID
		s.Annotations[settings.AnnotationID] = w.lbID
		return s
	}
}

func routed(name, path string) func(*world) *v1.Service {
	return onEdge(routing(name, "to-be-set", fmt.Sprintf(`[{host: saas.example, path: %s}]`, path)))
}

func ported(name string, port int) func(*world) *v1.Service {
	return onEdge(sharingService(name, "to-be-set", []string{fmt.Sprintf("p %d 30022", port)}))
}

// inGroup is a Service of the group that is called like the load balancer.
func inGroup(name, path string) func(*world) *v1.Service {
	return func(w *world) *v1.Service {
		return routing(name, settings.GroupPrefix+w.lbName, fmt.Sprintf(`[{host: saas.example, path: %s}]`, path))
	}
}

// does makes players: each cluster has one Service, which it ensures as it is made, or deletes.
func does(all ...any) func(*world) []player {
	return func(w *world) []player {
		var players []player
		for i := 0; i < len(all); i += 2 {
			s := all[i+1].(func(*world) *v1.Service)(w)
			do := ensuring(w, s)
			if all[i] == "delete" {
				do = deleting(w, s)
			}
			players = append(players, player{clusters[i/2], plan.Identity{ServiceUID: string(s.UID)}.ServiceKey(),
				[]func(context.Context, *LoadBalancers) error{do}})
		}
		return players
	}
}

func lives(all ...func(*world) *v1.Service) func(*world) []*v1.Service {
	return func(w *world) []*v1.Service {
		var services []*v1.Service
		for _, make := range all {
			if make == nil {
				services = append(services, nil)
				continue
			}
			services = append(services, make(w))
		}
		return services
	}
}

var scenarios = []scenario{
	{name: "group", allOnly: true, prepare: func(*world) {}, players: does("ensure", inGroup("one", "/foo"), "ensure", inGroup("two", "/foo")),
		live: lives(inGroup("one", "/foo"), inGroup("two", "/foo")), losers: 1},
	{name: "two routes", faults: 1, large: true, prepare: edge(), players: does("ensure", routed("one", "/foo"), "ensure", routed("two", "/bar")),
		live: lives(routed("one", "/foo"), routed("two", "/bar"))},
	{name: "one route", faults: 1, large: true, prepare: edge(), players: does("ensure", routed("one", "/foo"), "ensure", routed("two", "/foo")),
		live: lives(routed("one", "/foo"), routed("two", "/foo")), losers: 1},
	{name: "one port", faults: 1, prepare: edge(), players: does("ensure", ported("one", 22), "ensure", ported("two", 22)),
		live: lives(ported("one", 22), ported("two", 22)), losers: 1},
	{name: "port and route", faults: 1, prepare: edge(), players: does("ensure", ported("one", 80), "ensure", routed("two", "/foo")),
		live: lives(ported("one", 80), routed("two", "/foo")), losers: 1},
	{name: "port goes", faults: 1, prepare: edge(ported("one", 22)), players: does("delete", ported("one", 22), "ensure", ported("two", 22)),
		live: lives(nil, ported("two", 22))},
	{name: "route goes", faults: 1, large: true, prepare: edge(routed("one", "/foo")), players: does("delete", routed("one", "/foo"), "ensure", routed("two", "/foo")),
		live: lives(nil, routed("two", "/foo"))},
	{name: "last route goes", faults: 1, large: true, prepare: edge(routed("one", "/foo")), players: does("delete", routed("one", "/foo"), "ensure", routed("two", "/bar")),
		live: lives(nil, routed("two", "/bar"))},
	{name: "both go", faults: 1, large: true, prepare: edge(routed("one", "/foo"), routed("two", "/bar")),
		players: does("delete", routed("one", "/foo"), "delete", routed("two", "/bar")), live: lives()},
	{name: "route moves", faults: 1, large: true, prepare: edge(routed("one", "/foo")), players: does("ensure", routed("one", "/bar"), "ensure", routed("two", "/foo")),
		live: lives(routed("one", "/bar"), routed("two", "/foo"))},
}

// Two controllers at one load balancer, in every order of their requests, with every death and lost answer. For the largest
// scenarios those take minutes, and are left out unless SCHEDULES=all; so is the one that makes a load balancer each time.
func TestControllersRacing(t *testing.T) {
	th := newTheatre(t, len(clusters))
	for _, s := range scenarios {
		if s.large && os.Getenv("SCHEDULES") != "all" {
			s.faults = 0
		}
		if s.allOnly && os.Getenv("SCHEDULES") != "all" {
			continue
		}
		begun := time.Now()
		schedules, points := th.explore(s)
		t.Logf("%s: %d schedules, %d points, %s", s.name, schedules, points, time.Since(begun))
		if t.Failed() {
			return
		}
		if schedules < 8 {
			t.Errorf("%s: only %d schedules: the controllers do not race", s.name, schedules)
		}
	}
}
