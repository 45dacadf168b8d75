package doctor_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const (
	driverName = "storage.csi.upcloud.com"
	zone       = "fi-hel1"
)

// rig is an account, a cluster, and a doctor for both.
type rig struct {
	sim     *simulatortest.Server
	cloud   *cloud.Cloud
	kube    *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient
	config  doctor.Config
}

// newRig is an account in which everything that is made is two days old, and a Kubernetes without objects.
func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOf(t, simulator.Config{Clock: simulator.NewClockAt(time.Now().Add(-48 * time.Hour))})
}

func newRigOf(t *testing.T, config simulator.Config) *rig {
	t.Helper()
	sim := simulatortest.Start(t, config)
	r := &rig{sim: sim, cloud: newCloud(t, sim, "test"), kube: fake.NewClientset()}
	r.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{doctor.ContentsResource: "VolumeSnapshotContentList"})
	r.config = doctor.Config{
		Cloud: r.cloud, Kubernetes: r.kube, Dynamic: r.dynamic, Driver: driverName,
		SafetyAge: time.Hour, Unclaimed: doctor.UnclaimedReport,
	}
	t.Cleanup(func() {
		mayAsk(t, r.kube.Actions())
		mayAsk(t, r.dynamic.Actions())
	})
	return r
}

func newCloud(t *testing.T, sim *simulatortest.Server, cluster string) *cloud.Cloud {
	t.Helper()
	account, err := cloud.New(cloud.Config{Username: sim.Username, Password: sim.Password, BaseURL: sim.URL, ClusterID: cluster})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	return account
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func (r *rig) doctor(t *testing.T) *doctor.Doctor {
	t.Helper()
	d, err := doctor.New(r.config)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (r *rig) examine(t *testing.T) *doctor.Report {
	t.Helper()
	report, err := r.doctor(t).Examine(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// pvcName is a name as external-provisioner makes them, for the claim of that UID.
func pvcName(uid string) string { return "pvc-" + uid }

func newUID() string { return uuid.NewString() }

func (r *rig) volume(t *testing.T, account *cloud.Cloud, name string) string {
	t.Helper()
	volume, err := account.CreateVolume(testContext(t), cloud.VolumeSpec{Name: name, SizeGiB: 1, Tier: "maxiops", Zone: zone})
	if err != nil {
		t.Fatal(err)
	}
	return volume.ID
}

// snapshot is a finished one, with its labels.
func (r *rig) snapshot(t *testing.T, account *cloud.Cloud, name, volume string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		snapshot, err := account.CreateSnapshot(testContext(t), cloud.SnapshotSpec{Name: name, VolumeID: volume})
		if err != nil {
			t.Fatal(err)
		}
		if snapshot.Ready {
			return snapshot.ID
		}
	}
	t.Fatal("the snapshot is not ready after a minute")
	return ""
}

// post makes a storage by the API itself: without the labels of this project.
func (r *rig) post(t *testing.T, path, body string) string {
	t.Helper()
	var answer struct{ Storage struct{ UUID string } }
	r.sim.Do(t, "POST", path, body, &answer)
	return answer.Storage.UUID
}

func (r *rig) plain(t *testing.T, title string) string {
	t.Helper()
	return r.post(t, "/storage", fmt.Sprintf(`{"storage":{"size":"1","tier":"maxiops","title":%q,"zone":%q}}`, title, zone))
}

// clone begins a copy as pkg/cloud titles it.
func (r *rig) clone(t *testing.T, source, name, cluster string) string {
	t.Helper()
	if cluster != "" {
		cluster = " for " + cluster
	}
	title := fmt.Sprintf("%s (unfinished copy of %s%s)", name, source, cluster)
	return r.post(t, "/storage/"+source+"/clone", fmt.Sprintf(`{"storage":{"zone":%q,"tier":"maxiops","title":%q}}`, zone, title))
}

func (r *rig) backup(t *testing.T, volume, title string) string {
	t.Helper()
	return r.post(t, "/storage/"+volume+"/backup", fmt.Sprintf(`{"storage":{"title":%q}}`, title))
}

func (r *rig) attach(t *testing.T, volume, server string) {
	t.Helper()
	if err := r.cloud.Attach(testContext(t), volume, server); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) remove(t *testing.T, id string) {
	t.Helper()
	r.sim.Do(t, "DELETE", "/storage/"+id, "", nil)
}

func (r *rig) exists(t *testing.T, id string) bool {
	t.Helper()
	status, _ := r.sim.Raw(t, "GET", "/storage/"+id, "")
	return status == 200
}

func persistentVolume(name, driver, handle string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle},
			},
		},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeBound},
	}
}

func claim(uid, name, volume string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(uid)},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: volume},
	}
}

func volumeAttachment(name, volume, node, nodeID string) *storagev1.VolumeAttachment {
	return &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"csi.alpha.kubernetes.io/node-id": nodeID}},
		Spec: storagev1.VolumeAttachmentSpec{
			Attacher: driverName, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &volume},
		},
		Status: storagev1.VolumeAttachmentStatus{Attached: true},
	}
}

func csiNode(name, nodeID string) *storagev1.CSINode {
	return &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: driverName, NodeID: nodeID}}},
	}
}

func snapshotContent(name, driver, handle, source, snapshotUID string) *unstructured.Unstructured {
	object := map[string]any{
		"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotContent",
		"metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"driver": driver, "source": map[string]any{"volumeHandle": source},
			"volumeSnapshotRef": map[string]any{"namespace": "default", "name": "s", "uid": snapshotUID},
		},
	}
	if handle != "" {
		object["status"] = map[string]any{"snapshotHandle": handle}
	}
	return &unstructured.Unstructured{Object: object}
}

// apply makes objects.
func (r *rig) apply(t *testing.T, made ...runtime.Object) {
	t.Helper()
	for _, object := range made {
		var err error
		if content, ok := object.(*unstructured.Unstructured); ok {
			_, err = r.dynamic.Resource(doctor.ContentsResource).Create(testContext(t), content, metav1.CreateOptions{})
		} else {
			err = r.kube.Tracker().Add(object)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// provisioned is a volume with its claim and PersistentVolume.
func (r *rig) provisioned(t *testing.T, name string) (id, pv string) {
	t.Helper()
	uid := newUID()
	pv = pvcName(uid)
	id = r.volume(t, r.cloud, pv)
	r.apply(t, persistentVolume(pv, driverName, id), claim(uid, name, pv))
	return id, pv
}

// found lists findings as "kind subject", where the subject is the object, or else the storage.
func found(findings []*doctor.Finding) []string {
	list := []string{}
	for _, f := range findings {
		subject := f.Object
		if subject == "" {
			subject = f.StorageID
		}
		list = append(list, string(f.Kind)+" "+subject)
	}
	slices.Sort(list)
	return list
}

func wantFound(t *testing.T, what string, got []*doctor.Finding, want ...string) {
	t.Helper()
	slices.Sort(want)
	if have := found(got); !slices.Equal(have, want) {
		t.Errorf("%s:\n  %s\nwant:\n  %s", what, strings.Join(have, "\n  "), strings.Join(want, "\n  "))
	}
}
