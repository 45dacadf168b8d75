package disk_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// killVariable makes the test binary run a program and kill it at its nth write, given as "n program file"; n is large to let
// it end. The file gets the number of writes that there were.
const killVariable = "DISK_TEST_KILL_AT_WRITE"

// syscallInfo is struct ptrace_syscall_info of the kernel.
type syscallInfo struct {
	op        uint8
	_         [3]uint8
	arch      uint32
	ip, sp    uint64
	number    uint64
	arguments [6]uint64
	_         uint64
}

// writes tells whether a call of the kernel changes what is on a disk.
func (s syscallInfo) writes() bool {
	if s.op != 1 || s.arguments[0] <= 2 { // 1 is the beginning of a call; descriptors to 2 are for messages
		return false
	}
	switch s.number {
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_FALLOCATE, unix.SYS_IO_SUBMIT:
		return true
	case unix.SYS_IOCTL:
		return slices.Contains([]uint64{unix.BLKDISCARD, unix.BLKSECDISCARD, unix.BLKZEROOUT}, s.arguments[1])
	}
	return false
}

// killAtWrite runs a program under ptrace(2) and kills it just before its nth write. It returns the exit status.
func killAtWrite(text string, args []string) int {
	fields := strings.Fields(text)
	n, err := strconv.Atoi(fields[0])
	if err != nil {
		panic(err)
	}
	writes := 0
	runtime.LockOSThread() // a process is traced by a thread
	cmd := exec.Command(fields[1], args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	main := cmd.Process.Pid
	var status unix.WaitStatus
	if _, err := unix.Wait4(main, &status, 0, nil); err != nil {
		panic(err)
	}
	const exitKill = 0x100000
	if err := unix.PtraceSetOptions(main, unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_TRACECLONE|exitKill); err != nil {
		panic(err)
	}
	for thread := main; ; {
		signal := 0
		if stop := status.StopSignal(); stop == syscall.SIGTRAP|0x80 {
			var info syscallInfo
			if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread), unsafe.Sizeof(info),
				uintptr(unsafe.Pointer(&info)), 0, 0); errno != 0 {
				panic(errno)
			}
			if info.writes() {
				if writes++; writes == n {
					return killAll(main)
				}
			}
		} else if stop != syscall.SIGTRAP && stop != syscall.SIGSTOP {
			signal = int(stop)
		}
		if err := unix.PtraceSyscall(thread, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			panic(err)
		}
		for {
			if thread, err = unix.Wait4(-1, &status, unix.WALL, nil); err != nil {
				panic(err)
			}
			if status.Stopped() {
				break
			}
			if thread == main {
				if err := os.WriteFile(fields[2], []byte(strconv.Itoa(writes)), 0o600); err != nil {
					panic(err)
				}
				return status.ExitStatus()
			}
		}
	}
}

// killAll kills a traced process, and returns when all of its threads have ended.
func killAll(process int) int {
	if err := unix.Kill(process, unix.SIGKILL); err != nil {
		panic(err)
	}
	for {
		if _, err := unix.Wait4(-1, nil, unix.WALL, nil); errors.Is(err, unix.ECHILD) {
			return 137
		}
	}
}

// killingMkfs makes a folder with an mkfs that is killed at its nth write, or counts them in a file.
func killingMkfs(t *testing.T, fsType string, n int, count string) string {
	t.Helper()
	real, err := exec.LookPath("mkfs." + fsType)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\n%s='%d %s %s' exec %s \"$@\"\n", killVariable, n, real, count, os.Args[0])
	if err := os.WriteFile(filepath.Join(dir, "mkfs."+fsType), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// zero makes a disk blank again.
func zero(t *testing.T, dev string, size int64) {
	t.Helper()
	file, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	span := [2]uint64{0, uint64(size)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span))); errno != 0 {
		t.Fatal(errno)
	}
}

// Whatever was asked of mkfs, and wherever it is killed, the volume can be formatted by the next try.
func TestMkfsKilledAtAnyWriteLeavesAVolumeThatIsFormatted(t *testing.T) {
	points := 20 // of each case at least, if there are as many
	if testing.Short() {
		points = 5
	}
	cases := []struct {
		fsType, options string
		sizeMiB         int64
	}{
		{"ext4", "-E stride=16", 65},
		{"ext4", "-O ^flex_bg,^resize_inode -E lazy_itable_init=0 -b 1024 -g 1024 -E stripe_width=32", 64},
		{"ext4", "-b 4096 -O bigalloc -C 65536 -E packed_meta_blocks=1", 64},
		{"ext2", "-b 1024 -g 256 -N 4096", 24},
		{"xfs", "", 320},
		{"xfs", "-d agcount=2,su=64k,sw=2 -l size=64m", 320},
		{"btrfs", "", 128},
	}
	for _, c := range cases {
		t.Run(strings.TrimSpace(c.fsType+" "+c.options), func(t *testing.T) {
			m := newMachine(t, 10*time.Second)
			requireFilesystem(t, c.fsType)
			vol, dev := m.attach(t, c.sizeMiB, nil)
			req := disk.StageRequest{Volume: vol, Path: m.path("staging"), Filesystem: c.fsType, MkfsOptions: strings.Fields(c.options)}
			path, count := os.Getenv("PATH"), m.path("count")
			stageKilled := func(n int) error {
				zero(t, dev, vol.SizeBytes)
				t.Setenv("PATH", killingMkfs(t, c.fsType, n, count)+":"+path)
				defer t.Setenv("PATH", path)
				return m.Stage(context.Background(), req)
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
			kills, stuck := 0, 0
			for n := 1; n <= writes; n += max(1, writes/points) {
				if err := stageKilled(n); err == nil || !strings.Contains(err.Error(), "exit status 137") {
					t.Fatalf("killed at write %d: got %v", n, err)
				}
				kills++
				if err := m.Stage(context.Background(), req); err != nil {
					stuck++
					t.Logf("killed at write %d: %v", n, err)
				}
				if err := m.unstage(vol); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("%d writes, killed at %d of them", writes, kills)
			if stuck > 0 {
				t.Errorf("the volume is stuck after %d of %d points at which mkfs was killed", stuck, kills)
			}
		})
	}
}
