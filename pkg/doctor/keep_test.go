package doctor_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// relabel is what a person does in the control panel.
func (r *rig) relabel(t *testing.T, id, title string, added ...string) {
	t.Helper()
	was, labels := r.state(t, id)
	for i := 0; i < len(added); i += 2 {
		labels[added[i]] = added[i+1]
	}
	list := []map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		list = append(list, map[string]string{"key": key, "value": labels[key]})
	}
	if title == "" {
		title = was
	}
	body, err := json.Marshal(map[string]any{"storage": map[string]any{"title": title, "labels": list}})
	if err != nil {
		t.Fatal(err)
	}
	r.sim.Do(t, "PUT", "/storage/"+id, string(body), nil)
}

// Each signal alone keeps what is removed without it: the last case shows that.
func TestFixKeepsWhatSomebodyKeeps(t *testing.T) {
	cases := []struct {
		name string
		keep func(t *testing.T, r *rig, id string)
		says string
	}{
		{"a title", func(t *testing.T, r *rig, id string) { r.relabel(t, id, "KEEP") }, "title"},
		{"another title", func(t *testing.T, r *rig, id string) { r.relabel(t, id, "customers 2025") }, "title"},
		{"label keep", func(t *testing.T, r *rig, id string) { r.relabel(t, id, "", "keep", "true") }, "label keep=true"},
		{"label Do_Not_Delete", func(t *testing.T, r *rig, id string) { r.relabel(t, id, "", "Do_Not_Delete", "yes") }, "Do_Not_Delete"},
		{"Terraform", func(t *testing.T, r *rig, id string) { r.relabel(t, id, "", "managed-by", "terraform") }, "managed-by"},
		{"Velero", func(t *testing.T, r *rig, id string) { r.relabel(t, id, "", "velero.io/backup", "nightly") }, "backup tool"},
		{"a favourite", func(t *testing.T, r *rig, id string) { r.sim.Do(t, "POST", "/storage/"+id+"/favorite", "", nil) }, "favourite"},
		{"a clone by hand with the labels copied along", func(t *testing.T, r *rig, id string) {
			title, labels := r.state(t, id)
			clone := r.post(t, "/storage/"+id+"/clone", `{"storage":{"zone":"fi-hel1","tier":"maxiops","title":"`+title+`"}}`)
			added := []string{}
			for key, value := range labels {
				added = append(added, key, value)
			}
			r.relabel(t, clone, "", added...)
		}, "by hand"},
		{"a claim of its name that lost its volume", func(t *testing.T, r *rig, id string) {
			title, _ := r.state(t, id)
			r.apply(t, claim(strings.TrimPrefix(title, "pvc-"), "lost", title))
		}, "claim default/lost"},
		{"an attachment", func(t *testing.T, r *rig, id string) { r.attach(t, id, r.node(t, "worker-1")) }, "attached"},
		{"a content of any driver", func(t *testing.T, r *rig, id string) {
			r.apply(t, snapshotContent("content-1", "other.example", newUID(), "fi-hel1/"+id, ""))
		}, "VolumeSnapshotContent content-1"},
		{"handed over to another cluster", func(t *testing.T, r *rig, id string) {
			r.relabel(t, id, "", cloud.LabelImport, newUID())
		}, "csi-import="},
		{"label keep=false, which keeps nothing", func(t *testing.T, r *rig, id string) { r.relabel(t, id, "", "keep", "false") }, ""},
		{"nothing", func(*testing.T, *rig, string) {}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			id, _ := r.left(t, "data")
			c.keep(t, r, id)
			report := r.fixForLong(t)
			if r.exists(t, id) != (c.says != "") {
				t.Fatalf("exists: %t", r.exists(t, id))
			}
			if c.says != "" && !strings.Contains(of(t, report, id).Kept, c.says) {
				t.Errorf("the reason is %q", of(t, report, id).Kept)
			}
		})
	}
}

// Who labels a thing that is in quarantine ends the quarantine: its title is its own again.
func TestALabelEndsAQuarantine(t *testing.T) {
	r := newRig(t)
	id, pv := r.left(t, "data")
	for range 2 {
		r.pass(2 * safetyAge)
		r.fix(t)
	}
	if title, _ := r.state(t, id); title == pv {
		t.Fatal("it is not in quarantine")
	}
	r.relabel(t, id, "", "keep", "yes")
	r.fix(t)
	if title, labels := r.state(t, id); title != pv || labels["upcloud-doctor-quarantine"] != "" || labels["keep"] != "yes" {
		t.Errorf("titled %q, labels %v", title, labels)
	}
	report := r.fixForLong(t)
	neverTouched(t, r, id, pv, 4)
	wantFound(t, "kept", report.Kept, "orphan-volume "+id)
}

// So does an object that needs it for something else than to stand for it, as a snapshot that is to be made of it.
func TestAnObjectThatNamesADiskEndsItsQuarantine(t *testing.T) {
	r := newRig(t)
	id, pv := r.left(t, "data")
	for range 2 {
		r.pass(2 * safetyAge)
		r.fix(t)
	}
	if title, _ := r.state(t, id); title == pv {
		t.Fatal("it is not in quarantine")
	}
	r.apply(t, snapshotContent("content-1", driverName, "", id, ""))
	r.fix(t)
	neverTouched(t, r, id, pv, 3)
	report := r.fixForLong(t)
	neverTouched(t, r, id, pv, 3)
	if f := of(t, report, id); f.Kept != "VolumeSnapshotContent content-1 names it" {
		t.Errorf("kept: %q", f.Kept)
	}
}

