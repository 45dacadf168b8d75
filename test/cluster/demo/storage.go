package demo

import (
	"context"
	"fmt"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

const claim = "data-keeper-0"

func (d *demo) storageSteps() []steps.Step {
	return []steps.Step{
		{Name: "a StatefulSet's claim is provisioned", Do: d.createWorkload, Check: d.provisioned},
		{Name: "the volume is attached to the Pod's server", Check: d.attached},
		{Name: "it is formatted and mounted, and the Pod runs", Check: d.mounted},
		{Name: "the Pod has written data and its checksum", Check: d.written},
		{Name: "the Pod moves to another node", Do: d.move, Check: d.moved},
		{Name: "the checksum is verified there", Check: d.verified},
	}
}

func (d *demo) createWorkload(ctx context.Context) error {
	if _, err := d.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
		metav1.CreateOptions{}); err != nil {
		return err
	}
	return d.apply(ctx, "storage.yaml")
}

func (d *demo) provisioned(ctx context.Context) (string, error) {
	pvc, err := d.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, claim, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if pvc.Status.Phase != corev1.ClaimBound {
		return "", fmt.Errorf("the claim is %s", pvc.Status.Phase)
	}
	volume, err := d.Client.CoreV1().PersistentVolumes().Get(ctx, pvc.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	d.storage = volume.Spec.CSI.VolumeHandle
	storage, err := d.Account.GetStorageDetails(ctx, &request.GetStorageDetailsRequest{UUID: d.storage})
	if err != nil {
		return "", fmt.Errorf("the volume handle is not a storage's UUID: %w", err)
	}
	return fmt.Sprintf("storage %s  %s  %d GiB  %s  %s", storage.UUID, storage.Title, storage.Size, storage.Tier, storage.Zone), nil
}

// attached asks the simulated account, not Kubernetes.
func (d *demo) attached(ctx context.Context) (string, error) {
	pod, err := d.pod(ctx)
	if err != nil {
		return "", err
	}
	server, err := d.serverOf(ctx, pod.Spec.NodeName)
	if err != nil {
		return "", err
	}
	device := server.StorageDevice(d.storage)
	if device == nil {
		return "", fmt.Errorf("the storage is not attached to %s", server.Hostname)
	}
	return fmt.Sprintf("server %s  %s  %s", server.UUID, server.Hostname, device.Address), nil
}

func (d *demo) mounted(ctx context.Context) (string, error) {
	pod, err := d.pod(ctx)
	if err != nil {
		return "", err
	}
	if !ready(pod) {
		return "", fmt.Errorf("the Pod is not ready: %s", pod.Status.Phase)
	}
	d.node = pod.Spec.NodeName
	mount, err := d.exec(ctx, "grep", " /data ", "/proc/mounts")
	return strings.TrimSpace(mount), err
}

func (d *demo) written(ctx context.Context) (string, error) {
	checksum, err := d.exec(ctx, "cat", "/data/payload.sha256")
	d.checksum = strings.TrimSpace(checksum)
	return d.checksum, err
}

// move makes the node unfit for the Pod and deletes the Pod, as a drain does.
func (d *demo) move(ctx context.Context) error {
	if err := d.cordon(ctx, d.node, true); err != nil {
		return err
	}
	return d.Client.CoreV1().Pods(namespace).Delete(ctx, "keeper-0", metav1.DeleteOptions{})
}

func (d *demo) moved(ctx context.Context) (string, error) {
	pod, err := d.pod(ctx)
	if err != nil {
		return "", err
	}
	if pod.Spec.NodeName == d.node || !ready(pod) {
		return "", fmt.Errorf("the Pod is on %q, ready: %t", pod.Spec.NodeName, ready(pod))
	}
	place, err := d.attached(ctx)
	if err != nil {
		return "", err
	}
	return place, d.cordon(ctx, d.node, false)
}

func (d *demo) verified(ctx context.Context) (string, error) {
	verdict, err := d.exec(ctx, "sh", "-c", "cd /data && sha256sum -c payload.sha256")
	if err != nil {
		return "", err
	}
	checksum, err := d.exec(ctx, "cat", "/data/payload.sha256")
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(checksum) != d.checksum {
		return "", fmt.Errorf("the data is another: checksum %s, it was %s", strings.TrimSpace(checksum), d.checksum)
	}
	return strings.TrimSpace(verdict) + ", the same checksum as before", nil
}

func (d *demo) pod(ctx context.Context) (*corev1.Pod, error) {
	pod, err := d.Client.CoreV1().Pods(namespace).Get(ctx, "keeper-0", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if pod.DeletionTimestamp != nil {
		return nil, fmt.Errorf("the Pod is ending")
	}
	return pod, nil
}

func ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (d *demo) serverOf(ctx context.Context, node string) (*upcloud.ServerDetails, error) {
	if node == "" {
		return nil, fmt.Errorf("the Pod is not scheduled")
	}
	object, err := d.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	uuid := strings.TrimLeft(strings.TrimPrefix(object.Spec.ProviderID, "upcloud:"), "/")
	return d.Account.GetServerDetails(ctx, &request.GetServerDetailsRequest{UUID: uuid})
}
