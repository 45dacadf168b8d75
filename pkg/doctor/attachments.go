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

// readNodes reads which node ID each Node has with the driver: CSINodes tell.
func (d *Doctor) readNodes(ctx context.Context) (map[string]string, error) {
	list, err := d.config.Kubernetes.StorageV1().CSINodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, unreadable("csinodes", err)
	}
	nodes := make(map[string]string, len(list.Items))
	for i := range list.Items {
		for _, driver := range list.Items[i].Spec.Drivers {
			if driver.Name == d.config.Driver {
				nodes[list.Items[i].Name] = driver.NodeID
			}
		}
	}
	return nodes, nil
}

func (d *Doctor) readAttachments(ctx context.Context) ([]*attachment, error) {
	list, err := d.config.Kubernetes.StorageV1().VolumeAttachments().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, unreadable("volumeattachments", err)
	}
	found := make([]*attachment, len(list.Items))
	for i := range list.Items {
		found[i] = attachmentOf(&list.Items[i])
	}
	return found, nil
}

// readAttached asks where this cluster's volumes are attached: one call each, as lists do not tell.
func (e *examination) readAttached(ctx context.Context) error {
	var ids []string
	for id, storage := range e.storages {
		ours := storage.Claim == cloud.ClaimOurs && storage.Role == cloud.RoleVolume
		if ours || e.objects.byVolume[id] && storage.Claim != cloud.ClaimOther {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var err error
	e.attached, err = e.config.Cloud.Attachments(ctx, ids, len(ids))
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
			now, err := e.again(ctx, e.storages[id])
			if err != nil {
				return err
			}
			if now == nil || !slices.Contains(now.ServerIDs, server) {
				continue
			}
			finding := findingOf(UnexplainedAttachment, now)
			finding.ServerIDs, finding.Note = []string{server}, e.objects.told(now)
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

// serverOf returns the server that a VolumeAttachment means, empty where that cannot be told: the node ID may be a host
// name, as UpCloud's own driver has it, of a server that is gone or that has a namesake.
func (e *examination) serverOf(ctx context.Context, a *attachment, zone string) (string, error) {
	nodeID := a.nodeID
	if nodeID == "" && a.driver == e.config.Driver {
		nodeID = e.nodes[a.node]
	}
	if nodeID == "" {
		return "", nil
	}
	server, asked := e.servers[nodeID+" "+zone]
	if asked {
		return server, nil
	}
	server, err := e.config.Cloud.ServerFor(ctx, nodeID, zone)
	if err != nil && !errors.Is(err, cloud.ErrNotFound) && !errors.Is(err, cloud.ErrServerState) {
		return "", err
	}
	e.servers[nodeID+" "+zone] = server
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
	case at == "": // attached to what, cannot be told; attached to nothing can
		return len(now.ServerIDs) == 0, nil, nil
	}
	return !slices.Contains(now.ServerIDs, at), now.ServerIDs, nil
}
