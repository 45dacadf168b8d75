package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/cmd/internal/logs/logstest"
)

// A log of the highest level is what people attach to bug reports: it holds no credentials of the account or of Kubernetes, neither those
// that are right nor those that are refused.
func TestLogsOfEveryLevelHoldNoSecrets(t *testing.T) {
	w := newWorld(t)
	w.cluster(t, w.volume(t, "pvc-known"))
	w.left(t, "pvc-left")
	const kubernetesToken, wrongToken = "eyJhbGciOiJSUzI1NiJ9.TOKEN-OF-THE-SERVICE-ACCOUNT.of-the-doctor", "ucat_01HWRONG0TOKEN0THAT0IS0REFUSED"
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text, err := os.ReadFile(w.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	withToken := strings.Replace(string(text), `{"cluster":"c"}`, `{"cluster":"c","user":"u"}`, 1)
	withToken = strings.Replace(withToken, `"clusters"`, fmt.Sprintf(`"users":[{"name":"u","user":{"token":%q}}],"clusters"`, kubernetesToken), 1)
	if err := os.WriteFile(kubeconfig, []byte(withToken), 0o600); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	run := func(want string, environment []string, args ...string) {
		t.Helper()
		process := exec.CommandContext(t.Context(), os.Args[0], append(args, "--kubeconfig", kubeconfig, "--cluster-id", "test", "-v=10")...)
		process.Env = append(append(os.Environ(), asProgram+"=1"), environment...)
		log, err := process.CombinedOutput() // an exit status other than 0 tells of findings, or of what is refused
		if process.ProcessState == nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(log), want) {
			t.Errorf("%v does not tell of %s: %.5000s", args, want, log)
		}
		all.Write(log)
	}
	run("Response Body", nil, "storage")
	run("Response Body", nil, "load-balancers")
	run("Response Body", nil, "storage", "--fix", "--now", "--yes")
	run("refused", []string{"UPCLOUD_TOKEN=" + wrongToken}, "storage")
	password := []string{"UPCLOUD_TOKEN=", "UPCLOUD_USERNAME=" + w.sim.Username, "UPCLOUD_PASSWORD=" + w.sim.Password}
	run("Response Body", password, "storage")
	if !strings.Contains(all.String(), "pvc-left") {
		t.Error("the runs have found nothing")
	}
	logstest.NoSecrets(t, all.String(), map[string]string{
		"token": w.sim.Token, "refused token": wrongToken, "token of Kubernetes": kubernetesToken, "password": w.sim.Username + ":" + w.sim.Password,
	})
}
