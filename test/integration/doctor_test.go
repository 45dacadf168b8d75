package integration

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/controlplane"
)

// Exit statuses of upcloud-doctor.
const (
	doctorFound    = 3
	doctorMismatch = 4
)

const provisioner = "storage.csi.upcloud.com"

// patientCluster is a Kubernetes whose doctor is run, with the service account of deploy/kubernetes/doctor.
type patientCluster struct {
	t         *testing.T
	account   *simulatortest.Server
	doctor    string // the program
	clusterID string
	dir       string
	plane     *controlplane.ControlPlane
	client    kubernetes.Interface
	cloud     *cloud.Cloud // as its csi-driver has it
}

// startPatient starts etcd and an API server in a folder, with what etcd holds there.
func startPatient(t *testing.T, account *simulatortest.Server, doctor, dir, clusterID string) *patientCluster {
	t.Helper()
	p := &patientCluster{t: t, account: account, doctor: doctor, clusterID: clusterID, dir: dir}
	p.start()
	t.Cleanup(func() { p.plane.Stop() })
	for _, manifest := range []string{"doctor/rbac.yaml", "doctor-fix/rbac.yaml", "base/csi-driver/controller-rbac.yaml"} {
		if err := p.plane.Apply(t.Context(), "../../deploy/kubernetes/"+manifest); err != nil {
			t.Fatal(err)
		}
	}
	token, err := p.plane.Token(t.Context(), "upcloud-csi-controller", nil)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := kubenode.ClusterUID(t.Context(), p.plane.As(token))
	if err != nil {
		t.Fatal(err)
	}
	p.cloud, err = cloud.New(cloud.Config{Token: account.Token, BaseURL: account.URL, ClusterID: clusterID})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.cloud.Close)
	if err := p.cloud.SetClusterUID(uid); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *patientCluster) start() {
	p.t.Helper()
	var err error
	if p.plane, err = controlplane.Start(p.t.Context(), os.Getenv(controlplane.Variable), p.dir); err != nil {
		p.t.Fatal(err)
	}
	if p.client, err = kubernetes.NewForConfig(p.plane.Admin); err != nil {
		p.t.Fatal(err)
	}
}

// copyEtcd stops the cluster for as long as its etcd is copied to another folder.
func (p *patientCluster) copyEtcd(to string) {
	p.t.Helper()
	p.plane.Stop()
	if err := os.CopyFS(filepath.Join(to, "etcd"), os.DirFS(filepath.Join(p.dir, "etcd"))); err != nil {
		p.t.Fatal(err)
	}
	p.start()
}

// setBack replaces etcd by a copy.
func (p *patientCluster) setBack(from string) {
	p.t.Helper()
	p.plane.Stop()
	if err := os.RemoveAll(filepath.Join(p.dir, "etcd")); err != nil {
		p.t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(p.dir, "etcd"), os.DirFS(filepath.Join(from, "etcd"))); err != nil {
		p.t.Fatal(err)
	}
	p.start()
}

// volume makes a disk as csi-driver does, and its PersistentVolume.
func (p *patientCluster) volume(name string) (id string) {
	p.t.Helper()
	made, err := p.cloud.CreateVolume(p.t.Context(), cloud.VolumeSpec{Name: "pvc-" + name, SizeGiB: 1, Tier: "maxiops", Zone: zone})
	if err != nil {
		p.t.Fatal(err)
	}
	p.persistentVolume("pvc-"+name, made.ID)
	return made.ID
}

func (p *patientCluster) persistentVolume(name, handle string) {
	p.t.Helper()
	_, err := p.client.CoreV1().PersistentVolumes().Create(p.t.Context(), &v1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"pv.kubernetes.io/provisioned-by": provisioner}},
		Spec: v1.PersistentVolumeSpec{
			Capacity: v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}, AccessModes: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce},
			PersistentVolumeReclaimPolicy: v1.PersistentVolumeReclaimDelete,
			PersistentVolumeSource:        v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: provisioner, VolumeHandle: handle}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
}

