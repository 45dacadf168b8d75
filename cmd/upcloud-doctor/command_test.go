package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// world is a simulated account with storages two days old, and an API server.
type world struct {
	sim        *simulatortest.Server
	kubeconfig string
	account    *cloud.Cloud
}

// newWorld sets the environment for an account; its API server answers after cluster only.
func newWorld(t *testing.T) *world {
	t.Helper()
	sim := simulatortest.Start(t, simulator.Config{Clock: simulator.NewClockAt(time.Now().Add(-48 * time.Hour))})
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
	return &world{sim: sim, account: account, kubeconfig: kubeconfig(t, "http://127.0.0.1:1")}
}

func (w *world) volume(t *testing.T, name string) string {
	t.Helper()
	volume, err := w.account.CreateVolume(t.Context(), cloud.VolumeSpec{Name: name, SizeGiB: 1, Tier: "maxiops", Zone: "fi-hel1"})
	if err != nil {
		t.Fatal(err)
	}
	return volume.ID
}

// cluster serves the API of a Kubernetes that has a PersistentVolume for each handle, and no kinds of snapshots.
func (w *world) cluster(t *testing.T, handles ...string) {
	t.Helper()
	var volumes []string
	for i, handle := range handles {
		volumes = append(volumes, fmt.Sprintf(`{"metadata":{"name":"pv-%d"},"spec":{"csi":{"driver":"storage.csi.upcloud.com","volumeHandle":%q}}}`, i, handle))
	}
	lists := map[string]string{
		"/api/v1/persistentvolumes":                         "v1 PersistentVolume",
		"/api/v1/persistentvolumeclaims":                    "v1 PersistentVolumeClaim",
		"/apis/storage.k8s.io/v1/csinodes":                  "storage.k8s.io/v1 CSINode",
		"/apis/storage.k8s.io/v1/volumeattachments":         "storage.k8s.io/v1 VolumeAttachment",
		"/api/v1/services":                                  "v1 Service",
		"/apis/snapshot.storage.k8s.io/v1/nothing-of-these": "",
	}
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		version, kind, found := strings.Cut(lists[request.URL.Path], " ")
		if !found {
			http.NotFound(answer, request)
			return
		}
		items := ""
		if kind == "PersistentVolume" {
			items = strings.Join(volumes, ",")
		}
		answer.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(answer, `{"apiVersion":%q,"kind":"%sList","metadata":{},"items":[%s]}`, version, kind, items)
	}))
	t.Cleanup(server.Close)
	w.kubeconfig = kubeconfig(t, server.URL)
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

func TestExitStatusTellsWhatWasFound(t *testing.T) {
	w := newWorld(t)
	known := w.volume(t, "pvc-known")
	w.cluster(t, known)
	out, _, exit, err := w.storage(t, "")
	if exit != 0 || err != nil || !strings.Contains(out, "Nothing was left behind") {
		t.Errorf("nothing to find: %d, %v\n%s", exit, err, out)
	}
	orphan := w.volume(t, "pvc-orphan")
	out, _, exit, _ = w.storage(t, "")
	for _, want := range []string{orphan, "pvc-orphan", "no PersistentVolume knows: 1", "1 GiB", "fi-hel1", "Findings: 1"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table has no %q:\n%s", want, out)
		}
	}
	if exit != statusFindings || strings.Contains(out, known) {
		t.Errorf("exit status %d:\n%s", exit, out)
	}
	w.kubeconfig = kubeconfig(t, "http://127.0.0.1:1")
	if _, _, exit, err := w.storage(t, ""); exit != statusError || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("no API server: %d, %v", exit, err)
	}
}

func TestJSON(t *testing.T) {
	w := newWorld(t)
	w.cluster(t)
	orphan := w.volume(t, "pvc-orphan")
	out, _, exit, _ := w.storage(t, "", "--output", "json")
	var report struct {
		Findings  []struct{ Kind, StorageID, Title, Claim string }
		Undecided []any
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if exit != statusFindings || len(report.Findings) != 1 || report.Findings[0].StorageID != orphan ||
		report.Findings[0].Kind != "orphan-volume" || report.Undecided == nil {
		t.Errorf("%d: %s", exit, out)
	}
}

func TestFixAsksAndTells(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, w.volume(t, "pvc-known"))
	first, second := w.volume(t, "pvc-1"), w.volume(t, "pvc-2")
	out, questions, exit, err := w.storage(t, "maybe\nyes\n", "--fix")
	if exit != statusFindings || strings.Count(questions, "Delete storage") != 2 || !strings.Contains(out, "removed") {
		t.Fatalf("%d, %v\n%s\n%s", exit, err, questions, out)
	}
	left := 0
	for _, id := range []string{first, second} {
		if status, _ := w.sim.Raw(t, "GET", "/storage/"+id, ""); status == 200 {
			left++
		}
	}
	if left != 1 {
		t.Errorf("%d are left, one yes was said", left)
	}
	if _, _, exit, err := w.storage(t, "", "--fix"); exit != statusError || !strings.Contains(err.Error(), "--yes") {
		t.Errorf("nobody answers: %d, %v", exit, err)
	}
	if out, questions, exit, err := w.storage(t, "", "--fix", "--yes", "-o", "json"); exit != 0 || questions != "" || !json.Valid([]byte(out)) {
		t.Errorf("with --yes: %d, %v\n%s%s", exit, err, questions, out)
	}
}

