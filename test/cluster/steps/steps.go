// Package steps shows things on a running local cluster one after the other, the way an operator would see them: each step
// waits until what it names has come true, and is counted. It is what the demo and the end-to-end tests are made of.
package steps

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/remotecommand"

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
	rest    *rest.Config
	Account *service.Service
	Result  Result
	mu      sync.Mutex // guards Result, and lets Report be called by one at a time
}

// patience is how long a step may take, unless it says otherwise: many times what it takes, for machines that are slow or busy.
const patience = 5 * time.Minute

// Step is one thing shown. Do is done once, then Check is repeated until it succeeds or Limit has passed; what it returns
// is what there was to see.
type Step struct {
	Name  string
	Limit time.Duration                         // zero: patience
	Do    func(context.Context) error           // nil: nothing
	Check func(context.Context) (string, error) // nil: nothing
}

// New connects to the cluster.
func New(config Config) (*Runner, error) {
	r := &Runner{Config: config, Account: config.Status.Account()}
	var err error
	if r.rest, err = clientcmd.BuildConfigFromFlags("", config.Status.Kubeconfig); err != nil {
		return nil, err
	}
	r.rest.QPS, r.rest.Burst = 50, 100
	r.Client, err = kubernetes.NewForConfig(r.rest)
	return r, err
}

// Run runs the steps until one fails. It then reports what the cluster says of itself, and false.
func (r *Runner) Run(ctx context.Context, steps []Step) bool {
	return r.Together(ctx, steps)
}

// Together runs tracks of steps side by side, each track until one of its steps fails, and tells whether all of them
// passed. If not, it reports what the cluster says of itself.
func (r *Runner) Together(ctx context.Context, tracks ...[]Step) bool {
	var running sync.WaitGroup
	failed := make([]bool, len(tracks))
	for i, track := range tracks {
		running.Go(func() { failed[i] = !r.runTrack(ctx, track) })
	}
	running.Wait()
	if slices.Contains(failed, true) {
		r.diagnose(ctx)
		return false
	}
	return true
}

func (r *Runner) runTrack(ctx context.Context, track []Step) bool {
	for _, step := range track {
		begin := time.Now()
		seen, err := step.Run(ctx)
		r.count(step, time.Since(begin), seen, err)
		if err != nil {
			return false
		}
	}
	return true
}

func (r *Runner) count(step Step, took time.Duration, seen string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.Result.Failed++
		r.Report(fmt.Sprintf("FAILED  %s: %v", step.Name, err))
		return
	}
	r.Result.Passed++
	r.Report(fmt.Sprintf("ok      %s (%.1f s)%s", step.Name, took.Seconds(), indent(seen)))
}

// Run runs the one step.
func (s Step) Run(ctx context.Context) (string, error) {
	limit := cmp.Or(s.Limit, patience)
	ctx, cancel := context.WithTimeout(ctx, limit)
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
		// An error of the time's end, or of a client that foresees it, would hide what was waited for.
		deadline, _ := ctx.Deadline()
		if last == nil || time.Until(deadline) > time.Second && !errors.Is(err, os.ErrDeadlineExceeded) {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("not within %s: %w", limit, last)
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

// Exec runs a shell line in a container of a Pod, as kubectl exec does at a higher price, and answers with what it wrote.
// An empty container is the Pod's only or first one.
func (r *Runner) Exec(ctx context.Context, namespace, pod, container, line string) (string, error) {
	request := r.Client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: []string{"/bin/sh", "-c", line}, Stdout: true, Stderr: true},
			scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(r.rest, http.MethodGet, request.URL().String())
	if err != nil {
		return "", err
	}
	var output, complaint bytes.Buffer
	if err := executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &output, Stderr: &complaint}); err != nil {
		return "", fmt.Errorf("Pod %s/%s: %s: %w: %s", namespace, pod, line, err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(output.String()), nil
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
