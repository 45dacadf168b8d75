package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
)

// annotationNodeID is where external-attacher notes the node ID that it attached to, which outlives the Node.
const annotationNodeID = "csi.alpha.kubernetes.io/node-id"

// attachment is a VolumeAttachment, of any driver.
type attachment struct {
	name, driver, volume, node string
	nodeID                     string // as noted by external-attacher; may be empty
	attached, leaving          bool
}

func attachmentOf(va *storagev1.VolumeAttachment) *attachment {
	a := &attachment{
		name: va.Name, driver: va.Spec.Attacher, node: va.Spec.NodeName, nodeID: va.Annotations[annotationNodeID],
		attached: va.Status.Attached, leaving: va.DeletionTimestamp != nil,
	}
	if va.Spec.Source.PersistentVolumeName != nil {
		a.volume = *va.Spec.Source.PersistentVolumeName
	}
	return a
}

// readNodes reads which node ID each Node has with the driver, which CSINodes say, and on which servers the cluster's nodes are.
func (v *view) readNodes(ctx context.Context) error {
	v.nodes, v.servers = map[string]string{}, map[string]bool{}
	list, err := v.config.Kubernetes.StorageV1().CSINodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return unreadable("csinodes", err)
	}
	if err := whole("csinodes", list); err != nil {
		return err
	}
	for i := range list.Items {
		for _, driver := range list.Items[i].Spec.Drivers {
			if driver.Name == v.config.Driver {
				v.nodes[list.Items[i].Name] = driver.NodeID
				v.addServer(driver.NodeID)
			}
		}
	}
	nodes, err := v.config.Kubernetes.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return unreadable("nodes", err)
	}
	for i := range nodes.Items {
		if server, err := providerid.Parse(nodes.Items[i].Spec.ProviderID); err == nil {
			v.addServer(server)
		}
	}
	return whole("nodes", nodes)
}

func (v *view) addServer(id string) {
	for _, server := range storagesIn(id) { // UUIDs alone; host names prove nothing
		v.servers[server] = true
	}
}

// readAttachments is last: attachments are made and undone while their VolumeAttachment is there.
func (v *view) readAttachments(ctx context.Context) error {
	list, err := v.config.Kubernetes.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return unreadable("volumeattachments", err)
	}
	for i := range list.Items {
		v.attachments = append(v.attachments, attachmentOf(&list.Items[i]))
	}
	return whole("volumeattachments", list)
}

// readAttached asks where this cluster's volumes are attached: one call each, as lists do not tell.
func (v *view) readAttached(ctx context.Context) (err error) {
	var ids []string
	for _, storage := range v.sorted() {
		ours := v.claim(storage) == cloud.ClaimOurs && storage.Role == cloud.RoleVolume
		if ours || v.objects.byVolume[storage.ID] && v.claim(storage) != cloud.ClaimOther {
			ids = append(ids, storage.ID)
		}
	}
	v.attached, err = v.config.Cloud.Attachments(ctx, ids)
	return err
}

// judgeAttached finds attachments that no VolumeAttachment explains.
func (e *examination) judgeAttached(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(e.attached)) {
		for _, server := range e.attached[id] {
			explained, err := e.explained(ctx, e.storages[id], server)
			if err != nil {
				return err
			}
			if explained {
				continue
			}
			_, handedOver := e.storages[id].Labels[cloud.LabelImport]
			if e.carriesUID(e.storages[id]) && !handedOver && !e.servers[server] && e.stop == "" {
				e.stop = twin(e.storages[id], server)
			}
			now, err := e.storageAgain(ctx, e.storages[id])
			if err != nil {
				return err
			}
			if now == nil || !slices.Contains(now.ServerIDs, server) {
				continue
			}
			finding := findingOf(UnexplainedAttachment, now)
			finding.ServerIDs, finding.Note = []string{server}, e.objects.origin(now)
			e.report.Findings = append(e.report.Findings, finding)
		}
	}
	return nil
}

