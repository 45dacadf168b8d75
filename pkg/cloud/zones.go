package cloud

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// zonesKept is how long the list of zones is used again; it changes a few times a year.
const zonesKept = time.Hour

// Zone is a data centre, or a private part of one.
type Zone struct {
	ID     string // such as fi-hel1
	Public bool
	// ParentID is the public zone that a private one belongs to.
	ParentID string
}

type zoneCache struct {
	mu    sync.Mutex
	zones []Zone
	read  time.Time
}

// Zones lists the zones of the account. The list is asked for once an hour.
func (c *Cloud) Zones(ctx context.Context) ([]Zone, error) {
	if zones := c.zones.get(); zones != nil {
		return zones, nil
	}
	var answer upcloud.Zones
	if err := c.call(ctx, http.MethodGet, "/zone", nil, &answer); err != nil {
		return nil, explain(lookFailed(err), Error{Op: "list", Resource: "zones"})
	}
	var zones []Zone
	for _, zone := range answer.Zones {
		zones = append(zones, Zone{ID: zone.ID, Public: zone.Public.Bool(), ParentID: zone.ParentZone})
	}
	c.zones.put(zones)
	return slices.Clone(zones), nil
}

// CheckZone returns an error of kind ErrInvalid that names the zones there are, unless zone is one of them.
func (c *Cloud) CheckZone(ctx context.Context, zone string) error {
	zones, err := c.Zones(ctx)
	if err != nil {
		return err
	}
	var known []string
	for _, z := range zones {
		if z.ID == zone {
			return nil
		}
		known = append(known, z.ID)
	}
	slices.Sort(known)
	return invalid("zone %q does not exist: use one of %s", zone, strings.Join(known, ", "))
}

func (z *zoneCache) get() []Zone {
	z.mu.Lock()
	defer z.mu.Unlock()
	if time.Since(z.read) > zonesKept {
		return nil
	}
	return slices.Clone(z.zones)
}

func (z *zoneCache) put(zones []Zone) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.zones, z.read = zones, time.Now()
}
