package doctor_test

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// healthy fills account and cluster with what belongs there.
func healthy(t *testing.T, r *rig) {
	t.Helper()
	server := r.sim.CreateServer(t, "worker-1", zone)
	second := r.sim.CreateServer(t, "worker-2", zone)
	r.apply(t, csiNode("worker-1", server))

	attached, pv := r.provisioned(t, "data")
	r.attach(t, attached, server)
	r.apply(t, volumeAttachment("csi-1", pv, "worker-1", ""))
	// Attached under UpCloud's own driver, whose node IDs are host names; the Node has gone since.
	old := r.plain(t, pvcName(newUID()))
	r.attach(t, old, second)
	r.apply(t, persistentVolume("old", driverName, old), volumeAttachment("csi-2", "old", "worker-2", "worker-2"))
	// A PersistentVolume made by hand, of a storage with a title of its own, its UUID in capitals.
	static := r.plain(t, "database")
	r.attach(t, static, server)
	r.apply(t, persistentVolume("static", driverName, upper(static)), volumeAttachment("csi-3", "static", "worker-1", ""))
	// Of a Node that nothing tells the server of.
	moved, movedPV := r.provisioned(t, "moved")
	r.attach(t, moved, second)
	r.apply(t, volumeAttachment("csi-4", movedPV, "worker-9", ""))
	// Another driver's PersistentVolume and VolumeAttachment of a storage with this cluster's labels.
	lent := r.volume(t, r.cloud, pvcName(newUID()))
	r.attach(t, lent, second)
	strange := volumeAttachment("csi-5", "lent", "worker-1", "")
	strange.Spec.Attacher = "other.example"
	r.apply(t, persistentVolume("lent", "other.example", lent), strange)
	r.volume(t, newCloud(t, r.sim, "other"), pvcName(newUID())) // another cluster's
	r.clone(t, r.plain(t, "a person's disk"), "pvc-x", "other")

	uid := newUID()
	labelled := r.snapshot(t, r.cloud, "snapshot-"+uid, attached)
	r.apply(t, snapshotContent("content-1", driverName, labelled, attached, uid))
	uid = newUID()
	halfMade := r.backup(t, attached, "snapshot-"+uid)
	r.apply(t, snapshotContent("content-2", driverName, halfMade, attached, uid))
	r.backup(t, attached, "Scheduled backup")
	r.backup(t, attached, "Resize Backup")

	// Volumes and snapshots that are being made for long.
	uid = newUID()
	r.volume(t, r.cloud, pvcName(uid))
	r.apply(t, claim(uid, "pending", ""))
}

func upper(id string) string {
	text := []byte(id)
	for i, c := range text {
		if c >= 'a' && c <= 'f' {
			text[i] = c - 'a' + 'A'
		}
	}
	return string(text)
}

func TestNothingIsFoundInAHealthyAccount(t *testing.T) {
	r := newRig(t)
	healthy(t, r)
	r.pass(48 * time.Hour)
	r.sim.ResetRequests()
	r.kube.ClearActions()
	r.dynamic.ClearActions()
	report := r.examine(t)
	wantFound(t, "findings", report.Findings)
	if len(report.Undecided) != 1 || report.Undecided[0].Note != "claim default/pending waits for it" {
		t.Errorf("undecided: %v", found(report.Undecided))
	}
	if n := r.sim.Requests().Of("GET /storage/private"); n != 1 {
		t.Errorf("the storages were listed %d times", n)
	}
	lists := map[string]int{}
	for _, action := range append(r.kube.Actions(), r.dynamic.Actions()...) {
		if resource := action.GetResource().Resource; action.GetVerb() != "list" && resource != "namespaces" && resource != "configmaps" {
			t.Errorf("it did %s %s", action.GetVerb(), action.GetResource().Resource)
		}
		lists[action.GetResource().Resource]++
	}
	for _, kind := range []string{"persistentvolumes", "persistentvolumeclaims", "volumeattachments", "csinodes", "nodes", "volumesnapshotcontents"} {
		if lists[kind] != 1 {
			t.Errorf("%s were listed %d times, want once", kind, lists[kind])
		}
	}
}

