package main

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// podOf reads the Pod of the Deployment or DaemonSet in a manifest.
func podOf(t *testing.T, file string) corev1.PodSpec {
	t.Helper()
	text, err := os.ReadFile("../../deploy/kubernetes/base/csi-driver/" + file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		var object struct {
			Kind string
			Spec struct{ Template corev1.PodTemplateSpec }
		}
		if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
			t.Fatalf("%s has no Pod", file)
		} else if object.Kind == "Deployment" || object.Kind == "DaemonSet" {
			if err != nil {
				t.Fatal(err)
			}
			return object.Spec.Template.Spec
		}
	}
}

// confined tells what a container may do that one without rights may not.
func confined(pod corev1.PodSpec, container corev1.Container) (faults []string) {
	own, all := container.SecurityContext, pod.SecurityContext
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	if all == nil {
		all = &corev1.PodSecurityContext{}
	}
	profile := own.SeccompProfile
	if profile == nil {
		profile = all.SeccompProfile
	}
	isTrue := func(value *bool) bool { return value != nil && *value }
	for fault, is := range map[string]bool{
		"privileged":           isTrue(own.Privileged),
		"gains privileges":     own.AllowPrivilegeEscalation == nil || *own.AllowPrivilegeEscalation,
		"writable root":        !isTrue(own.ReadOnlyRootFilesystem),
		"capabilities":         own.Capabilities == nil || len(own.Capabilities.Add) > 0 || !slices.Contains(own.Capabilities.Drop, "ALL"),
		"root":                 !isTrue(own.RunAsNonRoot) && !isTrue(all.RunAsNonRoot),
		"no seccomp profile":   profile == nil || profile.Type != corev1.SeccompProfileTypeRuntimeDefault,
		"mounts for the host":  slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPropagation != nil }),
		"devices of its own":   len(container.VolumeDevices) > 0,
		"ports of the machine": slices.ContainsFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 }),
	} {
		if is {
			faults = append(faults, fault)
		}
	}
	slices.Sort(faults)
	return faults
}

// nodePrivileges are all privileges of the node plugin. docs/security.md says for each what it is for: who adds one has to
// say it there.
var nodePrivileges = map[string][]string{
	"csi-driver":                {"capabilities", "gains privileges", "mounts for the host", "no seccomp profile", "privileged", "root"},
	"csi-node-driver-registrar": {"root"},
}

var nodeFolders = []string{
	"/dev", "/var/lib/kubelet", "/var/lib/kubelet/plugins/storage.csi.upcloud.com", "/var/lib/kubelet/plugins_registry",
}

func TestPodsHaveNoPrivilegesButThoseArguedFor(t *testing.T) {
	controller, node := podOf(t, "controller.yaml"), podOf(t, "node.yaml")
	for _, container := range controller.Containers {
		if faults := confined(controller, container); len(faults) > 0 {
			t.Errorf("container %s of the controller: %v", container.Name, faults)
		}
	}
	if controller.HostNetwork || controller.HostPID || controller.HostIPC || node.HostIPC {
		t.Error("the controller uses namespaces of the host, or the node plugin more of them")
	}
	for _, container := range node.Containers {
		if faults := confined(node, container); !slices.Equal(faults, nodePrivileges[container.Name]) {
			t.Errorf("container %s of the node plugin: %v, want %v", container.Name, faults, nodePrivileges[container.Name])
		}
	}
	var folders []string
	for _, volume := range slices.Concat(controller.Volumes, node.Volumes) {
		if volume.HostPath != nil {
			folders = append(folders, volume.HostPath.Path)
		}
	}
	slices.Sort(folders)
	if !slices.Equal(folders, nodeFolders) {
		t.Errorf("folders of the host are %v, want %v", folders, nodeFolders)
	}
	for _, volume := range node.Volumes {
		if volume.Secret != nil || volume.Projected != nil {
			t.Errorf("volume %s gives the nodes a secret", volume.Name)
		}
	}
}

// Every privilege is explained in the documentation, by the words of the manifest.
func TestSecurityPageExplainsEveryPrivilegeOfTheNodePlugin(t *testing.T) {
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Node plugin\n")
	if !found {
		t.Fatal("docs/security.md has no section Node plugin")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	words := append([]string{"privileged", "hostPID", "hostNetwork", "Bidirectional", "readOnlyRootFilesystem", "runAsNonRoot", "seccomp"}, nodeFolders...)
	words = append(words, slices.Sorted(maps.Keys(nodePrivileges))...)
	for _, word := range words {
		if !strings.Contains(section, "`"+word) {
			t.Errorf("the section does not explain %s", word)
		}
	}
}
