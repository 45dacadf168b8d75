package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// dryRun makes the API server say what it would do, with all its admission, and do nothing.
var dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// needsPlane skips a test that needs the shared API server alone.
func needsPlane(t *testing.T) {
	t.Helper()
	if program == "" {
		t.Skip("there is no kube-apiserver: make integration builds it and runs this")
	}
}

// until waits for a condition, which says what it still lacks.
func until(t *testing.T, what string, lacks func() string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = lacks(); last == "" {
			return
		}
	}
	t.Fatalf("%s: %s", what, last)
}

func annotatedService(name string, annotations ...string) *v1.Service {
	service := &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{}},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{
			{Name: "http", Port: 80}, {Name: "https", Port: 443}, {Name: "ssh", Port: 22}}},
	}
	for i := 0; i < len(annotations); i += 2 {
		service.Annotations[settings.AnnotationPrefix+annotations[i]] = annotations[i+1]
	}
	return service
}

// deploy/kubernetes/admission on a real API server: it takes the policy, which has limits of its own for the cost of expressions;
// a wrong annotation is refused at kubectl apply, with the message that says what is wanted; a right one is admitted.
func TestAnnotationsAreCheckedAtApply(t *testing.T) {
	needsPlane(t)
	t.Parallel()
	services := client.CoreV1().Services("default")
	// A mistake that was there before the policy must not keep controllers from letting the Service go.
	if _, err := services.Create(t.Context(), annotatedService("mistaken", "mode", "udp"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := plane.Apply(t.Context(), "../../deploy/kubernetes/admission"); err != nil {
		t.Fatal(err)
	}
	until(t, "the policy is in force", func() string {
		if _, err := services.Create(t.Context(), annotatedService("wrong", "mode", "udp"), dryRun); err == nil {
			return "a wrong annotation is admitted"
		}
		return ""
	})

	policy, err := client.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(t.Context(), "load-balancers.upcloud.com", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wants := map[string]string{}
	for _, validation := range policy.Spec.Validations {
		if name, told, found := strings.Cut(strings.TrimPrefix(validation.Message, "annotation "+settings.AnnotationPrefix), ": want "); found {
			wants[name] = told
		}
	}
	if len(wants) < 30 {
		t.Errorf("the policy checks %d annotations only", len(wants))
	}
	for _, setting := range settings.Table {
		if _, err := services.Create(t.Context(), annotatedService("right", setting.Name, setting.Example), dryRun); err != nil {
			t.Errorf("%s: %s is refused: %v", setting.Name, setting.Example, err)
		}
		want := wants[setting.Name]
		if want == "" || setting.Name == "node-selector" || setting.Name == "routes" {
			continue // only the controller understands it; the policy checks no more than its length
		}
		_, err := services.Create(t.Context(), annotatedService("wrong", setting.Name, "no such thing: ;"), dryRun)
		if err == nil || !strings.Contains(err.Error(), "annotation "+settings.AnnotationPrefix+setting.Name+": want "+want) {
			t.Errorf("%s: a wrong value is answered with %v, want what is wanted: %s", setting.Name, err, want)
		}
	}
	if _, err := services.Create(t.Context(), annotatedService("wrong", "mod", "tcp"), dryRun); err == nil ||
		!strings.Contains(err.Error(), "there is no such annotation") {
		t.Errorf("an annotation that does not exist: %v", err)
	}
	plain := annotatedService("plain", "mode", "udp")
	plain.Spec.Type = v1.ServiceTypeClusterIP
	if _, err := services.Create(t.Context(), plain, dryRun); err != nil {
		t.Errorf("a Service that is no load balancer's: %v", err)
	}
	const finalizer = `{"metadata":{"finalizers":[]},"status":{"loadBalancer":{}}}`
	if _, err := services.Patch(t.Context(), "mistaken", types.MergePatchType, []byte(finalizer), metav1.PatchOptions{}); err != nil {
		t.Errorf("a Service that was there before cannot be let go: %v", err)
	}
	applied(t, "apply-right", `"http=tcp; https=http"`, "service/apply-right created")
	applied(t, "apply-right", "udp", "annotation "+settings.AnnotationPrefix+"mode: want tcp or http")
	applied(t, "apply-wrong", "udp", "annotation "+settings.AnnotationPrefix+"mode: want tcp or http")
	for _, name := range []string{"mistaken", "apply-right"} {
		if err := services.Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	}
}

// applied looks at what kubectl apply says of a Service.
func applied(t *testing.T, name, mode, want string) {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "service.yaml")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %s, annotations: {%smode: %s}},
spec: {type: LoadBalancer, ports: [{name: http, port: 80}, {name: https, port: 443}]}}`, name, settings.AnnotationPrefix, mode)
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := plane.Kubectl(t.Context(), "apply", "-f", manifest); !strings.Contains(output, want) {
		t.Errorf("kubectl apply of mode %s: %v, %s, want %q", mode, err, output, want)
	} else {
		t.Logf("kubectl apply: %s", strings.TrimSpace(output))
	}
}

// The rights and the admission policy of the CSI driver's node plugin, on a real API server, with the token that a kubelet gives
// its Pod: it takes its own taint off its own Node, and can do nothing else to any Node.
func TestNodePluginChangesItsOwnTaintOnly(t *testing.T) {
	needsPlane(t)
	t.Parallel()
	const startup = "storage.csi.upcloud.com/agent-not-ready"
	if err := plane.Apply(t.Context(), "../../deploy/kubernetes/base/csi-driver/node-rbac.yaml"); err != nil {
		t.Fatal(err)
	}
	nodes := client.CoreV1().Nodes()
	for _, name := range []string{"plugin-own", "plugin-other"} {
		node := (&cluster{name: "plugin"}).newNode(name)
		node.Spec.Taints = append(node.Spec.Taints, v1.Taint{Key: startup, Effect: v1.TaintEffectNoExecute})
		if _, err := nodes.Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup((&cluster{t: t, name: "plugin"}).removeNodes)
	plugin := pluginOn(t, "plugin-own")
	config := plane.As(plugin)
	as, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what, node, patch, told string) string {
		_, err := as.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun.DryRun})
		if err == nil || !strings.Contains(err.Error(), told) {
			return fmt.Sprintf("%s: %v, want %q", what, err, told)
		}
		return ""
	}
	const ownOnly, taintOnly, nothingElse = "may change the Node that it runs on, and no other", "and change no other", "may change nothing of a Node but its taints"
	isStartup := func(taint v1.Taint) bool { return taint.Key == startup }
	there := (&cluster{t: t}).node("plugin-own").Spec.Taints
	left := slices.DeleteFunc(slices.Clone(there), isStartup)
	removal := taintPatch(t, left)
	until(t, "the policy is in force", func() string { return refused("another Node", "plugin-other", removal, ownOnly) })
	for what, patch := range map[string][2]string{
		"another taint taken off":   {taintPatch(t, slices.DeleteFunc(slices.Clone(there), func(t v1.Taint) bool { return !isStartup(t) })), taintOnly},
		"a taint put on":            {taintPatch(t, append(slices.Clone(there), v1.Taint{Key: "x", Effect: v1.TaintEffectNoSchedule})), taintOnly},
		"a label":                   {`{"metadata":{"labels":{"role":"control-plane"}}}`, nothingElse},
		"an annotation":             {`{"metadata":{"annotations":{"a":"b"}}}`, nothingElse},
		"a finalizer":               {`{"metadata":{"finalizers":["example.com/held"]}}`, nothingElse},
		"the provider ID":           {`{"spec":{"providerID":"upcloud:////00000000-0000-4000-8000-000000000000"}}`, nothingElse},
		"cordoning":                 {`{"spec":{"unschedulable":true}}`, nothingElse},
		"the Pod CIDR":              {`{"spec":{"podCIDR":"10.9.0.0/24","podCIDRs":["10.9.0.0/24"]}}`, nothingElse},
		"the taint and a label too": {strings.TrimSuffix(removal, "}") + `,"metadata":{"labels":{"a":"b"}}}`, nothingElse},
	} {
		if lacks := refused(what, "plugin-own", patch[0], patch[1]); lacks != "" {
			t.Error(lacks)
		}
	}
	if _, err := as.CoreV1().Nodes().Patch(t.Context(), "plugin-own", types.MergePatchType, []byte(`{"status":{"phase":"x"}}`),
		metav1.PatchOptions{}, "status"); err == nil {
		t.Error("it may change the status of a Node")
	}
	if err := as.CoreV1().Nodes().Delete(t.Context(), "plugin-own", metav1.DeleteOptions{}); err == nil {
		t.Error("it may delete a Node")
	}

	own, err := kubenode.New(config, "plugin-own")
	if err != nil {
		t.Fatal(err)
	}
	node, err := own.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := own.RemoveTaint(t.Context(), node, startup); err != nil {
		t.Errorf("its own taint on its own Node: %v", err)
	}
	if after := (&cluster{t: t}).node("plugin-own").Spec.Taints; !slices.Equal(after, left) {
		t.Errorf("the taints are %v, want %v", after, left)
	}
}

func taintPatch(t *testing.T, taints []v1.Taint) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"spec": map[string]any{"taints": taints}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pluginOn makes the Pod of a node plugin, and returns the token that it would get.
func pluginOn(t *testing.T, node string) (token string) {
	t.Helper()
	pods := client.CoreV1().Pods("kube-system")
	pod, err := pods.Create(t.Context(), &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "plugin-on-" + node},
		Spec: v1.PodSpec{NodeName: node, ServiceAccountName: "upcloud-csi-node",
			Containers: []v1.Container{{Name: "csi-driver", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_, _ = plane.Kubectl(context.WithoutCancel(t.Context()), "-n", "kube-system", "delete", "pod", pod.Name, "--grace-period=0", "--force")
	})
	token, err = plane.Token(t.Context(), "upcloud-csi-node",
		&authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID})
	if err != nil {
		t.Fatal(err)
	}
	return token
}
