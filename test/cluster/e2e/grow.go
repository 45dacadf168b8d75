package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"golang.org/x/sys/unix"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

func (s suite) xfsSteps() []steps.Step { return s.filesystemSteps("xfs", "XFS") }

func (s suite) btrfsSteps() []steps.Step { return s.filesystemSteps("btrfs", "btrfs") }

// filesystemSteps use the example of a kind of file system that grows while it is in use.
func (s suite) filesystemSteps(kind, name string) []steps.Step {
	claim, pod := "data-"+kind, "app-"+kind
	return []steps.Step{
		{Name: "volume-" + kind + ".yaml: a Pod runs with its volume", Do: s.apply("volume-" + kind + ".yaml"),
			Check: s.mountedWith(pod, kind)},
		{Name: "a volume with " + name + " grows to 3 GiB while a Pod uses it", Do: s.grow(claim), Check: s.grown(claim, pod)},
	}
}

// growSteps grow the ext4 volume of a claim and a Pod: while the Pod runs, where the kernel lets it.
func (s suite) growSteps(claim, pod string) []steps.Step {
	if hasCapability(unix.CAP_SYS_RESOURCE) {
		return []steps.Step{{Name: "an ext4 volume grows to 3 GiB while a Pod uses it", Do: s.grow(claim), Check: s.grown(claim, pod)}}
	}
	s.Report("skipped an ext4 volume grows while a Pod uses it: the kernel asks for CAP_SYS_RESOURCE, which root does not have on this machine; " +
		"growing on the next start of the Pod is shown in its place")
	return []steps.Step{
		{Name: "the storage of an ext4 volume grows to 3 GiB", Do: s.grow(claim), Check: s.storageGrown(claim)},
		{Name: "its file system has grown when its Pod is started anew", Do: s.restart(pod, unchanged),
			Check: s.grown(claim, pod)},
	}
}

func (s suite) grow(claim string) func(context.Context) error {
	return func(ctx context.Context) error {
		return s.patchClaim(ctx, claim, `{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}`)
	}
}

// hasCapability tells whether this process has a capability (capabilities(7)) that the Pods' processes inherit.
func hasCapability(capability int) bool {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return false
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if mask, found := strings.CutPrefix(lines.Text(), "CapBnd:"); found {
			bits, err := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			return err == nil && bits&(1<<capability) != 0
		}
	}
	return false
}

func (s suite) storageGrown(claim string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		handle, err := s.handle(ctx, claim)
		if err != nil {
			return "", err
		}
		storage, err := s.Account.GetStorageDetails(ctx, &request.GetStorageDetailsRequest{UUID: handle})
		if err != nil {
			return "", err
		}
		if storage.Size != 3 {
			return "", fmt.Errorf("storage %s has %d GiB", handle, storage.Size)
		}
		if len(storage.BackupUUIDs) > 1 { // one is the snapshot's
			return "", fmt.Errorf("storage %s has %d backups: growing left one", handle, len(storage.BackupUUIDs))
		}
		return "", nil
	}
}

func (s suite) grown(claim, pod string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if _, err := s.storageGrown(claim)(ctx); err != nil {
			return "", err
		}
		return s.holds(pod, 2800)(ctx)
	}
}
