package disk

import (
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// fittingBytes is the size of the filesystem that is made on a device: all but the last MiB, which has the marker of a
// format in progress (see marker.go). With a size of its own no mkfs writes there, whatever its options do to the layout:
// small ext groups, an XFS log that fills the disk, the zeros of mkfs.btrfs in its last 2 MiB. The filesystem gets the MiB
// when it is grown for the first time.
func fittingBytes(dev Device) int64 { return dev.SizeBytes/proofBytes*proofBytes - proofBytes }

// filesystemID is the UUID of the filesystem that the driver makes on a volume. It proves that a filesystem on a marked disk
// is what an interrupted format left, and not one that was made since by other means.
func filesystemID(volumeID string) (string, error) {
	id, err := uuid.Parse(volumeID)
	if err != nil {
		return "", fail(ErrInvalid, "invalid volume ID %q: must be a UUID", volumeID)
	}
	return uuid.NewSHA1(id, []byte("filesystem")).String(), nil
}

// extArguments are those of mke2fs, which takes the last -E only and forgets all others. So there is one, with the settings
// that were asked for and then the driver's. Blocks reserved for root are of no use on a data volume, unless asked for.
func extArguments(dev Device, id string, asked []mkfsOption) []string {
	args := []string{"-m0"}
	lists := map[string][]string{"-E": nil, "-O": nil}
	for _, option := range asked {
		if _, isList := lists[option.name]; isList {
			lists[option.name] = append(lists[option.name], option.value)
			continue
		}
		args = append(args, option.arguments()...)
	}
	if features := lists["-O"]; len(features) > 0 {
		args = append(args, "-O", strings.Join(features, ","))
	}
	extended := append(lists["-E"], "nodiscard")
	return append(args, "-E", strings.Join(extended, ","), "-U", id, dev.Path, strconv.FormatInt(fittingBytes(dev)>>10, 10)+"k")
}

// xfsArguments are those of mkfs.xfs, which refuses a setting that is given twice: none of these can be asked for.
func xfsArguments(dev Device, id string, asked []mkfsOption) []string {
	ours := []string{"-K", "-m", "uuid=" + id, "-d", "size=" + strconv.FormatInt(fittingBytes(dev), 10)}
	return slices.Concat(allArguments(asked), ours, []string{dev.Path})
}

func btrfsArguments(dev Device, id string, asked []mkfsOption) []string {
	ours := []string{"--nodiscard", "--uuid", id, "--byte-count", strconv.FormatInt(fittingBytes(dev), 10)}
	return slices.Concat(allArguments(asked), ours, []string{dev.Path})
}

func allArguments(options []mkfsOption) (args []string) {
	for _, option := range options {
		args = append(args, option.arguments()...)
	}
	return args
}
