package doctor_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

const otherUID = "5e0b0000-0000-4000-8000-000000000002"

// neverTouched fails if anything was done to a storage.
func neverTouched(t *testing.T, r *rig, id, title string, labels int) {
	t.Helper()
	if !r.exists(t, id) {
		t.Fatalf("%s was removed", title)
	}
	if now, has := r.state(t, id); now != title || len(has) != labels {
		t.Errorf("%s is titled %q and has the labels %v", title, now, has)
	}
}

// With the kubeconfig of one cluster and the ID of another, nothing of either is touched, whether the one has IDs or not.
func TestAnotherClustersKubeconfigRemovesNothing(t *testing.T) {
	for _, id := range []string{"", "staging"} {
		a := newRig(t)
		var volumes []string
		for _, name := range []string{"one", "two", "three"} {
			volume, _ := a.provisioned(t, name)
			volumes = append(volumes, volume)
		}
		b := newCluster(t, a.sim, a.clock, otherUID, id)
		b.provisioned(t, "other")
		a.sim.Do(t, "POST", "/storage", `{"storage":{"size":"1","tier":"maxiops","title":"pvc-`+newUID()+`","zone":"fi-hel1"}}`, nil) // UpCloud's own driver's
		a.pass(48 * time.Hour)
		b.config.ClusterID = "test"
		b.config.Now = true
		for range 3 {
			report, err := b.doctor(t).Examine(testContext(t))
			if !errors.Is(err, doctor.ErrMismatch) {
				t.Errorf("cluster ID %q: error %v, report %v", id, err, report)
			}
		}
		b.config.ClusterID = id
		b.fix(t)
		for _, volume := range volumes {
			if !a.exists(t, volume) {
				t.Error("a volume of the other cluster was removed")
			}
		}
	}
}

// A plan of one cluster is not applied with the kubeconfig of another.
func TestPlanOfAnotherClusterIsAMismatch(t *testing.T) {
	a := newRig(t)
	a.left(t, "data")
	a.pass(48 * time.Hour)
	plan := planOf(t, a.examine(t))
	b := newCluster(t, a.sim, a.clock, otherUID, "test")
	if _, err := b.examine(t).Apply(testContext(t), plan); !errors.Is(err, doctor.ErrMismatch) {
		t.Errorf("error %v", err)
	}
}

