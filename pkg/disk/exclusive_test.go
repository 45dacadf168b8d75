package disk_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// occupy has a disk open exclusively until end is called, or the test ends.
func occupy(t *testing.T, dev string) (end func()) {
	t.Helper()
	file, err := os.OpenFile(dev, os.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return end
}

// What formatted a disk for a driver that died needs its time to end.
func TestADiskThatIsInUseForAMomentIsFormatted(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	end := occupy(t, dev)
	log := funcr.New(func(_, args string) {
		if strings.Contains(args, "Waiting for the disk") {
			end()
		}
	}, funcr.Options{Verbosity: 2})
	ctx := klog.NewContext(context.Background(), log)
	if err := m.Stage(ctx, disk.StageRequest{Volume: vol, Path: m.path("staging")}); err != nil {
		t.Error(err)
	}
}

// A program that is started for another volume has a copy of what is open, until it begins: the next program on this volume
// must not find its disk in use.
func TestADiskThatWasWrittenToIsFreeForTheNextProgram(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	_, dev := m.attach(t, 64, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	for range 4 {
		others.Go(func() {
			for ctx.Err() == nil {
				if err := exec.Command("true").Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 200 {
		if err := m.WriteExclusively(ctx, dev, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
		if err := disk.TryExclusively(dev); err != nil {
			t.Errorf("after it was written to for the %d. time: %v", i+1, err)
			break
		}
	}
}

func TestADiskThatIsInUseIsNotFormatted(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	occupy(t, dev)
	before := fingerprint(t, dev, m.path(vol.ID+".img"))
	if err := stage(m, vol, "ext4"); !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want a refusal", err)
	}
	if fingerprint(t, dev, m.path(vol.ID+".img")) != before {
		t.Error("the disk was written to")
	}
}
