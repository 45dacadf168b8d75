package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
)

// bootDisks are what there was before the suite began: the storages of the nodes' servers, and the loop devices of these.
type bootDisks struct {
	storages map[string]bool   // by UUID
	devices  map[string]string // with what is behind each
}

func (b *bootDisks) remember(s suite) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		storages, err := s.storages(ctx)
		if err != nil {
			return "", err
		}
		b.storages = map[string]bool{}
		for _, storage := range storages {
			b.storages[storage.UUID] = true
		}
		b.devices, err = local.LoopDevices()
		return fmt.Sprintf("%d storages, %d loop devices", len(b.storages), len(b.devices)), err
	}
}

// storages are the account's own, of every type.
func (s suite) storages(ctx context.Context) ([]upcloud.Storage, error) {
	storages, err := s.Account.GetStorages(ctx, &request.GetStoragesRequest{Access: upcloud.StorageAccessPrivate})
	if err != nil {
		return nil, err
	}
	return storages.Storages, nil
}

// doctor runs the program that looks for leftovers; its exit status says whether it found any. What it goes by is on every volume: the
// cluster's UID, which the driver reads with the rights of its Pod.
func (s suite) doctor(ctx context.Context) (string, error) {
	if err := s.labelled(ctx); err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, filepath.Join(s.Project, "build", "cluster", "bin", "upcloud-doctor"), "storage",
		"--kubeconfig", s.Status.Kubeconfig)
	command.Env = append(os.Environ(), "UPCLOUD_DEBUG_API_BASE_URL="+s.Status.SimulatorURL,
		"UPCLOUD_USERNAME="+s.Status.Username, "UPCLOUD_PASSWORD="+s.Status.Password)
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, output)
	}
	return strings.TrimSpace(string(output)), nil
}

// labelled checks that all that the driver made carries the UID of the namespace kube-system.
func (s suite) labelled(ctx context.Context) error {
	namespace, err := s.Client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return err
	}
	storages, err := s.storages(ctx)
	if err != nil {
		return err
	}
	for _, storage := range storages {
		labels := map[string]string{}
		for _, label := range storage.Labels {
			labels[label.Key] = label.Value
		}
		if labels["csi-name"] != "" && labels["csi-cluster-uid"] != string(namespace.UID) {
			return fmt.Errorf("storage %s (%s) has the label csi-cluster-uid=%q, and the cluster the UID %s", storage.UUID, storage.Title,
				labels["csi-cluster-uid"], namespace.UID)
		}
	}
	return nil
}

// deleteAll deletes what the examples made in the namespaces: what these hold, and of what has none the kinds that would keep
// something in the account.
func (s suite) deleteAll(namespaces []string) func(context.Context) error {
	return func(ctx context.Context) error {
		commands := [][]string{{"delete", "volumeattributesclasses", "--all", "--wait=false"}}
		for _, namespace := range namespaces {
			if namespace == metav1.NamespaceDefault { // which cannot be deleted
				commands = append(commands, []string{"delete", "statefulsets,pods,volumesnapshots,persistentvolumeclaims", "--all", "-n", namespace, "--wait=false"})
				continue
			}
			commands = append(commands, []string{"delete", "namespace", namespace, "--ignore-not-found", "--wait=false"})
		}
		for _, args := range commands {
			if _, err := s.Kubectl(ctx, nil, args...); err != nil {
				return err
			}
		}
		return nil
	}
}

// onlyThey sees that nothing of any volume is left: not in Kubernetes, not in the account, not on the nodes.
func (b *bootDisks) onlyThey(s suite) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		left, err := s.leftInKubernetes(ctx)
		if err != nil {
			return "", err
		}
		storages, err := s.storages(ctx)
		if err != nil {
			return "", err
		}
		for _, storage := range storages {
			if !b.storages[storage.UUID] {
				left = append(left, fmt.Sprintf("%s %s (%s, %s)", storage.Type, storage.UUID, storage.Title, storage.State))
			}
		}
		devices, err := local.LoopDevices()
		if err != nil {
			return "", err
		}
		for device, behind := range devices {
			if b.devices[device] != behind {
				left = append(left, device+" of "+behind)
			}
		}
		mounts, err := s.volumeMounts()
		if err != nil {
			return "", err
		}
		for _, m := range mounts {
			left = append(left, fmt.Sprintf("on %s a mount of %s at %s", m.node, m.device, m.point))
		}
		if len(left) > 0 {
			return "", fmt.Errorf("there is left: %s", strings.Join(left, ", "))
		}
		return "no PersistentVolume, VolumeAttachment, storage, backup, loop device or mount is left", nil
	}
}

func (s suite) leftInKubernetes(ctx context.Context) (left []string, err error) {
	volumes, err := s.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, volume := range volumes.Items {
		left = append(left, fmt.Sprintf("PersistentVolume %s (%s)", volume.Name, volume.Status.Phase))
	}
	attachments, err := s.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, attachment := range attachments.Items {
		left = append(left, fmt.Sprintf("VolumeAttachment to %s of %s", attachment.Spec.NodeName, *attachment.Spec.Source.PersistentVolumeName))
	}
	return left, nil
}

// volumeMount is one line of proc_pid_mounts(5) of a node.
type volumeMount struct{ node, device, point, options string }

// volumeMounts are the nodes' mounts of CSI volumes, as the kernel has them.
func (s suite) volumeMounts() (mounts []volumeMount, err error) {
	status, err := local.ReadStatus() // anew: a machine that lost its power has another first process since
	if err != nil {
		return nil, err
	}
	for node, process := range status.Machines {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", process))
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) > 3 && (strings.Contains(fields[1], "kubernetes.io~csi") || strings.Contains(fields[1], "kubernetes.io/csi")) {
				mounts = append(mounts, volumeMount{node, fields[0], fields[1], fields[3]})
			}
		}
	}
	return mounts, nil
}
