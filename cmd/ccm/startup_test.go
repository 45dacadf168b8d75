package main

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// runAsProgram makes the test binary the program itself, so that what a user sees at start-up is seen: all of stderr, and the
// exit status.
const runAsProgram = "CCM_TEST_RUN_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(runAsProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func runProgram(t *testing.T, environment []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], args...)
	command.Env = append([]string{runAsProgram + "=1", "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, environment...)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(errs.String()) {
		if !strings.Contains(line, "Data race detection enabled") { // of this test binary, if it is one
			kept.WriteString(line)
		}
	}
	return out.String(), kept.String(), command.ProcessState.ExitCode()
}

func TestStartUpErrorsAreOneSentence(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	api := "UPCLOUD_DEBUG_API_BASE_URL=" + sim.URL
	kubeconfig := "--kubeconfig=" + writeFile(t, `{apiVersion: v1, kind: Config, current-context: c,
		clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}], contexts: [{name: c, context: {cluster: c}}]}`)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	port := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
	empty := t.TempDir()
	var userAgent atomic.Value
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		userAgent.Store(r.UserAgent())
		http.NotFound(w, r)
	}))
	t.Cleanup(elsewhere.Close)
	t.Cleanup(func() {
		if agent, _ := userAgent.Load().(string); !strings.HasPrefix(agent, "upcloud-ccm/") {
			t.Errorf("the API is told that %q asks", agent)
		}
	})
	for _, test := range []struct {
		name        string
		environment []string
		args        []string
		want        []string
	}{
		{name: "no credentials", environment: []string{api}, args: []string{kubeconfig},
			want: []string{"no UpCloud credentials", "--credentials-dir", "UPCLOUD_TOKEN"}},
		{name: "wrong credentials", environment: []string{api, "UPCLOUD_TOKEN=ucat_wrong"}, args: []string{kubeconfig},
			want: []string{"refused", "UPCLOUD_TOKEN"}},
		{name: "wrong credentials in the file", environment: []string{api},
			args: []string{kubeconfig, "--cloud-config=" + writeFile(t, "data: {apiCredentials: {token: ucat_wrong}}")},
			want: []string{"refused", "data.apiCredentials"}},
		{name: "half of the credentials", environment: []string{api, "UPCLOUD_API_USER=u"}, args: []string{kubeconfig},
			want: []string{"UPCLOUD_API_USER", "UPCLOUD_PASSWORD"}},
		{name: "empty credentials directory", environment: []string{api}, args: []string{kubeconfig, "--credentials-dir=" + empty},
			want: []string{empty}},
		{name: "another API", environment: []string{"UPCLOUD_DEBUG_API_BASE_URL=" + elsewhere.URL, "UPCLOUD_TOKEN=t"},
			args: []string{kubeconfig}, want: []string{elsewhere.URL, "not the UpCloud API", "UPCLOUD_DEBUG_API_BASE_URL"}},
		{name: "no configuration file", args: []string{kubeconfig, "--cloud-config=/no/such/file"},
			want: []string{"--cloud-config", "/no/such/file"}},
		{name: "wrong configuration file", args: []string{kubeconfig, "--cloud-config=" + writeFile(t, "data: {clusterID: [x]}")},
			want: []string{"--cloud-config", "clusterID"}},
		{name: "unknown controller", args: []string{kubeconfig, "--controllers=node"}, want: []string{`"node"`, "--help"}},
		{name: "no cluster", environment: []string{api, "UPCLOUD_TOKEN=t"}, want: []string{"--kubeconfig"}},
		{name: "no kubeconfig file", environment: []string{api, "UPCLOUD_TOKEN=t"},
			args: []string{"--kubeconfig=" + filepath.Join(empty, "none")}, want: []string{"--kubeconfig", "none"}},
		{name: "kubeconfig file that is none", environment: []string{api, "UPCLOUD_TOKEN=t"},
			args: []string{"--kubeconfig=" + writeFile(t, "a: [")}, want: []string{"--kubeconfig", "line 1"}},
		{name: "kubeconfig file without a cluster", environment: []string{api, "UPCLOUD_TOKEN=t"},
			args: []string{"--kubeconfig=" + writeFile(t, "kind: Config")}, want: []string{"--kubeconfig", "current-context"}},
		{name: "a second copy", environment: []string{api, "UPCLOUD_TOKEN=" + sim.Token},
			args: []string{kubeconfig, "--bind-address=127.0.0.1", "--secure-port=" + port},
			want: []string{"--secure-port=" + port, "in use", "another ccm"}},
		{name: "another provider", args: []string{"--cloud-provider=aws"}, want: []string{"--cloud-provider", "aws", "upcloud"}},
		{name: "unknown flag", args: []string{"--credential-dir=x"}, want: []string{"--credential-dir", "--help"}},
		{name: "routes without the Pod network", args: []string{kubeconfig, "--configure-cloud-routes"},
			want: []string{"--cluster-cidr", "10.244.0.0/16"}},
		{name: "routes to nowhere", args: []string{kubeconfig, "--configure-cloud-routes", "--cluster-cidr=here"},
			want: []string{"--cluster-cidr=here"}},
		{name: "argument", args: []string{"start"}, want: []string{"start"}},
		{name: "unknown status", environment: []string{api, "UPCLOUD_TOKEN=t"}, args: []string{"--load-balancer-status=dns"},
			want: []string{"--load-balancer-status", "dns", "hostname"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			stdout, stderr, status := runProgram(t, test.environment, test.args...)
			if status != 1 || stdout != "" {
				t.Errorf("exit status %d, stdout %q", status, stdout)
			}
			if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "ccm: ") {
				t.Errorf("stderr is not one sentence:\n%s", stderr)
			}
			for _, part := range test.want {
				if !strings.Contains(stderr, part) {
					t.Errorf("stderr lacks %q: %s", part, stderr)
				}
			}
			for _, secret := range []string{"ucat_wrong"} {
				if strings.Contains(stderr, secret) {
					t.Errorf("stderr has a credential in it: %s", stderr)
				}
			}
		})
	}
}

