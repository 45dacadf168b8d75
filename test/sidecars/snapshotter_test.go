package sidecars

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	snapshotfake "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned/fake"
	snapshotinformers "github.com/kubernetes-csi/external-snapshotter/client/v8/informers/externalversions"
	controller "github.com/kubernetes-csi/external-snapshotter/v8/pkg/sidecar-controller"
	"github.com/kubernetes-csi/external-snapshotter/v8/pkg/snapshotter"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/util/workqueue"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

// The fake client of snapshots lists, and does not stream lists as newer API servers do.
func TestMain(m *testing.M) {
	if err := os.Setenv("KUBE_FEATURE_WatchListClient", "false"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// external-snapshotter keeps a mark on a content whose snapshot may come to be: with it the content cannot be deleted.
func TestSnapshotterTakesErrorsForWhatTheyMean(t *testing.T) {
	for _, row := range meanings {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got := finality(!markedAfterRefusal(t, row.kind))
			wantMeaning(t, "CreateSnapshot", row.kind, got, row.snapshot)
		})
	}
}

// markedAfterRefusal has external-snapshotter ask a driver that refuses for a snapshot, and reports whether the content keeps
// the mark.
func markedAfterRefusal(t *testing.T, kind error) bool {
	t.Helper()
	_, conn := startRefusing(t, kind)
	handle, class := "01000000-0000-4000-8000-000000000001", "upcloud"
	client := snapshotfake.NewSimpleClientset( //nolint:staticcheck // this module has no NewClientset
		&snapshotv1.VolumeSnapshotClass{
			ObjectMeta: metav1.ObjectMeta{Name: class}, Driver: driver.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete,
		},
		&snapshotv1.VolumeSnapshotContent{
			ObjectMeta: metav1.ObjectMeta{
				Name: "content", ResourceVersion: "1", Annotations: map[string]string{"made-by": "test"}, // what a patch replaces must be there
			},
			Spec: snapshotv1.VolumeSnapshotContentSpec{
				Driver: driver.Name, DeletionPolicy: snapshotv1.VolumeSnapshotContentDelete, VolumeSnapshotClassName: &class,
				Source:            snapshotv1.VolumeSnapshotContentSource{VolumeHandle: &handle},
				VolumeSnapshotRef: corev1.ObjectReference{Name: "s", Namespace: "default", UID: "11111111-2222-4333-8444-555555555555"},
			},
		},
	)
	factory := snapshotinformers.NewSharedInformerFactory(client, 0)
	once := workqueue.NewTypedItemExponentialFailureRateLimiter[string](time.Hour, time.Hour)
	ctrl := controller.NewCSISnapshotSideCarController(client, fake.NewClientset(), driver.Name,
		factory.Snapshot().V1().VolumeSnapshotContents(), factory.Snapshot().V1().VolumeSnapshotClasses(),
		snapshotter.NewSnapshotter(conn), nil, time.Minute, 0, "snapshot", -1, "group", -1, false, once, false,
		factory.Groupsnapshot().V1().VolumeGroupSnapshotContents(), factory.Groupsnapshot().V1().VolumeGroupSnapshotClasses(), once)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	factory.Start(ctx.Done())
	var workers sync.WaitGroup
	go ctrl.Run(1, ctx.Done(), &workers)

	marked := false
	eventually(t, "the refusal is in the status", func() bool { // which is written after the decision
		for _, action := range client.Actions() {
			patch, ok := action.(clienttesting.PatchAction)
			switch {
			case !ok:
			case patch.GetSubresource() == "status":
				return true
			default:
				marked = !strings.Contains(string(patch.GetPatch()), `"op":"remove"`)
			}
		}
		return false
	})
	return marked
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after two minutes still not: %s", what)
		}
	}
}
