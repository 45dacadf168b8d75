package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

// outputLimit is how much of a command's output goes into an error: the end, where commands say what failed.
const outputLimit = 800

// packages names the package of Debian and its kin that a program is in, for those that not every machine has.
var packages = map[string]string{
	"mkfs.ext2": "e2fsprogs", "mkfs.ext3": "e2fsprogs", "mkfs.ext4": "e2fsprogs", "e2fsck": "e2fsprogs",
	"resize2fs": "e2fsprogs", "mkfs.xfs": "xfsprogs", "xfs_growfs": "xfsprogs", "xfs_logprint": "xfsprogs",
	"mkfs.btrfs": "btrfs-progs", "btrfs": "btrfs-progs", "cryptsetup": "cryptsetup-bin", "dmsetup": "dmsetup",
}

// program is one to be run. It is never killed, not even when the caller's ctx is done: a half-made filesystem is worse than a
// late answer.
type program struct {
	name string
	args []string
	// input is for the program to read: what nobody else may see goes there, never into an argument.
	input []byte
	// diesWithDriver is for programs that format a marked disk. A container ends with the driver, and all in it. Elsewhere such
	// a program would live on, and get into the way of the driver that comes next and begins anew. All others may do more harm
	// when they are killed.
	diesWithDriver bool
}

// command runs a program to its end and returns its output and exit status. The error is nil whenever the program could be run.
func command(ctx context.Context, name string, args ...string) (output string, status int, err error) {
	return program{name: name, args: args}.run(ctx)
}

func (p program) run(ctx context.Context) (output string, status int, err error) {
	cmd := exec.Command(p.name, p.args...)
	if p.input != nil {
		cmd.Stdin = bytes.NewReader(p.input)
	}
	// The device mapper's library waits for udev with a semaphore that the udev outside of a container does not see: without
	// this, cryptsetup hangs in some containers. It makes and removes the device nodes itself then.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DM_DISABLE_UDEV=1")
	// A group of its own keeps a Ctrl-C that is meant for the driver away from the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.diesWithDriver {
		// The kernel sends the signal when the thread ends that began the program (go.dev/issue/27505): it stays until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	start := time.Now()
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	if err = cmd.Start(); err == nil {
		end := activityOf(ctx).begin(&step{what: func() string { return p.name }, process: cmd.Process.Pid})
		err = cmd.Wait()
		end()
	}
	output = strings.TrimSpace(both.String())
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		status = exit.ExitCode()
	case errors.Is(err, exec.ErrNotFound) && packages[p.name] != "":
		return "", -1, fail(ErrRefused, "the program %s is not on this node: install the package %s where the driver runs",
			p.name, packages[p.name])
	case err != nil:
		return output, -1, fmt.Errorf("running %s %s: %w", p.name, strings.Join(p.args, " "), err)
	}
	klog.FromContext(ctx).V(4).Info("Ran", "command", p.name, "args", p.args, "status", status,
		"duration", time.Since(start).Round(time.Millisecond))
	return output, status, nil
}

// commandError is the error for a program that ended with a status that means failure.
func commandError(name string, args []string, status int, output string) error {
	if len(output) > outputLimit {
		output = "…" + output[len(output)-outputLimit:]
	}
	return fmt.Errorf("%s %s: exit status %d: %s", name, strings.Join(args, " "), status, output)
}
