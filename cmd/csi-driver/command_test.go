package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const zone = "fi-hel1"

// execute runs the program with arguments until it ends, and returns what it printed.
func execute(ctx context.Context, args ...string) (string, error) {
	command := newCommand()
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetArgs(args)
	err := command.ExecuteContext(ctx)
	return out.String(), err
}

// account sets the environment for a simulated account.
func account(t *testing.T) *simulatortest.Server {
	t.Helper()
	sim := simulatortest.Start(t, simulator.Config{})
	clearEnvironment(t)
	t.Setenv("UPCLOUD_TOKEN", sim.Token)
	t.Setenv("UPCLOUD_DEBUG_API_BASE_URL", sim.URL)
	return sim
}

func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, name := range []string{"UPCLOUD_TOKEN", "UPCLOUD_USERNAME", "UPCLOUD_PASSWORD", "UPCLOUD_API_TOKEN",
		"UPCLOUD_API_USER", "UPCLOUD_API_PASSWORD", "UPCLOUD_DEBUG_API_BASE_URL"} {
		t.Setenv(name, "")
	}
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "csi.sock")
}

func TestStartUpErrorsAreOneLineThatNamesTheSetting(t *testing.T) {
	absent := httptest.NewServer(http.NotFoundHandler())
	defer absent.Close()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	file := socketPath(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	controller := []string{"--mode", "controller", "--zone", zone, "--endpoint", socketPath(t)}
	with := func(more ...string) []string { return append(append([]string{}, controller...), more...) }
	cases := []struct {
		name        string
		environment map[string]string
		args        []string
		says        []string
	}{
		{"no credentials", map[string]string{"UPCLOUD_TOKEN": ""}, controller,
			[]string{"UPCLOUD_TOKEN", "UPCLOUD_USERNAME", "--credentials-dir"}},
		{"two faults", map[string]string{"UPCLOUD_DEBUG_API_BASE_URL": "x"}, with("--cluster-id", "a\nb"),
			[]string{"UPCLOUD_DEBUG_API_BASE_URL", "cluster ID"}},
		{"nobody listens", map[string]string{"UPCLOUD_DEBUG_API_BASE_URL": "http://127.0.0.1:1"}, controller,
			[]string{"http://127.0.0.1:1", "UPCLOUD_DEBUG_API_BASE_URL"}},
		{"two kinds of credentials", map[string]string{"UPCLOUD_USERNAME": "u", "UPCLOUD_PASSWORD": "p"}, controller, []string{"UPCLOUD_TOKEN"}},
		{"wrong credentials", map[string]string{"UPCLOUD_TOKEN": "ucat_wrong"}, controller, []string{"UPCLOUD_TOKEN"}},
		{"no credentials in the folder", nil, with("--credentials-dir", "/no/such/folder"), []string{"/no/such/folder"}},
		{"another API", map[string]string{"UPCLOUD_DEBUG_API_BASE_URL": absent.URL}, controller, []string{"UPCLOUD_DEBUG_API_BASE_URL"}},
		{"unknown zone", nil, with("--zone", "no-such1"), []string{"--zone", "no-such1", zone}},
		{"unknown mode", nil, with("--mode", "both"), []string{"--mode", "both", "controller"}},
		{"unknown flag", nil, with("--zones", zone), []string{"--zones", "--help"}},
		{"an argument", nil, with("start"), []string{"start"}},
		{"a bad endpoint", nil, with("--endpoint", "tcp://127.0.0.1:1"), []string{"--endpoint"}},
		{"a file at the endpoint", nil, with("--endpoint", file), []string{"--endpoint", file, "not a socket"}},
		{"no folder for the endpoint", nil, with("--endpoint", "/no/such/folder/csi.sock"), []string{"--endpoint", "/no/such/folder"}},
		{"metrics address in use", nil, with("--metrics-address", busy.Addr().String()), []string{"--metrics-address", busy.Addr().String()}},
		{"no formats at a time", nil, with("--format-limit", "0"), []string{"--format-limit"}},
		{"negative number of volumes", nil, with("--max-volumes", "-1"), []string{"--max-volumes"}},
		{"no time to stop", nil, with("--stop-timeout", "0s"), []string{"--stop-timeout"}},
		{"no Pod", nil, []string{"--mode", "node", "--metadata-url", absent.URL, "--node-id", "00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
			"--zone", zone, "--kubernetes-node", "worker-1"}, []string{"--kubernetes-node", "service account"}},
		{"no metadata", nil, []string{"--mode", "node", "--metadata-url", absent.URL}, []string{"--metadata-url", "--node-id", "--zone"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			account(t)
			for name, value := range c.environment {
				t.Setenv(name, value)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			out, err := execute(ctx, c.args...)
			if err == nil {
				t.Fatal("it started")
			}
			if out != "" || strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q, %v", out, err)
			}
			for _, word := range c.says {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("the error does not say %s: %v", word, err)
				}
			}
		})
	}
}

func TestItServesUntilItIsStopped(t *testing.T) {
	sim := account(t)
	server := sim.CreateServer(t, "worker-1", zone)
	for _, mode := range []string{"controller", "node", "all"} {
		t.Run(mode, func(t *testing.T) {
			if mode == "node" {
				clearEnvironment(t) // a node needs no credentials
			}
			address := freeAddress(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := execute(ctx, "--mode", mode, "--endpoint", socketPath(t), "--v", "0",
					"--metadata-url", sim.Metadata(t, server), "--metrics-address", address)
				ended <- err
			}()
			if body := waitFor(t, ended, "http://"+address+"/healthz"); body != "ok\n" {
				t.Errorf("/healthz says %q", body)
			}
			if body := waitFor(t, ended, "http://"+address+"/readyz"); body != "ok\n" {
				t.Errorf("/readyz says %q", body)
			}
			if body := waitFor(t, ended, "http://"+address+"/metrics"); !strings.Contains(body, "upcloud_csi_rpc_duration_seconds") {
				t.Errorf("/metrics has nothing of CSI: %s", body)
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// freeAddress is one that nobody listens at, on a loopback address that other programs' tests do not use: what is free on
// 127.0.0.1 they may have taken a moment later.
func freeAddress(t *testing.T) string {
	t.Helper()
	probe, err := net.Listen("tcp", "127.0.0.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer probe.Close()
	return probe.Addr().String()
}

// waitFor gets a page as soon as it is served.
func waitFor(t *testing.T, ended <-chan error, url string) string {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v", err)
		default:
		}
		response, err := http.Get(url)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil && response.StatusCode == http.StatusOK {
			return string(body)
		}
	}
	t.Fatalf("nothing at %s", url)
	return ""
}

func TestHelpAndVersion(t *testing.T) {
	help, err := execute(context.Background(), "--help")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Usage:", "Serving:", "Controller:", "Node:", "Examples:", "UPCLOUD_TOKEN", "--endpoint"} {
		if !strings.Contains(help, want) {
			t.Errorf("the help has no %s", want)
		}
	}
	if version, err := execute(context.Background(), "--version"); err != nil || !strings.HasPrefix(version, "csi-driver ") {
		t.Errorf("%q, %v", version, err)
	}
}
