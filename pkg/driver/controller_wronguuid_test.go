package driver_test

import (
	"maps"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// An operator copies the wrong UUID out of the control panel. Nothing is changed, and the error says what the UUID is.
func TestUUIDOfAnythingElseInTheAccountIsNamedForWhatItIs(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", zone)
	r := newOwner(t, sim, nil)
	network := sim.CreateNetwork(t, "private", zone, "10.9.0.0/24")
	var made struct {
		Router struct{ UUID string }
		UUID   string
	}
	sim.Do(t, "POST", "/router", `{"router":{"name":"r"}}`, &made)
	sim.Do(t, "POST", "/load-balancer", `{"name":"lb","plan":"development","zone":"`+zone+`","configured_status":"started","frontends":[],`+
		`"backends":[],"resolvers":[],"networks":[{"name":"n","type":"private","family":"IPv4","uuid":"`+network+`"}]}`, &made)
	all := maps.Clone(usesOfVolumes)
	maps.Copy(all, usesOfSnapshots)
	for what, id := range map[string]string{
		"server": server, "network": network, "router": made.Router.UUID, "load balancer": made.UUID,
	} {
		t.Run(what, func(t *testing.T) {
			before := r.account(t, server)
			for rpc, use := range all {
				err := use.do(t, r, id, server)
				switch status.Code(err) {
				case codes.OK: // who wants to be rid of it, or lists, has it so
				case codes.NotFound:
					if !strings.Contains(err.Error(), "UUID of a "+what) {
						t.Errorf("%s: the error does not say what it is: %v", rpc, err)
					}
				default:
					t.Errorf("%s: %v", rpc, err)
				}
			}
			if after := r.account(t, server); after != before {
				t.Errorf("the account was\n%s\nand is\n%s", before, after)
			}
		})
	}
}

// A volume of the cluster in another zone than the node cannot be attached there. The error names both zones.
func TestVolumeOfAnotherZoneIsNotPublished(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", "de-fra1")
	r := newOwner(t, sim, nil)
	volume := r.create(t, createRequest("pvc-1")).GetVolumeId()
	_, err := r.publish(t, volume, server)
	if code := status.Code(err); code == codes.OK || code == codes.Internal || code == codes.Unknown {
		t.Errorf("got %v", err)
	}
	if err == nil || !strings.Contains(err.Error(), "de-fra1") || !strings.Contains(err.Error(), zone) {
		t.Errorf("the error does not name the zones: %v", err)
	}
}
