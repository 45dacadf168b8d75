package loadbalancer

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

var www = cache.NewObjectName("default", "www")

// look looks at the Secret default/www once, as FollowSecrets does, and returns when to look again.
func (a *account) look(l *LoadBalancers) time.Duration {
	a.t.Helper()
	services, nodes := a.listers()
	pause, err := l.lookAt(a.t.Context(), a.client.CoreV1(), www, services, nodes)
	if err != nil {
		a.t.Fatal(err)
	}
	return pause
}

// secretCalls are the calls about Secrets since it was last asked, and clears them.
func (a *account) secretCalls() (calls []string) {
	for _, action := range a.client.Actions() {
		if action.GetResource().Resource != "secrets" {
			continue
		}
		call := action.GetVerb()
		if get, ok := action.(clienttesting.GetActionImpl); ok {
			call += " " + get.Namespace + "/" + get.Name + " " + get.GetOptions.ResourceVersion
		}
		calls = append(calls, call)
	}
	a.client.ClearActions()
	return calls
}

// withCertificates are two Services that present the certificate of the Secret default/www.
func (a *account) withCertificates(l *LoadBalancers) {
	a.t.Helper()
	for _, name := range []string{"one", "two"} {
		s := example.Annotated(example.Service("https 443 30443"), "tls-secret", "www")
		s.Name, s.UID = name, types.UID("uid-"+name)
		a.ensure(l, a.addService(s))
	}
}

// Secrets are asked for by the names that Services have for them, once for all Services, and in the API server's memory.
func TestSecretsAreReadByNameOnly(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	a.setSecret("other", "other.example.com")
	a.withCertificates(l)
	for _, call := range a.secretCalls() {
		if call != "create" && call != "update" && !strings.HasPrefix(call, "get default/www ") {
			t.Errorf("call: %s", call)
		}
	}
	for range 3 {
		a.ResetRequests()
		if pause := a.look(l); pause < secretPause*4/5 || pause > secretPause*6/5 {
			t.Errorf("looked at again after %s", pause)
		}
		if calls := a.secretCalls(); !slices.Equal(calls, []string{"get default/www 0"}) {
			t.Errorf("calls for a Secret that two Services name: %q", calls)
		}
		if n := a.Requests().Total(); n != 0 {
			t.Errorf("%d requests to the UpCloud API for a Secret that has not changed", n)
		}
	}
	renewed := string(a.setSecret("www", "www.example.com"))
	a.look(l)
	for _, bundle := range a.bundles() {
		if string(bundle.Certificate) != renewed {
			t.Errorf("bundle %s has not the Secret's certificate", bundle.Name)
		}
	}
	if n := len(a.bundles()); n != 2 {
		t.Errorf("%d bundles", n)
	}
	a.ResetRequests()
	a.look(l)
	if n := a.Requests().Total(); n != 0 {
		t.Errorf("%d requests to the UpCloud API after the renewal", n)
	}
}

// A Secret that appears after its Service is noticed, and one that may not be read is told of and noticed when it may be.
func TestSecretsThatCannotBeReadYet(t *testing.T) {
	for _, test := range []struct {
		name, want string
		spoil      func(*account) (repair func())
	}{
		{"missing", "CertificatePending annotation service.beta.kubernetes.io/upcloud-load-balancer-tls-secret: Secret default/www does not exist yet", func(a *account) func() {
			if err := a.client.CoreV1().Secrets("default").Delete(a.t.Context(), "www", metav1.DeleteOptions{}); err != nil {
				a.t.Fatal(err)
			}
			return func() {}
		}},
		{"forbidden", "bind the ClusterRole upcloud-ccm-secrets", func(a *account) func() {
			forbidden := true
			a.client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
				return forbidden, nil, apierrors.NewForbidden(v1.Resource("secrets"), "www", nil)
			})
			return func() { forbidden = false }
		}},
	} {
		a := newAccount(t, simulator.Config{}, "n1")
		l := a.balancers()
		a.setSecret("www", "www.example.com")
		s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www"))
		a.ensure(l, s)
		repair := test.spoil(a)
		a.said()
		a.look(l)
		if said := a.said(); len(said) != 1 || !strings.Contains(said[0], test.want) || test.name == "forbidden" && !strings.Contains(said[0], "InvalidSecret") {
			t.Errorf("%s: events: %q", test.name, said)
		}
		a.look(l)
		if said := a.said(); len(said) > 0 {
			t.Errorf("%s: events at the second look: %q", test.name, said)
		}
		repair()
		renewed := a.setSecret("www", "www.example.com")
		a.look(l)
		if !a.bundleHas(renewed) {
			t.Errorf("%s: the certificate is not the Secret's", test.name)
		}
	}
}

// A renewal that fails is tried again, less and less often, and without another look in between if the Secret stays.
func TestARenewalThatFailsIsTriedAgain(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	now := time.Now()
	l.now = func() time.Time { return now }
	a.setSecret("www", "www.example.com")
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www"))
	a.ensure(l, s)
	renewed := a.setSecret("www", "www.example.com")
	repair := a.Inject(simulator.Fault{Operation: "PATCH /load-balancer/certificate-bundles/*", Status: http.StatusForbidden})
	for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if pause := a.look(l); pause != want {
			t.Errorf("tried again after %s, want %s", pause, want)
		}
		a.ResetRequests()
		a.look(l)
		if n := a.Requests().Total(); n != 0 {
			t.Errorf("%d requests to the UpCloud API before it is time", n)
		}
		now = now.Add(want)
	}
	repair()
	a.look(l)
	if !a.bundleHas(renewed) {
		t.Error("the certificate is not the Secret's")
	}
}

// A Secret is looked at for as long as a Service names it.
func TestSecretsThatNoServiceNamesAreNotLookedAt(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	l := a.balancers()
	a.setSecret("www", "www.example.com")
	s := a.addService(example.Annotated(example.Service("https 443 30443"), "tls-secret", "www"))
	a.ensure(l, s)
	if a.look(l) == 0 {
		t.Error("the Secret is not looked at")
	}
	a.change(s, func(s *v1.Service) { delete(s.Annotations, settings.AnnotationPrefix+"tls-secret") })
	a.ensure(l, s)
	a.secretCalls()
	if again := a.look(l); again != 0 || len(a.secretCalls()) > 0 {
		t.Error("a Secret that no Service names is looked at")
	}
	a.change(s, func(s *v1.Service) { example.Annotated(s, "tls-secret", "www") })
	l.secretUse.fresh = nil
	a.ensure(l, s)
	if !slices.Contains(l.secretUse.fresh, www) || a.look(l) == 0 {
		t.Error("a Secret that is named again is not looked at")
	}
	if err := a.client.CoreV1().Services("default").Delete(t.Context(), s.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	a.look(l)
	if len(l.secretUse.uses)+len(l.secretUse.names)+len(l.secretUse.followed) > 0 {
		t.Errorf("remembered of a Service that is gone: %+v", l.secretUse.uses)
	}
}
