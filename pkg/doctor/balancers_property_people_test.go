package doctor_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Who wants a thing that no Service wants.
const (
	shown       = "a person who shows it"
	lostService = "clients of a lost Service"
	sinceBackup = "people, since before etcd was set back"
)

// named and ofService find parts of the account.
func (w *balancerWorld) named(name string) func(cloud.LoadBalancer) bool {
	return func(lb cloud.LoadBalancer) bool { return lb.Name == name }
}

func ofService(s *corev1.Service) func(cloud.Backend) bool {
	return func(b cloud.Backend) bool { return strings.Contains(b.Name, s.Name) }
}

// leaving reports whether a controller is to look after the end of a thing.
func (w *balancerWorld) leaving(one *balancedThing) bool {
	return slices.ContainsFunc(w.clusters, func(m *balancerMember) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(m.services)), func(s *corev1.Service) bool {
			return string(s.UID) == one.uid && s.DeletionTimestamp != nil
		})
	})
}

// pick chooses a thing; nil if none suits.
func (w *balancerWorld) pick(suits func(*balancedThing) bool) *balancedThing {
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(w.all)), func(id string) bool { return !suits(w.all[id]) })
	if len(ids) == 0 {
		return nil
	}
	return w.all[ids[w.rand.IntN(len(ids))]]
}

// membersGo takes the members off what is left behind, whose servers are gone, too, or off what has no nodes for a while.
func (w *balancerWorld) membersGo() {
	now, whatever := w.look(), w.rand.IntN(4) == 0
	one := w.pick(func(one *balancedThing) bool {
		lb := now.balancers[one.id]
		return (whatever && one.kept != shown || w.wantedBy(one, now) == "") && slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return len(b.Members) > 0 })
	})
	if one != nil {
		w.clusters[0].empties(w.t, one.id)
		w.note("the members of %s go", one.name)
	}
}

func (w *balancerWorld) addForeign(name string, labels cloud.Labels) {
	if _, err := w.clusters[0].cloud.CreateLoadBalancer(testContext(w.t), cloud.LoadBalancer{
		Name: name, Zone: zone, Plan: "development", ConfiguredStatus: "started", Labels: labels,
		Networks:  []cloud.LoadBalancerNetwork{{Name: "in", Type: "private", Family: "IPv4", ID: w.network}},
		Frontends: []cloud.Frontend{}, Backends: []cloud.Backend{},
	}); err != nil {
		w.t.Fatal(err)
	}
}

// foreign makes a load balancer as a person does, or UpCloud's own CCM for a Service of a cluster of the same ID.
func (w *balancerWorld) foreign() {
	if w.made >= mostForeign || w.rand.IntN(8) > 0 {
		return
	}
	w.made++
	name, labels := "mine-"+w.rand.NewUUID()[:8], cloud.Labels{}
	if w.rand.IntN(2) == 0 {
		labels = cloud.Labels{settings.LabelGeneratedName: name, settings.LabelClusterName: "kubernetes", settings.LabelClusterID: "production"}
	}
	w.addForeign(name, labels)
	w.note("a person makes %s", name)
}

// namesake is a Service of another cluster that has the ID and the name of one here.
func (w *balancerWorld) namesake(m *balancerMember) {
	if w.made >= mostForeign || w.rand.IntN(8) > 0 {
		return
	}
	w.made++
	s := balanced("namesake-"+w.rand.NewUUID()[:8], "tls-hostnames", "n.example")
	m.serveAs(w.t, m.id, "5e0b0000-0000-4000-8000-00000000000f", s)
	w.note("a namesake of %s serves %s", m.name, s.Name)
}

// personKeeps shows in one of the ways there are that something is to stay.
func (w *balancerWorld) personKeeps() {
	now := w.look()
	one := w.pick(func(one *balancedThing) bool { return w.wantedBy(one, now) == "" && !w.leaving(one) })
	if one == nil {
		return
	}
	switch way := w.rand.IntN(4); {
	case one.bundle || way == 0:
		w.labelKeep(one, now)
	case way == 1:
		w.clusters[0].postJSON(w.t, "/load-balancer/"+one.id+"/labels", map[string]any{"key": "managed-by", "value": "terraform"})
	case way == 2:
		w.clusters[0].postJSON(w.t, "/load-balancer/"+one.id+"/frontends", map[string]any{
			"name": "mine", "mode": "tcp", "port": 9000, "default_backend": now.balancers[one.id].Backends[0].Name})
	default:
		w.clusters[0].postJSON(w.t, "/load-balancer/"+one.id+"/backends/"+now.balancers[one.id].Backends[0].Name+"/members", map[string]any{
			"name": "mine", "ip": "172.16.0.9", "port": 80, "type": "static", "weight": 100, "max_sessions": 1000, "enabled": true})
	}
	one.kept, one.silent = shown, false
	w.note("a person keeps %s (%s)", one.name, one.id)
}

