package sidecars

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	csimetrics "github.com/kubernetes-csi/csi-lib-utils/metrics"
	"github.com/kubernetes-csi/external-resizer/v2/pkg/controller"
	"github.com/kubernetes-csi/external-resizer/v2/pkg/csi"
	"github.com/kubernetes-csi/external-resizer/v2/pkg/modifycontroller"
	"github.com/kubernetes-csi/external-resizer/v2/pkg/resizer"
	"github.com/kubernetes-csi/external-resizer/v2/pkg/util"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/util/workqueue"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// external-resizer lets a claim be lowered after a growth that is over, and asks slowly for one that is infeasible.
func TestResizerTakesErrorsOfGrowthForWhatTheyMean(t *testing.T) {
	for _, row := range meanings {
		t.Run(row.name, func(t *testing.T) {
			err := answer("ControllerExpandVolume", row.kind)
			got := finality(util.IsFinalError(err))
			if util.IsInfeasibleError(err) {
				got = infeasible
			}
			wantMeaning(t, "ControllerExpandVolume", row.kind, got, row.growth)
		})
	}
}

// refusingModifier is the part of external-resizer that asks the driver, with an answer of this test.
type refusingModifier struct{ kind error }

func (refusingModifier) Name() string { return driver.Name }

func (m refusingModifier) Modify(context.Context, *corev1.PersistentVolume, map[string]string) error {
	return answer("ControllerModifyVolume", m.kind)
}

// external-resizer lets a claim have another class after a change that is over, and asks slowly for one that is infeasible.
func TestResizerTakesErrorsOfChangesForWhatTheyMean(t *testing.T) {
	for _, row := range meanings {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			wantMeaning(t, "ControllerModifyVolume", row.kind, afterRefusedChange(t, row.kind), row.modify)
		})
	}
}

func afterRefusedChange(t *testing.T, kind error) meaning {
	t.Helper()
	ctx := t.Context()
	pvc, class := claim("1Gi"), "gold"
	pvc.Spec.VolumeAttributesClassName = &class
	client := fake.NewClientset(pvc, volume("1Gi", "volume"), &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{Name: class}, DriverName: driver.Name, Parameters: map[string]string{"labels": "team=storage"},
	})
	factory := informers.NewSharedInformerFactory(client, 0)
	ctrl := modifycontroller.NewModifyController(driver.Name, refusingModifier{kind}, client, 0, time.Hour, false, factory,
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Hour, time.Hour))
	factory.StartWithContext(ctx)
	var workers sync.WaitGroup
	go ctrl.Run(1, ctx, &workers)

	var got meaning
	eventually(t, "the claim has the error", func() bool {
		now, err := client.CoreV1().PersistentVolumeClaims(pvc.Namespace).Get(ctx, pvc.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		failed := false
		for _, condition := range now.Status.Conditions {
			switch {
			case condition.Type == corev1.PersistentVolumeClaimVolumeModifyVolumeError:
				failed = true
			case now.Status.ModifyVolumeStatus.Status == corev1.PersistentVolumeClaimModifyVolumeInfeasible:
				got = infeasible
			default:
				got = finality(strings.Contains(condition.Message, "failed"))
			}
		}
		return failed
	})
	return got
}

// volume is the PersistentVolume that claim is bound to.
func volume(size, handle string) *corev1.PersistentVolume {
	pvc := claim(size)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: pvc.Spec.VolumeName},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: pvc.Spec.Resources.Requests, AccessModes: pvc.Spec.AccessModes,
			ClaimRef: &corev1.ObjectReference{Namespace: pvc.Namespace, Name: pvc.Name, UID: pvc.UID},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: driver.Name, VolumeHandle: handle, FSType: "ext4"},
			},
		},
	}
}

// A claim asks for more than the account may have. When it is lowered, the volume grows to what fits.
func TestClaimGrownPastTheLimitOfTheAccountCanBeLowered(t *testing.T) {
	account := startDriver(t, simulator.Config{Limits: &simulator.Limits{StorageMaxIOPS: 50}})
	handle := account.create(t, 10)
	ctx := t.Context()
	pvc := claim("10Gi")
	pvc.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("100Gi")}
	client := fake.NewClientset(pvc, volume("10Gi", handle))
	csiClient, err := csi.New(ctx, account.endpoint, time.Minute, csimetrics.NewCSIMetricsManager(driver.Name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(csiClient.CloseConnection) // before the driver ends: the sidecar exits when its driver does
	csiResizer, err := resizer.NewResizerFromClient(csiClient, time.Minute, client, driver.Name)
	if err != nil {
		t.Fatal(err)
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	ctrl := controller.NewResizeController(driver.Name, csiResizer, client, 0, factory,
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Millisecond, 100*time.Millisecond), true, time.Minute)
	running, stop := context.WithCancel(ctx)
	factory.StartWithContext(running)
	var workers sync.WaitGroup
	ended := make(chan struct{})
	go func() { defer close(ended); ctrl.Run(1, running, &workers) }()
	t.Cleanup(func() { stop(); <-ended })

	claims := client.CoreV1().PersistentVolumeClaims(pvc.Namespace)
	var now *corev1.PersistentVolumeClaim
	eventually(t, "the growth to 100Gi has been asked for and refused", func() bool {
		if now, err = claims.Get(ctx, pvc.Name, metav1.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		return account.refusals() > 0 && len(now.Status.AllocatedResourceStatuses) > 0
	})
	now.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("12Gi")
	if _, err := claims.Update(ctx, now, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the PersistentVolume has 12Gi", func() bool {
		pv, err := client.CoreV1().PersistentVolumes().Get(ctx, pvc.Spec.VolumeName, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return pv.Spec.Capacity.Storage().String() == "12Gi"
	})
	if got := account.size(t, handle); got != 12 {
		t.Errorf("the storage has %d GiB", got)
	}
}

func socketOf(dir string) string { return "unix://" + filepath.Join(dir, "csi.sock") }
