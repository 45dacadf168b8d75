package e2e

import (
	"context"
	"fmt"
)

// content is what the first Pod of a volume writes and every later one must find.
const content = "written before the snapshot"

// writeTo writes the content, and random data with its checksum, to the Pod's volume.
func (s suite) writeTo(pod string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if _, err := s.ready(ctx, pod); err != nil {
			return "", err
		}
		return s.exec(ctx, pod, fmt.Sprintf("cd /data && echo '%s' > content && dd if=/dev/urandom of=payload bs=1M count=4 2> /dev/null && "+
			"sha256sum payload > payload.sha256 && sync && grep ' /data ' /proc/mounts", content))
	}
}

// holds checks that the Pod is ready, that its volume holds what writeTo wrote, and that its file system has at least so many
// MiB.
func (s suite) holds(pod string, mebibytes int) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if _, err := s.ready(ctx, pod); err != nil {
			return "", err
		}
		held, err := s.exec(ctx, pod, "cd /data && sha256sum -c payload.sha256 > /dev/null && cat content")
		if err != nil {
			return "", err
		}
		if held != content {
			return "", fmt.Errorf("the volume of Pod %s holds %q, want %q", pod, held, content)
		}
		return s.size(ctx, pod, mebibytes)
	}
}

func (s suite) size(ctx context.Context, pod string, mebibytes int) (string, error) {
	output, err := s.exec(ctx, pod, "df -m /data | tail -n 1 | awk '{print $2}'")
	if err != nil {
		return "", err
	}
	var size int
	if _, err := fmt.Sscan(output, &size); err != nil {
		return "", fmt.Errorf("the size of Pod %s's file system: %q", pod, output)
	}
	if size < mebibytes {
		return "", fmt.Errorf("the file system of Pod %s has %d MiB, want %d at least", pod, size, mebibytes)
	}
	return fmt.Sprintf("file system of %d MiB", size), nil
}
