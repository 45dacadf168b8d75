package driver

import (
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// deprecatedSecrets are parameters that external-provisioner and external-snapshotter take in place of those that begin with
// sidecarPrefix. They pass them on, and the driver has no use for them.
var deprecatedSecrets = []string{
	"csiProvisionerSecretName", "csiProvisionerSecretNamespace", "csiControllerPublishSecretName",
	"csiControllerPublishSecretNamespace", "csiNodeStageSecretName", "csiNodeStageSecretNamespace", "csiNodePublishSecretName",
	"csiNodePublishSecretNamespace", "csiSnapshotterSecretName", "csiSnapshotterSecretNamespace",
}

// forSidecars reports whether a parameter is for the sidecars and not for the driver.
func forSidecars(key string) bool {
	return strings.HasPrefix(key, sidecarPrefix) || slices.Contains(deprecatedSecrets, key)
}

// isFilesystem reports whether a parameter names the filesystem in the deprecated way, fsType in any case.
// external-provisioner makes it the fs_type of the volume capabilities, and passes it on.
func isFilesystem(key string) bool { return strings.EqualFold(key, parameterFilesystem) }

// checkFilesystem refuses a filesystem that is not the one of the capabilities: these alone reach the node.
func (p parameters) checkFilesystem(capabilities []*csi.VolumeCapability) error {
	for _, capability := range capabilities {
		if p.filesystem == "" || capability.GetMount() == nil {
			continue
		}
		asked := capability.GetMount().GetFsType()
		if asked == "" {
			asked = disk.DefaultFilesystem
		}
		if asked != p.filesystem {
			return invalid("parameters", "%s is %q, and the volume capability has %q: use one filesystem for both",
				parameterFilesystem, p.filesystem, asked)
		}
	}
	return nil
}

// unknownParameter refuses a parameter. It names the one that was probably meant, or else all that there are.
func unknownParameter(field, key string, known []string) error {
	if meant := nearest(key, known); meant != "" {
		return invalid(field, "unknown parameter %q; did you mean %s?", key, meant)
	}
	return invalid(field, "unknown parameter %q; use %s", key, strings.Join(known, ", "))
}

// nearest is the known name that differs least from a name, "" if all differ in more than a third of their letters.
func nearest(name string, known []string) string {
	best, least := "", 0
	for _, candidate := range known {
		distance := levenshtein.ComputeDistance(plain(name), plain(candidate))
		if distance <= (len(candidate)+2)/3 && (best == "" || distance < least) {
			best, least = candidate, distance
		}
	}
	return best
}

// plain is a name without what people get wrong most often: case, spaces and separators.
func plain(name string) string {
	return strings.NewReplacer("-", "", "_", "", ".", "", "/", "").Replace(strings.ToLower(strings.Join(strings.Fields(name), "")))
}
