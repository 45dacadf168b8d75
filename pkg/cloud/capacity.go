package cloud

import (
	"context"
	"net/http"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// capacityAge is for how long limits and use of the account are believed when capacity is asked for.
const capacityAge = time.Minute

// Capacity returns how many GiB the account's limit of the tier leaves, and false when the account tells no limit. Disks
// count, as do those that are not volumes; how backups count is not known, so they do not.
func (c *Cloud) Capacity(ctx context.Context, tier string) (gib int, limited bool, err error) {
	doing := Error{Op: "read", Resource: "the account's limits"}
	account, err := c.shared.account.since(ctx, c, c.now().Add(-capacityAge), c.readAccount)
	if err != nil {
		return 0, false, explain(err, doing)
	}
	limit := storageLimit(&account.ResourceLimits, canonicalTier(tier))
	if limit <= 0 {
		return 0, false, nil
	}
	disks, err := c.shared.volumes.since(ctx, c, c.now().Add(-capacityAge), c.readVolumes)
	if err != nil {
		return 0, false, explain(err, doing)
	}
	for _, disk := range disks {
		if disk.Tier == canonicalTier(tier) {
			limit -= disk.SizeGiB
		}
	}
	return max(0, limit), true, nil
}

func (c *Cloud) readAccount(ctx context.Context) (*upcloud.Account, error) {
	var account upcloud.Account
	if err := c.call(ctx, http.MethodGet, "/account", nil, &account); err != nil {
		return nil, notMissing(err)
	}
	return &account, nil
}

// storageLimit is the limit of a tier in GiB, 0 where none is told. The API calls the limit of the tier standard that of
// SSDs.
func storageLimit(limits *upcloud.ResourceLimits, tier string) int {
	switch tier {
	case upcloud.StorageTierMaxIOPS:
		return limits.StorageMaxIOPS
	case upcloud.StorageTierHDD:
		return limits.StorageHDD
	case upcloud.StorageTierStandard:
		return limits.StorageSSD
	}
	return 0
}