// explained reports whether a VolumeAttachment says that the storage is at the server, or may say so.
func (e *examination) explained(ctx context.Context, storage *cloud.Storage, server string) (bool, error) {
	for _, a := range e.attachments {
		if !e.concerns(a, storage) {
			continue
		}
		at, err := e.serverOf(ctx, a, storage.Zone)
		if err != nil {
			return false, err
		}
		if at == "" || at == server {
			return true, nil
		}
	}
	return false, nil
}

// concerns reports whether a VolumeAttachment is about a storage. Its PersistentVolume may be gone, or newer than what
// was read.
func (e *examination) concerns(a *attachment, storage *cloud.Storage) bool {
	if volume := e.objects.volumeNamed[a.volume]; volume != nil {
		return volume.handle == storage.ID
	}
	return a.volume != "" && a.volume == storage.Name
}

// serverOf returns the server that a VolumeAttachment means, empty where that is not known: the node ID may be a host
// name, as UpCloud's own driver has it, of a server that is gone or that has a namesake.
func (e *examination) serverOf(ctx context.Context, a *attachment, zone string) (string, error) {
	nodeID := a.nodeID
	if nodeID == "" && a.driver == e.config.Driver {
		nodeID = e.nodes[a.node]
	}
	if nodeID == "" {
		return "", nil
	}
	server, asked := e.asked[nodeID+" "+zone]
	if asked {
		return server, nil
	}
	server, err := e.config.Cloud.ServerFor(ctx, nodeID, zone)
	if err != nil && !errors.Is(err, cloud.ErrNotFound) && !errors.Is(err, cloud.ErrServerState) {
		return "", err
	}
	e.asked[nodeID+" "+zone] = server
	return server, nil
}

// judgeAttachments finds VolumeAttachments marked attached whose storage is not there.
func (e *examination) judgeAttachments(ctx context.Context) error {
	for _, a := range e.attachments {
		volume := e.objects.volumeNamed[a.volume]
		if a.driver != e.config.Driver || !a.attached || a.leaving || volume == nil || volume.driver != a.driver {
			continue
		}
		lost, servers, err := e.isLost(ctx, a, volume)
		if err != nil {
			return err
		}
		if !lost {
			continue
		}
		now, err := e.config.Kubernetes.StorageV1().VolumeAttachments().Get(ctx, a.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return unreadable("volumeattachments", err)
		}
		if !now.Status.Attached || now.DeletionTimestamp != nil {
			continue
		}
		note := fmt.Sprintf("%s on node %s: the storage is attached to nothing", volume.name, a.node)
		if len(servers) > 0 {
			note = fmt.Sprintf("%s on node %s: the storage is attached to %s", volume.name, a.node, strings.Join(servers, ", "))
		}
		e.report.Findings = append(e.report.Findings, &Finding{
			Kind: LostAttachment, StorageID: volume.handle, Object: "VolumeAttachment/" + a.name, ServerIDs: servers, Note: note,
		})
	}
	return nil
}

// isLost reports whether the storage of a VolumeAttachment is not at its server, and where it is.
func (e *examination) isLost(ctx context.Context, a *attachment, volume *volume) (lost bool, servers []string, err error) {
	zone := ""
	storage := e.storages[volume.handle]
	if storage != nil {
		zone = storage.Zone
	}
	at, err := e.serverOf(ctx, a, zone)
	if err != nil {
		return false, nil, err
	}
	if at != "" && slices.Contains(e.attached[volume.handle], at) {
		return false, nil, nil
	}
	now, err := e.config.Cloud.StorageNow(ctx, volume.handle)
	switch {
	case isGone(err):
		return true, nil, nil
	case err != nil:
		return false, nil, err
	case at == "": // attached to what is not known; attached to nothing is
		return len(now.ServerIDs) == 0, nil, nil
	}
	return !slices.Contains(now.ServerIDs, at), now.ServerIDs, nil
}
