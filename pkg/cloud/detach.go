package cloud

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"k8s.io/klog/v2"
)

// Detach detaches the volume from the server, or with no serverID from every server that has it. When it returns nil
// the volume is not attached there: because it was detached, never was attached, or the volume or server is gone. The
// server may be in any state that takes changes, stopped included; maintenance is waited for until ctx ends.
//
// A serverID that is a host name, as UpCloud's own driver has for node IDs, is looked for among the servers that have
// the volume.
func (c *Cloud) Detach(ctx context.Context, volumeID, serverID string) error {
	volumeID, serverID = canonicalID(volumeID), canonicalID(serverID)
	doing := Error{Op: "detach", Resource: "storage", ID: volumeID, Target: "from every server"}
	if serverID != "" {
		doing.Target = "from server " + serverID
	}
	if !isUUID(volumeID) {
		return nil // nothing of that name can be attached
	}
	if isUUID(serverID) {
		return explain(c.detachFrom(ctx, volumeID, serverID), doing)
	}

	volume, err := c.volume(ctx, volumeID)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return explain(err, doing)
	}
	// An attachment that its caller has left may be about to take effect: it is undone too.
	servers := slices.Compact(slices.Sorted(slices.Values(slices.Concat(volume.ServerIDs, c.attaching(volumeID)))))
	if serverID != "" && len(servers) > 0 {
		if servers, err = c.serversNamed(ctx, servers, serverID); err != nil {
			return explain(err, doing)
		}
	}
	for _, server := range servers {
		if err := c.detachFrom(ctx, volumeID, server); err != nil {
			return explain(err, doing)
		}
	}
	return nil
}

// attaching lists the servers that the volume is being attached to.
func (c *Cloud) attaching(volumeID string) []string {
	var servers []string
	for _, key := range c.attachments.inAir() {
		if server, found := strings.CutPrefix(key, attachKey(volumeID)); found {
			servers = append(servers, server)
		}
	}
	return servers
}

// Detaching reports whether a detachment of the volume from the server is under way, perhaps one that its caller has
// left. As long as it is, that the API shows the volume there means nothing: it may go the moment after. Attach waits
// for its end.
func (c *Cloud) Detaching(volumeID, serverID string) bool {
	return slices.Contains(c.attachments.inAir(), detachKey(canonicalID(volumeID))+canonicalID(serverID))
}

