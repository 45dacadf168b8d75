package disk_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// While work waits for its turn, the disk can be detached, and its name be given to another disk.
func TestADiskThatWasReplacedMeanwhileIsNotTouched(t *testing.T) {
	work := map[string]func(*machine, disk.Volume) error{
		"stage": func(m *machine, vol disk.Volume) error { return stage(m, vol, "ext4") },
		"stage as a raw block volume": func(m *machine, vol disk.Volume) error {
			return m.StageBlock(context.Background(), disk.StageBlockRequest{Volume: vol, Path: m.path("raw")})
		},
	}
	for name, do := range work {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, time.Second)
			vol, replace := m.attachReplaceable(t)
			release := sync.OnceFunc(m.Hold(vol.ID))
			t.Cleanup(release)
			outcome := make(chan error)
			go func() { outcome <- do(m, vol) }()
			for m.observed(t, "find") == 0 {
				time.Sleep(time.Millisecond)
			}
			untouched := replace()
			release()
			if err := <-outcome; !errors.Is(err, disk.ErrNoDevice) {
				t.Errorf("got %v, want that the device is gone", err)
			}
			for _, path := range []string{"staging", "raw/device-" + vol.ID} {
				if got := mountsOn(t, m.path(path)); len(got) != 0 {
					t.Errorf("mounted: %+v", got)
				}
			}
			untouched()
		})
	}
}

// Volumes that wait for their turn to be formatted may wait for long.
func TestADiskThatWasReplacedBeforeItsTurnIsNotFormatted(t *testing.T) {
	for name, encryption := range map[string]*disk.Encryption{"mkfs": nil, "luksFormat": encrypted("secret")} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, time.Second)
			if _, err := exec.LookPath("cryptsetup"); encryption != nil && err != nil {
				t.Skip("needs cryptsetup")
			}
			m.WithCheapKeys()
			vol, replace := m.attachReplaceable(t)
			release := sync.OnceFunc(m.HoldFormats())
			t.Cleanup(release)
			outcome := make(chan error)
			go func() {
				outcome <- stageEncrypted(m, vol, "", func(req *disk.StageRequest) { req.Encryption = encryption })
			}()
			m.untilMarked(t, vol)
			untouched := replace()
			release()
			if err := <-outcome; !errors.Is(err, disk.ErrNoDevice) {
				t.Errorf("got %v, want that the device is gone", err)
			}
			untouched()
		})
	}
}

// attachReplaceable attaches a volume's disk. replace gives its device to another disk, which holds a filesystem; untouched
// checks that nobody wrote to that one, and takes it off.
func (m *machine) attachReplaceable(t *testing.T) (vol disk.Volume, replace func() (untouched func())) {
	t.Helper()
	dev := ownLoopDevice(t)
	vol, other := m.makeDisk(t, 64), m.makeDisk(t, 64)
	image := m.path(other.ID + ".img")
	run(t, "mkfs.ext4", "-q", image)
	runUntilFree(t, "losetup", dev, m.path(vol.ID+".img"))
	m.link(t, vol.ID, dev)
	return vol, func() func() {
		t.Helper()
		run(t, "losetup", "--detach", dev)
		runUntilFree(t, "losetup", dev, image)
		before := fingerprint(t, dev, image)
		return func() {
			t.Helper()
			if fingerprint(t, dev, image) != before {
				t.Error("the other disk was written to")
			}
			unmountBelow(t, m.dir)
			run(t, "losetup", "--detach", dev)
		}
	}
}

// untilMarked waits until the volume is about to be formatted.
func (m *machine) untilMarked(t *testing.T, vol disk.Volume) {
	t.Helper()
	file, err := os.Open(m.path(vol.ID + ".img"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	marker := make([]byte, 22)
	for deadline := time.Now().Add(time.Minute); string(marker) != "cloud-provider-upcloud"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the disk is not marked")
		}
		if _, err := file.ReadAt(marker, vol.SizeBytes-192<<10); err != nil {
			t.Fatal(err)
		}
	}
}

// ownLoopDevice makes a loop device of a number that nobody else on the machine is given by chance.
func ownLoopDevice(t *testing.T) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	number := 200
	for ; ; number++ {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), unix.LOOP_CTL_ADD, uintptr(number))
		if errno == 0 {
			break
		}
		if errno != unix.EEXIST {
			t.Fatalf("no loop device %d: %v", number, errno)
		}
	}
	t.Cleanup(func() {
		defer control.Close()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // udev may look at it still
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), unix.LOOP_CTL_REMOVE, uintptr(number))
			if errno == unix.EBUSY && time.Now().Before(deadline) {
				continue
			}
			if errno != 0 {
				t.Errorf("the loop device %d stays: %v", number, errno)
			}
			return
		}
	})
	return "/dev/loop" + strconv.Itoa(number)
}

// runUntilFree runs losetup, and again while udev looks at the device that was used before.
func runUntilFree(t *testing.T, args ...string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err == nil {
			return
		}
		if !strings.Contains(string(out), "busy") || time.Now().After(deadline) {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
}

// observed counts the operations of a kind that have ended.
func (m *machine) observed(t *testing.T, operation string) (n uint64) {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetValue() == operation {
					n += metric.GetHistogram().GetSampleCount()
				}
			}
		}
	}
	return n
}

