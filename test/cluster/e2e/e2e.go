// Package e2e takes the manifests of examples/ through their lives on a running local cluster: made, snapshotted, restored,
// cloned, grown, moved off a node that lost its power, and deleted.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// The examples name no namespace.
const namespace = "default"

// content is what the first Pod writes and every copy must hold.
const content = "written before the snapshot"

type suite struct {
	*steps.Runner
	boot map[string]bool // storages that were there before: the nodes' boot disks
	node string          // whose power is lost
}

// Run runs the whole suite.
func Run(ctx context.Context, runner *steps.Runner) steps.Result {
	s := &suite{Runner: runner, boot: map[string]bool{}}
	all := runner.Install()
	all = append(all, steps.Step{Name: "the account has the nodes' boot disks", Limit: 10 * time.Second, Check: s.rememberBootDisks})
	all = append(all, s.copySteps()...)
	all = append(all, s.growSteps()...)
	all = append(all, steps.Step{Name: "volumeattributesclass.yaml: a volume in use gets a backup rule", Limit: 2 * time.Minute,
		Do: s.modify, Check: s.modified})
	all = append(all, s.powerSteps()...)
	all = append(all, steps.Step{Name: "upcloud-doctor finds nothing amiss", Limit: time.Minute, Check: s.doctor})
	all = append(all, steps.Step{Name: "deleting everything leaves the account as it was", Limit: 3 * time.Minute,
		Do: s.deleteAll, Check: s.accountAsBefore})
	runner.Run(ctx, all)
	return runner.Result
}

func (s *suite) rememberBootDisks(ctx context.Context) (string, error) {
	storages, err := s.storages(ctx)
	for _, storage := range storages {
		s.boot[storage.UUID] = true
	}
	return "", err
}

// storages are the account's own, of every type.
func (s *suite) storages(ctx context.Context) ([]upcloud.Storage, error) {
	storages, err := s.Account.GetStorages(ctx, &request.GetStoragesRequest{Access: upcloud.StorageAccessPrivate})
	if err != nil {
		return nil, err
	}
	return storages.Storages, nil
}

func (s *suite) apply(example string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.Kubectl(ctx, nil, "apply", "-f", filepath.Join(s.Project, "examples", example))
		return err
	}
}

// exec runs a shell line in a Pod.
func (s *suite) exec(ctx context.Context, pod, line string) (string, error) {
	output, err := s.Kubectl(ctx, nil, "exec", "-n", namespace, pod, "--", "/bin/sh", "-c", line)
	return strings.TrimSpace(output), err
}

func (s *suite) ready(ctx context.Context, name string) (*corev1.Pod, error) {
	pod, err := s.Client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
			return pod, nil
		}
	}
	return nil, fmt.Errorf("Pod %s is not ready: %s", name, pod.Status.Phase)
}

// holds checks that the Pod is ready, that its volume holds the content, and that its file system has at least so many MiB.
func (s *suite) holds(pod string, mebibytes int) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if _, err := s.ready(ctx, pod); err != nil {
			return "", err
		}
		held, err := s.exec(ctx, pod, "cat /data/content")
		if err != nil {
			return "", err
		}
		if held != content {
			return "", fmt.Errorf("the volume of Pod %s holds %q, want %q", pod, held, content)
		}
		return s.size(ctx, pod, mebibytes)
	}
}

func (s *suite) size(ctx context.Context, pod string, mebibytes int) (string, error) {
	output, err := s.exec(ctx, pod, "df -m /data | tail -n 1 | awk '{print $2}'")
	if err != nil {
		return "", err
	}
	var size int
	if _, err := fmt.Sscan(output, &size); err != nil {
		return "", fmt.Errorf("the size of Pod %s's file system: %q", pod, output)
	}
	if size < mebibytes {
		return "", fmt.Errorf("the file system of Pod %s has %d MiB, want %d at least", pod, size, mebibytes)
	}
	return fmt.Sprintf("file system of %d MiB", size), nil
}

// handle is the UUID of the storage behind a claim.
func (s *suite) handle(ctx context.Context, claim string) (string, error) {
	pvc, err := s.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, claim, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	volume, err := s.Client.CoreV1().PersistentVolumes().Get(ctx, pvc.Spec.VolumeName, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return volume.Spec.CSI.VolumeHandle, nil
}

func (s *suite) patchClaim(ctx context.Context, claim, patch string) error {
	_, err := s.Client.CoreV1().PersistentVolumeClaims(namespace).Patch(ctx, claim, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func (s *suite) deletePod(ctx context.Context, name string) error {
	return s.Client.CoreV1().Pods(namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// doctor runs the program that looks for leftovers; its exit status tells whether it found any.
func (s *suite) doctor(ctx context.Context) (string, error) {
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

func (s *suite) modify(ctx context.Context) error {
	if err := s.apply("volumeattributesclass.yaml")(ctx); err != nil {
		return err
	}
	return s.patchClaim(ctx, "data", `{"spec":{"volumeAttributesClassName":"nightly-backups"}}`)
}

func (s *suite) modified(ctx context.Context) (string, error) {
	handle, err := s.handle(ctx, "data")
	if err != nil {
		return "", err
	}
	storage, err := s.Account.GetStorageDetails(ctx, &request.GetStorageDetailsRequest{UUID: handle})
	if err != nil {
		return "", err
	}
	if rule := storage.BackupRule; rule == nil || rule.Interval != upcloud.BackupRuleIntervalDaily || rule.Time != "0430" || rule.Retention != 7 {
		return "", fmt.Errorf("the backup rule of storage %s is %+v", handle, rule)
	}
	pvc, err := s.Client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, "data", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if current := pvc.Status.CurrentVolumeAttributesClassName; current == nil || *current != "nightly-backups" {
		return "", errors.New("the claim does not tell of its class yet")
	}
	return "daily at 0430, kept for 7 days", nil
}

func (s *suite) waitGone(ctx context.Context, pod string) error {
	gone := steps.Step{Limit: time.Minute, Check: func(ctx context.Context) (string, error) {
		_, err := s.Client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
		return "", steps.Gone("Pod "+pod, err)
	}}
	_, err := gone.Run(ctx)
	return err
}

func (s *suite) deleteAll(ctx context.Context) error {
	for _, args := range [][]string{
		{"delete", "statefulsets,pods", "--all", "-n", namespace, "--wait=false"},
		{"delete", "volumesnapshots", "--all", "-n", namespace, "--wait=false"},
		{"delete", "persistentvolumeclaims", "--all", "-n", namespace, "--wait=false"},
		{"delete", "volumeattributesclasses", "--all", "--wait=false"},
	} {
		if _, err := s.Kubectl(ctx, nil, args...); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) accountAsBefore(ctx context.Context) (string, error) {
	volumes, err := s.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	storages, err := s.storages(ctx)
	if err != nil {
		return "", err
	}
	var left []string
	for _, storage := range storages {
		if !s.boot[storage.UUID] {
			left = append(left, fmt.Sprintf("%s %s (%s, %s)", storage.Type, storage.UUID, storage.Title, storage.State))
		}
	}
	if len(left)+len(volumes.Items) > 0 {
		return "", fmt.Errorf("%d PersistentVolumes are left, and in the account: %s", len(volumes.Items), strings.Join(left, ", "))
	}
	return "", nil
}

var errNoSnapshot = errors.New("the snapshot is not ready")
