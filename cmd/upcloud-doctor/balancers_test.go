package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// bundle makes a certificate bundle as ccm labels it.
func (w *world) bundle(t *testing.T, name, cluster, uid string) string {
	t.Helper()
	bundle, err := w.account.CreateCertificateBundle(t.Context(), cloud.CertificateBundle{
		Name: name, Type: cloud.BundleDynamic, KeyType: "ecdsa", Hostnames: []string{"a.example"}, Labels: cloud.Labels{
			settings.LabelServiceUID: "gone", settings.LabelClusterName: "kubernetes", settings.LabelClusterID: cluster, settings.LabelClusterUID: uid,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return bundle.ID
}

func (w *world) balancers(t *testing.T, in string, more ...string) (out, errOut string, exit int, err error) {
	t.Helper()
	return execute(t, in, append([]string{"load-balancers", "--kubeconfig", w.kubeconfig, "--cluster-id", "test"}, more...)...)
}

func TestLoadBalancersCommand(t *testing.T) {
	w := newWorld(t)
	w.cluster(t)
	if out, _, exit, err := w.balancers(t, ""); exit != 0 || !strings.Contains(out, "Nothing was left behind") {
		t.Errorf("nothing to find: %d, %v\n%s", exit, err, out)
	}
	id, other := w.bundle(t, "left", "test", clusterUID), w.bundle(t, "theirs", "other", "other")
	w.clock.Advance(48 * time.Hour)
	out, _, exit, _ := w.balancers(t, "")
	for _, want := range []string{id, "left", "Certificate bundles that no Service asks for: 1", "Findings: 1"} {
		if !strings.Contains(out, want) || strings.Contains(out, other) {
			t.Errorf("want %q in the table:\n%s", want, out)
		}
	}
	if exit != statusFindings {
		t.Errorf("exit status %d", exit)
	}
	out, _, _, _ = w.balancers(t, "", "--output", "json")
	var report struct {
		Findings []struct{ Kind, CertificateID string }
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil || len(report.Findings) != 1 || report.Findings[0].CertificateID != id {
		t.Errorf("%v in %s", err, out)
	}
	// That its Service was deleted, the record does not say: it is left to a person.
	if out, _, exit, err := w.balancers(t, "", "--fix", "--yes", "--now"); exit != statusFindings || !strings.Contains(out, "in a plan") {
		t.Errorf("%d, %v\n%s", exit, err, out)
	}
	if all, err := w.account.CertificateBundles(t.Context(), nil); err != nil || len(all) != 2 {
		t.Errorf("left: %v, %v", all, err)
	}
}

func TestLoadBalancersCommandRefuses(t *testing.T) {
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"load-balancers", "--cluster-name", ""}, "--cluster-name is empty"},
		{[]string{"load-balancers", "--unclaimed", "remove"}, "never removed"},
		{[]string{"load-balancers", "--driver-name", "x"}, "--driver-name"},
	} {
		if _, _, exit, err := execute(t, "", test.args...); exit != statusError || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v: %d, %v", test.args, exit, err)
		}
	}
}
