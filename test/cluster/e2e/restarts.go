package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// restarts is a Pod that writes to its volume all the time, while what serves it on its node is killed.
type restarts struct {
	suite
	node      string
	container string // ID, which another start of it would change
	beats     int
	killed    int // process ID
	mounts    []string
}

// interrupted is the namespace of a second Pod.
const interrupted = "interrupted"

func (s suite) restartSteps() []steps.Step {
	r := &restarts{suite: s}
	i := &interruption{restarts: r, suite: suite{s.Runner, interrupted}}
	f := &forced{restarts: r}
	return []steps.Step{
		{Name: "a Pod writes to its volume all the time", Do: s.apply("volume.yaml"), Check: r.begin},
		{Name: "the kubelet is killed: the Pod goes on, its volume stays as it is, and its use is told again",
			Do: r.killKubelet, Check: r.kubeletBack},
		{Name: "the node plugin is killed in the middle of a format: the next one formats anew, and the Pod beside goes on",
			Do: i.killNodePlugin, Check: i.formattedAnew},
		{Name: "without a node plugin a Pod is deleted by force: its volume stays where it is mounted",
			Do: f.deleteByForce, Check: f.stays},
		{Name: "with the node plugin back the volume moves to the other node with all that was written",
			Do: f.bringNodePluginBack, Check: f.moved},
	}
}

// begin has the Pod write a line ten times a second until one cannot be written.
func (r *restarts) begin(ctx context.Context) (string, error) {
	if _, err := r.writeTo("app")(ctx); err != nil {
		return "", err
	}
	pod, err := r.ready(ctx, "app")
	if err != nil {
		return "", err
	}
	r.node, r.container = pod.Spec.NodeName, pod.Status.ContainerStatuses[0].ContainerID
	if _, err = r.exec(ctx, "app", "(while echo beat >> /data/beats && sync -d /data/beats; do sleep 0.1; done; touch /tmp/failed) > /dev/null 2>&1 &"); err != nil {
		return "", err
	}
	if r.mounts, err = r.mountsOf(ctx, r.node); err != nil {
		return "", err
	}
	return fmt.Sprintf("on %s, with %d mounts", r.node, len(r.mounts)), nil
}

// goesOn checks that the Pod's container was not started anew, and that it writes.
func (r *restarts) goesOn(ctx context.Context) error {
	pod, err := r.ready(ctx, "app")
	if err != nil {
		return err
	}
	if err := equal("the Pod's container", pod.Status.ContainerStatuses[0].ContainerID, r.container); err != nil {
		return err
	}
	answer, err := r.exec(ctx, "app", "test ! -e /tmp/failed && wc -l < /data/beats")
	if err != nil {
		return fmt.Errorf("the Pod cannot write any more: %w", err)
	}
	beats, err := strconv.Atoi(answer)
	if err != nil {
		return err
	}
	if before := r.beats; beats <= before {
		return fmt.Errorf("the Pod wrote %d lines, it had written %d", beats, before)
	}
	r.beats = beats
	_, err = r.holds("app", 800)(ctx)
	return err
}

// process finds a program on the node.
func (r *restarts) process(arguments ...string) (int, error) {
	status, err := local.ReadStatus()
	if err != nil {
		return 0, err
	}
	return machine.FindProcess(status.Machines[r.node], arguments...)
}

func (r *restarts) kill(arguments ...string) (err error) {
	if r.killed, err = r.process(arguments...); err != nil {
		return err
	}
	return unix.Kill(r.killed, unix.SIGKILL)
}

func (r *restarts) killKubelet(context.Context) error { return r.kill("kubelet") }

func (r *restarts) kubeletBack(ctx context.Context) (string, error) {
	pid, err := r.process("kubelet")
	if err != nil {
		return "", err
	}
	if pid == r.killed {
		return "", errors.New("the kubelet was not killed")
	}
	if err := r.goesOn(ctx); err != nil {
		return "", err
	}
	mounts, err := r.mountsOf(ctx, r.node)
	if err != nil {
		return "", err
	}
	if !slices.Equal(mounts, r.mounts) {
		return "", fmt.Errorf("the volume is mounted at %q, it was at %q", mounts, r.mounts)
	}
	return r.measured(ctx, r.node)
}

// interruption is a second Pod on that node, whose volume is being formatted when the node plugin is killed.
type interruption struct {
	*restarts
	suite // of another namespace
}

// killNodePlugin kills it when it is about to run mkfs: by then it has marked the disk as one that it may format.
func (i *interruption) killNodePlugin(ctx context.Context) (err error) {
	plugin, err := i.process("/csi-driver", "--mode=node")
	if err != nil {
		return err
	}
	hold, err := machine.HoldExec(fmt.Sprintf("/proc/%d/root/usr/sbin/mkfs.ext4", plugin))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, hold.Release()) }()
	if err := i.onlyOn(ctx, i.node, i.apply("volume.yaml"), func(ctx context.Context) error { return hold.Wait(ctx) }); err != nil {
		return err
	}
	i.killed = plugin
	return unix.Kill(plugin, unix.SIGKILL)
}

func (i *interruption) formattedAnew(ctx context.Context) (string, error) {
	plugin, err := i.process("/csi-driver", "--mode=node")
	if err != nil {
		return "", err
	}
	if plugin == i.killed {
		return "", errors.New("the node plugin was not killed")
	}
	if _, err := i.ready(ctx, "app"); err != nil {
		return "", err
	}
	mount, err := i.writeTo("app")(ctx)
	if err != nil {
		return "", err
	}
	if _, err := i.holds("app", 800)(ctx); err != nil {
		return "", err
	}
	logs, err := i.Kubectl(ctx, nil, "logs", "-n", "kube-system", "-l", "app=upcloud-csi-node", "-c", "csi-driver", "--tail", "-1")
	if err != nil {
		return "", err
	}
	if !strings.Contains(logs, "beginning anew") {
		return "", errors.New("the node plugin does not tell that it began a format anew")
	}
	return mount, i.goesOn(ctx)
}

// onlyOn does something while the scheduler can choose one node only.
func (s suite) onlyOn(ctx context.Context, node string, does ...func(context.Context) error) (err error) {
	status, err := local.ReadStatus()
	if err != nil {
		return err
	}
	for other := range status.Machines {
		if other == node {
			continue
		}
		if err := s.cordon(ctx, other, true); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.cordon(context.WithoutCancel(ctx), other, false)) }()
	}
	for _, do := range does {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}