func TestWhatWasLeftInTheAccountIsFound(t *testing.T) {
	r := newRig(t)
	server := r.sim.CreateServer(t, "worker-1", zone)
	r.apply(t, csiNode("worker-1", server))
	healthyVolume, pv := r.provisioned(t, "data")
	orphan := r.volume(t, r.cloud, pvcName(newUID()))
	twin := r.volume(t, newCloud(t, r.sim, "x"), pv)
	r.sim.Do(t, "PUT", "/storage/"+twin, `{"storage":{"labels":[{"key":"csi-name","value":"`+pv+`"},{"key":"csi-cluster","value":"test"}]}}`, nil)
	old := r.plain(t, pvcName(newUID()))
	unlabelled := r.volume(t, newCloud(t, r.sim, ""), pvcName(newUID()))
	unfinished := r.clone(t, healthyVolume, pvcName(newUID()), "test")
	snapshot := r.snapshot(t, r.cloud, "snapshot-"+newUID(), healthyVolume)
	halfMade := r.backup(t, healthyVolume, "snapshot-"+newUID())
	oldBackup := r.backup(t, old, "snapshot-"+newUID())
	r.attach(t, healthyVolume, server) // and no VolumeAttachment says so

	r.pass(48 * time.Hour)
	report := r.examine(t)
	wantFound(t, "findings", report.Findings,
		"orphan-volume "+orphan, "orphan-volume "+old, "orphan-volume "+unlabelled,
		"unfinished-copy "+unfinished, "unexplained-attachment "+healthyVolume)
	wantFound(t, "kept, as a person or a backup tool may want it", report.Kept, "orphan-volume "+twin,
		"orphan-snapshot "+snapshot, "orphan-snapshot "+halfMade, "orphan-snapshot "+oldBackup)
	wantFound(t, "undecided", report.Undecided)
	for _, f := range slices.Concat(report.Findings, report.Kept) {
		unclaimed := f.StorageID == old || f.StorageID == unlabelled || f.StorageID == oldBackup
		if f.Unclaimed() != unclaimed {
			t.Errorf("%s %s: unclaimed is %t", f.Kind, f.StorageID, f.Unclaimed())
		}
	}

	r.config.Unclaimed = doctor.UnclaimedIgnore
	wantFound(t, "without the unclaimed", r.examine(t).Findings,
		"orphan-volume "+orphan, "unfinished-copy "+unfinished, "unexplained-attachment "+healthyVolume)
}

func TestWhatIsMissedInTheAccountIsFound(t *testing.T) {
	r := newRig(t)
	server := r.sim.CreateServer(t, "worker-1", zone)
	other := r.sim.CreateServer(t, "worker-2", zone)
	r.apply(t, csiNode("worker-1", server))
	volume, pv := r.provisioned(t, "data")
	r.attach(t, volume, other)
	r.apply(t, volumeAttachment("csi-there", pv, "worker-2", other))
	r.apply(t, volumeAttachment("csi-not-there", pv, "worker-1", ""))
	gone, _ := r.provisioned(t, "gone")
	backup := r.snapshot(t, r.cloud, "snapshot-1", volume)
	r.apply(t, snapshotContent("content-gone", driverName, backup, volume, ""))
	r.remove(t, backup)
	r.remove(t, gone)
	r.apply(t, persistentVolume("no-uuid", driverName, "volume-1"))
	leaving := persistentVolume("leaving", driverName, newUID())
	leaving.Status.Phase = corev1.VolumeReleased
	foreign := persistentVolume("foreign", "ebs.csi.aws.com", newUID())
	nowhere, nowherePV := r.provisioned(t, "nowhere")
	r.apply(t, leaving, foreign, volumeAttachment("csi-unknown-node", nowherePV, "worker-9", ""))
	_ = nowhere

	want := []string{"lost-snapshot VolumeSnapshotContent/content-gone", "lost-volume PersistentVolume/no-uuid",
		"lost-attachment VolumeAttachment/csi-not-there", "lost-attachment VolumeAttachment/csi-unknown-node"}
	for _, v := range r.examine(t).Findings {
		if v.Kind == doctor.LostVolume && v.StorageID == gone {
			want = append(want, "lost-volume "+v.Object)
		}
	}
	if len(want) != 5 {
		t.Error("the PersistentVolume whose storage is gone was not found")
	}
	wantFound(t, "findings", r.examine(t).Findings, want...)
}

