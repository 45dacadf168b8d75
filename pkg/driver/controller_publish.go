package driver

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// Keys of the publish context: what the node has to know of a volume, since it cannot ask the API.
const (
	contextSerial   = "serial"   // serial number of the disk in the server, for people who look
	contextSize     = "size"     // size in bytes when the volume was attached
	contextOrigin   = "origin"   // storage that the volume is a copy of: it is never formatted then
	contextReadOnly = "readonly" // "true" when the volume was published read-only
)

// ControllerPublishVolume attaches the volume to the server. It costs one call if it is attached there already, two
// otherwise, and two more the first time where people chose its name or made the disk by hand.
func (c *controller) ControllerPublishVolume(ctx context.Context, req *csi.ControllerPublishVolumeRequest) (*csi.ControllerPublishVolumeResponse, error) {
	switch {
	case req.GetVolumeId() == "":
		return nil, missing("volume_id")
	case req.GetNodeId() == "":
		return nil, missing("node_id")
	}
	if err := checkCapability("volume_capability", req.GetVolumeCapability()); err != nil {
		return nil, err
	}
	// Asked before the look: what is being detached from there at the time of the look is not there to stay.
	leaving := c.cloud.Detaching(req.GetVolumeId(), req.GetNodeId())
	volume, err := c.cloud.Volume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	server, err := c.cloud.ServerFor(ctx, req.GetNodeId(), volume.Zone)
	if err != nil {
		return nil, err
	}
	leaving = leaving || c.cloud.Detaching(volume.ID, server) // where the node ID is a host name
	there := !leaving && slices.Contains(volume.ServerIDs, server)
	labels, err := c.cloud.CheckAttach(ctx, volume, there)
	switch {
	case err != nil:
	case there:
		err = c.publishedThere(ctx, volume, server, req.GetReadonly())
	default:
		err = c.attach(ctx, volume, server, req.GetReadonly(), labels, leaving)
	}
	if err != nil {
		return nil, err
	}
	published, err := publishContext(volume, req.GetReadonly())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{PublishContext: published}, nil
}

// labelReadOnly remembers on a storage that it was published read-only, which the API does not: its attachments are all
// alike, and read-only is the node's affair. Absent on volumes that never were.
const labelReadOnly = "csi-readonly"

func isReadOnly(volume *cloud.Volume) bool { return volume.Labels[labelReadOnly] == yes }

const yes, no = "yes", "no"

// publishedThere is for a volume that is attached to the server already. One of a name that people chose may have been attached by hand
// before it was published for the first time: it is in use from now on.
func (c *controller) publishedThere(ctx context.Context, volume *cloud.Volume, server string, readOnly bool) error {
	if err := publishedAs(volume, server, readOnly); err != nil {
		return err
	}
	used := usedLabel(volume)
	if len(used) == 0 {
		return nil
	}
	_, err := c.cloud.LabelVolume(ctx, volume.ID, used)
	return err
}

// usedLabel is the label that a volume of a name that people chose lacks when it is published for the first time.
func usedLabel(volume *cloud.Volume) map[string]string {
	if volume.Name == "" || cloud.UniqueName(volume.Name) || volume.Labels[cloud.LabelUsed] != "" {
		return nil
	}
	return map[string]string{cloud.LabelUsed: yes}
}

// attach labels the volume before it is attached. How it is published is on it then, so that a retry finds out; and that a volume
// of a name that people chose is in use. That takes two calls more, only where the labels are not there yet. more are further labels.
// leaving says that the volume is being detached from the server.
func (c *controller) attach(ctx context.Context, volume *cloud.Volume, server string, readOnly bool, more map[string]string, leaving bool) error {
	labels := usedLabel(volume)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, more)
	if isReadOnly(volume) != readOnly {
		labels[labelReadOnly] = no
		if readOnly {
			labels[labelReadOnly] = yes
		}
	}
	if len(labels) > 0 {
		// Where it is attached to another server, its labels say how it is published there. By the time of the attachment it may have
		// left that server: it must not be attached without its labels.
		elsewhere := func(id string) bool { return !leaving || id != server }
		if slices.ContainsFunc(volume.ServerIDs, elsewhere) {
			return attachedElsewhere(volume, server)
		}
		if _, err := c.cloud.LabelVolume(ctx, volume.ID, labels); err != nil {
			return err
		}
	}
	return c.cloud.Attach(ctx, volume.ID, server)
}

// publishedAs tells whether a volume is published at the server in the way that is asked for.
func publishedAs(volume *cloud.Volume, server string, readOnly bool) error {
	if isReadOnly(volume) == readOnly {
		return nil
	}
	has, wants := "for writing", "read-only"
	if isReadOnly(volume) {
		has, wants = wants, has
	}
	return status.Errorf(codes.AlreadyExists, "readonly: volume %s is published at node %s %s, and %s was asked for: "+
		"unpublish it there first", volume.ID, server, has, wants)
}

func attachedElsewhere(volume *cloud.Volume, server string) error {
	return &cloud.Error{
		Kind: cloud.ErrAttachedElsewhere, Op: "attach", Resource: "storage", ID: volume.ID, Target: "to server " + server,
		Message: "it is attached to server " + strings.Join(volume.ServerIDs, ", "), Remedy: "detach it there first",
	}
}

func publishContext(volume *cloud.Volume, readOnly bool) (map[string]string, error) {
	serial, err := disk.Serial(volume.ID)
	if err != nil {
		return nil, err
	}
	published := map[string]string{
		contextSerial: serial,
		contextSize:   strconv.FormatInt(int64(volume.SizeGiB)*gib, 10),
	}
	if volume.OriginID != "" {
		published[contextOrigin] = volume.OriginID
	}
	if readOnly {
		published[contextReadOnly] = "true"
	}
	return published, nil
}

// ControllerUnpublishVolume detaches the volume from the server, or from every server if none is named. A host name is
// accepted too, as volumes that UpCloud's own driver attached have it for their node.
func (c *controller) ControllerUnpublishVolume(ctx context.Context, req *csi.ControllerUnpublishVolumeRequest) (*csi.ControllerUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, missing("volume_id")
	}
	if err := c.cloud.Detach(ctx, req.GetVolumeId(), req.GetNodeId()); err != nil {
		return nil, err
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}
