package disk

import (
	"strings"
	"testing"
	"time"

	"k8s.io/mount-utils"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded/boundedtest"
)

var costOfOptions = boundedtest.Cost{Bytes: 1 << 20, BytesPerByte: 500, CPU: 2 * time.Second, CPUPerByte: 50 * time.Microsecond}

// FuzzOptions checks options of mkfs and of mounts, and compares a mount with them, at a cost in proportion to their size. What is
// let through has no option that is another program's.
func FuzzOptions(f *testing.F) {
	for _, text := range []string{"-E nodiscard", "-O ^quota,none", "-L=x", "--label=/dev/vda", "noatime,context=\"a:b,c\"", "x-mount.mkdir", "\"", ",", "-",
		"commit=5k", "errors=panic", "subvol=/..", "compress=zstd:0", "-d agcount=4"} {
		for _, filesystem := range []string{"", "ext4", "xfs", "btrfs"} {
			f.Add(filesystem, text, uint16(1))
			f.Add(filesystem, text+",", uint16(200))
		}
	}
	f.Fuzz(func(t *testing.T, filesystem, part string, times uint16) {
		if len(part)*int(times) > 16<<10 {
			return
		}
		text := strings.Repeat(part, int(times))
		costOfOptions.Within(t, len(text), func() {
			options, err := parseMkfsOptions(filesystem, strings.Fields(text))
			for _, option := range options {
				if err == nil && (strings.HasPrefix(option.value, "-") || strings.Contains(option.value, "/")) {
					t.Errorf("mkfs gets %q", option.arguments())
				}
			}
			if ValidateMountOptions([]string{text}, false) == nil && strings.ContainsAny(text, "\\\n\x00") {
				t.Errorf("mount gets %q", text)
			}
			optionConflict(mount.MountInfo{FsType: filesystem, MountOptions: []string{part}, SuperOptions: strings.Split(text, ",")}, []string{text})
		})
	})
}
