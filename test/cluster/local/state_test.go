package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSweepFreesOnlyItsOwnLoopDevices plays what a killed supervisor leaves.
func TestSweepFreesOnlyItsOwnLoopDevices(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: loop devices cannot be made")
	}
	own, err := lock()
	if err != nil {
		t.Skip("a local cluster is running on this machine")
	}
	defer own.Close()
	mine, other := attach(t, filepath.Join(stateDir, "disks")), attach(t, t.TempDir())
	onTop := attachTo(t, mine.device) // as a kubelet does with a raw block volume
	if err := sweep(); err != nil {
		t.Fatal(err)
	}
	if mine.attached() {
		t.Errorf("%v is still attached", mine)
	}
	if onTop.attached() {
		t.Errorf("%v on top of it is still attached", onTop)
	}
	if !other.attached() {
		t.Errorf("%v, which is not a cluster's, was detached", other)
	}
	if _, err := os.Stat(stateDir); err == nil {
		t.Errorf("%s is still there", stateDir)
	}
}

// TestWaitsForAClusterThatGoesDown plays a cluster whose command was killed, and one that runs.
func TestWaitsForAClusterThatGoesDown(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: the folder of a cluster is root's")
	}
	other, err := lock()
	if err != nil {
		t.Skip("a local cluster is running on this machine")
	}
	defer other.Close()
	defer func() { _ = sweep() }()
	if err := CheckFree(t.Context(), 0); err == nil {
		t.Error("the machine of a cluster that runs is free")
	}
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(endingMark(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free := make(chan error, 1)
	go func() { free <- CheckFree(t.Context(), 0) }()
	select {
	case err := <-free:
		t.Fatalf("a cluster that goes down is not waited for: %v", err)
	case <-time.After(time.Second): // is looked at many times by then
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-free; err != nil {
		t.Errorf("the cluster has gone down: %v", err)
	}
}

// TestPowerOffFreesWhatTheKubeletPutOnTop plays a machine that loses its power while a Pod uses a raw block volume.
func TestPowerOffFreesWhatTheKubeletPutOnTop(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: loop devices cannot be made")
	}
	own, err := lock()
	if err != nil {
		t.Skip("a local cluster is running on this machine")
	}
	defer own.Close()
	defer func() { _ = sweep() }()
	here, elsewhere := attach(t, filepath.Join(stateDir, "disks")), attach(t, filepath.Join(stateDir, "others"))
	onTop, onOther := attachTo(t, here.device), attachTo(t, elsewhere.device)
	links := t.TempDir()
	if err := os.Symlink(here.device, filepath.Join(links, "virtio-here")); err != nil {
		t.Fatal(err)
	}
	if err := detachOnTop(links); err != nil {
		t.Fatal(err)
	}
	if onTop.attached() {
		t.Errorf("%v on top of the machine's disk is still attached", onTop)
	}
	if !here.attached() || !onOther.attached() {
		t.Error("what is not on top of the machine's disks was detached")
	}
}

// loop is a loop device with what it was attached to: when it has been detached others may get the same device.
type loop struct{ device, file string }

func attach(t *testing.T, dir string) loop {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "disk.img")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	return attachTo(t, file)
}

func attachTo(t *testing.T, file string) loop {
	t.Helper()
	output, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("no loop devices here: %s", output)
	}
	made := loop{strings.TrimSpace(string(output)), file}
	t.Cleanup(func() {
		if made.attached() {
			_ = exec.Command("losetup", "--detach", made.device).Run()
		}
	})
	return made
}

func (l loop) attached() bool {
	file, _ := os.ReadFile("/sys/block/" + filepath.Base(l.device) + "/loop/backing_file")
	return strings.TrimSuffix(strings.TrimSpace(string(file)), " (deleted)") == l.file
}

// A number that a cluster's loop device had may be anybody's when the cluster is swept up.
func TestALoopDeviceThatIsSomebodyElsesByNowStays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: loop devices cannot be made")
	}
	other := attach(t, t.TempDir())
	if err := detachLoop(other.device, filepath.Join(stateDir, "disks", "disk.img")); err != nil {
		t.Fatal(err)
	}
	if !other.attached() {
		t.Errorf("%v was detached", other)
	}
}

func TestNodeAddressesLieInTheirNetworks(t *testing.T) {
	seen := map[string]bool{}
	for i := range 5 {
		address := nodeAddress(i)
		if !privateNetwork.Contains(address.Addr()) || address.Addr() == privateGateway.Addr() {
			t.Errorf("node %d: address %s", i, address)
		}
		if seen[address.String()] {
			t.Errorf("node %d shares an address", i)
		}
		seen[address.String()] = true
	}
}
