package driver

import (
	"context"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// topologyKey names the zone in topologies. UpCloud's own driver has it so, and the volumes that it made keep it.
const topologyKey = "region"

func topologyOf(zone string) *csi.Topology {
	return &csi.Topology{Segments: map[string]string{topologyKey: zone}}
}

// chooseZones returns the zones that a new volume may be in, the best first. The volume has to be accessible from at
// least one of the requisite topologies: any will do, those preferred come first, then our own.
func (c *controller) chooseZones(ctx context.Context, req *csi.TopologyRequirement) ([]string, error) {
	named := zonesOf(req.GetPreferred())
	requisite := zonesOf(req.GetRequisite())
	if slices.Contains(requisite, c.zone) {
		named = append(named, c.zone)
	}
	named = append(named, requisite...)
	asked := len(req.GetPreferred()) > 0 || len(req.GetRequisite()) > 0
	switch {
	case !asked && c.zone == "":
		return nil, invalid("accessibility_requirements",
			"names no zone, and the controller was started without --zone: set one of them")
	case !asked:
		return []string{c.zone}, nil
	case len(named) == 0:
		return nil, status.Errorf(codes.ResourceExhausted,
			"accessibility_requirements: no topology has the key %q, which names the zone; start the node plugin on the nodes", topologyKey)
	}
	zones, err := c.knownZones(ctx, named)
	if err != nil {
		return nil, err
	}
	if len(zones) == 0 {
		return nil, status.Errorf(codes.ResourceExhausted, "accessibility_requirements: unknown zone %s; use a zone of UpCloud in "+
			"the allowedTopologies of the StorageClass", strings.Join(named, ", "))
	}
	return zones, nil
}

// knownZones leaves out what is no zone of UpCloud's, and doubles. Our own was checked at the start.
func (c *controller) knownZones(ctx context.Context, named []string) ([]string, error) {
	var zones []string
	for _, name := range named {
		if slices.Contains(zones, name) {
			continue
		}
		known, err := c.zoneExists(ctx, name)
		if err != nil {
			return nil, err
		}
		if known {
			zones = append(zones, name)
		}
	}
	return zones, nil
}

func (c *controller) zoneExists(ctx context.Context, name string) (bool, error) {
	if name == c.zone {
		return true, nil
	}
	zones, err := c.cloud.Zones(ctx)
	if err != nil {
		return false, err
	}
	for _, zone := range zones {
		if zone.ID == name {
			return true, nil
		}
	}
	return false, nil
}

// zonesOf lists the zones that topologies name, in their order.
func zonesOf(topologies []*csi.Topology) []string {
	var zones []string
	for _, topology := range topologies {
		if zone := topology.GetSegments()[topologyKey]; zone != "" {
			zones = append(zones, zone)
		}
	}
	return zones
}
