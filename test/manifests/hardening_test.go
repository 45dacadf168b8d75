package manifests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const deploy = "../../deploy/kubernetes"

// exceptions say which containers need more than the others, and why. The keys are "object/container: fault".
var exceptions = map[string]string{
	"upcloud-ccm: uses the node's network":                                  "nodes are made usable before there is a Pod network",
	"upcloud-csi-node: uses the node's network":                             "the metadata service answers the server itself",
	"upcloud-csi-node: uses the node's process IDs":                         "errors name who uses a volume",
	"upcloud-csi-node: mounts the node's /dev":                              "volumes are block devices",
	"upcloud-csi-node: mounts the node's /var/lib/kubelet":                  "volumes are mounted there for Pods",
	"upcloud-csi-node: mounts the node's /var/lib/kubelet/plugins/PLUGIN":   "the kubelet reaches the driver's socket there",
	"upcloud-csi-node: mounts the node's /var/lib/kubelet/plugins_registry": "the kubelet finds drivers there",
	"upcloud-csi-node/csi-driver: is privileged":                            "mounts are made for other containers",
	"upcloud-csi-node/csi-driver: may run as root":                          "the same",
	"upcloud-csi-node/csi-driver: has no seccomp profile":                   "the runtime's profile forbids mounting",
	"upcloud-csi-node/csi-driver: may gain privileges":                      "a privileged container can",
	"upcloud-csi-node/csi-driver: has capabilities":                         "a privileged container has all",
	"upcloud-csi-node/csi-node-driver-registrar: may run as root":           "the kubelet's folders are root's",
}

