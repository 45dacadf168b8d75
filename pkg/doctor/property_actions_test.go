package doctor_test

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// actions are what happens on the account, some more often than others.
func (w *accountWorld) actions() []func() {
	any := func(do func(*member)) func() { return func() { do(w.clusters[w.rand.IntN(len(w.clusters))]) } }
	volume := func(do func(m *member, pv string)) func() {
		return any(func(m *member) {
			names := slices.DeleteFunc(slices.Sorted(maps.Keys(m.handles)), func(pv string) bool { return w.isLife(m.handles[pv]) })
			if len(names) > 0 {
				do(m, names[w.rand.IntN(len(names))])
			}
		})
	}
	run := any(w.doctorRuns)
	first := func(do func(*member)) func() { return func() { do(w.clusters[0]) } }
	second := func(do func(*member)) func() { return func() { do(w.clusters[1]) } }
	return []func(){
		any(w.provision), any(w.provision), any(w.provision), any(w.orphan), volume(w.deleteVolume), volume(w.leaveBehind), volume(w.leaveBehind),
		volume(w.leaveBehind), volume(w.keepByRetain), volume(w.move), volume(w.loseByAccident), volume(w.backUp), volume(w.attachForAWhile),
		first(w.saveEtcd), first(w.copyCluster), first(w.copyCluster), first(w.leaveBehindOfACopy), second(w.saveEtcd), second(w.setBack), any(w.review), any(w.review), w.endCopy, w.cleanUp, w.others, w.personKeeps, w.personKeeps, w.personLooks, w.personLooks,
		w.timePasses, w.timePasses, w.timePasses, w.timePasses, run, run, run, run, run, run, run, run,
	}
}

// isLife reports whether a thing is what shows that a copy of a cluster runs: a copy that nothing shows no doctor can see.
func (w *accountWorld) isLife(id string) bool {
	return w.all[id] != nil && strings.HasPrefix(w.all[id].kept, "the life of")
}

func (w *accountWorld) full() bool { return len(w.all) >= things }

func (w *accountWorld) provision(m *member) {
	if w.full() {
		return
	}
	uid := w.rand.NewUUID()
	pv := pvcName(uid)
	id := m.volume(w.t, m.cloud, pv)
	m.apply(w.t, persistentVolume(pv, driverName, id), claim(uid, pv, pv))
	m.handles[pv], m.wanted[pv] = id, true
	w.add(id, pv, m, "")
	w.note("%s provisions %s", m.name, pv)
}

// orphan is what a driver leaves that dies between the storage and its PersistentVolume, the claim being deleted meanwhile.
func (w *accountWorld) orphan(m *member) {
	if w.full() || w.rand.IntN(4) > 0 {
		return
	}
	pv := pvcName(w.rand.NewUUID())
	w.add(m.volume(w.t, m.cloud, pv), pv, m, "")
	w.note("%s leaves %s half made", m.name, pv)
}

// forget takes a PersistentVolume out of the model and out of the cluster.
func (w *accountWorld) forget(m *member, pv string) {
	m.loses(w.t, pv)
	delete(m.handles, pv)
	delete(m.wanted, pv)
}

// deleteVolume is what the driver does: both sides go. A copy of the cluster loses its disk by that, which is not the doctor's doing.
func (w *accountWorld) deleteVolume(m *member, pv string) {
	id := m.handles[pv]
	one := w.all[id]
	if one == nil || one.kept != "" || w.namedElsewhere(m, id) {
		return
	}
	m.releases(w.t, pv)
	if status, _ := w.sim.Raw(w.t, "DELETE", "/storage/"+id+"?backups=keep", ""); status != 204 {
		return // it is attached
	}
	w.forget(m, pv)
	delete(w.all, id)
	w.note("%s deletes %s", m.name, pv)
}

func (w *accountWorld) namedElsewhere(m *member, id string) bool {
	return slices.ContainsFunc(w.clusters, func(other *member) bool {
		return other != m && slices.Contains(slices.Collect(maps.Values(other.handles)), id)
	})
}

// leaveBehind releases a volume, whose deletion fails, and takes its finalizers off. A doctor may look in between.
func (w *accountWorld) leaveBehind(m *member, pv string) {
	if one := w.all[m.handles[pv]]; one == nil || one.kept != "" {
		return
	}
	m.releases(w.t, pv)
	m.wanted[pv] = false
	w.note("%s releases %s", m.name, pv)
	if w.rand.IntN(3) > 0 {
		w.doctorRuns(m)
	}
	w.forget(m, pv)
	w.note("%s leaves %s behind", m.name, pv)
}

