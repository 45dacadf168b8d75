// Package steps shows things on a running local cluster one after the other, the way an operator would see them: each step
// waits until what it names has come true, and is counted. It is what the demo and the end-to-end tests are made of.
package steps

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
)

// Config says which cluster to show things on.
type Config struct {
	Status  local.Status
	Project string // root of the project's work tree
	Nodes   int
	Report  func(line string)
}

// Result counts the steps.
type Result struct{ Passed, Failed int }

// Runner runs steps against one cluster and its simulated account.
type Runner struct {
	Config
	Client  kubernetes.Interface
	Account *service.Service
	Result  Result
}

// Step is one thing shown. Do is done once, then Check is repeated until it succeeds or Limit has passed; what it returns
// is what there was to see.
type Step struct {
	Name  string
	Limit time.Duration
	Do    func(context.Context) error           // nil: nothing
	Check func(context.Context) (string, error) // nil: nothing
}

// New connects to the cluster.
func New(config Config) (*Runner, error) {
	r := &Runner{Config: config, Account: config.Status.Account()}
	rest, err := clientcmd.BuildConfigFromFlags("", config.Status.Kubeconfig)
	if err != nil {
		return nil, err
	}
	rest.QPS, rest.Burst = 50, 100
	r.Client, err = kubernetes.NewForConfig(rest)
	return r, err
}

// Run runs the steps until one fails. It then reports what the cluster says of itself, and false.
func (r *Runner) Run(ctx context.Context, steps []Step) bool {
	for _, step := range steps {
		begin := time.Now()
		seen, err := step.Run(ctx)
		if err != nil {
			r.Result.Failed++
			r.Report(fmt.Sprintf("FAILED  %s: %v", step.Name, err))
			r.diagnose(ctx)
			return false
		}
		r.Result.Passed++
		r.Report(fmt.Sprintf("ok      %s (%.1f s)%s", step.Name, time.Since(begin).Seconds(), indent(seen)))
	}
	return true
}

// Run runs the one step.
func (s Step) Run(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	if s.Do != nil {
		if err := s.Do(ctx); err != nil {
			return "", err
		}
	}
	if s.Check == nil {
		return "", nil
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		seen, err := s.Check(ctx)
		if err == nil {
			return seen, nil
		}
		if last == nil || ctx.Err() == nil { // an error of the time's end would hide what was waited for
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("not within %s: %w", s.Limit, last)
		}
	}
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "\n             " + strings.ReplaceAll(text, "\n", "\n             ")
}

// Kubectl runs kubectl with the arguments, as the cluster's administrator.
func (r *Runner) Kubectl(ctx context.Context, input []byte, args ...string) (string, error) {
	command := exec.CommandContext(ctx, r.Status.Kubectl, append([]string{"--kubeconfig", r.Status.Kubeconfig}, args...)...)
	command.Stdin = bytes.NewReader(input)
	var output, complaint bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaint
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return output.String(), nil
}

// diagnose reports what the cluster says of itself.
func (r *Runner) diagnose(ctx context.Context) {
	if errors.Is(ctx.Err(), context.Canceled) {
		return // interrupted by the user
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods,persistentvolumeclaims,volumeattachments,services", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by", ".lastTimestamp", "--field-selector", "type=Warning"},
		{"logs", "-n", "kube-system", "-l", "app=upcloud-ccm", "--all-containers", "--prefix", "--tail", "15"},
		{"logs", "-n", "kube-system", "-l", "app=upcloud-csi-controller", "--all-containers", "--prefix", "--tail", "15"},
		{"logs", "-n", "kube-system", "-l", "app=upcloud-csi-node", "--all-containers", "--prefix", "--tail", "15"},
	} {
		output, err := r.Kubectl(ctx, nil, args...)
		if err != nil {
			output = err.Error()
		}
		r.Report("kubectl " + strings.Join(args, " ") + indent(strings.TrimSpace(output)))
	}
}
