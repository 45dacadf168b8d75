package cloud

import (
	"context"
	"net/http"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
)

// Favorites are the storages, by ID, that the user of the credentials has among the favourites of the control panel: one call.
func (c *Cloud) Favorites(ctx context.Context) (map[string]bool, error) {
	listed, err := c.storages(ctx, "/storage/favorite")
	if err != nil {
		return nil, explain(err, Error{Op: "list", Resource: "favourite storages"})
	}
	favorites := make(map[string]bool, len(listed))
	for i := range listed {
		favorites[canonicalID(listed[i].UUID)] = true
	}
	return favorites, nil
}

// RelabelStorage gives a disk or a backup these labels in place of all that it has, and a title; an empty title stays as it is. The
// API has no condition on a change: whoever calls looks just before, and looks again before another try, as the request is sent
// once. Errors: ErrInvalid, ErrBusy, ErrNotFound, ErrUnavailable.
func (c *Cloud) RelabelStorage(ctx context.Context, id, title string, labels map[string]string) error {
	doing := Error{Op: "label", Resource: "storage", ID: id}
	if !isUUID(id) {
		return explain(notAnID(), doing)
	}
	for key, value := range labels {
		if err := checkLabel(key, value); err != nil {
			return explain(err, doing)
		}
	}
	list := append([]upcloud.Label{}, labelList(labels)...) // null would be no change
	defer c.shared.volumes.changed()
	defer c.shared.backups.changed()
	wanted := request.ModifyStorageRequest{Title: title, Labels: &list}
	return explain(c.call(withLook(ctx, time.Now()), http.MethodPut, "/storage/"+canonicalID(id), wanted, nil), doing)
}