// labelKeep is what reports ask for.
func (w *balancerWorld) labelKeep(one *balancedThing, now seen) {
	if labels, _, _ := now.labels(one); labels["keep"] != "" {
		return // from before etcd was set back
	}
	if !one.bundle {
		w.clusters[0].postJSON(w.t, "/load-balancer/"+one.id+"/labels", map[string]any{"key": "keep", "value": "yes"})
		return
	}
	labels := maps.Clone(now.bundles[one.id].Labels)
	labels["keep"] = "yes"
	if err := w.clusters[0].cloud.ModifyCertificateBundle(testContext(w.t), one.id, cloud.CertificateBundlePatch{Labels: labels}); err != nil {
		w.t.Fatal(err)
	}
}

// personLooks restores what is in quarantine and kept by a person who does not show it.
func (w *balancerWorld) personLooks() {
	now := w.look()
	for _, id := range slices.Sorted(maps.Keys(w.all)) {
		if one := w.all[id]; !one.since.IsZero() && w.wantedBy(one, now) != "" {
			w.restoreThing(one)
		}
	}
}

// restoreThing is a person who takes something out of quarantine.
func (w *balancerWorld) restoreThing(one *balancedThing) {
	m := w.clusters[w.rand.IntN(len(w.clusters))]
	report, err := m.doctor(w.t).Restore(testContext(w.t), []string{one.id})
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Outcome != doctor.OutcomeRestored {
		w.t.Errorf("%s (%s) cannot be restored: %v", one.name, one.id, err)
		for _, f := range report.Findings {
			w.t.Errorf("  %s %s", f.Outcome, f.Error)
		}
		return
	}
	labels, name, _ := w.look().labels(one)
	if labels[doctor.LabelQuarantine] != "" || labels["keep"] == "" || strings.HasPrefix(name, "to-be-removed") {
		w.t.Errorf("%s (%s) was restored, and is named %s with labels %v", one.name, one.id, name, labels)
	}
	w.note("a person restores %s", one.name)
}

// everyQuarantineCanBeEnded restores all that is in quarantine.
func (w *balancerWorld) everyQuarantineCanBeEnded() {
	for _, id := range slices.Sorted(maps.Keys(w.all)) {
		if one := w.all[id]; !one.since.IsZero() {
			w.restoreThing(one)
		}
	}
}

// review is a person who makes a plan and knows what is wanted.
func (w *balancerWorld) review(m *balancerMember) {
	report, err := m.doctor(w.t).Examine(testContext(w.t))
	if err != nil {
		return
	}
	plan, now := planOf(w.t, report), w.look()
	for _, list := range [][]doctor.PlanEntry{plan.Findings, plan.Kept} {
		for i := range list {
			one := w.all[list[i].LoadBalancerID+list[i].CertificateID]
			switch {
			case one == nil || list[i].Fingerprint == "":
				list[i].Action = doctor.ActionKeep
			case w.wantedBy(one, now) != "":
				list[i].Action = doctor.ActionKeep
				if one.kept != "" && strings.Contains(report.Stopped, one.id) { // as the report asks for
					w.labelKeep(one, now)
					one.silent = false
				}
			default:
				list[i].Action = []doctor.Action{doctor.ActionQuarantine, doctor.ActionRemove}[w.rand.IntN(2)]
			}
		}
	}
	w.clock.Advance(2 * time.Hour)
	fresh, err := m.doctor(w.t).Examine(testContext(w.t))
	if err != nil {
		return
	}
	if _, err := fresh.Apply(testContext(w.t), plan); err != nil {
		w.note("  %v", err)
	}
	w.note("a person reviews %s", m.name)
}

// cleanUp lets whoever keeps things have enough of some: the account would be full of them soon.
func (w *balancerWorld) cleanUp() {
	now := w.look()
	one := w.pick(func(one *balancedThing) bool {
		return one.kept != "" && w.wantedBy(one, now) == one.kept && !w.leaving(one)
	})
	if one == nil || w.rand.IntN(mostBalancers) > len(w.all) {
		return
	}
	w.throwAway(one)
}

// throwAway deletes a thing as a person does.
func (w *balancerWorld) throwAway(one *balancedThing) {
	path := "/load-balancer/" + one.id
	if one.bundle {
		path = "/load-balancer/certificate-bundles/" + one.id
	}
	if status, _ := w.sim.Raw(w.t, "DELETE", path, ""); status == 204 {
		delete(w.all, one.id)
		w.note("%s is thrown away", one.name)
	}
}