// leaveBehindOfACopy leaves a volume behind that a copy of the cluster wants, and its doctor runs without waiting.
func (w *accountWorld) leaveBehindOfACopy(m *member) {
	for _, pv := range slices.Sorted(maps.Keys(m.handles)) {
		if w.all[m.handles[pv]] == nil || !w.namedElsewhere(m, m.handles[pv]) || w.all[m.handles[pv]].kept != "" {
			continue
		}
		w.leaveBehind(m, pv)
		w.clock.Advance(2 * time.Hour)
		w.runDoctor(m, true)
		return
	}
}

// keepByRetain is what a person does who wants the disk and no PersistentVolume. No label shows it.
func (w *accountWorld) keepByRetain(m *member, pv string) {
	one := w.all[m.handles[pv]]
	if one == nil {
		return
	}
	m.change(w.t, pv, func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	})
	one.kept, one.silent = "a person, by Retain", true
	m.releases(w.t, pv)
	if w.rand.IntN(2) == 0 {
		w.doctorRuns(m)
	}
	w.forget(m, pv)
	w.note("%s keeps %s by Retain", m.name, pv)
}

// move makes a PersistentVolume of the disk in another cluster, which a label allows to use it.
func (w *accountWorld) move(m *member, pv string) {
	id, to := m.handles[pv], w.clusters[w.rand.IntN(len(w.clusters))]
	if w.all[id] == nil || to.handles["moved-"+pv] != "" || w.all[id].kept != "" {
		return
	}
	w.keepByRetain(m, pv)
	moved := persistentVolume("moved-"+pv, driverName, id)
	moved.Annotations = nil
	to.apply(w.t, moved)
	to.relabel(w.t, id, "", cloud.LabelImport, to.importName())
	to.handles[moved.Name], to.wanted[moved.Name] = id, true
	w.all[id].kept = ""
	w.note("%s is moved from %s to %s", pv, m.name, to.name)
}

// importName is what the label that hands a disk over calls a cluster.
func (m *member) importName() string { return cmp.Or(m.cloud.ClusterUID(), m.config.ClusterID) }

// loseByAccident takes the PersistentVolume of a claim that is there away: the data is wanted.
func (w *accountWorld) loseByAccident(m *member, pv string) {
	one := w.all[m.handles[pv]]
	if one == nil || w.rand.IntN(3) > 0 || !m.wanted[pv] {
		return
	}
	w.forget(m, pv)
	one.kept, one.silent = "its claim", true
	w.note("%s loses the PersistentVolume %s", m.name, pv)
}

