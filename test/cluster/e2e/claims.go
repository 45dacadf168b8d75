package e2e

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

func (s suite) exclusiveSteps() []steps.Step {
	const first, second = "app-exclusive", "app-exclusive-2"
	return []steps.Step{
		{Name: "read-write-once-pod.yaml: a Pod runs with its volume", Do: s.apply("read-write-once-pod.yaml"), Check: s.writeTo(first)},
		{Name: "a second Pod stays pending as long as the first one has the claim",
			Do: func(ctx context.Context) error {
				pod, err := s.ready(ctx, first)
				if err != nil {
					return err
				}
				return s.make(ctx, pod, second, unchanged)
			},
			Check: func(ctx context.Context) (string, error) {
				why, err := s.unscheduled(ctx, second)
				if err == nil && !strings.Contains(why, "ReadWriteOncePod") {
					err = fmt.Errorf("Pod %s is not scheduled for another reason: %s", second, why)
				}
				return why, err
			}},
		{Name: "it runs when the first one has ended, and finds what that wrote",
			Do: func(ctx context.Context) error { return s.end(ctx, first) }, Check: s.holds(second, 800)},
	}
}

// ephemeral is a volume that lives as long as its Pod.
type ephemeral struct {
	suite
	storage, volume string
}

func (s suite) ephemeralSteps() []steps.Step {
	const pod, claim = "app-ephemeral", "app-ephemeral-scratch"
	e := &ephemeral{suite: s}
	return []steps.Step{
		{Name: "ephemeral.yaml: a Pod runs with a volume made for it", Do: s.apply("ephemeral.yaml"),
			Check: func(ctx context.Context) (string, error) {
				mount, err := s.writeTo(pod)(ctx)
				if err != nil {
					return "", err
				}
				object, volume, err := s.claim(ctx, claim)
				if err != nil {
					return "", err
				}
				e.storage, e.volume = volume.Spec.CSI.VolumeHandle, volume.Name
				owner := metav1.GetControllerOf(object)
				if owner == nil || owner.Kind != "Pod" || owner.Name != pod {
					return "", fmt.Errorf("claim %s is owned by %v, not by its Pod", claim, owner)
				}
				return mount, nil
			}},
		{Name: "its claim, its volume and its storage go with the Pod",
			Do: func(ctx context.Context) error { return s.deletePod(ctx, pod) }, Check: e.gone},
	}
}

func (e *ephemeral) gone(ctx context.Context) (string, error) {
	claims, err := e.Client.CoreV1().PersistentVolumeClaims(e.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", err
	}
	if len(claims.Items) > 0 {
		return "", fmt.Errorf("claim %s is still there", claims.Items[0].Name)
	}
	_, err = e.Client.CoreV1().PersistentVolumes().Get(ctx, e.volume, metav1.GetOptions{})
	if err := steps.Gone("PersistentVolume "+e.volume, err); err != nil {
		return "", err
	}
	return "", e.storageGone(ctx, e.storage)
}

// storageGone is nil when the account has no such storage.
func (s suite) storageGone(ctx context.Context, uuid string) error {
	storages, err := s.storages(ctx)
	if err != nil {
		return err
	}
	for _, storage := range storages {
		if storage.UUID == uuid {
			return fmt.Errorf("storage %s is still there, %s", uuid, storage.State)
		}
	}
	return nil
}

// attachedTo tells whether the simulated account has a storage at a Node's server.
func (s suite) attachedTo(ctx context.Context, storage, node string) (bool, error) {
	server, err := s.server(ctx, node)
	if err != nil {
		return false, err
	}
	details, err := s.Account.GetServerDetails(ctx, &request.GetServerDetailsRequest{UUID: server})
	if err != nil {
		return false, err
	}
	return details.StorageDevice(storage) != nil, nil
}
