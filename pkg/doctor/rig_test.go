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

// clusterUID is the UID of the rig's cluster.
const clusterUID = "5e0b0000-0000-4000-8000-000000000001"

// rig is an account, a cluster, and a doctor for both. Time passes when a test says so.
type rig struct {
	sim     *simulatortest.Server
	clock   *simulator.ManualClock
	cloud   *cloud.Cloud
	kube    *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient
	config  doctor.Config
	journal []doctor.Entry
	fresh   *cloud.Cloud // of the last run
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOf(t, simulator.Config{})
}

func newRigOf(t *testing.T, config simulator.Config) *rig {
	t.Helper()
	clock := simulator.NewManualClockAt(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)) // which is not this machine's
	config.Clock = clock
	return newCluster(t, simulatortest.Start(t, config), clock, clusterUID, "test")
}

// newCluster is another cluster on an account.
func newCluster(t *testing.T, sim *simulatortest.Server, clock *simulator.ManualClock, uid, id string) *rig {
	t.Helper()
	r := &rig{sim: sim, clock: clock, cloud: newCloudOf(t, sim, id, uid), kube: fake.NewClientset()}
	r.apply(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: types.UID(uid)}})
	r.dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(),
		map[schema.GroupVersionResource]string{doctor.ContentsResource: "VolumeSnapshotContentList"})
	r.config = doctor.Config{Cloud: r.cloud, ClusterID: id, Kubernetes: r.kube, Dynamic: r.dynamic, Driver: driverName, Rules: r.rules()}
	t.Cleanup(func() {
		if r.fresh != nil {
			r.fresh.Close()
		}
		mayAsk(t, r.kube.Actions())
		mayAsk(t, r.dynamic.Actions())
	})
	return r
}

func (r *rig) rules() doctor.Rules {
	return doctor.Rules{SafetyAge: safetyAge, Quarantine: quarantine, Unclaimed: doctor.UnclaimedReport, Journal: func(e doctor.Entry) error {
		r.journal = append(r.journal, e)
		return nil
	}}
}

const (
	safetyAge  = time.Hour
	quarantine = 7 * 24 * time.Hour
)

func newCloud(t *testing.T, sim *simulatortest.Server, cluster string) *cloud.Cloud {
	t.Helper()
	return newCloudOf(t, sim, cluster, "")
}

func newCloudOf(t *testing.T, sim *simulatortest.Server, cluster, uid string) *cloud.Cloud {
	t.Helper()
	account := openCloud(t, sim, cluster)
	if err := account.SetClusterUID(uid); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	return account
}

// openCloud is a client that its caller closes.
func openCloud(t *testing.T, sim *simulatortest.Server, cluster string) *cloud.Cloud {
	t.Helper()
	account, err := cloud.New(cloud.Config{
		Username: sim.Username, Password: sim.Password, BaseURL: sim.URL, ClusterID: cluster, RequestsPerSecond: 10_000, Burst: 10_000,
		Transport: sim.Transport(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return account
}

// pass lets time pass in the account.
func (r *rig) pass(d time.Duration) { r.clock.Advance(d) }

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// freshCloud is a client that has seen nothing yet; it ends the one before, whose connections would add up.
func (r *rig) freshCloud(t *testing.T, clusterID string) *cloud.Cloud {
	t.Helper()
	if r.fresh != nil {
		r.fresh.Close()
	}
	r.fresh = openCloud(t, r.sim, clusterID)
	return r.fresh
}

// doctor is one that has seen nothing of the account yet, as each run of the program is.
func (r *rig) doctor(t *testing.T) *doctor.Doctor {
	t.Helper()
	config := r.config
	config.Cloud = r.freshCloud(t, config.ClusterID)
	d, err := doctor.New(config)
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

// fix is one run with --fix --yes.
func (r *rig) fix(t *testing.T) *doctor.Report {
	t.Helper()
	report := r.examine(t)
	if err := report.Fix(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	return report
}

// fixForLong is what an hourly Job does in weeks: everything that Fix may remove is gone afterwards.
func (r *rig) fixForLong(t *testing.T) (last *doctor.Report) {
	t.Helper()
	for _, wait := range []time.Duration{safetyAge, safetyAge, quarantine / 2, quarantine, quarantine} {
		r.pass(wait)
		last = r.fix(t)
	}
	return last
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

// left is a volume whose PersistentVolume was seen on its way out by a doctor, and is gone.
func (r *rig) left(t *testing.T, name string) (id, pv string) {
	t.Helper()
	id, pv = r.provisioned(t, name)
	r.releases(t, pv)
	r.fix(t)
	r.loses(t, pv)
	return id, pv
}

// releases deletes the claim of a volume, so that the volume is to go.
func (r *rig) releases(t *testing.T, pv string) {
	t.Helper()
	r.change(t, pv, func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeReleased })
	claims, err := r.kube.CoreV1().PersistentVolumeClaims("default").List(testContext(t), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, claim := range claims.Items {
		if claim.Spec.VolumeName == pv {
			if err := r.kube.CoreV1().PersistentVolumeClaims("default").Delete(testContext(t), claim.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (r *rig) change(t *testing.T, pv string, change func(*corev1.PersistentVolume)) {
	t.Helper()
	volume, err := r.kube.CoreV1().PersistentVolumes().Get(testContext(t), pv, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	change(volume)
	if _, err := r.kube.CoreV1().PersistentVolumes().Update(testContext(t), volume, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// loses takes a PersistentVolume away, its finalizers taken off by hand.
func (r *rig) loses(t *testing.T, pv string) {
	t.Helper()
	if err := r.kube.CoreV1().PersistentVolumes().Delete(testContext(t), pv, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
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

// node makes a server that is a node of the cluster.
func (r *rig) node(t *testing.T, name string) (server string) {
	t.Helper()
	server = r.sim.CreateServer(t, name, zone)
	r.apply(t, csiNode(name, server))
	return server
}
