package driver

import (
	"maps"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Parameters of a StorageClass. Those that can be changed afterwards are in parameters_mutable.go, those that are for the
// node in parameters_node.go.
const (
	// parameterTier is the tier of the storage: maxiops (the default), standard or hdd (also called archive).
	parameterTier = "tier"
	// parameterEncryption asks for encryption by UpCloud when set to data-at-rest. The default is none.
	parameterEncryption = "encryption"
	// parameterFilesystem is the deprecated name of csi.storage.k8s.io/fstype, which external-provisioner passes on.
	parameterFilesystem = "fsType"
)

// classKeys are the parameters of a StorageClass, in the order in which messages name them.
var classKeys = append([]string{
	parameterTier, parameterEncryption, parameterMkfsOptions, parameterNodeEncryption, parameterFilesystem,
}, mutableKeys...)

const (
	encryptionAtRest = "data-at-rest"
	defaultTier      = "maxiops" // as UpCloud's own driver has it
)

// sidecarPrefix marks parameters that Kubernetes' sidecars add.
const sidecarPrefix = "csi.storage.k8s.io/"

// metadataLabels are the labels that volumes get from what external-provisioner tells with --extra-create-metadata, so
// that people find in UpCloud's control panel whose disk it is.
var metadataLabels = map[string]string{
	sidecarPrefix + "pvc/namespace": "csi-pvc-namespace",
	sidecarPrefix + "pvc/name":      "csi-pvc-name",
	sidecarPrefix + "pv/name":       "csi-pv-name",
}

// parameters is what a StorageClass can say of a volume.
type parameters struct {
	tier       cloud.Tier
	encrypted  bool
	filesystem string // "" where the deprecated parameter is absent
	node       nodeParameters
	labels     map[string]string // that tell people whose volume it is
	mutable    cloud.VolumeChange
}

// parseParameters reads the parameters of a CreateVolume. An unknown parameter is refused, as a typing error would
// otherwise make another volume than was wanted.
func parseParameters(given map[string]string) (parameters, error) {
	params := parameters{
		labels:  make(map[string]string),
		mutable: cloud.VolumeChange{Labels: make(map[string]string)},
	}
	tier := defaultTier
	for _, key := range slices.Sorted(maps.Keys(given)) {
		value := given[key]
		switch label := metadataLabels[key]; {
		case key == parameterTier:
			tier = value
		case key == parameterEncryption:
			if value != encryptionAtRest && value != "" {
				return parameters{}, invalid("parameters", "invalid %s %q: must be %s; leave it out for none", key, value, encryptionAtRest)
			}
			params.encrypted = value == encryptionAtRest
		case key == parameterMkfsOptions || key == parameterNodeEncryption: // parsed below
		case label != "":
			if err := checkText("parameters", value); err != nil {
				return parameters{}, err
			}
			if value != "" {
				params.labels[label] = value
			}
		case forSidecars(key):
		case isFilesystem(key):
			if params.filesystem != "" && params.filesystem != value {
				return parameters{}, invalid("parameters", "%s is given twice, as %q and %q; give it once", key, params.filesystem, value)
			}
			params.filesystem = value
		default:
			known, err := addMutable(&params.mutable, "parameters", key, value)
			if err != nil {
				return parameters{}, err
			}
			if !known {
				return parameters{}, unknownParameter("parameters", key, classKeys)
			}
		}
	}
	var err error
	if params.node, err = parseNodeParameters("parameters", given); err != nil {
		return parameters{}, err
	}
	if params.tier, err = findTier(tier); err != nil {
		return parameters{}, err
	}
	return params, checkRuleChange(params.mutable, "parameters")
}

// tierArchive is what UpCloud's control panel calls the tier hdd.
const tierArchive, tierHDD = "archive", "hdd"

func findTier(name string) (cloud.Tier, error) {
	if err := cloud.ValidateTier(name); err != nil {
		return cloud.Tier{}, invalid("parameters", "%s: %v", parameterTier, err)
	}
	if name == tierArchive {
		name = tierHDD
	}
	for _, tier := range cloud.Tiers() {
		if tier.Name == name {
			return tier, nil
		}
	}
	return cloud.Tier{}, invalid("parameters", "%s: the sizes of tier %q are not known", parameterTier, name)
}