// Every container runs without root, without capabilities, with a root filesystem that is read-only, and under the runtime's seccomp
// profile; and no Pod has anything of its node.
func TestContainersRunWithLeastRights(t *testing.T) {
	checked := 0
	used := map[string]bool{}
	for name, pod := range pods(t) {
		for _, fault := range podFaults(pod) {
			key := fmt.Sprintf("%s: %s", name, fault)
			used[key] = true
			if exceptions[key] == "" {
				t.Errorf("%s", key)
			}
		}
		for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
			checked++
			for _, fault := range containerFaults(pod, container) {
				key := fmt.Sprintf("%s/%s: %s", name, container.Name, fault)
				used[key] = true
				if exceptions[key] == "" {
					t.Errorf("%s", key)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d containers were found under %s", checked, deploy)
	}
	for key := range exceptions {
		if !used[key] {
			t.Errorf("exception %q is not needed any more: remove it", key)
		}
	}
}

// The check finds each fault.
func TestAContainerWithAFaultIsFound(t *testing.T) {
	good := func() v1.PodSpec {
		yes, no := true, false
		return v1.PodSpec{
			SecurityContext: &v1.PodSecurityContext{RunAsNonRoot: &yes, SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault}},
			Containers: []v1.Container{{SecurityContext: &v1.SecurityContext{AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}}}}},
		}
	}
	if faults := all(good()); len(faults) > 0 {
		t.Fatalf("a good Pod: %q", faults)
	}
	root := int64(0)
	for want, spoil := range map[string]func(*v1.PodSpec){
		"may run as root":                  func(p *v1.PodSpec) { p.SecurityContext.RunAsNonRoot = nil },
		"runs as root":                     func(p *v1.PodSpec) { p.Containers[0].SecurityContext.RunAsUser = &root },
		"has no seccomp profile":           func(p *v1.PodSpec) { p.SecurityContext.SeccompProfile = nil },
		"may gain privileges":              func(p *v1.PodSpec) { p.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil },
		"may write to its root filesystem": func(p *v1.PodSpec) { p.Containers[0].SecurityContext.ReadOnlyRootFilesystem = nil },
		"has capabilities":                 func(p *v1.PodSpec) { p.Containers[0].SecurityContext.Capabilities = nil },
		"is privileged":                    func(p *v1.PodSpec) { yes := true; p.Containers[0].SecurityContext.Privileged = &yes },
		"uses the node's network":          func(p *v1.PodSpec) { p.HostNetwork = true },
		"uses the node's process IDs":      func(p *v1.PodSpec) { p.HostPID = true },
		"uses the node's IPC":              func(p *v1.PodSpec) { p.HostIPC = true },
		"mounts the node's /etc": func(p *v1.PodSpec) {
			p.Volumes = []v1.Volume{{VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/etc"}}}}
		},
		"serves all addresses of the node": func(p *v1.PodSpec) { p.HostNetwork = true; p.Containers[0].Args = []string{"--readiness-port=1"} },
		"serves all addresses of the node too": func(p *v1.PodSpec) {
			p.HostNetwork = true
			p.Containers[0].Args = []string{"--bind-address=0.0.0.0", "--readiness-port=1"}
		},
	} {
		pod := good()
		spoil(&pod)
		if faults := all(pod); !slices.Contains(faults, strings.TrimSuffix(want, " too")) {
			t.Errorf("a Pod that %s: %q", want, faults)
		}
	}
}

func all(pod v1.PodSpec) []string {
	return append(podFaults(pod), containerFaults(pod, pod.Containers[0])...)
}

func podFaults(pod v1.PodSpec) (faults []string) {
	for what, used := range map[string]bool{"network": pod.HostNetwork, "process IDs": pod.HostPID, "IPC": pod.HostIPC} {
		if used {
			faults = append(faults, "uses the node's "+what)
		}
	}
	for _, volume := range pod.Volumes {
		if volume.HostPath != nil {
			faults = append(faults, "mounts the node's "+strings.ReplaceAll(strings.TrimSuffix(volume.HostPath.Path, "/"), "storage.csi.upcloud.com", "PLUGIN"))
		}
	}
	return faults
}

// containerFaults leaves out what the Pod's own security context gives.
func containerFaults(pod v1.PodSpec, container v1.Container) (faults []string) {
	outer, inner := pod.SecurityContext, container.SecurityContext
	if outer == nil {
		outer = &v1.PodSecurityContext{}
	}
	if inner == nil {
		inner = &v1.SecurityContext{}
	}
	isTrue := func(b *bool) bool { return b != nil && *b }
	check := func(fault string, is bool) {
		if is {
			faults = append(faults, fault)
		}
	}
	nonRoot, user, profile := inner.RunAsNonRoot, inner.RunAsUser, inner.SeccompProfile
	if nonRoot == nil {
		nonRoot = outer.RunAsNonRoot
	}
	if user == nil {
		user = outer.RunAsUser
	}
	if profile == nil {
		profile = outer.SeccompProfile
	}
	check("may run as root", !isTrue(nonRoot))
	check("runs as root", user != nil && *user == 0)
	check("has no seccomp profile", profile == nil || profile.Type != v1.SeccompProfileTypeRuntimeDefault)
	check("may gain privileges", inner.AllowPrivilegeEscalation == nil || *inner.AllowPrivilegeEscalation)
	check("may write to its root filesystem", !isTrue(inner.ReadOnlyRootFilesystem))
	check("has capabilities", inner.Capabilities == nil || len(inner.Capabilities.Add) > 0 || !slices.Contains(inner.Capabilities.Drop, "ALL"))
	check("is privileged", isTrue(inner.Privileged))
	check("serves all addresses of the node", pod.HostNetwork && slices.ContainsFunc(container.Args, func(arg string) bool {
		return strings.HasPrefix(arg, "--readiness-port=")
	}) && !slices.Contains(container.Args, "--bind-address=127.0.0.1"))
	return faults
}

// pods are the Pods of every manifest, by the name of the object that makes them. Patches of kustomizations are not among them.
func pods(t *testing.T) map[string]v1.PodSpec {
	t.Helper()
	found := map[string]v1.PodSpec{}
	err := filepath.WalkDir(deploy, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
		for {
			var object struct {
				Kind     string
				Metadata struct{ Name string }
				Spec     struct {
					Template    v1.PodTemplateSpec
					JobTemplate batchv1.JobTemplateSpec
				}
			}
			err := decoder.Decode(&object)
			if errors.Is(err, io.EOF) {
				return nil
			}
			switch object.Kind {
			case "Deployment", "DaemonSet", "StatefulSet", "Job":
				found[object.Metadata.Name] = object.Spec.Template.Spec
			case "CronJob":
				found[object.Metadata.Name] = object.Spec.JobTemplate.Spec.Template.Spec
			default: // its spec has another form
				continue
			}
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
