package driver

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"k8s.io/klog/v2"
)

// Self is where a process runs.
type Self struct {
	NodeID string // UUID of the server, empty in the mode controller
	Zone   string
	// Interfaces asks how many network interfaces the server has now, nil where there is no metadata service.
	Interfaces func(context.Context) (int, error)
}

// Identify finds out where the process runs.
//
// A node is what the metadata service says, since that cannot be wrong: nodeID and zone (the flags --node-id and --zone)
// count only where there is no such service. There is no falling back to the host name: it need not be the server's,
// and two servers may share it. A controller needs the zone only, as a default for volumes, so --zone wins there.
func Identify(ctx context.Context, mode Mode, metadataURL, nodeID, zone string) (Self, error) {
	if nodeID != "" {
		id, err := uuid.Parse(nodeID)
		if err != nil || len(nodeID) != len(id.String()) {
			return Self{}, fmt.Errorf("--node-id: %q is not the UUID of an UpCloud server", nodeID)
		}
		nodeID = id.String()
	}
	if !mode.Node() && zone != "" {
		return Self{Zone: zone}, nil
	}
	found, err := ReadMetadata(ctx, metadataURL)
	switch {
	case err == nil && !mode.Node():
		return Self{Zone: found.Zone}, nil
	case err == nil:
		warnOverruled(ctx, "--node-id", nodeID, found.ServerID)
		warnOverruled(ctx, "--zone", zone, found.Zone)
		return Self{NodeID: found.ServerID, Zone: found.Zone, Interfaces: func(ctx context.Context) (int, error) {
			now, err := readMetadataOnce(ctx, metadataURL)
			return now.Interfaces, err
		}}, nil
	case !mode.Node():
		return Self{}, fmt.Errorf("--zone: not set, and the metadata service (--metadata-url %s) did not tell it: %v; "+
			"set --zone to the zone that volumes shall be in by default", metadataURL, err)
	case nodeID == "" || zone == "":
		return Self{}, fmt.Errorf("--metadata-url: the metadata service at %s did not tell which server this is: %v; "+
			"enable metadata on the server, or set --node-id to its UUID and --zone to its zone", metadataURL, err)
	}
	klog.FromContext(ctx).Info("No metadata service; the flags tell which server this is", "node", nodeID, "zone", zone,
		"reason", err.Error())
	return Self{NodeID: nodeID, Zone: zone}, nil
}

func warnOverruled(ctx context.Context, flag, given, found string) {
	if given != "" && given != found {
		klog.FromContext(ctx).Info("The metadata service overrules a flag", "flag", flag, "given", given, "found", found)
	}
}
