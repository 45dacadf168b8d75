#!/bin/bash
# k8s.io/mount-utils 0.36.3: ResizeFs.NeedResize compares sizes for btrfs only. For ext3, ext4 and xfs it answers yes although the
# filesystem already fills its device, so a caller that acts on it runs a resize at each call. For ext2, which FormatAndMount of the
# same library makes without complaint, it is an error. As root: it needs a loop device.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "run as root: loop devices are needed"; exit 1; }
work=$(mktemp -d)
device=
trap '[ -z "$device" ] || losetup --detach "$device"; rm -rf "$work"' EXIT
cd "$work"
mkdir packages
chmod 777 . packages
version=1.47.0-2+b2 # Debian 12
(cd packages && apt-get download "e2fsprogs=$version" "libext2fs2=$version" >log 2>&1 || { cat log; exit 1; })
for package in packages/*.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH
LD_LIBRARY_PATH=$(echo "$work"/root/lib/*-linux-gnu):$(echo "$work"/root/usr/lib/*-linux-gnu)

cat >go.mod <<'MOD'
module example.com/finding

go 1.26

require (
	k8s.io/mount-utils v0.36.3
	k8s.io/utils v0.0.0-20260108192941-914a6e750570
)
MOD
cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"

	mount "k8s.io/mount-utils"
	"k8s.io/utils/exec"
)

func main() {
	needed, err := mount.NewResizeFs(exec.New()).NeedResize(os.Args[1], "")
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Println(needed)
}
GO
GOFLAGS=-mod=mod go build -o ask .
truncate -s 64M disk
device=$(losetup --find --show disk)
failed=0
for filesystem in ext2 ext3 ext4; do
	root/sbin/mke2fs -q -F -t "$filesystem" "$device" # fills the device
	answer=$(./ask "$device" 2>/dev/null)
	echo "$filesystem that fills its device: $answer"
	case $filesystem/$answer in
	ext2/error:*) ;;
	ext[34]/true) ;;
	*) failed=1 ;;
	esac
done
[ "$failed" = 0 ] || { echo "the behaviour has changed"; exit 1; }
echo "seen with k8s.io/mount-utils $(go list -m -f '{{.Version}}' k8s.io/mount-utils)"
