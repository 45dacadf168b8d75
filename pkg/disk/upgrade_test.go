package disk_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// A volume keeps the options of its StorageClass for good. Earlier versions allowed some that are refused now.
func TestFormattedVolumeWithMkfsOptionsOfAnEarlierVersionIsStaged(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: "ext4", MkfsOptions: []string{"-U", "random"}}
	before := fingerprint(t, dev, m.path(vol.ID+".img"))
	if err := m.Stage(t.Context(), req); !errors.Is(err, disk.ErrInvalid) || !strings.Contains(err.Error(), "-U") {
		t.Errorf("blank volume: got %v, want a refusal that names the option", err)
	}
	if fingerprint(t, dev, m.path(vol.ID+".img")) != before {
		t.Error("the disk was written to")
	}
	run(t, "mkfs.ext4", "-q", dev)
	for range 2 {
		if err := m.Stage(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
}

// Earlier versions left the UUID of the filesystem to mkfs, which writes the superblock of an XFS first. A node plugin that is updated
// while it formats a volume leaves such a disk.
func TestFormatThatAnEarlierVersionLeftHalfDoneIsCompleted(t *testing.T) {
	for fsType, options := range map[string]string{"xfs": "-K", "ext4": "-m0 -Enodiscard"} {
		t.Run(fsType, func(t *testing.T) {
			requireFilesystem(t, fsType)
			m := newMachine(t, 10*time.Second)
			vol, dev := m.attach(t, 320, nil)
			path, count := os.Getenv("PATH"), m.path("count")
			stageKilled := func(n int) error {
				zero(t, dev, vol.SizeBytes)
				t.Setenv("PATH", earlierMkfs(t, fsType, options, n, count)+":"+path)
				defer t.Setenv("PATH", path)
				return stage(m, vol, fsType)
			}
			if err := errors.Join(stageKilled(math.MaxInt), m.unstage(vol)); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(count)
			if err != nil {
				t.Fatal(err)
			}
			writes, err := strconv.Atoi(string(text))
			if err != nil || writes < 10 {
				t.Fatalf("mkfs wrote %s times: %v", text, err)
			}
			for n := 1; n <= writes; n += max(1, writes/8) {
				if err := stageKilled(n); err == nil || !strings.Contains(err.Error(), "exit status 137") {
					t.Fatalf("killed at write %d: got %v", n, err)
				}
				if err := errors.Join(stage(m, vol, fsType), m.unstage(vol)); err != nil {
					t.Errorf("the volume is stuck when mkfs was killed at write %d of %d: %v", n, writes, err)
				}
			}
		})
	}
}

// earlierMkfs makes a folder with an mkfs that runs with the options of an earlier version of the driver, and is killed as by
// killingMkfs.
func earlierMkfs(t *testing.T, fsType, options string, n int, count string) string {
	t.Helper()
	real, err := exec.LookPath("mkfs." + fsType)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\nfor device; do case $device in /dev/*) break ;; esac; done\n"+
		"%s='%d %s %s' exec %s %s \"$device\"\n", killVariable, n, real, count, os.Args[0], options)
	if err := os.WriteFile(filepath.Join(dir, "mkfs."+fsType), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
