// Package local runs a real Kubernetes on this machine: a control plane, nodes that are namespaces with a kubelet and
// containerd each, and a simulated UpCloud in which every node has its server. One process, the supervisor, owns all of
// it and takes all of it with it, however it ends; what a killed supervisor leaves (loop devices, cgroups, files) the
// next one removes.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

const (
	// stateDir is one place for the whole machine, so that a cluster that another checkout left is found.
	stateDir     = "/var/tmp/cloud-provider-upcloud-cluster"
	cgroupPrefix = "upcloud-node-"
	byIDDir      = "/dev/disk/by-id"
)

// Status is what a running cluster tells those who use it.
type Status struct {
	PID          int    // of the supervisor
	Kubeconfig   string // path
	Kubectl      string // path of a kubectl of the cluster's version
	SimulatorURL string // on loopback
	LogDir       string
	InternetPID  int // a process in a network namespace outside the cluster that reaches its public addresses
	// WorkstationPID is such a process that reaches the private network, too, and in it the API server by WorkstationKubeconfig.
	WorkstationPID        int
	WorkstationKubeconfig string
	Machines              map[string]int // the first process of each node that has power
	Username              string         // of the simulated account
	Password              string
}

// ReadStatus returns the status of the cluster that is running on this machine, or an error that says how to start one.
func ReadStatus() (Status, error) {
	var status Status
	text, err := os.ReadFile(filepath.Join(stateDir, "status.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return status, errors.New("no local cluster is running; start one with `make up` or `KEEP=1 make demo`")
	}
	if err != nil {
		return status, err
	}
	return status, json.Unmarshal(text, &status)
}

func (s Status) write() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(stateDir, "status.json")
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// lock makes this process the only supervisor of the machine for as long as the listener is open. It is an abstract
// socket: the kernel gives the name back when the process ends, and no file is left.
func lock() (net.Listener, error) {
	listener, err := net.Listen("unix", "@cloud-provider-upcloud-cluster")
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, errors.New("a local cluster is already running on this machine; end it with `make demo-down`")
	}
	return listener, err
}

// CheckFree says whether a cluster could be started on this machine, before time is spent on preparing one. One that goes down,
// as it does when the command that started it was killed, is waited for; within notice it must have begun to.
func CheckFree(ctx context.Context, notice time.Duration) error {
	begin := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		listener, err := lock()
		if err == nil {
			return listener.Close()
		}
		_, ending := os.Stat(endingMark())
		if patient := time.Since(begin); patient > patience || ending != nil && patient >= notice {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// endingMark is there while a cluster is taken down.
func endingMark() string { return filepath.Join(stateDir, "ending") }

// sweep removes everything of a cluster whose processes have ended. It is called under the lock.
func sweep() error {
	err := errors.Join(detachLoopDevices(), machine.RemoveCgroups(cgroupPrefix+"*"))
	if _, statErr := os.Stat(filepath.Join(stateDir, "made-by-id")); statErr == nil {
		// Removed only if empty and only as far as a cluster has made them.
		_ = os.Remove(byIDDir)
		_ = os.Remove(filepath.Dir(byIDDir))
	}
	return errors.Join(err, os.RemoveAll(stateDir))
}

// LoopDevices are the loop devices of a cluster's disks, each with the file behind it, and those that kubelets put on top of
// disks that Pods use as raw block volumes, each with the disk's device.
func LoopDevices() (map[string]string, error) {
	backing, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	devices := map[string]string{}
	disks := map[uint64]string{} // by device number
	var others []string
	for _, path := range backing {
		device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(path)))
		file, err := os.ReadFile(path)
		if err != nil {
			continue // it was detached meanwhile
		}
		if !strings.HasPrefix(string(file), stateDir+"/") {
			others = append(others, device)
			continue
		}
		devices[device] = strings.TrimSuffix(strings.TrimSpace(string(file)), " (deleted)")
		var stat unix.Stat_t
		if err := unix.Stat(device, &stat); err != nil {
			return nil, fmt.Errorf("look at %s: %w", device, err)
		}
		disks[stat.Rdev] = device
	}
	for _, device := range others {
		if disk, ours := disks[deviceBelow(device)]; ours {
			devices[device] = disk
		}
	}
	return devices, nil
}

// deviceBelow is the number of the block device that a loop device lies on, 0 if that is none. The name of its backing file
// does not tell: it is that of a bind mount in a machine that may be gone.
func deviceBelow(device string) uint64 {
	file, err := os.Open(device)
	if err != nil {
		return 0
	}
	defer file.Close()
	info, err := unix.IoctlLoopGetStatus64(int(file.Fd()))
	if err != nil {
		return 0
	}
	return info.Rdevice
}

// detachLoopDevices frees the loop devices of a cluster whose processes have ended.
func detachLoopDevices() error {
	devices, err := LoopDevices()
	for device, behind := range devices {
		err = errors.Join(err, detachLoop(device, behind))
	}
	return err
}

// detachLoop frees a loop device, if it is still what LoopDevices told. One whose last user just ended may be somebody else's by
// now; it stays what it is while it is open here.
func detachLoop(device, behind string) error {
	file, err := os.Open(device)
	if err != nil {
		return err
	}
	defer file.Close()
	if now, err := LoopDevices(); err != nil || now[device] != behind {
		return err
	}
	if err := unix.IoctlSetInt(int(file.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", device, err)
	}
	return nil
}

// makeByIDDir makes the folder that each node mounts its own disk links over, and remembers whether it made it.
func makeByIDDir() error {
	if _, err := os.Stat(byIDDir); err == nil {
		return nil
	}
	if err := os.WriteFile(filepath.Join(stateDir, "made-by-id"), nil, 0o600); err != nil {
		return err
	}
	return os.MkdirAll(byIDDir, 0o755)
}
