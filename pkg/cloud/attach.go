package cloud

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
)

// maxFailures is how often an attachment or detachment is tried whose answer never comes, or tells of a failed plug.
const maxFailures = 4

// virtioBus lets the API choose the slot. The guest sees the storage's UUID as the disk's serial on this bus only.
const virtioBus = "virtio"

// Attach attaches the volume to the server; already attached there is success. It waits for its turn at the server, and
// while the server is in maintenance, until ctx ends. What was sent by then gets its answer, and a retry joins it.
//
// ErrAttachedElsewhere names the server that has the volume; ErrExhausted says that the server takes no more disks;
// ErrNotFound names what is gone; ErrServerState is for a server or storage in error.
func (c *Cloud) Attach(ctx context.Context, volumeID, serverID string) error {
	volumeID, serverID = canonicalID(volumeID), canonicalID(serverID)
	doing := Error{Op: "attach", Resource: "storage", ID: volumeID, Target: "to server " + serverID}
	if !isUUID(volumeID) {
		return explain(notAnID(), doing)
	}
	if !isUUID(serverID) {
		return explain(notAServer(serverID), doing)
	}
	key := attachKey(volumeID) + serverID
	_, err := c.attachments.do(ctx, key, func(w *work) (struct{}, error) {
		return struct{}{}, c.inTurn(w, volumeID, serverID, opAttach, c.attach)
	})
	return explain(err, doing)
}

// attachKey and detachKey begin the names of the work on a volume, which the server's ID completes.
func attachKey(volumeID string) string { return "attach " + volumeID + " " }
func detachKey(volumeID string) string { return "detach " + volumeID + " " }

// What is done in a server's turn.
const (
	opAttach = "attach"
	opDetach = "detach"
)

// inTurn does a thing to a server when its turn comes. A storage that is busy (a backup of it is being made) may stay
// so for long: the turn is given up meanwhile, so that other volumes can come and go.
func (c *Cloud) inTurn(w *work, volumeID, serverID, op string, do func(w *work, volumeID, serverID string) error) error {
	pace := statePolls()
	for {
		w.note("other volumes are being attached to or detached from the server")
		leave, err := c.queues.enter(w.attended, serverID, op)
		if err != nil {
			return err
		}
		w.note("the API has not answered yet")
		c.attached.changed(volumeID)
		err = do(w, volumeID, serverID)
		c.attached.moved(op, volumeID, serverID, err)
		leave()
		if !hasCode(err, upcloud.ErrCodeStorageStateIllegal) {
			return err
		}
		if err := c.awaitStorage(w, volumeID, pace); err != nil {
			return err
		}
	}
}

// awaitStorage waits for a storage that was found busy, at least once.
func (c *Cloud) awaitStorage(w *work, volumeID string, pace *backoff) error {
	w.note("storage " + volumeID + " is busy")
	if err := pace.wait(w.attended); err != nil {
		return err
	}
	volume, err := c.volume(w.attended, volumeID)
	if errors.Is(err, ErrNotFound) {
		return nil // the operation itself says what that means
	}
	if err != nil {
		return err
	}
	_, err = c.awaitOnline(w, volume)
	return err
}

// attach asks first and looks after: in the happy path one call, its answer the proof. Where an earlier try may have attached
// the volume, it looks first.
func (c *Cloud) attach(w *work, volumeID, serverID string) error {
	if w.again {
		attached, err := c.attachedHere(w.ctx, volumeID, serverID)
		if attached || err != nil {
			return namedGone(err, volumeID, serverID)
		}
	}
	pace := statePolls()
	for failed := 0; ; {
		err := c.postAttach(w.ctx, volumeID, serverID)
		switch {
		case err == nil:
			return nil
		case uncertain(err), hasCode(err, upcloud.ErrCodeHotplugFailed, upcloud.ErrCodeDeviceAddressInUse):
			if failed++; failed == maxFailures {
				return err
			}
		case errors.Is(err, ErrInUse), hasCode(err, upcloud.ErrCodeServerStateIllegal):
		default:
			return namedGone(err, volumeID, serverID)
		}
		w.note("the API answered: " + err.Error())

		if waitErr := pace.wait(w.attended); waitErr != nil {
			return err
		}
		if hasCode(err, upcloud.ErrCodeServerStateIllegal) {
			if err := c.awaitServer(w, serverID, pace); err != nil {
				return namedGone(err, volumeID, serverID)
			}
			continue
		}
		attached, err := c.attachedHere(w.ctx, volumeID, serverID)
		if attached || err != nil {
			return namedGone(err, volumeID, serverID)
		}
	}
}

func (c *Cloud) postAttach(ctx context.Context, volumeID, serverID string) error {
	wanted := request.AttachStorageRequest{Type: upcloud.StorageTypeDisk, Address: virtioBus, StorageUUID: volumeID}
	var server upcloud.ServerDetails
	if err := c.call(ctx, http.MethodPost, "/server/"+serverID+"/storage/attach", wanted, &server); err != nil {
		return err
	}
	if server.StorageDevice(volumeID) == nil {
		return &Error{
			Kind: ErrUnavailable, uncertain: true, Remedy: remedyWait,
			Message: "the API accepted the attachment, but its answer does not show the disk",
		}
	}
	return nil
}

// attachedHere looks where the volume is. Elsewhere is an error that names the place.
func (c *Cloud) attachedHere(ctx context.Context, volumeID, serverID string) (bool, error) {
	volume, err := c.volume(ctx, volumeID)
	switch {
	case err != nil:
		return false, err
	case slices.Contains(volume.ServerIDs, serverID):
		return true, nil
	case len(volume.ServerIDs) > 0:
		return false, &Error{
			Kind:    ErrAttachedElsewhere,
			Message: "it is attached to server " + strings.Join(volume.ServerIDs, ", "),
			Remedy:  "detach it there first",
		}
	}
	return false, nil
}

// namedGone says which of the two is gone, as the API's own words may name the UUID only.
func namedGone(err error, volumeID, serverID string) error {
	var failed *Error
	if !errors.Is(err, ErrNotFound) || !errors.As(err, &failed) {
		return err
	}
	named := *failed
	switch failed.Code {
	case upcloud.ErrCodeServerNotFound:
		named.Message = "server " + serverID + " does not exist"
	case upcloud.ErrCodeStorageNotFound:
		named.Message = "storage " + volumeID + " does not exist"
	}
	return &named
}
