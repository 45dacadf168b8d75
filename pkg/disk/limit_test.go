package disk_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// A node that gets many new volumes at once has other work than mkfs.
func TestFewVolumesAreFormattedAtOnce(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	real, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		t.Fatal(err)
	}
	// Each mkfs waits until the gate opens, leaves a file for as long as it runs, and notes how many there are.
	folder, running, gate, notes := t.TempDir(), t.TempDir(), m.path("gate"), m.path("notes")
	script := fmt.Sprintf("#!/bin/sh\n: >%s/$$\nls %s | wc -l >>%s\nuntil [ -e %s ]; do sleep 0.01; done\n%s \"$@\"\nstatus=$?\nrm %s/$$\nexit $status\n",
		running, running, notes, gate, real, running)
	if err := os.WriteFile(filepath.Join(folder, "mkfs.ext4"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", folder+":"+os.Getenv("PATH"))
	var wg sync.WaitGroup
	const volumes, limit = 6, 2
	for i := range volumes {
		vol, _ := m.attach(t, 64, nil)
		wg.Go(func() {
			req := disk.StageRequest{Volume: vol, Path: m.path(fmt.Sprintf("staging-%d", i))}
			if err := m.Stage(context.Background(), req); err != nil {
				t.Error(err)
			}
		})
	}
	for probed := uint64(0); probed < 2*volumes; probed = m.observed(t, "probe") { // all were found to be blank twice
		time.Sleep(time.Millisecond)
	}
	counts := func() []string {
		noted, err := os.ReadFile(notes)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return strings.Fields(string(noted))
	}
	for len(counts()) < limit { // as many wait for the gate as may, at the same time
		time.Sleep(time.Millisecond)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if got := counts(); len(got) != volumes || slices.Max(got) != strconv.Itoa(limit) {
		t.Errorf("as many were formatted at once: %v, want %d at most", got, limit)
	}
	for i := range volumes {
		if len(mountsOn(t, m.path(fmt.Sprintf("staging-%d", i)))) != 1 {
			t.Errorf("volume %d is not staged", i)
		}
	}
}
