package cloud

import (
	"context"
	"errors"
	"net/http"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// whenIdle does a thing to a storage, and does it again when the storage was busy and is so no more, until ctx ends. The
// error tells then what it was busy with.
func (c *Cloud) whenIdle(ctx context.Context, id string, do func(context.Context, string) error) error {
	pace := statePolls()
	for {
		err := do(ctx, id)
		if !errors.Is(err, ErrBusy) {
			return err
		}
		for busy := true; busy; {
			if waitErr := pace.wait(ctx); waitErr != nil {
				return ended(err, waitErr)
			}
			var details upcloud.StorageDetails
			lookErr := c.call(ctx, http.MethodGet, "/storage/"+id, nil, &details)
			switch {
			case ctx.Err() != nil:
				return ended(err, ctx.Err())
			case lookErr != nil && !errors.Is(lookErr, ErrNotFound):
				return lookErr
			}
			busy = lookErr == nil && details.State != upcloud.StorageStateOnline && details.State != upcloud.StorageStateError
		}
	}
}

// ended is the error of a caller whose time ended while it waited because of err.
func ended(err, ctxErr error) error {
	var failed *Error
	if !errors.As(err, &failed) {
		return ctxErr
	}
	told := *failed
	told.Kind = ctxErr
	return &told
}