// backUp makes a snapshot as Velero does, which deletes its objects afterwards, or as an application does that forgets it.
func (w *accountWorld) backUp(m *member, pv string) {
	if w.full() || w.all[m.handles[pv]] == nil {
		return
	}
	uid := w.rand.NewUUID()
	spec := cloud.SnapshotSpec{Name: "snapshot-" + uid, VolumeID: m.handles[pv]}
	if _, err := m.cloud.CreateSnapshot(testContext(w.t), spec); errors.Is(err, cloud.ErrNotOwned) {
		return // it was moved here, and is another cluster's in the account
	}
	id := m.snapshot(w.t, m.cloud, spec.Name, spec.VolumeID)
	content := snapshotContent("content-"+uid, driverName, id, m.handles[pv], uid)
	m.apply(w.t, content)
	w.add(id, "snapshot-"+uid, m, "Velero").backup = true
	if w.rand.IntN(2) == 0 {
		w.doctorRuns(m)
	}
	if err := m.dynamic.Resource(doctor.ContentsResource).Delete(w.t.Context(), content.GetName(), metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.note("Velero backs %s up", pv)
}

func (w *accountWorld) attachForAWhile(m *member, pv string) {
	id := m.handles[pv]
	if w.all[id] == nil {
		return
	}
	volume, err := m.cloud.Volume(testContext(w.t), id)
	if err == nil {
		_, err = m.cloud.CheckAttach(testContext(w.t), volume, false) // as csi-driver does
	}
	if err == nil {
		err = m.cloud.Attach(testContext(w.t), id, m.node)
	}
	if err != nil {
		return // it is attached elsewhere, or another cluster's
	}
	w.note("%s attaches %s", m.name, pv)
	w.doctorRuns(w.clusters[w.rand.IntN(len(w.clusters))])
	if err := m.cloud.Detach(testContext(w.t), id, m.node); err != nil {
		w.t.Fatal(err)
	}
}

func (w *accountWorld) saveEtcd(m *member) {
	if _, err := m.kube.CoreV1().ConfigMaps("kube-system").Get(w.t.Context(), doctor.RecordName, metav1.GetOptions{}); err != nil {
		return // no run has made it yet
	}
	m.saved = &savedMember{m.backupEtcd(w.t), maps.Clone(m.handles), maps.Clone(m.wanted)}
	w.note("%s is backed up", m.name)
}

// setBack restores etcd. What was made since is wanted by whoever has data on it, and unknown to the cluster.
func (w *accountWorld) setBack(m *member) {
	if m.saved == nil || w.rand.IntN(3) > 0 {
		return
	}
	for pv, id := range m.handles {
		if one := w.all[id]; one != nil && m.wanted[pv] && m.saved.handles[pv] != id {
			one.kept, one.silent = "people, since before etcd was set back", true
		}
	}
	m.restoreEtcd(w.t, m.saved.etcd)
	m.handles, m.wanted = maps.Clone(m.saved.handles), maps.Clone(m.saved.wanted)
	for pv, id := range m.handles {
		if w.all[id] == nil {
			m.wanted[pv] = false // its disk is gone for good
		}
	}
	w.note("%s is set back", m.name)
}

// copyCluster starts another cluster on a copy of etcd. Both run: each makes a volume that the other does not know. A cluster that nothing
// shows no doctor can see.
func (w *accountWorld) copyCluster(m *member) {
	if m.saved == nil || len(w.clusters) > 6 || w.rand.IntN(3) > 0 || len(w.all) >= things-1 {
		return
	}
	twin := w.addCluster("copy of "+m.name, m.uid, m.config.ClusterID)
	twin.restoreEtcd(w.t, m.saved.etcd)
	twin.handles, twin.wanted = maps.Clone(m.saved.handles), maps.Clone(m.saved.wanted)
	for pv, id := range twin.handles {
		if w.all[id] == nil {
			twin.wanted[pv] = false
		}
	}
	w.showLife(twin)
	twin.original, twin.lifeOfOriginal = m, w.showLife(m)
	w.note("%s starts", twin.name)
}

// showLife makes a volume that no action is about.
func (w *accountWorld) showLife(m *member) (pv string) {
	uid := w.rand.NewUUID()
	pv = pvcName(uid)
	id := m.volume(w.t, m.cloud, pv)
	m.apply(w.t, persistentVolume(pv, driverName, id), claim(uid, pv, pv))
	m.handles[pv], m.wanted[pv] = id, true
	w.add(id, pv, m, "the life of "+m.name)
	w.note("%s lives, with %s", m.name, pv)
	return pv
}

// timePasses is never so long that a person does not look meanwhile.
func (w *accountWorld) timePasses() {
	w.clock.Advance([]time.Duration{time.Minute, 20 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 72 * time.Hour}[w.rand.IntN(6)])
}

// endCopy throws a copy of a cluster away, with what it made.
func (w *accountWorld) endCopy() {
	i := slices.IndexFunc(w.clusters, func(m *member) bool { return strings.HasPrefix(m.name, "copy of ") })
	if i < 0 || w.rand.IntN(3) > 0 {
		return
	}
	ended := w.clusters[i]
	w.clusters = slices.Delete(w.clusters, i, i+1)
	for _, id := range slices.Sorted(maps.Keys(w.all)) {
		if one := w.all[id]; one.maker == ended && !w.named(id) {
			w.throwAway(one)
		}
	}
	w.endLife(ended.original, ended.lifeOfOriginal)
	w.note("%s ends", ended.name)
}

// endLife deletes a volume of showLife. It stays where another copy, which began meanwhile, knows it.
func (w *accountWorld) endLife(m *member, pv string) {
	if id := m.handles[pv]; !w.namedElsewhere(m, id) {
		w.forget(m, pv)
		w.throwAway(w.all[id])
	}
}