func TestFindDoesWithoutWatchers(t *testing.T) {
	m := newMachine(t, time.Minute)
	m.WithoutWatchers(syscall.EMFILE)
	vol, dev := m.attach(t, 64, nil)
	name, err := disk.LinkName(vol.ID)
	if err != nil {
		t.Fatal(err)
	}
	link := m.deviceDir + "/" + name
	if err := os.Rename(link, link+"-later"); err != nil {
		t.Fatal(err)
	}
	found := make(chan error, 1)
	go func() {
		_, err := m.Find(context.Background(), vol)
		found <- err
	}()
	if err := os.Rename(link+"-later", link); err != nil {
		t.Fatal(err)
	}
	if err := <-found; err != nil {
		t.Errorf("%s was not found: %v", dev, err)
	}
}

// interrupt makes a format of the volume end in the middle, with a whole filesystem on the disk and the marker.
func interrupt(t *testing.T, m *machine, vol disk.Volume, fsType string) {
	t.Helper()
	real, err := exec.LookPath("mkfs." + fsType)
	if err != nil {
		t.Skipf("needs mkfs.%s", fsType)
	}
	programs := t.TempDir()
	script := "#!/bin/sh\n" + real + ` "$@" >&2` + "\nkill -9 $$\n"
	if err := os.WriteFile(programs+"/mkfs."+fsType, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	path := os.Getenv("PATH")
	t.Setenv("PATH", programs+":"+path)
	if err := stage(m, vol, fsType); err == nil {
		t.Fatal("staged by an mkfs that was killed")
	}
	t.Setenv("PATH", path)
}

// Whoever mounts the disk by hand after a format failed, and puts data there, must not lose it to the retry.
func TestAFormatIsNotTakenUpAgainOnAFilesystemInUse(t *testing.T) {
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			vol, dev := m.attach(t, 1024, nil)
			interrupt(t, m, vol, fsType)
			if err := os.Mkdir(m.path("by-hand"), 0o755); err != nil {
				t.Fatal(err)
			}
			run(t, "mount", dev, m.path("by-hand"))
			if err := os.WriteFile(m.path("by-hand/file"), []byte("data"), 0o600); err != nil {
				t.Fatal(err)
			}
			run(t, "umount", m.path("by-hand"))

			err := stage(m, vol, fsType)
			if !errors.Is(err, disk.ErrRefused) {
				t.Fatalf("got %v, want a refusal", err)
			}
			_, remedy, _ := strings.Cut(err.Error(), "run: ")
			remedy, _, _ = strings.Cut(remedy, ";")
			run(t, "sh", "-c", remedy)
			if err := stage(m, vol, fsType); err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(m.path("staging/file")); err != nil || string(data) != "data" {
				t.Errorf("the file is %q, %v", data, err)
			}
		})
	}
}

func TestAFormatIsNotTakenUpAgainOnWhatIsNoFilesystemOfOurs(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 1024, nil)
	interrupt(t, m, vol, "ext4")
	run(t, "dd", "if=/dev/zero", "of="+dev, "bs=1M", "count=1", "conv=notrunc", "status=none")
	run(t, "mkswap", dev)
	if err := stage(m, vol, "ext4"); !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), "swap") {
		t.Errorf("got %v, want a refusal that names what is there", err)
	}
}

// A filesystem on a marked disk is the driver's own by its UUID, not by its type, and not as it was never mounted.
func TestAFormatIsNotTakenUpAgainOnAFilesystemMadeByOtherMeans(t *testing.T) {
	for fsType, keep := range map[string]string{"ext4": "-Enodiscard", "xfs": "-K"} { // a discard takes the marker away, too
		t.Run(fsType, func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, fsType)
			vol, dev := m.attach(t, 1024, nil)
			interrupt(t, m, vol, fsType)
			run(t, "dd", "if=/dev/zero", "of="+dev, "bs=1M", "count=1", "conv=notrunc", "status=none")
			run(t, "mkfs."+fsType, "-q", keep, dev)
			before := fingerprint(t, dev, m.path(vol.ID+".img"))
			if err := stage(m, vol, fsType); !errors.Is(err, disk.ErrRefused) || !strings.Contains(err.Error(), fsType) {
				t.Errorf("got %v, want a refusal that names what is there", err)
			}
			if fingerprint(t, dev, m.path(vol.ID+".img")) != before {
				t.Error("the disk was written to")
			}
		})
	}
}

// Data on a raw disk must not be lost to a format that was begun before it was raw.
func TestARawBlockVolumeLosesTheMarkerOfAFormat(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, dev := m.attach(t, 1024, nil)
	interrupt(t, m, vol, "ext4")
	if err := m.StageBlock(context.Background(), disk.StageBlockRequest{Volume: vol, Path: m.path("raw")}); err != nil {
		t.Fatal(err)
	}
	run(t, "dd", "if=/dev/urandom", "of="+dev, "bs=4096", "count=1024", "conv=notrunc", "status=none")
	if err := m.Unstage(context.Background(), vol.ID, m.path("raw")); err != nil {
		t.Fatal(err)
	}
	if err := stage(m, vol, "ext4"); !errors.Is(err, disk.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestStageTwiceWithReadOnlyAsAMountOption(t *testing.T) {
	m := newMachine(t, 10*time.Second)
	vol, _ := m.attach(t, 64, nil)
	req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Options: []string{"noatime,ro"}}
	for range 2 {
		if err := m.Stage(context.Background(), req); err != nil {
			t.Fatal(err)
		}
	}
	req.Options = []string{"rw"}
	if err := m.Stage(context.Background(), req); !errors.Is(err, disk.ErrConflict) {
		t.Errorf("staged read-only, for writing asked: got %v", err)
	}
}
