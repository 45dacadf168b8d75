package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/local"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

func (s suite) encryptedSteps() []steps.Step {
	step := steps.Step{Name: "volume-encrypted.yaml: what the Pod writes is encrypted on the disk",
		Do: s.apply("volume-encrypted.yaml"), Check: s.encrypted}
	if !hasDeviceMapper() {
		s.Report("skipped an encrypted volume is mounted: this kernel has no device mapper; that the Pod is told so is shown in its place")
		step.Name = "volume-encrypted.yaml: a Pod is told that its node's kernel cannot open the disk, which holds nothing plain"
		step.Check = s.toldWhyEncrypted
	}
	return []steps.Step{step}
}

// hasDeviceMapper tells whether the kernel has it, or can load it.
func hasDeviceMapper() bool {
	known, err := os.ReadFile("/proc/misc")
	if err == nil && strings.Contains(string(known), "device-mapper") {
		return true
	}
	_, err = os.Stat("/lib/modules")
	return err == nil
}

func (s suite) encrypted(ctx context.Context) (string, error) {
	mount, err := s.mountedWith("app-encrypted", "ext4")(ctx)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(mount, "/dev/mapper/") && !strings.HasPrefix(mount, "/dev/dm-") {
		return "", fmt.Errorf("the Pod's file system is on no mapping: %s", mount)
	}
	return mount, s.isLUKS(ctx)
}

func (s suite) toldWhyEncrypted(ctx context.Context) (string, error) {
	events, err := s.Client.CoreV1().Events(s.namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.Set{"involvedObject.name": "app-encrypted", "reason": "FailedMount"}.String()})
	if err != nil {
		return "", err
	}
	for _, event := range events.Items {
		if strings.Contains(event.Message, "dm_crypt") {
			return event.Message, s.isLUKS(ctx)
		}
	}
	return "", errors.New("Pod app-encrypted is not told what its node lacks")
}

// isLUKS reads the beginning of the volume's disk, as somebody at UpCloud could.
func (s suite) isLUKS(ctx context.Context) error {
	storage, err := s.handle(ctx, "encrypted")
	if err != nil {
		return err
	}
	devices, err := local.LoopDevices()
	if err != nil {
		return err
	}
	for device, file := range devices {
		if !strings.Contains(file, storage) {
			continue
		}
		disk, err := os.Open(device)
		if err != nil {
			return err
		}
		defer disk.Close()
		head := make([]byte, 6)
		if _, err := io.ReadFull(disk, head); err != nil {
			return err
		}
		return equal("the beginning of the disk", string(head), "LUKS\xba\xbe")
	}
	return fmt.Errorf("storage %s is at no server", storage)
}
