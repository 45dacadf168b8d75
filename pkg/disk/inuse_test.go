package disk_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// A mount that a container's mount namespace kept is not seen from here, and the disk would be detached under it.
func TestUnstageFailsWhileAnotherMountNamespaceHasTheVolume(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	if err := stage(m, vol, "ext4"); err != nil {
		t.Fatal(err)
	}
	process, end := m.container(t)
	for range 2 {
		err := m.impatient(t).Unstage(t.Context(), vol.ID, m.path("staging"))
		who := fmt.Sprintf("process %d (", process) // of the shell, or what it became
		if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), who) {
			t.Fatalf("got %v, want %s", err, who)
		}
	}
	if left := mountsOn(t, m.path("staging")); len(left) > 0 {
		t.Errorf("still mounted here: %+v", left)
	}
	end()
	if err := m.unstage(vol); err != nil {
		t.Errorf("after the other has ended: %v", err)
	}
}

func TestUnstageBeforeUnpublishIsNotDone(t *testing.T) {
	m, req := stagedVolume(t)
	if err := m.Publish(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	err := m.impatient(t).Unstage(context.Background(), req.Volume.ID, req.StagingPath)
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), req.Path) {
		t.Errorf("got %v, want where it is published", err)
	}
	for range 2 {
		if err := m.Unpublish(context.Background(), req.Volume.ID, req.Path); err != nil {
			t.Fatal(err)
		}
		if err := m.unstage(req.Volume); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnstageWaitsUntilTheDeviceIsReleased(t *testing.T) {
	m, req := stagedVolume(t)
	patient, err := disk.New(disk.Config{DeviceDir: m.deviceDir, DeviceTimeout: time.Second, ReleaseTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Publish(context.Background(), req); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- patient.Unstage(context.Background(), req.Volume.ID, req.StagingPath) }()
	for len(mountsOn(t, req.StagingPath)) > 0 {
		time.Sleep(time.Millisecond)
	}
	if err := m.Unpublish(context.Background(), req.Volume.ID, req.Path); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestUnstageSaysWhoSwapsOnTheVolume(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 64, nil)
	if err := stageBlock(m, vol); err != nil {
		t.Fatal(err)
	}
	run(t, "mkswap", dev)
	if out, err := exec.Command("swapon", dev).CombinedOutput(); err != nil {
		t.Skipf("needs a kernel with swap: %s", out)
	}
	err := m.impatient(t).Unstage(context.Background(), vol.ID, m.path("staging"))
	run(t, "swapoff", dev)
	if !errors.Is(err, disk.ErrInUse) || !strings.Contains(err.Error(), "swap on "+dev) {
		t.Errorf("got %v", err)
	}
	if err := m.unstage(vol); err != nil {
		t.Error(err)
	}
}