func TestYoungStoragesAreNotJudged(t *testing.T) {
	r := newRig(t)
	r.provisioned(t, "data")
	old := r.volume(t, r.cloud, pvcName(newUID()))
	r.pass(48*time.Hour - 30*time.Minute)
	young := r.volume(t, r.cloud, pvcName(newUID()))
	r.pass(30 * time.Minute)
	report := r.examine(t)
	wantFound(t, "findings", report.Findings, "orphan-volume "+old)
	wantFound(t, "undecided", report.Undecided, "orphan-volume "+young)
	r.config.SafetyAge = 10 * time.Minute
	wantFound(t, "with a lesser age", r.examine(t).Findings, "orphan-volume "+old, "orphan-volume "+young)
}

// What comes and goes between the first look and the second is no finding.
func TestWhatChangesMeanwhileIsNoFinding(t *testing.T) {
	r := newRig(t)
	server := r.sim.CreateServer(t, "worker-1", zone)
	orphan := r.volume(t, r.cloud, pvcName(newUID()))
	detached, _ := r.provisioned(t, "detached")
	r.attach(t, detached, server)
	leaving, leavingPV := r.provisioned(t, "leaving")
	r.remove(t, leaving)
	r.kube.PrependReactor("list", "volumeattachments", func(clienttesting.Action) (bool, runtime.Object, error) {
		r.remove(t, orphan) // after it was listed
		if err := r.cloud.Detach(testContext(t), detached, server); err != nil {
			t.Error(err)
		}
		if err := r.kube.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("persistentvolumes"), "", leavingPV); err != nil {
			t.Error(err)
		}
		return false, nil, nil
	})
	wantFound(t, "findings", r.examine(t).Findings)
}

func TestAClusterWithoutSnapshotKinds(t *testing.T) {
	r := newRig(t)
	volume, _ := r.provisioned(t, "data")
	r.dynamic.PrependReactor("list", "volumesnapshotcontents", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(doctor.ContentsResource.GroupResource(), "")
	})
	report := r.examine(t)
	wantFound(t, "findings", report.Findings)
	if !report.WithoutSnapshots {
		t.Error("the report does not say that there is no such kind")
	}
	backup := r.snapshot(t, r.cloud, "snapshot-"+newUID(), volume)
	r.pass(48 * time.Hour)
	wantFound(t, "the backup, which contents may know that went with the kind", r.examine(t).Findings, "orphan-snapshot "+backup)
}

func TestErrorsAreErrors(t *testing.T) {
	for _, kind := range []string{"persistentvolumes", "persistentvolumeclaims", "volumeattachments", "csinodes", "nodes", "volumesnapshotcontents"} {
		r := newRig(t)
		refuse := func(action clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(action.GetResource().GroupResource(), "", nil)
		}
		r.kube.PrependReactor("list", kind, refuse)
		r.dynamic.PrependReactor("list", kind, refuse)
		if _, err := r.doctor(t).Examine(testContext(t)); !apierrors.IsForbidden(err) {
			t.Errorf("%s cannot be listed: %v", kind, err)
		}
	}
	r := newRig(t)
	r.volume(t, r.cloud, pvcName(newUID()))
	r.provisioned(t, "data")
	for _, operation := range []string{"GET /storage/private", "GET /storage/{uuid}", "GET /storage/favorite", "GET /account"} {
		remove := r.sim.Inject(simulator.Fault{Operation: operation, Status: 403})
		if _, err := r.doctor(t).Examine(testContext(t)); err == nil {
			t.Errorf("%s fails, and the examination does not", operation)
		}
		remove()
	}
}
