package loadbalancer

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/tenants"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// What the notes of a load balancer tell of certificate bundles are digests of names. A bundle with one of them that was not made with the load
// balancer, by its labels, is not taken with it.
func TestBundleOfSomeoneElseIsNotTakenWithTheLoadBalancer(t *testing.T) {
	for name, labels := range map[string]cloud.Labels{
		"made by hand":          {},
		"of another namespace":  {settings.LabelClusterName: "prod", settings.LabelClusterUID: "uid-of-cluster", settings.LabelNamespace: "bank"},
		"of another cluster":    {settings.LabelClusterName: "prod", settings.LabelClusterUID: "uid-of-another"},
		"of a Service":          {settings.LabelClusterName: "prod", settings.LabelServiceUID: "uid-bank_web"},
		"by hand, with a label": {"env": "prod"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount(t, simulator.Config{}, "n1")
			a.cluster("uid-of-cluster")
			l := a.balancers(func(c *Config) {
				c.Tenants = &tenants.Config{Default: tenants.Limits{Adopt: new(true), Retain: new(true)}}
			})
			a.setSecret("www", "www.example.com")
			s := a.addService(example.Annotated(example.Service("http 80 30080"), "retain", "true", "mode", "http", "tls-secret", "www"))
			a.ensure(l, s)
			lb, theirs := a.only(), a.bundle().ID
			a.vanish(l, s)
			// With these labels it stands for another one whose name has the same digest.
			if err := a.cloud.ModifyCertificateBundle(t.Context(), theirs, cloud.CertificateBundlePatch{Labels: labels}); err != nil {
				t.Fatal(err)
			}
			again := example.Annotated(example.Service("http 80 31080"), "adopt", lb.ID)
			again.UID = "uid-again"
			again = a.addService(again)
			a.ensure(l, again)
			a.vanish(l, again)
			found, err := a.cloud.CertificateBundle(t.Context(), theirs)
			if err != nil || example.JSON(t, found.Labels) != example.JSON(t, labels) {
				t.Errorf("error %v, certificate bundle %+v, want it with labels %v", err, found, labels)
			}
		})
	}
}

// Several teams' Services are restored to a new cluster, and one entry is for all that the former cluster had: each team gets its own.
func TestEntryWithALabelGivesNoNamespaceWhatAnotherHad(t *testing.T) {
	a := newAccount(t, simulator.Config{}, "n1")
	a.cluster("uid-of-old")
	limits := &tenants.Config{Default: tenants.Limits{Adopt: new(true)}}
	a.ensure(a.balancers(func(c *Config) { c.Tenants = limits }), a.addService(serviceIn("bank", "web", "http 80 30080")))
	lb := a.only()

	a.client = fake.NewClientset()
	a.cluster("uid-of-new")
	taking := func(namespace string) *v1.Service {
		s := example.Annotated(serviceIn(namespace, "again", "http 80 31080"), "adopt", lb.ID)
		return a.addService(s)
	}
	evil, bank := taking("evil"), taking("bank")
	before := a.raw("/load-balancer/" + lb.ID)
	with := func(entry settings.Adoptable) *LoadBalancers {
		return a.balancers(func(c *Config) { c.Tenants, c.Adoptable = limits, []settings.Adoptable{entry} })
	}
	ofOld := settings.Adoptable{Label: settings.LabelClusterUID + "=uid-of-old", Namespaces: []string{"bank", "evil"}}
	if says := a.denied(with(ofOld), evil, reasonAdoptionDenied); !strings.Contains(says, "namespace bank had it") {
		t.Errorf("error %s", says)
	}
	a.sameAs(before, lb.ID)
	identity := a.balancers().identity(t.Context(), "prod", evil)
	if why, err := with(settings.Adoptable{LoadBalancer: lb.ID, Namespaces: []string{"evil"}}).whyNotAdopt(t.Context(), identity, evil, &lb); why != "" || err != nil {
		t.Errorf("an entry with the UUID: %s, %v", why, err)
	}
	a.ensure(with(ofOld), bank)
	if err := a.client.Tracker().Delete(servicesResource, evil.Namespace, evil.Name); err != nil {
		t.Fatal(err)
	}
	a.isOwn(with(ofOld), bank, lb.ID)
}
