package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// health is a volume whose file system the kernel makes read-only, as it does after an error.
type health struct {
	suite
	node string
}

func (s suite) healthSteps() []steps.Step {
	h := &health{suite: s}
	return []steps.Step{
		{Name: "the kubelet tells of a volume's use, and that it is well", Do: s.apply("volume.yaml"), Check: h.well},
		{Name: "a file system that becomes read-only is told of: by the kubelet's metrics, and to the Pod",
			Do: h.remount("ro"), Check: h.ill},
		{Name: "it is well again when it can be written to", Do: h.remount("rw"), Check: h.well},
	}
}

func (h *health) well(ctx context.Context) (string, error) {
	if _, err := h.writeTo("app")(ctx); err != nil {
		return "", err
	}
	pod, err := h.ready(ctx, "app")
	if err != nil {
		return "", err
	}
	h.node = pod.Spec.NodeName
	return h.measured(ctx, h.node)
}

func (h *health) ill(ctx context.Context) (string, error) {
	text, err := h.kubeletMetrics(ctx, h.node)
	if err != nil {
		return "", err
	}
	abnormal, err := sample(text, fmt.Sprintf(`kubelet_volume_stats_health_status_abnormal{namespace=%q,persistentvolumeclaim="data"}`, h.namespace))
	if err != nil {
		return "", err
	}
	if abnormal != 1 {
		return "", errors.New("the kubelet says that the volume is well")
	}
	events, err := h.Client.CoreV1().Events(h.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.name": "app", "reason": "VolumeConditionAbnormal"}.String()})
	if err != nil {
		return "", err
	}
	if len(events.Items) == 0 {
		return "", errors.New("the Pod is not told that its volume is abnormal")
	}
	return events.Items[0].Message, nil
}

// remount changes the file system itself, with all of its mounts, from within the machine.
func (h *health) remount(option string) func(context.Context) error {
	return func(ctx context.Context) error {
		points, err := h.mountsOf(ctx, h.node)
		if err != nil {
			return err
		}
		global := slices.IndexFunc(points, func(point string) bool { return strings.HasSuffix(point, "/globalmount") })
		if global < 0 {
			return fmt.Errorf("the volume has no global mount: %q", points)
		}
		status, err := local.ReadStatus()
		if err != nil {
			return err
		}
		output, err := exec.CommandContext(ctx, "nsenter", "--target", fmt.Sprint(status.Machines[h.node]), "--mount", "--pid",
			"mount", "-o", "remount,"+option, points[global]).CombinedOutput()
		if err != nil {
			return fmt.Errorf("remount %s: %w: %s", points[global], err, output)
		}
		return nil
	}
}

func (s suite) kubeletMetrics(ctx context.Context, node string) (string, error) {
	text, err := s.Client.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes/" + node + "/proxy/metrics").DoRaw(ctx)
	return string(text), err
}

// measured checks what the kubelet's metrics tell of the volume of claim data: that it is there, in use, and well.
func (s suite) measured(ctx context.Context, node string) (string, error) {
	text, err := s.kubeletMetrics(ctx, node)
	if err != nil {
		return "", err
	}
	var seen []string
	for _, metric := range []struct {
		name     string
		min, max float64
	}{
		{"kubelet_volume_stats_capacity_bytes", 900 << 20, 1 << 30},
		{"kubelet_volume_stats_used_bytes", 4 << 20, 100 << 20},
		{"kubelet_volume_stats_available_bytes", 800 << 20, 1 << 30},
		{"kubelet_volume_stats_inodes", 1000, 1 << 20},
		{"kubelet_volume_stats_inodes_used", 11, 100},
		{"kubelet_volume_stats_health_status_abnormal", 0, 0},
	} {
		value, err := sample(text, fmt.Sprintf(`%s{namespace=%q,persistentvolumeclaim="data"}`, metric.name, s.namespace))
		if err != nil {
			return "", err
		}
		if value < metric.min || value > metric.max {
			return "", fmt.Errorf("%s is %.0f, want %.0f to %.0f", metric.name, value, metric.min, metric.max)
		}
		seen = append(seen, fmt.Sprintf("%s %.0f", strings.TrimPrefix(metric.name, "kubelet_volume_stats_"), value))
	}
	return strings.Join(seen, ", "), nil
}

// sample finds a value in the Prometheus text format.
func sample(text, series string) (float64, error) {
	for line := range strings.Lines(text) {
		if value, found := strings.CutPrefix(line, series+" "); found {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("there is no %s", series)
}

// mountsOf are the mount points on a node of the volume of the claim data.
func (s suite) mountsOf(ctx context.Context, node string) (points []string, err error) {
	_, volume, err := s.claim(ctx, "data")
	if err != nil {
		return nil, err
	}
	mounts, err := s.volumeMounts()
	if err != nil {
		return nil, err
	}
	device := "" // the global mount point is named after a digest, and only the Pod's after the volume
	for _, m := range mounts {
		if m.node == node && strings.Contains(m.point, volume.Name) {
			device = m.device
		}
	}
	for _, m := range mounts {
		if m.node == node && m.device == device {
			points = append(points, m.point)
		}
	}
	return points, nil
}
