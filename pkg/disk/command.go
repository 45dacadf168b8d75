package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// command runs a program to its end and returns its output and exit status. It is never killed, not even when ctx is
// done: a half-made filesystem is worse than a late answer. The error is nil whenever the program could be run.
func command(ctx context.Context, name string, args ...string) (output string, status int, err error) {
	return commandWithInput(ctx, nil, name, args...)
}

// commandWithInput is command with something to read for the program: what nobody else may see goes there, never into
// an argument.
func commandWithInput(ctx context.Context, input []byte, name string, args ...string) (output string, status int, err error) {
	cmd := exec.Command(name, args...)
	if input != nil {
		cmd.Stdin = bytes.NewReader(input)
	}
	// The device mapper's library waits for udev with a semaphore that the udev outside of a container does not see: without
	// this, cryptsetup hangs in some containers. It makes and removes the device nodes itself then.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DM_DISABLE_UDEV=1")
	// A group of its own keeps a Ctrl-C that is meant for the driver away from the program.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := time.Now()
	data, err := cmd.CombinedOutput()
	output = strings.TrimSpace(string(data))
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		status = exit.ExitCode()
	case errors.Is(err, exec.ErrNotFound) && packages[name] != "":
		return "", -1, fail(ErrRefused, "the program %s is not on this node: install the package %s where the driver runs",
			name, packages[name])
	case err != nil:
		return output, -1, fmt.Errorf("running %s %s: %w", name, strings.Join(args, " "), err)
	}
	klog.FromContext(ctx).V(4).Info("Ran", "command", name, "args", args, "status", status,
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
