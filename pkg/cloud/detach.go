package cloud

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

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
		return struct{}{}, c.inTurn(w, volumeID, serverID, "detach", c.detach)
	})
	return err
}

// detach reads the address that the disk has now, within the server's turn, and detaches that: an address names
// whatever sits there. Each try begins with the look, so that a lost answer costs nothing but another look.
func (c *Cloud) detach(w *work, volumeID, serverID string) error {
	pace := statePolls()
	for failed := 0; ; {
		server, err := c.serverDetails(w.ctx, serverID)
		if errors.Is(err, ErrNotFound) {
			return c.confirmDetached(w.ctx, volumeID, serverID)
		}
		if err != nil {
			return err
		}
		device := server.StorageDevice(volumeID)
		if device == nil {
			return c.confirmDetached(w.ctx, volumeID, serverID)
		}

		err = c.postDetach(w.ctx, server, device)
		switch {
		case err == nil:
			return nil
		case uncertain(err), hasCode(err, upcloud.ErrCodeHotplugFailed, upcloud.ErrCodeDeviceAddressNotInUse):
			if failed++; failed == maxFailures {
				return err
			}
		case errors.Is(err, ErrNotFound), hasCode(err, upcloud.ErrCodeServerStateIllegal):
		default:
			return err
		}
		w.note("the API answered: " + err.Error())
		if waitErr := pace.wait(w.ctx); waitErr != nil {
			return err
		}
		if err := c.awaitServer(w, serverID, pace); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
}

// postDetach detaches what sits at the device's address, and checks that it was this disk and no other.
func (c *Cloud) postDetach(ctx context.Context, before *upcloud.ServerDetails, device *upcloud.ServerStorageDevice) error {
	var after upcloud.ServerDetails
	wanted := request.DetachStorageRequest{Address: device.Address}
	if err := c.call(ctx, http.MethodPost, "/server/"+before.UUID+"/storage/detach", wanted, &after); err != nil {
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