// An API server that does not answer is waited for, and then told of in a sentence, too.
func TestUnreachableKubernetesIsTold(t *testing.T) {
	t.Parallel()
	kubeconfig := "--kubeconfig=" + writeFile(t, `{apiVersion: v1, kind: Config, current-context: c,
		clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}], contexts: [{name: c, context: {cluster: c}}]}`)
	_, stderr, status := runProgram(t, []string{"UPCLOUD_TOKEN=t"}, kubeconfig, "--leader-elect=false", "--secure-port=0")
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	if status != 1 || len(lines) != 2 || !strings.Contains(lines[0], "warning") || !strings.Contains(lines[1], "127.0.0.1:1 cannot be used") {
		t.Errorf("exit status %d, stderr:\n%s", status, stderr)
	}
}

func TestHelpAndVersion(t *testing.T) {
	stdout, stderr, status := runProgram(t, nil, "--help")
	if status != 0 || stderr != "" {
		t.Errorf("exit status %d, stderr %q", status, stderr)
	}
	for _, part := range []string{"cloud controller manager for UpCloud", "--credentials-dir", "--cloud-config", "--load-balancer-status",
		"--kubeconfig", "UPCLOUD_TOKEN", "UPCLOUD_API_USER"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("--help lacks %q", part)
		}
	}
	for _, part := range []string{"cloud-controller-manager [flags]", "help for", "allow-untagged-cloud", "--webhook-"} {
		if strings.Contains(stdout, part) {
			t.Errorf("--help has %q", part)
		}
	}
	stdout, _, status = runProgram(t, nil, "--version")
	if status != 0 || !strings.HasPrefix(stdout, "ccm ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("--version: status %d, %q", status, stdout)
	}
}
