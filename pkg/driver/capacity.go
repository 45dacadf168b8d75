package driver

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// gib is the unit of the API: storages have whole GiB.
const gib = int64(1) << 30

// defaultSizeGiB is for requests that name no size: the smallest that every tier has.
const defaultSizeGiB = 10

// chooseSize returns the size in GiB for a capacity range: the smallest that holds required_bytes and that the tier
// has. It is never more than limit_bytes; a range without such a size is OUT_OF_RANGE.
func chooseSize(r *csi.CapacityRange, tier cloud.Tier) (int, error) {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	switch {
	case required < 0:
		return 0, invalid("capacity_range.required_bytes", "is negative: %d", required)
	case limit < 0:
		return 0, invalid("capacity_range.limit_bytes", "is negative: %d", limit)
	case limit > 0 && limit < required:
		return 0, invalid("capacity_range.limit_bytes", "%d is less than required_bytes, %d", limit, required)
	}
	smallest, largest := int64(tier.MinSizeGiB), int64(tier.MaxSizeGiB)
	if limit > 0 {
		largest = min(largest, limit/gib)
	}
	size := required / gib
	if required%gib != 0 {
		size++
	}
	if required == 0 {
		size = min(defaultSizeGiB, largest)
	}
	size = max(size, smallest)
	if size > largest {
		return 0, status.Errorf(codes.OutOfRange, "capacity_range: no size fits %s: storages of tier %s have whole GiB from %d to %d",
			describeRange(required, limit), tier.Name, tier.MinSizeGiB, tier.MaxSizeGiB)
	}
	return int(size), nil
}

// sizesFor are the sizes in GiB that a volume which is there already may have; 0 for no bound.
func sizesFor(r *csi.CapacityRange) (least, most int) {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	least = int(required / gib)
	if required%gib != 0 {
		least++
	}
	return max(1, least), int(limit / gib)
}

func describeRange(required, limit int64) string {
	if limit == 0 {
		return fmt.Sprintf("at least %d bytes", required)
	}
	return fmt.Sprintf("%d to %d bytes", required, limit)
}