// Backups whose objects are gone may be a backup tool's, whatever was seen of them: they are listed, and stay.
func TestBackupsAreKept(t *testing.T) {
	r := newRig(t)
	volume, _ := r.provisioned(t, "data")
	uid := newUID()
	id := r.snapshot(t, r.cloud, "snapshot-"+uid, volume)
	r.apply(t, snapshotContent("content-1", driverName, id, volume, uid))
	r.pass(48 * time.Hour)
	r.fix(t)
	if err := r.dynamic.Resource(doctor.ContentsResource).Delete(testContext(t), "content-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	report := r.fixForLong(t)
	wantFound(t, "kept", report.Kept, "orphan-snapshot "+id)
	wantFound(t, "findings", report.Findings)
	neverTouched(t, r, id, "snapshot-"+uid, 3)
}

// A PersistentVolume is set to Retain, deleted and made again elsewhere, as one does to rename it or to move it: however a run falls in
// between, the disk stays.
func TestADiskWhosePersistentVolumeIsReplacedStays(t *testing.T) {
	for _, seen := range []bool{false, true} {
		r := newRig(t)
		id, pv := r.provisioned(t, "data")
		r.pass(48 * time.Hour)
		r.fix(t)
		r.change(t, pv, func(v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
		})
		r.releases(t, pv)
		if seen {
			r.fix(t)
		}
		r.loses(t, pv)
		report := r.fixForLong(t)
		neverTouched(t, r, id, pv, 3)
		if f := of(t, report, id); f.Kept == "" || seen && !slices.Contains(report.Kept, f) {
			t.Errorf("seen %t: kept %q", seen, f.Kept)
		}
		r.apply(t, persistentVolume("renamed", driverName, id))
		wantFound(t, "afterwards", r.examine(t).Findings)
	}
}

// A volume that another cluster took over keeps the labels of the first for ever.
func TestAVolumeMovedToAnotherClusterStays(t *testing.T) {
	a := newRig(t)
	id, pv := a.provisioned(t, "data")
	a.provisioned(t, "another")
	b := newCluster(t, a.sim, a.clock, otherUID, "other")
	a.pass(48 * time.Hour)
	a.fix(t)
	a.releases(t, pv)
	a.loses(t, pv)
	moved := persistentVolume("moved", driverName, id)
	moved.Annotations = nil // written by hand
	b.apply(t, moved)
	a.fixForLong(t)
	b.fixForLong(t)
	neverTouched(t, a, id, pv, 3)
}

// What was made after the backup that etcd was set back to is the newest there is. Nothing else goes, either, while that is there.
func TestEtcdSetBackRemovesNothing(t *testing.T) {
	r := newRig(t)
	left, leftPV := r.left(t, "left")
	r.pass(48 * time.Hour)
	r.fix(t) // marks it
	before := r.backupEtcd(t)
	newest, newestPV := r.provisioned(t, "newest")
	r.pass(24 * time.Hour)
	r.fix(t)
	r.restoreEtcd(t, before)
	report := r.fixForLong(t)
	neverTouched(t, r, newest, newestPV, 3)
	if !r.exists(t, left) || report.Stopped == "" || !strings.Contains(report.Stopped, newest) {
		t.Errorf("left exists %t (%s), stopped by %q", r.exists(t, left), leftPV, report.Stopped)
	}

	// A person decides about it, and the doctor goes on.
	r.sim.Do(t, "PUT", "/storage/"+newest, `{"storage":{"title":"KEEP: newest"}}`, nil)
	r.fixForLong(t)
	if r.exists(t, left) || !r.exists(t, newest) {
		t.Errorf("afterwards: left exists %t, newest %t", r.exists(t, left), r.exists(t, newest))
	}
}

// Two clusters on copies of one etcd have one UID and one record. Each keeps its hands off while the other shows any life.
func TestACopyOfEtcdRemovesNothing(t *testing.T) {
	a := newRig(t)
	shared, pv := a.provisioned(t, "shared")
	a.pass(48 * time.Hour)
	a.releases(t, pv)
	a.fix(t) // sees that it is to be deleted
	b := newCluster(t, a.sim, a.clock, clusterUID, "test")
	b.restoreEtcd(t, a.backupEtcd(t))
	made, madePV := b.provisioned(t, "made-by-the-copy")
	a.loses(t, pv)
	for range 2 {
		a.fixForLong(t)
	}
	neverTouched(t, a, shared, pv, 3)
	neverTouched(t, a, made, madePV, 3)

	// The same where the copy makes nothing, and only runs a Pod.
	b.remove(t, made)
	b.loses(t, madePV)
	old, oldPV := a.left(t, "old")
	running := a.volume(t, a.cloud, "pvc-"+newUID())
	a.apply(t, persistentVolume("running", driverName, running))
	a.attach(t, running, a.sim.CreateServer(t, "node-of-the-copy", zone))
	report := a.fixForLong(t)
	if !strings.Contains(report.Stopped, "which is no node of this cluster") {
		t.Errorf("stopped by %q", report.Stopped)
	}
	neverTouched(t, a, old, oldPV, 3)
}

// Two clusters that each hold the other's mark for nothing never come to an end with it.
func TestMarksOfACopyBeginAgain(t *testing.T) {
	a := newRig(t)
	id, _ := a.left(t, "left")
	a.pass(48 * time.Hour)
	b := newCluster(t, a.sim, a.clock, clusterUID, "test")
	b.restoreEtcd(t, a.backupEtcd(t))
	for range 30 {
		a.fix(t)
		a.pass(2 * safetyAge)
		b.fix(t)
		a.pass(24 * time.Hour)
	}
	if !a.exists(t, id) {
		t.Error("it was removed")
	}
}

// This machine's clock does not matter: the rig's account lives in 2030.
func TestAgesAreCountedByTheAccountsClock(t *testing.T) {
	r := newRig(t)
	r.provisioned(t, "data")
	young := r.volume(t, r.cloud, pvcName(newUID()))
	r.pass(time.Second)
	report := r.examine(t)
	wantFound(t, "findings", report.Findings)
	wantFound(t, "undecided", report.Undecided, "orphan-volume "+young)
}

// external-provisioner with --volume-name-uuid-length names volumes after the beginning of the claim's UID, without dashes.
func TestShortenedNamesAreWaitedFor(t *testing.T) {
	r := newRig(t)
	r.provisioned(t, "data")
	uid := newUID()
	id := r.volume(t, r.cloud, "pvc-"+strings.ReplaceAll(uid, "-", "")[:10])
	r.apply(t, claim(uid, "pending", ""))
	r.pass(48 * time.Hour)
	report := r.fix(t)
	wantFound(t, "undecided", report.Undecided, "orphan-volume "+id)
	neverTouched(t, r, id, "pvc-"+strings.ReplaceAll(uid, "-", "")[:10], 3)
}

// A list that was cut short by whatever stands in between is no list of all.
func TestListsThatWereCutShortAreErrors(t *testing.T) {
	for _, kind := range []string{"persistentvolumes", "persistentvolumeclaims", "nodes"} {
		r := newRig(t)
		id, _ := r.left(t, "data")
		r.pass(48 * time.Hour)
		r.kube.PrependReactor("list", kind, func(clienttesting.Action) (bool, runtime.Object, error) {
			cut := metav1.ListMeta{Continue: "more"}
			lists := map[string]runtime.Object{"persistentvolumes": &corev1.PersistentVolumeList{ListMeta: cut},
				"persistentvolumeclaims": &corev1.PersistentVolumeClaimList{ListMeta: cut}, "nodes": &corev1.NodeList{ListMeta: cut}}
			return true, lists[kind], nil
		})
		if _, err := r.doctor(t).Examine(testContext(t)); err == nil || !strings.Contains(err.Error(), kind) {
			t.Errorf("%s: %v", kind, err)
		}
		if !r.exists(t, id) {
			t.Error("it was removed")
		}
	}
}

// A copy of the cluster that has just begun to run is seen by its first disk, however young that is.
func TestAYoungDiskOfACopyStopsTheDoctor(t *testing.T) {
	a := newRig(t)
	left, _ := a.left(t, "left")
	a.pass(2 * safetyAge)
	made := a.volume(t, a.cloud, pvcName(newUID()))
	a.config.Now = true
	if report := a.fix(t); !a.exists(t, left) || !strings.Contains(report.Stopped, made) {
		t.Errorf("left exists: %t, stopped by %q", a.exists(t, left), report.Stopped)
	}
	a.remove(t, made)
	if a.fix(t); a.exists(t, left) {
		t.Error("it goes on when the disk is gone, and did not")
	}
}

// Of two PersistentVolumes of one disk, the one that keeps it counts, in whatever order the API server lists them.
func TestADiskOfTwoPersistentVolumesStays(t *testing.T) {
	for _, name := range []string{"a-renamed", "z-renamed"} {
		for _, driver := range []string{driverName, "other.example"} {
			r := newRig(t)
			id, pv := r.provisioned(t, "data")
			renamed := persistentVolume(name, driver, id)
			renamed.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
			r.apply(t, renamed)
			r.releases(t, pv)
			r.pass(48 * time.Hour)
			r.fix(t)
			r.loses(t, pv)
			r.loses(t, name)
			report := r.fixForLong(t)
			neverTouched(t, r, id, pv, 3)
			wantFound(t, name+" of "+driver, report.Kept, "orphan-volume "+id)
		}
	}
}

// A disk that was handed over to another cluster is attached to that one's servers: no sign of a copy of this cluster.
func TestADiskHandedOverDoesNotStopTheDoctor(t *testing.T) {
	r := newRig(t)
	left, _ := r.left(t, "left")
	moved, _ := r.provisioned(t, "moved")
	r.relabel(t, moved, "", cloud.LabelImport, otherUID)
	status, body := r.sim.Raw(t, "POST", "/server/"+r.sim.CreateServer(t, "node-of-another-cluster", zone)+"/storage/attach",
		`{"storage_device":{"type":"disk","address":"virtio","storage":"`+moved+`"}}`)
	if status != 200 {
		t.Fatal(status, string(body))
	}
	report := r.fixForLong(t)
	if r.exists(t, left) || !r.exists(t, moved) || report.Stopped != "" {
		t.Errorf("left exists %t, moved %t, stopped by %q", r.exists(t, left), r.exists(t, moved), report.Stopped)
	}
}
