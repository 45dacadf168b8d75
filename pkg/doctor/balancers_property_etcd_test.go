package doctor_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// leaveBehindOfACopy leaves a load balancer behind that a copy of the cluster wants, and its doctor runs without waiting.
func (w *balancerWorld) leaveBehindOfACopy(m *balancerMember) {
	for _, name := range slices.Sorted(maps.Keys(m.services)) {
		s := m.services[name]
		if s.Annotations[sharing] != "" || !w.heldElsewhere(m, s) || !w.beginDeletion(m, s) {
			continue
		}
		w.runDoctor(m, false)
		w.lose(m, m.services[name])
		for _, one := range w.all {
			if !one.bundle && one.uid == string(s.UID) {
				m.empties(w.t, one.id)
			}
		}
		w.clock.Advance(2 * time.Hour)
		w.runDoctor(m, true)
		return
	}
}

func (w *balancerWorld) saveEtcd(m *balancerMember) {
	if _, err := m.kube.CoreV1().ConfigMaps("kube-system").Get(w.t.Context(), doctor.RecordName, metav1.GetOptions{}); err != nil {
		return // no run has made it yet
	}
	m.saved = &savedBalancers{m.backupEtcd(w.t), maps.Clone(m.services)}
	w.note("%s is backed up", m.name)
}

// restore makes a cluster's Services those of a backup.
func (w *balancerWorld) restore(m *balancerMember, from *savedBalancers) {
	for _, s := range m.services {
		m.loses(w.t, s)
	}
	m.restoreEtcd(w.t, from.etcd)
	m.services = maps.Clone(from.services)
	for _, s := range m.services {
		m.apply(w.t, s.DeepCopy())
	}
}

// setBack restores etcd. What was made since is wanted by its clients, and unknown to the cluster.
func (w *balancerWorld) setBack(m *balancerMember) {
	if m.saved == nil || w.rand.IntN(3) > 0 {
		return
	}
	now := w.look()
	for _, one := range w.all {
		if strings.HasPrefix(w.wantedBy(one, now), "Service") && one.maker == m && one.kept == "" {
			one.kept, one.silent = sinceBackup, true
		}
	}
	w.restore(m, m.saved)
	for _, one := range w.all {
		if w.servedAgain(m, one) && one.maker == m && (one.kept == sinceBackup || one.kept == lostService) {
			one.kept, one.silent = "", false
		}
	}
	w.note("%s is set back", m.name)
}

// servedAgain reports whether the Service of a thing is there again, and says itself what it wants: a load balancer, and one certificate.
// Who wanted the thing while the Service was away wants nothing else.
func (w *balancerWorld) servedAgain(m *balancerMember, one *balancedThing) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(m.services)), func(s *corev1.Service) bool {
		return string(s.UID) == one.uid && s.DeletionTimestamp == nil && s.Spec.Type == corev1.ServiceTypeLoadBalancer
	})
}

// copyCluster starts another cluster on a copy of etcd. Both run: each makes a load balancer that the other does not know. A cluster that
// nothing shows no doctor can see.
func (w *balancerWorld) copyCluster(m *balancerMember) {
	if m.saved == nil || len(m.saved.services) == 0 || m.saved.services[lifeOfOriginal] != nil || len(w.clusters) > 3 || len(w.all) >= mostBalancers-1 {
		return
	}
	if w.serveNamed(m, lifeOfOriginal); m.services[lifeOfOriginal] == nil { // the name is taken
		return
	}
	twin := w.addCluster("copy of "+m.name, m.uid, m.id)
	w.restore(twin, m.saved)
	if w.rand.IntN(2) == 0 {
		w.serveNamed(twin, lifeName)
	} else { // all that shows it is a certificate
		s := w.shareNamed(twin, lifeName+w.rand.NewUUID()[:8], true)
		twin.apply(w.t, s.DeepCopy())
		twin.services[lifeName] = s
	}
	if twin.services[lifeName] == nil { // the name is taken
		w.clusters = w.clusters[:len(w.clusters)-1]
		w.controllerDeletes(m, m.services[lifeOfOriginal])
	}
}

// endCopy throws a copy of a cluster away, with what it made.
func (w *balancerWorld) endCopy() {
	i := slices.IndexFunc(w.clusters, func(m *balancerMember) bool { return strings.HasPrefix(m.name, "copy of ") })
	if i < 0 || w.rand.IntN(2) > 0 {
		return
	}
	ended := w.clusters[i]
	w.clusters = slices.Delete(w.clusters, i, i+1)
	for _, bundles := range []bool{false, true} { // a certificate goes after what uses it
		for _, id := range slices.Sorted(maps.Keys(w.all)) {
			one := w.all[id]
			if one.maker == ended && one.bundle == bundles && !strings.HasPrefix(w.wantedBy(one, w.look()), "Service") {
				w.throwAway(one)
			}
		}
	}
	w.controllerDeletes(w.clusters[0], w.clusters[0].services[lifeOfOriginal])
	w.note("%s ends", ended.name)
}
