package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

// forced is the Pod deleted by force while its node has no node plugin, and its successor on the other node.
type forced struct {
	*restarts
}

const successor = "app-moved"

// deleteByForce takes the node plugin off the node, deletes the Pod without waiting for its end, and makes its successor.
func (f *forced) deleteByForce(ctx context.Context) error {
	const off = `{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"NotIn","values":[%q]}]}]}}}}}}}`
	if err := f.patchNodePlugin(ctx, fmt.Sprintf(off, f.node)); err != nil {
		return err
	}
	gone := func(ctx context.Context) (string, error) { return "", f.noNodePlugin(ctx) }
	if err := until(ctx, gone); err != nil {
		return err
	}
	pod, err := f.ready(ctx, "app")
	if err != nil {
		return err
	}
	now := int64(0)
	if err := f.Client.CoreV1().Pods(f.namespace).Delete(ctx, "app", metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		return err
	}
	return f.make(ctx, pod, successor, notOn(f.node))
}

func (f *forced) patchNodePlugin(ctx context.Context, patch string) error {
	_, err := f.Client.AppsV1().DaemonSets("kube-system").Patch(ctx, "upcloud-csi-node", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func (f *forced) noNodePlugin(ctx context.Context) error {
	pods, err := f.Client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{LabelSelector: "app=upcloud-csi-node",
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", f.node).String()})
	if err != nil {
		return err
	}
	if len(pods.Items) > 0 {
		return fmt.Errorf("the node plugin is still on %s", f.node)
	}
	return nil
}

// stays checks that nobody takes the volume from under the mount: the successor is told why it waits.
func (f *forced) stays(ctx context.Context) (string, error) {
	if err := f.noNodePlugin(ctx); err != nil {
		return "", err
	}
	_, err := f.Client.CoreV1().Pods(f.namespace).Get(ctx, "app", metav1.GetOptions{})
	if err == nil {
		return "", errors.New("the Pod is still there")
	}
	events, err := f.Client.CoreV1().Events(f.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("involvedObject.name", successor).String()})
	if err != nil {
		return "", err
	}
	why := ""
	for _, event := range events.Items {
		if event.Reason == "FailedAttachVolume" && strings.Contains(event.Message, "Multi-Attach") {
			why = event.Message
		}
	}
	if why == "" {
		return "", fmt.Errorf("Pod %s is not told that its volume is in use elsewhere", successor)
	}
	storage, err := f.handle(ctx, "data")
	if err != nil {
		return "", err
	}
	attached, err := f.attachedTo(ctx, storage, f.node)
	if err != nil {
		return "", err
	}
	mounts, err := f.mountsOf(ctx, f.node)
	if err != nil {
		return "", err
	}
	if !attached || len(mounts) == 0 {
		return "", fmt.Errorf("attached to %s: %t, mounted there at %q", f.node, attached, mounts)
	}
	return why, nil
}

func (f *forced) bringNodePluginBack(ctx context.Context) error {
	return f.patchNodePlugin(ctx, `{"spec":{"template":{"spec":{"affinity":null}}}}`)
}

func (f *forced) moved(ctx context.Context) (string, error) {
	pod, err := f.ready(ctx, successor)
	if err != nil {
		return "", err
	}
	if pod.Spec.NodeName == f.node {
		return "", fmt.Errorf("Pod %s is on %s", successor, f.node)
	}
	if _, err := f.holds(successor, 800)(ctx); err != nil {
		return "", err
	}
	odd, err := f.exec(ctx, successor, fmt.Sprintf("wc -l < /data/beats | awk '$1 < %d'; grep -v '^beat$' /data/beats || [ $? = 1 ]", f.beats))
	if err != nil {
		return "", err
	}
	if odd != "" {
		return "", fmt.Errorf("of what the first Pod wrote, there is %q (it wrote %d lines at least)", odd, f.beats)
	}
	mounts, err := f.mountsOf(ctx, f.node)
	if err != nil {
		return "", err
	}
	if len(mounts) > 0 {
		return "", fmt.Errorf("the volume is still mounted on %s at %q", f.node, mounts)
	}
	return "on " + pod.Spec.NodeName, nil
}