// Advice is safe to follow with things that are another's: none says to delete or detach, but how to do it without a loss.
func TestNoRemedyLeadsToADeletion(t *testing.T) {
	for _, kind := range doctor.Kinds {
		remedy := kind.Remedy()
		if kind.Title() == "" || remedy == "" {
			t.Errorf("%s has no words", kind)
		}
		for _, part := range strings.Split(remedy, ";") {
			careful := strings.Contains(part, "before you") || strings.Contains(part, "never") || strings.Contains(part, "make the Service again") ||
				strings.Contains(part, "Pod that uses the volume") || strings.Contains(part, "ccm removes")
			if (strings.Contains(part, "delete") || strings.Contains(part, "remove") || strings.Contains(part, "detach")) && !careful {
				t.Errorf("%s: %s", kind, part)
			}
		}
	}
}

// Things that say nothing of this cluster's UID are listed at most.
func TestFixTouchesNothingWithoutTheUID(t *testing.T) {
	r := newRig(t)
	source, _ := r.provisioned(t, "source")
	other := newCloudOf(t, r.sim, "test", otherUID)
	things := []string{
		r.volume(t, newCloud(t, r.sim, ""), pvcName(newUID())),     // without an ID
		r.volume(t, newCloud(t, r.sim, "test"), pvcName(newUID())), // with this cluster's ID, before there were UIDs
		r.volume(t, other, pvcName(newUID())),                      // of another cluster with this one's ID
		r.plain(t, pvcName(newUID())),                              // UpCloud's own driver's
		r.volume(t, newCloud(t, r.sim, "nomad"), "db[0]"),          // Nomad's
		r.clone(t, r.plain(t, "by hand"), pvcName(newUID()), "test"),
		r.post(t, "/storage/"+source+"/backup", `{"storage":{"title":"snapshot-`+newUID()+`"}}`), // UpCloud's own driver's
		r.plain(t, "a person's disk"),
	}
	before := map[string]string{}
	for _, id := range things {
		before[id], _ = r.state(t, id)
	}
	r.config.Now = true
	r.fixForLong(t)
	for _, id := range things {
		if !r.exists(t, id) {
			t.Errorf("%s was removed", before[id])
		} else if title, labels := r.state(t, id); title != before[id] || labels["upcloud-doctor-left"] != "" {
			t.Errorf("%s was changed: %q, %v", before[id], title, labels)
		}
	}
}

// An unfinished copy goes, unless its source has gone: then it is all that is left of the data.
func TestUnfinishedCopies(t *testing.T) {
	r := newRig(t)
	source, _ := r.provisioned(t, "source")
	dying, pv := r.provisioned(t, "dying")
	begun := r.clone(t, source, pvcName(newUID()), "test")
	last := r.clone(t, dying, pvcName(newUID()), "test")
	r.remove(t, dying)
	r.loses(t, pv)
	r.fixForLong(t)
	if r.exists(t, begun) || !r.exists(t, last) {
		t.Errorf("begun exists %t, the last copy %t", r.exists(t, begun), r.exists(t, last))
	}
}

// The backups of a volume outlive it even if its label says otherwise.
func TestFixKeepsBackupsOfWhatItRemoves(t *testing.T) {
	r := newRig(t)
	id, _ := r.left(t, "data")
	backup := r.backup(t, id, "by hand")
	scheduled := r.backup(t, id, "pvc-0a1b2c3d (scheduled backup)")
	r.relabel(t, id, "", "csi-backups-on-delete", "delete")
	report := r.fixForLong(t)
	if r.exists(t, id) || !r.exists(t, backup) || !r.exists(t, scheduled) {
		t.Errorf("the volume exists: %t, its backups: %t, %t", r.exists(t, id), r.exists(t, backup), r.exists(t, scheduled))
	}
	wantFound(t, "kept", report.Kept, "scheduled-backup "+backup, "scheduled-backup "+scheduled)
}

// etcd is what a cluster has stored.
type etcd struct {
	volumes []corev1.PersistentVolume
	claims  []corev1.PersistentVolumeClaim
	record  []corev1.ConfigMap
}

func (r *rig) backupEtcd(t *testing.T) *etcd {
	t.Helper()
	volumes, err := r.kube.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	claims, err := r.kube.CoreV1().PersistentVolumeClaims("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	record, err := r.kube.CoreV1().ConfigMaps("kube-system").Get(t.Context(), "upcloud-doctor", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &etcd{volumes.Items, claims.Items, []corev1.ConfigMap{*record}}
}

// restoreEtcd makes the cluster's objects those of a backup.
func (r *rig) restoreEtcd(t *testing.T, from *etcd) {
	t.Helper()
	tracker := r.kube.Tracker()
	now, err := r.kube.CoreV1().PersistentVolumes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pv := range now.Items {
		r.loses(t, pv.Name)
	}
	claims, err := r.kube.CoreV1().PersistentVolumeClaims("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range claims.Items {
		if err := tracker.Delete(corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), "default", c.Name); err != nil {
			t.Fatal(err)
		}
	}
	_ = tracker.Delete(corev1.SchemeGroupVersion.WithResource("configmaps"), "kube-system", "upcloud-doctor") // where there is one
	for _, v := range from.volumes {
		r.apply(t, v.DeepCopy())
	}
	for _, c := range from.claims {
		r.apply(t, c.DeepCopy())
	}
	for _, m := range from.record {
		r.apply(t, m.DeepCopy())
	}
}