func TestFixCautionsOfAStrangeCluster(t *testing.T) {
	w := newWorld(t)
	w.cluster(t)
	w.volume(t, "pvc-orphan")
	if _, questions, exit, err := w.storage(t, "n\n", "--fix"); exit != statusFindings || !strings.Contains(questions, "Caution") {
		t.Errorf("%d, %v\n%s", exit, err, questions)
	}
	if _, _, exit, err := w.storage(t, "", "--fix", "--yes"); exit != statusError || !strings.Contains(err.Error(), "--cluster-id") {
		t.Errorf("with --yes: %d, %v", exit, err)
	}
}

func TestStartUpErrorsAreOneLineThatNamesTheSetting(t *testing.T) {
	cases := []struct {
		name        string
		environment map[string]string
		args        []string
		says        []string
	}{
		{"no credentials", map[string]string{"UPCLOUD_TOKEN": ""}, []string{"storage"}, []string{"UPCLOUD_TOKEN", "--credentials-dir"}},
		{"wrong credentials", map[string]string{"UPCLOUD_TOKEN": "ucat_wrong"}, []string{"storage"}, []string{"UPCLOUD_TOKEN"}},
		{"nobody listens", map[string]string{"UPCLOUD_DEBUG_API_BASE_URL": "http://127.0.0.1:1"}, []string{"storage"}, []string{"UPCLOUD_DEBUG_API_BASE_URL"}},
		{"no folder", nil, []string{"storage", "--credentials-dir", "/no/such/folder"}, []string{"/no/such/folder"}},
		{"no API server", nil, []string{"storage"}, []string{"--kubeconfig", "Pod"}},
		{"no kubeconfig", nil, []string{"storage", "--kubeconfig", "/no/such/file"}, []string{"--kubeconfig", "/no/such/file"}},
		{"no kubeconfig in it", nil, []string{"storage", "--kubeconfig", "command_test.go"}, []string{"--kubeconfig", "command_test.go"}},
		{"no such context", nil, []string{"storage", "--kubeconfig", "KUBECONFIG", "--context", "nowhere"}, []string{"nowhere"}},
		{"no such form", nil, []string{"storage", "--output", "xml"}, []string{"--output", "xml", "json"}},
		{"yes to nothing", nil, []string{"storage", "--yes"}, []string{"--yes", "--fix"}},
		{"whose", nil, []string{"storage", "--fix"}, []string{"--fix", "--cluster-id"}},
		{"unclaimed", nil, []string{"storage", "--unclaimed", "keep"}, []string{"--unclaimed", "keep", "ignore"}},
		{"negative age", nil, []string{"storage", "--safety-age", "-1h"}, []string{"--safety-age"}},
		{"no driver", nil, []string{"storage", "--driver-name", ""}, []string{"--driver-name"}},
		{"a bad cluster ID", nil, []string{"storage", "--cluster-id", "a\nb"}, []string{"cluster ID"}},
		{"unknown flag", nil, []string{"storage", "--purge"}, []string{"--purge", "--help"}},
		{"no command", nil, nil, []string{"storage", "--help"}},
		{"another command", nil, []string{"network"}, []string{"network", "storage"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			for name, value := range c.environment {
				t.Setenv(name, value)
			}
			for i, arg := range c.args {
				if arg == "KUBECONFIG" {
					c.args[i] = w.kubeconfig
				}
			}
			out, errOut, exit, err := execute(t, "", c.args...)
			if err == nil || exit != statusError {
				t.Fatalf("exit status %d, %v", exit, err)
			}
			if out+errOut != "" || strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q, %v", out+errOut, err)
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %s: %v", word, err)
				}
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"storage", "--help"}} {
		help, _, exit, err := execute(t, "", args...)
		if err != nil || exit != 0 {
			t.Fatal(err)
		}
		for _, want := range []string{"Usage:", "Examples:", "--help", "General:"} {
			if !strings.Contains(help, want) {
				t.Errorf("%v has no %s", args, want)
			}
		}
	}
	if version, _, _, err := execute(t, "", "--version"); err != nil || !strings.HasPrefix(version, "upcloud-doctor ") {
		t.Errorf("%q, %v", version, err)
	}
}
