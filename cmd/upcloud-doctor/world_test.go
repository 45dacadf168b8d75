package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// clusterUID is that of the world's cluster.
const clusterUID = "5e0b0000-0000-4000-8000-000000000001"

// world is a simulated account, and an API server.
type world struct {
	sim        *simulatortest.Server
	clock      *simulator.ManualClock
	kubeconfig string
	account    *cloud.Cloud
	mu         sync.Mutex
	volumes    []string          // PersistentVolumes as JSON
	record     map[string]string // the ConfigMap's data
}

// newWorld sets the environment for an account; its API server answers after cluster only.
func newWorld(t *testing.T) *world {
	t.Helper()
	clock := simulator.NewManualClockAt(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	sim := simulatortest.Start(t, simulator.Config{Clock: clock})
	for _, name := range []string{"UPCLOUD_USERNAME", "UPCLOUD_PASSWORD", "UPCLOUD_API_TOKEN", "UPCLOUD_API_USER",
		"UPCLOUD_API_PASSWORD", "KUBERNETES_SERVICE_HOST"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("UPCLOUD_TOKEN", sim.Token)
	t.Setenv("UPCLOUD_DEBUG_API_BASE_URL", sim.URL)
	account, err := cloud.New(cloud.Config{Token: sim.Token, BaseURL: sim.URL, ClusterID: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(account.Close)
	if err := account.SetClusterUID(clusterUID); err != nil {
		t.Fatal(err)
	}
	return &world{sim: sim, clock: clock, account: account, kubeconfig: kubeconfig(t, "http://127.0.0.1:1")}
}

func (w *world) volume(t *testing.T, name string) string {
	t.Helper()
	volume, err := w.account.CreateVolume(t.Context(), cloud.VolumeSpec{Name: name, SizeGiB: 1, Tier: "maxiops", Zone: "fi-hel1"})
	if err != nil {
		t.Fatal(err)
	}
	return volume.ID
}

// persistentVolume is one of the storage, in a phase.
func persistentVolume(handle, phase string) string {
	return fmt.Sprintf(`{"metadata":{"name":"pv-%s","annotations":{"pv.kubernetes.io/provisioned-by":"storage.csi.upcloud.com"}},"spec":{
		"persistentVolumeReclaimPolicy":"Delete","csi":{"driver":"storage.csi.upcloud.com","volumeHandle":%q}},"status":{"phase":%q}}`, handle, handle, phase)
}

// cluster serves the API of a Kubernetes that has a PersistentVolume for each handle, and no kinds of snapshots.
func (w *world) cluster(t *testing.T, handles ...string) {
	t.Helper()
	w.volumes = nil
	for _, handle := range handles {
		w.volumes = append(w.volumes, persistentVolume(handle, "Bound"))
	}
	server := httptest.NewServer(http.HandlerFunc(w.answer))
	t.Cleanup(server.Close)
	w.kubeconfig = kubeconfig(t, server.URL)
}

var lists = map[string]string{
	"/api/v1/persistentvolumes":                 "v1 PersistentVolume",
	"/api/v1/persistentvolumeclaims":            "v1 PersistentVolumeClaim",
	"/api/v1/nodes":                             "v1 Node",
	"/apis/storage.k8s.io/v1/csinodes":          "storage.k8s.io/v1 CSINode",
	"/apis/storage.k8s.io/v1/volumeattachments": "storage.k8s.io/v1 VolumeAttachment",
	"/api/v1/services":                          "v1 Service",
}

func (w *world) answer(answer http.ResponseWriter, request *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	answer.Header().Set("Content-Type", "application/json")
	version, kind, found := strings.Cut(lists[request.URL.Path], " ")
	switch {
	case request.URL.Path == "/api/v1/namespaces/kube-system":
		fmt.Fprintf(answer, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-system","uid":%q}}`, clusterUID)
	case strings.HasPrefix(request.URL.Path, "/api/v1/namespaces/kube-system/configmaps"):
		w.answerRecord(answer, request)
	case !found:
		http.NotFound(answer, request)
	default:
		items := ""
		if kind == "PersistentVolume" {
			items = strings.Join(w.volumes, ",")
		}
		fmt.Fprintf(answer, `{"apiVersion":%q,"kind":"%sList","metadata":{},"items":[%s]}`, version, kind, items)
	}
}

func (w *world) answerRecord(answer http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodGet {
		// client-go sends its own kinds as protobuf unless it is asked for JSON: the request's body is read by its own decoder.
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		object, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		w.record = object.(*corev1.ConfigMap).Data
	}
	if w.record == nil {
		answer.WriteHeader(http.StatusNotFound)
		fmt.Fprint(answer, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
		return
	}
	data, _ := json.Marshal(w.record)
	fmt.Fprintf(answer, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"upcloud-doctor","namespace":"kube-system"},"data":%s}`, data)
}

// left makes a volume whose PersistentVolume a run with --fix saw on its way out, and that is gone.
func (w *world) left(t *testing.T, name string) string {
	t.Helper()
	id := w.volume(t, name)
	w.volumes = append(w.volumes, persistentVolume(id, "Released"))
	if _, _, _, err := w.storage(t, "", "--fix", "--yes"); err != nil && !errors.Is(err, errFindings) {
		t.Fatal(err)
	}
	w.volumes = w.volumes[:len(w.volumes)-1]
	return id
}

// exists reports whether a storage is there.
func (w *world) exists(t *testing.T, id string) bool {
	t.Helper()
	status, _ := w.sim.Raw(t, "GET", "/storage/"+id, "")
	return status == http.StatusOK
}

func kubeconfig(t *testing.T, url string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],
		"clusters":[{"name":"c","cluster":{"server":"` + url + `"}}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// execute runs the program, and returns what it printed and its exit status.
func execute(t *testing.T, in string, args ...string) (out, errOut string, exit int, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	command := newCommand()
	var stdout, stderr bytes.Buffer
	command.SetIn(strings.NewReader(in))
	command.SetOut(&stdout)
	command.SetErr(&stderr)
	command.SetArgs(args)
	err = command.ExecuteContext(ctx)
	return stdout.String(), stderr.String(), status(err), err
}

func (w *world) storage(t *testing.T, in string, more ...string) (out, errOut string, exit int, err error) {
	t.Helper()
	return execute(t, in, append([]string{"storage", "--kubeconfig", w.kubeconfig, "--cluster-id", "test"}, more...)...)
}
