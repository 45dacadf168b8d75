package cloud

import (
	"context"
	"strings"
	"time"
)

// serverNameAge is how old the list of servers may be in which a host name is found: a server may be made anew under its name.
const serverNameAge = 10 * time.Second

// ServerFor returns the ID of the server that a node ID means: the node ID itself where it is a UUID; else the server of
// that host name, as UpCloud's own driver has host names for node IDs. Among several of one name it is the one in the
// zone, if there is one such; volumes are attached within a zone only.
//
// Errors: ErrNotFound when there is none, ErrServerState when several could be meant.
func (c *Cloud) ServerFor(ctx context.Context, nodeID, zone string) (string, error) {
	if isUUID(nodeID) {
		return canonicalID(nodeID), nil
	}
	doing := Error{Op: "find", Resource: "server", ID: nodeID}
	asked := time.Now()
	for _, moment := range []time.Time{asked.Add(-serverNameAge), asked} {
		set, err := c.ServersSince(ctx, moment)
		if err != nil {
			return "", explain(err, doing)
		}
		var found []string
		for _, server := range set.Named(strings.ToLower(nodeID)) {
			if server.Zone == zone && strings.EqualFold(server.Hostname, nodeID) {
				found = append(found, server.ID)
			}
		}
		switch len(found) {
		case 0:
			continue // it may be newer than the list
		case 1:
			return found[0], nil
		}
		return "", explain(&Error{
			Kind: ErrServerState, Message: "servers " + strings.Join(found, " and ") + " have that host name in zone " + zone,
			Remedy: "name the server by its UUID: restart the driver on the node, so that it registers anew",
		}, doing)
	}
	return "", explain(&Error{Kind: ErrNotFound, Message: "no server in zone " + zone + " has that host name"}, doing)
}
