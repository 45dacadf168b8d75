package cloud

import (
	"context"
	"net/http"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// serverDetails reads a server as attaching and detaching need it: its state, its disks and their addresses.
func (c *Cloud) serverDetails(ctx context.Context, id string) (*upcloud.ServerDetails, error) {
	if !isUUID(id) {
		return nil, notAServer(id)
	}
	id = canonicalID(id)
	looked := c.now()
	var details upcloud.ServerDetails
	if err := c.call(ctx, http.MethodGet, "/server/"+id, nil, &details); err != nil {
		return nil, err
	}
	if canonicalID(details.UUID) != id {
		return nil, notAbout("server " + id)
	}
	c.attached.sawServer(&details, looked)
	return &details, nil
}

func notAServer(id string) error {
	return &Error{Kind: ErrNotFound, Message: "no server can have the ID " + id + ": it is not a UUID"}
}

// awaitServer waits until the server takes changes. Who waits in its queue waits for the same, so that one polls for
// all. The wait ends when the last caller has gone.
func (c *Cloud) awaitServer(w *work, serverID string, pace *backoff) error {
	for {
		server, err := c.serverDetails(w.attended, serverID)
		switch {
		case err != nil:
			return err
		case server.State == upcloud.ServerStateError:
			return &Error{
				Kind: ErrServerState, Message: "server " + serverID + " is in state error",
				Remedy: "look at the server in the UpCloud control panel",
			}
		case server.State != upcloud.ServerStateMaintenance:
			return nil
		}
		w.note("server " + serverID + " is in state " + server.State)
		if err := pace.wait(w.attended); err != nil {
			return err
		}
	}
}
