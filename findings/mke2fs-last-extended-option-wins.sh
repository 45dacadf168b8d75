#!/bin/bash
# mke2fs (e2fsprogs): of several -E options only the last one counts; they are not merged, and nothing says so. A program that always
# passes -E nodiscard and appends what its user asks for (-E stride=16) discards the whole disk after all.
# On a regular file a discard shows as blocks that are given back.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"

version=1.47.0-2+b2 # Debian 12
apt-get download "e2fsprogs=$version" "libext2fs2=$version" >log 2>&1 || { cat log; exit 1; }
for package in *.deb; do dpkg -x "$package" root; done
mke2fs() { LD_LIBRARY_PATH=$(echo "$work"/root/lib/*-linux-gnu):$(echo "$work"/root/usr/lib/*-linux-gnu) root/sbin/mke2fs "$@"; }
mke2fs -V 2>&1 | sed -n 1p

kept() { # what is left of 64 MiB of data after mke2fs with these options, in MiB
	tr '\0' '\377' </dev/zero | head -c 64M >disk
	mke2fs -q -F -t ext4 "$@" disk
	echo $(($(du -k disk | cut -f 1) / 1024))
}
once=$(kept -E nodiscard)
merged=$(kept -E nodiscard,stride=16)
twice=$(kept -E nodiscard -E stride=16)
echo "MiB kept of 64: -E nodiscard: $once; -E nodiscard,stride=16: $merged; -E nodiscard -E stride=16: $twice"
if [ "$once" -lt 60 ] || [ "$merged" -lt 60 ] || [ "$twice" -gt 10 ]; then
	echo "the behaviour has changed"
	exit 1
fi
