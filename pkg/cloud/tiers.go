package cloud

import (
	"slices"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
)

// Tier is a class of storage and the sizes it comes in.
type Tier struct {
	Name       string
	MinSizeGiB int
	MaxSizeGiB int
}

// tiers as the API's documentation has them.
var tiers = []Tier{
	{upcloud.StorageTierMaxIOPS, 1, 4096},
	{upcloud.StorageTierStandard, 1, 4096},
	{upcloud.StorageTierHDD, 10, 4096},
}

// tierArchive is the newer name of hdd in UpCloud's control panel; the API knows the older one.
const tierArchive = "archive"

// Tiers lists the classes of storage.
func Tiers() []Tier { return slices.Clone(tiers) }

// ValidateTier returns an error of kind ErrInvalid that names the tiers there are, unless tier is one of them or
// archive, another name of hdd.
func ValidateTier(tier string) error {
	_, err := findTier(tier)
	return err
}

func findTier(name string) (Tier, error) {
	var names []string
	for _, tier := range tiers {
		if tier.Name == canonicalTier(name) {
			return tier, nil
		}
		names = append(names, tier.Name)
	}
	return Tier{}, invalid("storage tier %q does not exist: use one of %s", name, strings.Join(names, ", "))
}

func canonicalTier(name string) string {
	if name == tierArchive {
		return upcloud.StorageTierHDD
	}
	return name
}
