package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// suite is a namespace of the cluster, and what can be done and seen there.
type suite struct {
	*steps.Runner
	namespace string
}

func (s suite) makeNamespaces(names []string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, name := range names {
			namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			_, err := s.Client.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
			if err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
		}
		return nil
	}
}

// namespacesReady waits for the service accounts, without which no Pod can be made.
func (s suite) namespacesReady(names []string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		for _, name := range names {
			if _, err := s.Client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{}); err != nil {
				return "", err
			}
		}
		return "", nil
	}
}

func (s suite) apply(example string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := s.Kubectl(ctx, nil, "apply", "-n", s.namespace, "-f", filepath.Join(s.Project, "examples", example))
		return err
	}
}

// exec runs a shell line in a Pod's first container.
func (s suite) exec(ctx context.Context, pod, line string) (string, error) {
	return s.Exec(ctx, s.namespace, pod, "", line)
}

func (s suite) ready(ctx context.Context, name string) (*corev1.Pod, error) {
	pod, err := s.Client.CoreV1().Pods(s.namespace).Get(ctx, name, metav1.GetOptions{})
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

// claim and the PersistentVolume it is bound to.
func (s suite) claim(ctx context.Context, name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume, error) {
	claim, err := s.Client.CoreV1().PersistentVolumeClaims(s.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	if claim.Spec.VolumeName == "" {
		return nil, nil, fmt.Errorf("claim %s is not bound", name)
	}
	volume, err := s.Client.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, metav1.GetOptions{})
	return claim, volume, err
}

// handle is the UUID of the storage behind a claim.
func (s suite) handle(ctx context.Context, claim string) (string, error) {
	_, volume, err := s.claim(ctx, claim)
	if err != nil {
		return "", err
	}
	return volume.Spec.CSI.VolumeHandle, nil
}

func (s suite) patchClaim(ctx context.Context, claim, patch string) error {
	_, err := s.Client.CoreV1().PersistentVolumeClaims(s.namespace).Patch(ctx, claim, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func (s suite) deletePod(ctx context.Context, name string) error {
	return s.Client.CoreV1().Pods(s.namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// end deletes a Pod and waits until it is gone.
func (s suite) end(ctx context.Context, name string) error {
	if err := s.deletePod(ctx, name); err != nil {
		return err
	}
	return s.waitGone(ctx, name)
}

func (s suite) waitGone(ctx context.Context, pod string) error {
	return until(ctx, func(ctx context.Context) (string, error) {
		_, err := s.Client.CoreV1().Pods(s.namespace).Get(ctx, pod, metav1.GetOptions{})
		return "", steps.Gone("Pod "+pod, err)
	})
}

// until waits for a check to succeed, as a part of a step.
func until(ctx context.Context, check func(context.Context) (string, error)) error {
	_, err := steps.Step{Check: check}.Run(ctx)
	return err
}

// restart ends a Pod and makes it anew, changed.
func (s suite) restart(name string, change func(*corev1.Pod)) func(context.Context) error {
	return func(ctx context.Context) error {
		pod, err := s.Client.CoreV1().Pods(s.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if err := s.end(ctx, name); err != nil {
			return err
		}
		return s.make(ctx, pod, name, change)
	}
}

// make makes a Pod like another one, for the scheduler to place.
func (s suite) make(ctx context.Context, like *corev1.Pod, name string, change func(*corev1.Pod)) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: like.Labels}, Spec: *like.Spec.DeepCopy()}
	pod.Spec.NodeName = ""
	if change != nil {
		change(pod)
	}
	_, err := s.Client.CoreV1().Pods(s.namespace).Create(ctx, pod, metav1.CreateOptions{})
	return err
}

// unchanged makes a Pod like the one that there was.
func unchanged(*corev1.Pod) {}

// notOn keeps a Pod off a node.
func notOn(node string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
			NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
				{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpNotIn, Values: []string{node}}}}}}}}
	}
}

// server is the UUID of a Node's server.
func (s suite) server(ctx context.Context, node string) (string, error) {
	object, err := s.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return strings.TrimLeft(strings.TrimPrefix(object.Spec.ProviderID, "upcloud:"), "/"), nil
}

// cordon keeps new Pods off a node, or no longer.
func (s suite) cordon(ctx context.Context, node string, unschedulable bool) error {
	action := "uncordon"
	if unschedulable {
		action = "cordon"
	}
	_, err := s.Kubectl(ctx, nil, action, node)
	return err
}

// unscheduled is why the scheduler does not place a Pod.
func (s suite) unscheduled(ctx context.Context, name string) (string, error) {
	pod, err := s.Client.CoreV1().Pods(s.namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse {
			return condition.Message, nil
		}
	}
	return "", fmt.Errorf("Pod %s waits for no node: %s on %q", name, pod.Status.Phase, pod.Spec.NodeName)
}

// equal is an error that says what was wanted, unless that is what there is.
func equal(what, is, want string) error {
	if is != want {
		return fmt.Errorf("%s is %q, want %q", what, is, want)
	}
	return nil
}