// leave releases a volume, lets the doctor see it, and takes the PersistentVolume away.
func (p *patientCluster) leave(name string) {
	p.t.Helper()
	volumes := p.client.CoreV1().PersistentVolumes()
	pv, err := volumes.Get(p.t.Context(), "pvc-"+name, metav1.GetOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	pv.Status.Phase = v1.VolumeReleased
	if _, err := volumes.UpdateStatus(p.t.Context(), pv, metav1.UpdateOptions{}); err != nil {
		p.t.Fatal(err)
	}
	p.fix(-1)
	// Without a controller manager, the finalizer that protects volumes in use stays.
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	if err := volumes.Delete(p.t.Context(), pv.Name, metav1.DeleteOptions{}); err != nil {
		p.t.Fatal(err)
	}
	_, _ = volumes.Patch(p.t.Context(), pv.Name, "application/merge-patch+json", patch, metav1.PatchOptions{}) // it may be gone already
}

// run runs the program with the rights of the shipped roles.
func (p *patientCluster) run(args ...string) (output string, status int) {
	p.t.Helper()
	token, err := p.plane.Token(p.t.Context(), "upcloud-doctor", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	kubeconfig := filepath.Join(p.dir, "doctor.kubeconfig")
	if err := p.plane.Kubeconfig(kubeconfig, token); err != nil {
		p.t.Fatal(err)
	}
	command := exec.CommandContext(p.t.Context(), p.doctor, append(args, "--kubeconfig", kubeconfig)...)
	command.Env = append(os.Environ(), "UPCLOUD_DEBUG_API_BASE_URL="+p.account.URL, "UPCLOUD_TOKEN="+p.account.Token)
	var text bytes.Buffer
	command.Stdout, command.Stderr = &text, &text
	err = command.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		p.t.Fatal(err)
	}
	return text.String(), command.ProcessState.ExitCode()
}

// fix is one run of the hourly Job, which ends with that status, or with 0 or 3 where it is negative.
func (p *patientCluster) fix(want int) (output string) {
	p.t.Helper()
	output, status := p.run("storage", "--cluster-id", p.clusterID, "--fix", "--yes")
	if status != want && (want >= 0 || status != 0 && status != doctorFound) {
		p.t.Fatalf("upcloud-doctor --fix ended with %d:\n%s", status, output)
	}
	return output
}

func (p *patientCluster) exists(id string) bool {
	p.t.Helper()
	status, _ := p.account.Raw(p.t, "GET", "/storage/"+id, "")
	return status == 200
}

// label is what a person does in the control panel.
func (p *patientCluster) label(id, key, value string) {
	p.t.Helper()
	now, err := p.cloud.StorageNow(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	labels := maps.Clone(now.Labels)
	labels[key] = value
	if err := p.cloud.RelabelStorage(p.t.Context(), id, "", labels); err != nil {
		p.t.Fatal(err)
	}
}

// others makes the disks of who else uses the account: UpCloud's own driver in the other cluster, for which that has a PersistentVolume,
// one of its that no cluster here knows, and Nomad's.
func others(t *testing.T, account *simulatortest.Server, with *patientCluster) (ids []string) {
	t.Helper()
	plain := func(title string) (id string) {
		var made struct{ Storage struct{ UUID string } }
		account.Do(t, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":"1","tier":"maxiops","title":%q,"zone":%q}}`, title, zone), &made)
		return made.Storage.UUID
	}
	name := "pvc-" + uuid.NewString()
	known := plain(name)
	with.persistentVolume(name, known)
	nomad, err := cloud.New(cloud.Config{Token: account.Token, BaseURL: account.URL, ClusterID: "nomad"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nomad.Close)
	made, err := nomad.CreateVolume(t.Context(), cloud.VolumeSpec{Name: "db[0]", SizeGiB: 1, Tier: "maxiops", Zone: zone})
	if err != nil {
		t.Fatal(err)
	}
	return []string{known, plain("pvc-" + uuid.NewString()), made.ID}
}

// Two clusters with real API servers on one account, with UpCloud's own driver and Nomad beside them: the one with the other's settings,
// one set back to an older etcd, and one running on a copy of it. Only what was left behind goes, and only when nothing speaks for a copy
// any more.
func TestDoctorsOfTwoClusters(t *testing.T) {
	account, clock, doctor := doctorsAccount(t)
	a := startPatient(t, account, doctor, t.TempDir(), "production")
	b := startPatient(t, account, doctor, t.TempDir(), "")
	wanted := append(others(t, account, b), a.volume("a1"), a.volume("a2"), a.volume("a3"), b.volume("b1"))
	left := a.volume("left")
	weeks := func(patients ...*patientCluster) (last string) {
		for _, pass := range []time.Duration{2 * time.Hour, 2 * time.Hour, 4 * 24 * time.Hour, 8 * 24 * time.Hour} {
			clock.Advance(pass)
			for _, p := range patients {
				last = p.fix(-1)
			}
		}
		return last
	}
	stay := func(when string, more ...string) {
		t.Helper()
		for _, id := range slices.Concat(wanted, more) {
			if !a.exists(id) {
				t.Fatalf("%s: storage %s was removed", when, id)
			}
		}
	}
	clock.Advance(48 * time.Hour)

	// The settings of the one, the kubeconfig of the other.
	for _, args := range [][]string{{"--cluster-id=production"}, {"--cluster-id=production", "--now"}} {
		if output, status := b.run(append([]string{"storage", "--fix", "--yes"}, args...)...); status != doctorMismatch {
			t.Errorf("with the other cluster's kubeconfig: %d\n%s", status, output)
		}
	}
	if output, status := a.run("storage"); status != doctorMismatch || !strings.Contains(output, "csi-cluster=production") {
		t.Errorf("without the cluster ID: %d\n%s", status, output)
	}
	a.leave("left")
	clock.Advance(2 * time.Hour)
	a.fix(doctorFound) // marks it
	weeks(b)
	stay("while only the other cluster's doctor ran", left)

	// etcd is set back, and what was made since is the newest there is.
	backup, copied := t.TempDir(), t.TempDir()
	a.copyEtcd(backup)
	newest := a.volume("newest")
	a.setBack(backup)
	if output := weeks(a); !strings.Contains(output, newest) || !strings.Contains(output, "etcd may have been set back") {
		t.Errorf("after etcd was set back:\n%s", output)
	}
	stay("after etcd was set back", left, newest)

	// Another cluster runs on a copy of etcd.
	if err := os.CopyFS(filepath.Join(copied, "etcd"), os.DirFS(filepath.Join(backup, "etcd"))); err != nil {
		t.Fatal(err)
	}
	c := startPatient(t, account, doctor, copied, "production")
	alive := c.volume("alive")
	weeks(a, c, b)
	stay("while a copy runs", left, newest, alive)

	// People say what it was, and the doctor goes on.
	for _, id := range []string{newest, alive} {
		a.label(id, "keep", "yes")
	}
	weeks(a)
	stay("in the end", newest, alive)
	if a.exists(left) {
		t.Error("what was left behind is there still")
	}
}

// ccm's load balancers of one cluster are not another's leftovers, whatever its settings.
func TestDoctorLeavesAnotherClustersLoadBalancers(t *testing.T) {
	account, clock, doctor := doctorsAccount(t)
	p, other := startPatient(t, account, doctor, t.TempDir(), ""), startPatient(t, account, doctor, t.TempDir(), "production")
	network := account.CreateNetwork(t, "nodes", zone, "10.99.0.0/24")
	for name, uid := range map[string]string{"labelled": fmt.Sprintf(`,{"key":"ccm_cluster_uid","value":%q}`, other.cloud.ClusterUID()), "not-labelled": ""} {
		account.Do(t, "POST", "/load-balancer", fmt.Sprintf(`{"name":%q,"plan":"development","zone":%q,"networks":[
			{"name":"private","type":"private","family":"IPv4","uuid":%q}],"backends":[],"frontends":[],"resolvers":[],
			"labels":[{"key":"ccm_cluster_id","value":"production"},{"key":"ccm_cluster_name","value":"kubernetes"},
			{"key":"ccm_service_uid","value":"gone-%s"}%s]}`, name, zone, network, name, uid), nil)
	}
	service := &v1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default"}, Spec: v1.ServiceSpec{
		Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{{Port: 80}}}}
	service, err := other.client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account.Do(t, "POST", "/load-balancer", fmt.Sprintf(`{"name":"running","plan":"development","zone":%q,"networks":[
		{"name":"private","type":"private","family":"IPv4","uuid":%q}],"backends":[],"frontends":[],"resolvers":[],
		"labels":[{"key":"ccm_cluster_id","value":"production"},{"key":"ccm_cluster_name","value":"kubernetes"},
		{"key":"ccm_service_uid","value":%q}]}`, zone, network, service.UID), nil) // without a UID: made before there were any
	clock.Advance(48 * time.Hour)
	for range 2 {
		output, status := p.run("load-balancers", "--cluster-id=production", "--fix", "--yes", "--now")
		if status != doctorFound || !strings.Contains(output, "no label says that this cluster made it") {
			t.Errorf("%d\n%s", status, output)
		}
	}
	for range 2 { // that cluster's own doctor: its record never saw their Services
		clock.Advance(48 * time.Hour)
		if output, status := other.run("load-balancers", "--cluster-id=production", "--fix", "--yes", "--now"); status != doctorFound {
			t.Errorf("%d\n%s", status, output)
		}
	}
	if balancers, err := p.cloud.LoadBalancers(t.Context(), nil); err != nil || len(balancers) != 3 {
		t.Errorf("of three load balancers, %d are left: %v", len(balancers), err)
	}
}

// doctorsAccount is an account whose time passes when the test says so, and the program.
func doctorsAccount(t *testing.T) (*simulatortest.Server, *simulator.ManualClock, string) {
	t.Helper()
	if program == "" {
		t.Skipf("%s does not name a folder with etcd and kube-apiserver: make integration builds them and runs this", controlplane.Variable)
	}
	clock := simulator.NewManualClockAt(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	doctor := filepath.Join(t.TempDir(), "upcloud-doctor")
	if output, err := exec.Command("go", "build", "-buildvcs=false", "-o", doctor, "../../cmd/upcloud-doctor").CombinedOutput(); err != nil {
		t.Fatalf("build upcloud-doctor: %v\n%s", err, output)
	}
	return simulatortest.Start(t, simulator.Config{Clock: clock}), clock, doctor
}
