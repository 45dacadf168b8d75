package e2e

import (
	"context"
	"fmt"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// limits is a node filled with as many volumes as its CSINode says that it has room for.
type limits struct {
	suite
	node string
	room int // for volumes, beside those that are there
}

func (s suite) limitSteps() []steps.Step {
	l := &limits{suite: s}
	return []steps.Step{
		{Name: "a node takes as many volumes as it says it has room for", Do: l.fill, Check: l.filled},
		{Name: "a Pod with one volume more stays pending, and nothing of it is attached", Do: l.oneMore, Check: l.pending},
		{Name: "it runs when there is room", Do: func(ctx context.Context) error { return s.deletePod(ctx, "full") },
			Check: s.writeTo("one-more")},
	}
}

func (l *limits) fill(ctx context.Context) error {
	nodes, err := l.Client.StorageV1().CSINodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, node := range nodes.Items {
		for _, driver := range node.Spec.Drivers {
			if driver.Name == driverName && driver.Allocatable != nil && driver.Allocatable.Count != nil {
				l.node, l.room = node.Name, int(*driver.Allocatable.Count)
			}
		}
	}
	if l.node == "" {
		return fmt.Errorf("no node says how many volumes of %s it has room for", driverName)
	}
	used, err := l.attachments(ctx)
	if err != nil {
		return err
	}
	l.room -= used
	return l.fillUp(ctx)
}

const driverName = "storage.csi.upcloud.com"

// attachments counts the volumes of the node.
func (l *limits) attachments(ctx context.Context) (count int, err error) {
	attachments, err := l.Client.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	for _, attachment := range attachments.Items {
		if attachment.Spec.NodeName == l.node {
			count++
		}
	}
	return count, nil
}

// fillUp makes a Pod with as many ephemeral raw block volumes as the node has room for: these take no time to format.
func (l *limits) fillUp(ctx context.Context) error {
	pod := l.pod("full")
	block, class := corev1.PersistentVolumeBlock, storageClass
	for i := range l.room {
		volume := fmt.Sprintf("data-%d", i)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
			VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claimSpec(&class, &block)}}}})
		pod.Spec.Containers[0].VolumeDevices = append(pod.Spec.Containers[0].VolumeDevices,
			corev1.VolumeDevice{Name: volume, DevicePath: "/dev/" + volume})
	}
	_, err := l.Client.CoreV1().Pods(l.namespace).Create(ctx, pod, metav1.CreateOptions{})
	return err
}

// oneMore makes a Pod with a claim of its own. (Its volume is no ephemeral one: the scheduler of Kubernetes 1.36 does not look
// again at a waiting Pod with such a volume when another volume has been detached, but after five minutes.)
func (l *limits) oneMore(ctx context.Context) error {
	class := storageClass
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "one-more"}, Spec: claimSpec(&class, nil)}
	if _, err := l.Client.CoreV1().PersistentVolumeClaims(l.namespace).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		return err
	}
	pod := l.pod("one-more")
	pod.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	_, err := l.Client.CoreV1().Pods(l.namespace).Create(ctx, pod, metav1.CreateOptions{})
	return err
}

const storageClass = "upcloud-block-storage-maxiops"

func claimSpec(class *string, mode *corev1.PersistentVolumeMode) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{
		AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		StorageClassName: class,
		VolumeMode:       mode,
		Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}
}

// pod is one for the node, without volumes.
func (l *limits) pod(name string) *corev1.Pod {
	grace := int64(1)
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		NodeSelector:                  map[string]string{corev1.LabelHostname: l.node},
		TerminationGracePeriodSeconds: &grace,
		Containers: []corev1.Container{{Name: "app", Image: "busybox:1.35",
			Command: []string{"/bin/sh", "-c", "trap exit TERM; while true; do sleep 1; done"}}},
	}}
}

func (l *limits) filled(ctx context.Context) (string, error) {
	if _, err := l.ready(ctx, "full"); err != nil {
		return "", err
	}
	devices, err := l.exec(ctx, "full", "for disk in /dev/data-*; do test -b $disk && dd if=/dev/zero of=$disk bs=4k count=1 conv=fsync 2> /dev/null && echo $disk; done | wc -l")
	if err != nil {
		return "", err
	}
	if err := equal("the number of disks that the Pod can write to", devices, fmt.Sprint(l.room)); err != nil {
		return "", err
	}
	server, err := l.server(ctx, l.node)
	if err != nil {
		return "", err
	}
	details, err := l.Account.GetServerDetails(ctx, &request.GetServerDetailsRequest{UUID: server})
	return fmt.Sprintf("%d volumes of the Pod, %d disks of server %s", l.room, len(details.StorageDevices), server), err
}

func (l *limits) pending(ctx context.Context) (string, error) {
	why, err := l.unscheduled(ctx, "one-more")
	if err != nil {
		return "", err
	}
	if !strings.Contains(why, "exceed max volume count") {
		return "", fmt.Errorf("Pod one-more is not scheduled for another reason: %s", why)
	}
	claim, err := l.Client.CoreV1().PersistentVolumeClaims(l.namespace).Get(ctx, "one-more", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return why, equal("the claim's volume", claim.Spec.VolumeName, "")
}
