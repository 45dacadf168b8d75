package e2e

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

// block is a raw block volume, and what its Pod wrote to it.
type block struct {
	suite
	checksum string
	node     string
}

// The random data lies in the middle of the disk, where nothing else would be.
const (
	writeRaw = "dd if=/dev/urandom of=/tmp/random bs=1M count=8 2> /dev/null && " +
		"dd if=/tmp/random of=/dev/disk bs=1M seek=500 conv=fsync 2> /dev/null && sha256sum < /tmp/random"
	readRaw = "dd if=/dev/disk bs=1M skip=500 count=8 2> /dev/null | sha256sum"
)

func (s suite) blockSteps() []steps.Step {
	b := &block{suite: s}
	return []steps.Step{
		{Name: "volume-block.yaml: a Pod gets the raw device and writes to it", Do: s.apply("volume-block.yaml"), Check: b.written},
		{Name: "the raw device grows to 3 GiB while the Pod uses it", Do: s.grow("raw"), Check: b.grown},
		{Name: "a Pod on the other node reads from its raw device what was written", Do: b.move, Check: b.moved},
		{Name: "a Pod that has the claim read-only reads from the raw device, and cannot write to it",
			Do: b.restart("app-raw", func(pod *corev1.Pod) { pod.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true }), Check: b.readOnly},
	}
}

func (b *block) written(ctx context.Context) (string, error) {
	pod, err := b.ready(ctx, "app-raw")
	if err != nil {
		return "", err
	}
	b.node = pod.Spec.NodeName
	if err := b.size(ctx, 1<<30); err != nil {
		return "", err
	}
	if _, err := b.exec(ctx, "app-raw", "test -b /dev/disk"); err != nil {
		return "", fmt.Errorf("/dev/disk is not a block device: %w", err)
	}
	b.checksum, err = b.exec(ctx, "app-raw", writeRaw)
	return fmt.Sprintf("on %s, a block device of 1 GiB", b.node), err
}

func (b *block) size(ctx context.Context, bytes int) error {
	size, err := b.exec(ctx, "app-raw", "blockdev --getsize64 /dev/disk")
	if err != nil {
		return err
	}
	return equal("the size of the raw device", size, fmt.Sprint(bytes))
}

func (b *block) grown(ctx context.Context) (string, error) {
	if err := b.size(ctx, 3<<30); err != nil {
		return "", err
	}
	return "", b.unharmed(ctx)
}

func (b *block) unharmed(ctx context.Context) error {
	checksum, err := b.exec(ctx, "app-raw", readRaw)
	if err != nil {
		return err
	}
	return equal("the checksum of what the raw device holds", checksum, b.checksum)
}

func (b *block) move(ctx context.Context) error { return b.restart("app-raw", notOn(b.node))(ctx) }

func (b *block) moved(ctx context.Context) (string, error) {
	pod, err := b.ready(ctx, "app-raw")
	if err != nil {
		return "", err
	}
	if err := b.size(ctx, 3<<30); err != nil {
		return "", err
	}
	return "on " + pod.Spec.NodeName, b.unharmed(ctx)
}

func (b *block) readOnly(ctx context.Context) (string, error) {
	if _, err := b.ready(ctx, "app-raw"); err != nil {
		return "", err
	}
	flag, err := b.exec(ctx, "app-raw", "blockdev --getro /dev/disk")
	if err != nil {
		return "", err
	}
	if err := equal("the kernel's read-only flag of the device", flag, "1"); err != nil {
		return "", err
	}
	written, err := b.exec(ctx, "app-raw", "if dd if=/dev/zero of=/dev/disk bs=1M seek=500 count=1 conv=fsync 2> /dev/null; then echo written; fi")
	if err != nil {
		return "", err
	}
	if err := equal("what became of writing", written, ""); err != nil {
		return "", err
	}
	return "", b.unharmed(ctx)
}
