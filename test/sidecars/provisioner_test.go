package sidecars

import (
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
	"github.com/kubernetes-csi/external-provisioner/v6/pkg/controller"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	csitrans "k8s.io/csi-translation-lib"
	lib "sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

const (
	nodeName = "worker-1"
	zoneKey  = "region"
	zone     = "fi-hel1"
)

// external-provisioner forgets a volume whose creation is over, and keeps asking for one whose creation is pending.
func TestProvisionerTakesErrorsForWhatTheyMean(t *testing.T) {
	for _, row := range meanings {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, state := provision(t, row.kind, nil)
			got := map[lib.ProvisioningState]meaning{
				lib.ProvisioningInBackground: pending, lib.ProvisioningFinished: over, lib.ProvisioningReschedule: elsewhere,
			}[state]
			wantMeaning(t, "CreateVolume", row.kind, got, row.create)
		})
	}
}

// provision has external-provisioner ask a driver that refuses for the volume of a claim that a Pod on the node waits for.
// parameters are those of the StorageClass.
func provision(t *testing.T, kind error, parameters map[string]string) (*refusing, lib.ProvisioningState) {
	t.Helper()
	refusing, conn := startRefusing(t, kind)
	client := fake.NewClientset(
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{zoneKey: zone}}},
		&storagev1.CSINode{
			ObjectMeta: metav1.ObjectMeta{Name: nodeName},
			Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: driver.Name, NodeID: "00000000-0000-4000-8000-000000000001", TopologyKeys: []string{zoneKey}},
			}},
		},
	)
	factory := informers.NewSharedInformerFactory(client, 0)
	classes, csiNodes := factory.Storage().V1().StorageClasses().Lister(), factory.Storage().V1().CSINodes().Lister()
	nodes, claims := factory.Core().V1().Nodes().Lister(), factory.Core().V1().PersistentVolumeClaims().Lister()
	attachments := factory.Storage().V1().VolumeAttachments().Lister()
	factory.StartWithContext(t.Context())
	factory.WaitForCacheSync(t.Context().Done())
	provisioner := controller.NewCSIProvisioner(client, time.Minute, "test", "pvc", -1, conn, nil, driver.Name,
		rpc.PluginCapabilitySet{
			csi.PluginCapability_Service_CONTROLLER_SERVICE:               true,
			csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS: true,
		},
		rpc.ControllerCapabilitySet{csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME: true},
		"", true, false, csitrans.New(), classes, csiNodes, nodes, claims, attachments, nil, true, "ext4", nil, true, true,
		controller.NewInMemoryStore())

	waits := storagev1.VolumeBindingWaitForFirstConsumer
	deletes := corev1.PersistentVolumeReclaimDelete
	_, state, err := provisioner.Provision(t.Context(), lib.ProvisionOptions{
		StorageClass: &storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{Name: "upcloud"}, Provisioner: driver.Name, Parameters: parameters,
			VolumeBindingMode: &waits, ReclaimPolicy: &deletes,
		},
		PVName: "pvc-1", PVC: claim("1Gi"), SelectedNodeName: nodeName,
	})
	if err == nil {
		t.Fatal("the driver refuses, and a volume was provisioned")
	}
	if refusing.asked() != 1 {
		t.Fatalf("the driver was asked %d times: %v", refusing.asked(), err)
	}
	return refusing, state
}

// claim is a claim bound to the PersistentVolume of volume.
func claim(size string) *corev1.PersistentVolumeClaim {
	request := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	class := "upcloud"
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: "data", Namespace: "default", UID: "11111111-2222-4333-8444-555555555555",
			Annotations: map[string]string{"volume.kubernetes.io/storage-provisioner": driver.Name},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: request},
			StorageClassName: &class, VolumeName: "pv-1",
		},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: request},
	}
}
