// Package demo shows the main job on a running local cluster, the way an operator would see it: it applies the shipped
// manifests and an ordinary workload, and checks from outside what has come of them.
package demo

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
)

//go:embed manifests
var manifests embed.FS

const namespace = "demo"

// Config says which cluster to show the job on.
type Config struct {
	Status      local.Status
	Overlay     string // kustomization that is applied
	Nodes       int
	KeepServers bool // leave the nodes' servers in the account
	Report      func(line string)
}

// Result counts the checks.
type Result struct{ Passed, Failed int }

type demo struct {
	Config
	client  kubernetes.Interface
	account *service.Service
	result  Result

	node     string // where the workload runs
	storage  string // UUID of its volume
	checksum string // of its data
	ip       string // public address of the load balancer
	answers  string // of the load balancer, summed up
}

// step is one thing shown: it waits until check succeeds, and returns what there was to see.
type step struct {
	name  string
	limit time.Duration
	do    func(context.Context) error           // done once; nil: nothing
	check func(context.Context) (string, error) // repeated until it succeeds
}

// Run shows the whole job. A step that fails ends the show, but what was made is deleted all the same.
func Run(ctx context.Context, config Config) Result {
	d := &demo{Config: config, account: config.Status.Account()}
	if err := d.connect(); err != nil {
		config.Report("FAILED  " + err.Error())
		return Result{Failed: 1}
	}
	if d.runAll(ctx, d.steps()) {
		d.runAll(ctx, d.removal())
		return d.result
	}
	d.diagnose(ctx)
	return d.result
}

func (d *demo) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", d.Status.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 100
	d.client, err = kubernetes.NewForConfig(config)
	return err
}

func (d *demo) steps() []step {
	var steps []step
	steps = append(steps, d.nodeSteps()...)
	steps = append(steps, d.storageSteps()...)
	return append(steps, d.loadBalancerSteps()...)
}

func (d *demo) runAll(ctx context.Context, steps []step) bool {
	for _, step := range steps {
		begin := time.Now()
		seen, err := step.run(ctx)
		if err != nil {
			d.result.Failed++
			d.Report(fmt.Sprintf("FAILED  %s: %v", step.name, err))
			return false
		}
		d.result.Passed++
		d.Report(fmt.Sprintf("ok      %s (%.1f s)%s", step.name, time.Since(begin).Seconds(), indent(seen)))
	}
	return true
}

func (s step) run(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	if s.do != nil {
		if err := s.do(ctx); err != nil {
			return "", err
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		seen, err := s.check(ctx)
		if err == nil {
			return seen, nil
		}
		if last == nil || ctx.Err() == nil { // an error of the time's end would hide what was waited for
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", fmt.Errorf("not within %s: %w", s.limit, last)
		}
	}
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "\n             " + strings.ReplaceAll(text, "\n", "\n             ")
}

// Install applies the manifests of the kustomization.
func Install(ctx context.Context, status local.Status, overlay string) error {
	_, err := kubectl(ctx, status, nil, "apply", "-k", overlay)
	return err
}

func (d *demo) apply(ctx context.Context, manifest string) error {
	text, err := manifests.ReadFile("manifests/" + manifest)
	if err != nil {
		return err
	}
	_, err = kubectl(ctx, d.Status, text, "apply", "-f", "-")
	return err
}

func kubectl(ctx context.Context, status local.Status, input []byte, args ...string) (string, error) {
	command := exec.CommandContext(ctx, status.Kubectl, append([]string{"--kubeconfig", status.Kubeconfig}, args...)...)
	command.Stdin = bytes.NewReader(input)
	var output, complaint bytes.Buffer
	command.Stdout, command.Stderr = &output, &complaint
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return output.String(), nil
}

// diagnose reports what the cluster says of itself after a failure.
func (d *demo) diagnose(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "nodes,pods,persistentvolumeclaims,volumeattachments,services", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by", ".lastTimestamp", "--field-selector", "type=Warning"},
		{"logs", "-n", "kube-system", "-l", "app=upcloud-ccm", "--all-containers", "--prefix", "--tail", "15"},
		{"logs", "-n", "kube-system", "-l", "app=upcloud-csi-controller", "--all-containers", "--prefix", "--tail", "15"},
		{"logs", "-n", "kube-system", "-l", "app=upcloud-csi-node", "--all-containers", "--prefix", "--tail", "15"},
	} {
		output, err := kubectl(ctx, d.Status, nil, args...)
		if err != nil {
			output = err.Error()
		}
		d.Report("kubectl " + strings.Join(args, " ") + indent(strings.TrimSpace(output)))
	}
}

// exec runs a command in the workload's Pod.
func (d *demo) exec(ctx context.Context, command ...string) (string, error) {
	return kubectl(ctx, d.Status, nil, append([]string{"exec", "-n", namespace, "keeper-0", "--"}, command...)...)
}

func (d *demo) cordon(ctx context.Context, node string, unschedulable bool) error {
	patch := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, unschedulable)
	_, err := d.client.CoreV1().Nodes().Patch(ctx, node, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	return err
}
