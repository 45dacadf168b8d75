package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/steps"
)

func (s suite) optionSteps() []steps.Step {
	const pod = "app-large-files"
	return []steps.Step{
		{Name: "mkfs-and-mount-options.yaml: the file system is mounted with the class's options",
			Do: s.apply("mkfs-and-mount-options.yaml"), Check: s.mountedWith(pod, "ext4", "noatime", "commit=30")},
		{Name: "it was made with the class's options", Check: func(ctx context.Context) (string, error) {
			inodes, err := s.exec(ctx, pod, "df -i /data | tail -n 1 | awk '{print $2}'")
			if err != nil {
				return "", err
			}
			return inodes + " inodes", equal("the number of inodes", inodes, fmt.Sprint(1<<30/65536))
		}},
	}
}

// mountedWith checks what the kernel says of a Pod's mount at /data, after the Pod has written to it and read it back.
func (s suite) mountedWith(pod, filesystem string, options ...string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		line, err := s.writeTo(pod)(ctx)
		if err != nil {
			return "", err
		}
		fields := strings.Fields(line) // proc_pid_mounts(5): device, mount point, type, options
		if len(fields) < 4 {
			return "", fmt.Errorf("the mount is %q", line)
		}
		if err := equal("the type of file system", fields[2], filesystem); err != nil {
			return "", err
		}
		for _, option := range options {
			if !slices.Contains(strings.Split(fields[3], ","), option) {
				return "", fmt.Errorf("mounted with %s, without %s", fields[3], option)
			}
		}
		_, err = s.holds(pod, 800)(ctx)
		return line, err
	}
}

func (s suite) groupSteps() []steps.Step {
	return []steps.Step{
		{Name: "fs-group.yaml: a Pod that is not root writes, and its files belong to its group",
			Do: s.apply("fs-group.yaml"), Check: s.ownedBy("2000", "echo mine > /data/file")},
		{Name: "with another group in the Pod, the files that there are belong to that",
			Do: s.restart("app-of-group", func(pod *corev1.Pod) {
				group := int64(3000)
				pod.Spec.SecurityContext.FSGroup = &group
			}), Check: s.ownedBy("3000", "echo again >> /data/file")},
	}
}

// ownedBy writes to the volume, and checks the owner of the file and of the volume's root.
func (s suite) ownedBy(group, write string) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		if _, err := s.ready(ctx, "app-of-group"); err != nil {
			return "", err
		}
		if _, err := s.exec(ctx, "app-of-group", write); err != nil {
			return "", err
		}
		owners, err := s.exec(ctx, "app-of-group", "id -u; stat -c '%u:%g' /data/file; stat -c '%g' /data")
		if err != nil {
			return "", err
		}
		return strings.ReplaceAll(owners, "\n", " "), equal("user, owner of the file, group of the root", owners, "1000\n1000:"+group+"\n"+group)
	}
}

func (s suite) folderSteps() []steps.Step {
	const pod = "app-in-folders"
	return []steps.Step{{Name: "sub-path.yaml: containers see their own folders of one volume, one of them read-only",
		Do: s.apply("sub-path.yaml"), Check: func(ctx context.Context) (string, error) {
			if _, err := s.ready(ctx, pod); err != nil {
				return "", err
			}
			for container, line := range map[string]string{"first": "echo one > /data/file; sync", "whole": "echo two > /data/second/file; sync"} {
				if _, err := s.Exec(ctx, s.namespace, pod, container, line); err != nil {
					return "", err
				}
			}
			seen, err := s.Exec(ctx, s.namespace, pod, "whole", "cat /data/first/file /data/second/file")
			if err != nil {
				return "", err
			}
			if err := equal("both folders' files", seen, "one\ntwo"); err != nil {
				return "", err
			}
			if seen, err = s.Exec(ctx, s.namespace, pod, "second", "ls /data; cat /data/file"); err != nil {
				return "", err
			}
			if err := equal("what the second container sees", seen, "file\ntwo"); err != nil {
				return "", err
			}
			return s.refusesWrites(ctx, pod, "second")
		}}}
}

// refusesWrites checks that a container can read its volume and not write to it, and that the kernel says why.
func (s suite) refusesWrites(ctx context.Context, pod, container string) (string, error) {
	answer, err := s.Exec(ctx, s.namespace, pod, container,
		"cat /data/file > /dev/null && if echo no > /data/other; then echo written; else grep ' /data ' /proc/mounts; fi")
	if err != nil {
		return "", err
	}
	fields := strings.Fields(answer)
	if len(fields) < 4 || !slices.Contains(strings.Split(fields[3], ","), "ro") {
		return "", fmt.Errorf("writing to a read-only volume of Pod %s: %q", pod, answer)
	}
	return answer, nil
}

func (s suite) readerSteps() []steps.Step {
	return []steps.Step{{Name: "read-only.yaml: one Pod reads what another one on its node writes, and cannot write",
		Do: s.apply("read-only.yaml"), Check: func(ctx context.Context) (string, error) {
			writer, err := s.ready(ctx, "writer")
			if err != nil {
				return "", err
			}
			reader, err := s.ready(ctx, "reader")
			if err != nil {
				return "", err
			}
			if err := equal("the reader's node", reader.Spec.NodeName, writer.Spec.NodeName); err != nil {
				return "", err
			}
			if _, err := s.exec(ctx, "writer", "echo 'from the writer' > /data/file"); err != nil {
				return "", err
			}
			seen, err := s.exec(ctx, "reader", "cat /data/file")
			if err != nil {
				return "", err
			}
			if err := equal("what the reader reads", seen, "from the writer"); err != nil {
				return "", err
			}
			seen, err = s.refusesWrites(ctx, "reader", "")
			if err != nil {
				return "", err
			}
			return seen, s.mountedReadOnly(reader)
		}}}
}

// mountedReadOnly checks the node's own mount of a Pod's volume: the kubelet keeps the container from writing even where the
// driver does not.
func (s suite) mountedReadOnly(pod *corev1.Pod) error {
	mounts, err := s.volumeMounts()
	if err != nil {
		return err
	}
	for _, m := range mounts {
		if !strings.Contains(m.point, string(pod.UID)) {
			continue
		}
		if !slices.Contains(strings.Split(m.options, ","), "ro") {
			return fmt.Errorf("%s is mounted for Pod %s with %s", m.device, pod.Name, m.options)
		}
		return nil
	}
	return fmt.Errorf("node %s has no mount for Pod %s", pod.Spec.NodeName, pod.Name)
}