// serversNamed picks the servers of that host name. None of them is an error: the volume is attached, and that it is
// to another server cannot be told from a renamed one.
func (c *Cloud) serversNamed(ctx context.Context, servers []string, hostname string) ([]string, error) {
	var named []string
	for _, id := range servers {
		details, err := c.serverDetails(ctx, id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if strings.EqualFold(details.Hostname, hostname) {
			named = append(named, id)
		}
	}
	if len(named) == 0 {
		return nil, &Error{
			Kind:    ErrAttachedElsewhere,
			Message: "it is attached to server " + strings.Join(servers, ", ") + ", which has another host name",
			Remedy:  "name the server by its UUID",
		}
	}
	return named, nil
}

func (c *Cloud) detachFrom(ctx context.Context, volumeID, serverID string) error {
	key := detachKey(volumeID) + serverID
	_, err := c.attachments.do(ctx, key, func(w *work) (struct{}, error) {
		var address string // what the first look found
		return struct{}{}, c.inTurn(w, volumeID, serverID, opDetach, func(w *work, volumeID, serverID string) error {
			return c.detach(w, volumeID, serverID, &address)
		})
	})
	return err
}

// detach reads the address that the disk has now, within the server's turn, and detaches that: an address names
// whatever sits there. Each try begins with the look, so that a lost answer costs nothing but another look. It detaches the
// attachment that the first look found and no later one: where the disk has another address by then, someone else has detached
// it and attached it again.
func (c *Cloud) detach(w *work, volumeID, serverID string, address *string) error {
	pace := statePolls()
	for failed := 0; ; {
		seen, err := c.lookForDevice(w, volumeID, serverID)
		if err != nil {
			return err
		}
		if seen == nil {
			return c.confirmDetached(w.ctx, volumeID, serverID)
		}
		switch {
		case seen.device.Type == upcloud.StorageTypeCDROM:
			klog.FromContext(w.ctx).Info("Left a CD-ROM in its server: it is not a volume", "storage", volumeID, "server", serverID)
			return nil
		case seen.device.BootDisk != 0:
			return &Error{
				Kind: ErrInUse, Message: "it is the disk that the server boots from",
				Remedy: "stop the server and detach the disk by hand if this is what you want",
			}
		}
		if err := c.checkDetach(w.ctx, seen); err != nil {
			return err
		}
		if *address != "" && *address != seen.device.Address {
			return attachedAgain(*address, seen.device.Address)
		}
		*address = seen.device.Address

		err = c.postDetach(w.ctx, seen)
		switch {
		case err == nil:
			return nil
		case uncertain(err), lookAgain(err), hasCode(err, upcloud.ErrCodeHotplugFailed, upcloud.ErrCodeDeviceAddressNotInUse):
			if failed++; failed == maxFailures {
				return err
			}
		case errors.Is(err, ErrNotFound), hasCode(err, upcloud.ErrCodeServerStateIllegal):
		default:
			return err
		}
		w.note("the API answered: " + err.Error())
		if waitErr := pace.wait(w.attended); waitErr != nil {
			return err
		}
		if err := c.awaitServer(w, serverID, pace); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
}

// checkDetach returns nil if this program may detach a disk. The server's details tell that for disks that a driver made.
func (c *Cloud) checkDetach(ctx context.Context, seen *seenDevice) error {
	labels, title := labelMap(seen.device.Labels), seen.device.Title
	if seen.device.Labels == nil { // an API that leaves them out
		volume, err := c.volume(ctx, seen.device.UUID)
		if err != nil {
			return err
		}
		labels, title = volume.Labels, volume.Title
	}
	c.own.add(canonicalID(seen.device.UUID), c.originOf(labels, title), seen.looked)
	by := c.madeBy(labels, title) // who handed a volume over to another cluster can still let go of it
	switch {
	case by == originCluster || by == originUpCloud || c.attachedByUs(labels):
		return nil
	case by == originHandMade && isSystemDisk(seen.server.StorageDevices, seen.device):
		return c.notOwned(useDetach, "it sits where the server boots from, and this driver did not attach it")
	case by == originHandMade && labels[LabelAttachedBy] != "":
		return c.notOwned(useDetach, "another cluster attached it: it has the label "+LabelAttachedBy+"="+labels[LabelAttachedBy])
	case by == originHandMade:
		return c.checkAttachedBefore(ctx, seen.device.UUID, useDetach)
	}
	return c.checkUse(useDetach, labels, title)
}

// checkAttachedBefore is for a disk made by hand without a label that tells who attached it: an earlier version, UpCloud's own driver,
// or a person. What a person attached may be mounted on the server without Kubernetes knowing it.
func (c *Cloud) checkAttachedBefore(ctx context.Context, volumeID string, use use) error {
	if c.config.AttachedBefore == nil {
		return nil
	}
	attached, err := c.config.AttachedBefore(ctx, canonicalID(volumeID))
	switch {
	case err != nil:
		return &Error{Kind: ErrUnavailable, Message: "whether this driver attached it is not known", Err: err, Remedy: remedyWait}
	case !attached:
		return c.notOwned(use, "it is attached to the server, and something else than this driver attached it")
	}
	return nil
}

// attachedAgain is for a detachment whose disk has moved to another address. That it is still attached is no success, and to
// detach it is for the caller to ask for once more, if it still wants that.
func attachedAgain(was, is string) error {
	return &Error{
		Kind:    ErrUnavailable,
		Message: "something else moved the disk from address " + was + " to " + is + " of the server meanwhile",
		Remedy:  remedyWait,
	}
}

// hotPlugTime is how long a server in maintenance may be plugging a disk in. Hot-plugging takes some seconds.
const hotPlugTime = 10 * time.Second

// seenDevice is a disk of a server as a look found it.
type seenDevice struct {
	server *upcloud.ServerDetails
	device *upcloud.ServerStorageDevice
	looked time.Time // when the look began
}

// lookForDevice looks for the disk at the server; nil where the server does not have it, or is gone. A server in maintenance
// may be about to have the disk, because another process, or one before this, asked for it: that the disk is not there yet
// means nothing until the maintenance ends. A maintenance that takes longer than plugging a disk in is another.
func (c *Cloud) lookForDevice(w *work, volumeID, serverID string) (*seenDevice, error) {
	pace, began := statePolls(), time.Now()
	for {
		looking, looked := look(w.ctx)
		server, err := c.serverDetails(looking, serverID)
		if errors.Is(err, ErrNotFound) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if device := server.StorageDevice(volumeID); device != nil {
			return &seenDevice{server: server, device: device, looked: *looked}, nil
		}
		if server.State != upcloud.ServerStateMaintenance || time.Since(began) > hotPlugTime {
			return nil, nil
		}
		w.note("server " + serverID + " is in state " + server.State)
		if err := pace.wait(w.attended); err != nil {
			return nil, err
		}
	}
}

// postDetach detaches what sits at the device's address, and checks that it was this disk and no other.
func (c *Cloud) postDetach(ctx context.Context, seen *seenDevice) error {
	before, device := seen.server, seen.device
	var after upcloud.ServerDetails
	wanted := request.DetachStorageRequest{Address: device.Address}
	path := "/server/" + before.UUID + "/storage/detach"
	if err := c.call(withLook(ctx, seen.looked), http.MethodPost, path, wanted, &after); err != nil {
		return err
	}
	err := checkDetached(before, &after, device)
	if errors.Is(err, ErrServerState) {
		klog.FromContext(ctx).Error(err, "Another disk left the server during a detachment", "server", before.UUID,
			"address", device.Address, "wanted", device.UUID)
	}
	return err
}

// checkDetached compares a server before and after a detachment: this disk must have gone, and no other.
func checkDetached(before, after *upcloud.ServerDetails, device *upcloud.ServerStorageDevice) error {
	if after.UUID != before.UUID {
		return &Error{Kind: ErrUnavailable, uncertain: true, Message: "the API's answer is not about this server"}
	}
	if after.StorageDevice(device.UUID) == nil {
		return nil
	}
	for _, other := range before.StorageDevices {
		if after.StorageDevice(other.UUID) == nil {
			return &Error{
				Kind: ErrServerState,
				Message: "storage " + other.UUID + " left the server instead, " +
					"as something else changed the server at the same time",
				Remedy: "check whether storage " + other.UUID + " must be attached again",
			}
		}
	}
	return &Error{
		Kind: ErrUnavailable, uncertain: true, Remedy: remedyWait,
		Message: "the API accepted the detachment, but its answer still shows the disk",
	}
}

// confirmDetached makes sure, from the storage's own side, of what the server's side only suggests: a server that is
// not found, or does not show the disk, while the storage counts as attached to it, would let the volume be attached to
// nothing ever again.
func (c *Cloud) confirmDetached(ctx context.Context, volumeID, serverID string) error {
	volume, err := c.volume(ctx, volumeID)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	case !slices.Contains(volume.ServerIDs, serverID):
		return nil
	}
	return &Error{
		Kind: ErrBusy, Remedy: remedyWait,
		Message: "the storage still counts as attached to the server, which does not have it",
	}
}
