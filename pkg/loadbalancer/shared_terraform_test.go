package loadbalancer

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// onForeign is a Service with a route and a certificate on the frontend public-http of a load balancer that Terraform made.
func onForeign(t *testing.T) (a *account, l *LoadBalancers, made cloud.LoadBalancer, s *v1.Service) {
	t.Helper()
	a = newAccount(t, simulator.Config{}, "n1")
	made = a.foreign("edge")
	l = a.balancers(func(c *Config) {
		c.Shared = []settings.SharedAccess{{LoadBalancer: "edge"}, {LoadBalancer: made.ID}, {LoadBalancer: "renamed"}}
	})
	a.setSecret("www", "www.example.com")
	s = a.addService(sharingService("api", "edge", []string{"http 8080 30880"}, settings.RoutesName, `[{host: saas.example, path: /api}]`,
		settings.HubFrontendName, "public-http", "tls-secret", "www"))
	a.ensure(l, s)
	if got := ownParts(a.only()); got != "public-http: 1 rules, 1 certificates; 1 backends" {
		t.Fatal(got)
	}
	return a, l, made, s
}

// ownParts counts what Services have on the load balancer that onForeign makes.
func ownParts(lb cloud.LoadBalancer) string {
	var text string
	for _, frontend := range lb.Frontends {
		rules := 0
		for _, rule := range frontend.Rules {
			if strings.HasPrefix(rule.Name, "r") {
				rules++
			}
		}
		text += fmt.Sprintf("%s: %d rules, %d certificates; ", frontend.Name, rules, len(frontend.TLSConfigs))
	}
	return text + fmt.Sprintf("%d backends", len(lb.Backends)-1)
}

// A frontend that its owner moves to another port, or gives another mode, keeps what Services have on it.
func TestFrontendThatItsOwnerChangesKeepsTheRoutes(t *testing.T) {
	for change, reason := range map[string]string{`{"port":8443}`: "FrontendPortChanged", `{"name":"other"}`: "NoSuchFrontend"} {
		t.Run(change, func(t *testing.T) {
			a, l, made, s := onForeign(t)
			frontend := "/load-balancer/" + made.ID + "/frontends/public-http"
			a.said()
			a.Do(t, http.MethodPatch, frontend, change, nil)
			a.ResetRequests()
			for range 2 {
				_, _ = l.EnsureLoadBalancer(t.Context(), "prod", a.current(s), a.nodes)
			}
			if got := ownParts(a.only()); !strings.HasSuffix(got, ": 1 rules, 1 certificates; 1 backends") {
				t.Errorf("left: %s", got)
			}
			if writes := a.writes(); len(writes) > 0 {
				t.Errorf("written: %v", writes)
			}
			if said := a.said(); len(said) != 1 || !strings.Contains(said[0], reason) {
				t.Errorf("events: %v, want %s once", said, reason)
			}
			a.Do(t, http.MethodPatch, strings.TrimSuffix(frontend, "public-http")+a.only().Frontends[0].Name, `{"port":8080,"name":"public-http"}`, nil)
			a.ensure(l, s)
			if got := ownParts(a.only()); got != "public-http: 1 rules, 1 certificates; 1 backends" {
				t.Errorf("after it was changed back: %s", got)
			}
		})
	}
}

// A frontend that Terraform replaces has the rules and certificates again at the next look, and the backend was never gone.
func TestReplacedFrontendIsNoticedAtTheNextLook(t *testing.T) {
	a, l, made, _ := onForeign(t)
	services, nodes := a.listers()
	var looks sharedLooks
	look := func() { inOneRound(func(r *rounds) { l.lookShared(t.Context(), services, nodes, &looks, r) }) }
	a.ResetRequests()
	look()
	look()
	if requests := a.Requests(); requests.Total() != 2 || requests.Of("GET /load-balancer/{uuid}") != 2 {
		t.Errorf("two looks at what has not changed: %v", requests)
	}
	frontends := "/load-balancer/" + made.ID + "/frontends"
	a.Do(t, http.MethodDelete, frontends+"/public-http", "", nil)
	look()
	a.Do(t, http.MethodPost, frontends, `{"name":"public-http","mode":"http","port":8080,"default_backend":"theirs","networks":[{"name":"out"}]}`, nil)
	look()
	if got := ownParts(a.only()); got != "public-http: 1 rules, 1 certificates; 1 backends" {
		t.Error(got)
	}
	if n := a.Requests().Of("DELETE /load-balancer/{uuid}/backends/{backend}"); n > 0 {
		t.Error("the backend was deleted meanwhile")
	}
}

// The looks are what FollowShared does between its rounds.
func TestSharedLoadBalancersAreLookedAtOften(t *testing.T) {
	a, l, _, _ := onForeign(t)
	services, nodes := a.listers()
	a.ResetRequests()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.FollowShared(ctx, services, nodes)
	}()
	defer func() {
		stop()
		<-ended
	}()
	a.eventually("it is looked at in the round, and once more", func() string {
		if n := a.Requests().Of("GET /load-balancer/{uuid}"); n < 2 {
			return fmt.Sprint(n, " looks")
		}
		return ""
	})
}

// However many load balancers there are, a look costs one call, and each has its turn.
func TestLooksHaveTurns(t *testing.T) {
	var looks sharedLooks
	got := ""
	for _, ids := range []string{"abc", "abc", "abc", "abc", "acd", "d", "ab", ""} {
		id, _ := looks.next(strings.Split(ids, ""))
		got += id
	}
	if got != "abcacda" {
		t.Errorf("turns %s", got)
	}
}

// A load balancer that was renamed, or replaced, is named by an event, and what the event says helps.
func TestRenamedAndReplacedLoadBalancersAreNamed(t *testing.T) {
	t.Run("renamed", func(t *testing.T) {
		a, l, made, s := onForeign(t)
		a.Do(t, http.MethodPatch, "/load-balancer/"+made.ID, `{"name":"renamed"}`, nil)
		_, text := a.fails(l, s)
		if !strings.Contains(text, "renamed") || !strings.Contains(text, made.ID) {
			t.Error(text)
		}
		if got := ownParts(a.only()); got != "public-http: 1 rules, 1 certificates; 1 backends" {
			t.Error(got)
		}
		a.change(s, func(s *v1.Service) { s.Annotations[settings.AnnotationPrefix+settings.SharedName] = "renamed" })
		a.ensure(l, s)
	})
	t.Run("replaced", func(t *testing.T) {
		a, l, made, s := onForeign(t)
		a.change(s, func(s *v1.Service) { s.Annotations[settings.AnnotationPrefix+settings.SharedName] = made.ID })
		a.ensure(l, s)
		a.Do(t, http.MethodDelete, "/load-balancer/"+made.ID, "", nil)
		a.eventually("it is gone", func() string {
			if left := len(a.list()); left > 0 {
				return fmt.Sprint(left, " left")
			}
			return ""
		})
		other := a.foreign("edge")
		_, text := a.fails(l, s)
		if !strings.Contains(text, other.ID) {
			t.Error(text)
		}
		a.change(s, func(s *v1.Service) { s.Annotations[settings.AnnotationPrefix+settings.SharedName] = "edge" })
		a.ensure(l, s)
		if got := ownParts(a.only()); got != "public-http: 1 rules, 1 certificates; 1 backends" {
			t.Error(got)
		}
	})
}
