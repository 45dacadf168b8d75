package kubenode_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode/kubenodetest"
)

const (
	driverName = "storage.csi.upcloud.com"
	key        = driverName + "/agent-not-ready"
)

var (
	own   = corev1.Taint{Key: key, Effect: corev1.TaintEffectNoExecute}
	other = corev1.Taint{Key: "dedicated", Value: "database", Effect: corev1.TaintEffectNoSchedule,
		TimeAdded: &metav1.Time{Time: metav1.Now().Rfc3339Copy().Time}}
)

func taints(t *testing.T, s *kubenodetest.Server) []corev1.Taint {
	t.Helper()
	node, err := s.Objects.CoreV1().Nodes().Get(t.Context(), "worker", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node.Spec.Taints
}

func TestRemoveTaintLeavesTheOthersAsTheyAre(t *testing.T) {
	ownToo := own
	ownToo.Effect, ownToo.Value = corev1.TaintEffectNoSchedule, "true"
	for name, given := range map[string][]corev1.Taint{
		"alone":             {own},
		"among others":      {other, own},
		"with two effects":  {own, other, ownToo},
		"none of that key":  {other},
		"no taint whatever": nil,
	} {
		t.Run(name, func(t *testing.T) {
			server := kubenodetest.Start(t)
			server.CreateNode(t, "worker", given)
			client := server.Client(t, "worker")
			node, err := client.Node(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := client.RemoveTaint(t.Context(), node, key); err != nil {
				t.Fatal(err)
			}
			var want []corev1.Taint
			if slices.ContainsFunc(given, func(taint corev1.Taint) bool { return taint.Key == other.Key }) {
				want = []corev1.Taint{other}
			}
			if diff := cmp.Diff(want, taints(t, server)); diff != "" {
				t.Error(diff)
			}
			if !node.Tainted(key) && server.Requests(http.MethodPatch) != 0 {
				t.Error("a Node without the taint was changed")
			}
		})
	}
}

// What somebody did to the taints since they were read is not undone.
func TestRemoveTaintAfterAChangeIsAConflict(t *testing.T) {
	server := kubenodetest.Start(t)
	server.CreateNode(t, "worker", []corev1.Taint{own})
	client := server.Client(t, "worker")
	before, err := client.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	node, err := server.Objects.CoreV1().Nodes().Get(t.Context(), "worker", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Spec.Taints = append(node.Spec.Taints, other)
	if _, err := server.Objects.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.RemoveTaint(t.Context(), before, key); !errors.Is(err, kubenode.ErrConflict) {
		t.Errorf("got %v, want a conflict", err)
	}
	if got := taints(t, server); len(got) != 2 {
		t.Errorf("the taints are %v", got)
	}
}

func TestRegisteredNeedsTheKubeletsWord(t *testing.T) {
	server := kubenodetest.Start(t)
	object := server.CreateNode(t, "worker", nil)
	client := server.Client(t, "worker")
	node, err := client.Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	registered := func() error { return client.Registered(t.Context(), node, driverName, "server-1") }
	if err := registered(); err == nil || !strings.Contains(err.Error(), "no CSINode") {
		t.Errorf("without a CSINode: %v", err)
	}
	count := int32(14)
	earlier := object.DeepCopy()
	earlier.UID = "earlier"
	for _, c := range []struct {
		name, driver, nodeID string
		of                   *corev1.Node
		count                *int32
		says                 string
	}{
		{"another driver alone", "other.example", "server-1", object, &count, "does not have the driver"},
		{"no count yet", driverName, "server-1", object, nil, "how many volumes"},
		{"another server's", driverName, "server-2", object, &count, "server-2"},
		{"an earlier Node's", driverName, "server-1", earlier, &count, "earlier Node"},
		{"this one", driverName, "server-1", object, &count, ""},
	} {
		server.Register(t, c.of, c.driver, c.nodeID, c.count)
		err := registered()
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestVolumesAreTheDriversOwn(t *testing.T) {
	server := kubenodetest.Start(t)
	server.CreateNode(t, "worker", nil, "kubernetes.io/csi/"+driverName+"^01aa", "kubernetes.io/csi/other.example^01bb",
		"kubernetes.io/csi/"+driverName+"^01cc")
	node, err := server.Client(t, "worker").Node(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"01aa", "01cc"}, node.Volumes(driverName)); diff != "" {
		t.Error(diff)
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	server := kubenodetest.Start(t)
	client := server.Client(t, "worker")
	_, err := client.Node(t.Context())
	if !errors.Is(err, kubenode.ErrNotFound) || !strings.Contains(err.Error(), "worker") {
		t.Errorf("an unknown Node: %v", err)
	}
	server.Refuse(http.StatusForbidden)
	if _, err := client.Node(t.Context()); err == nil || !strings.Contains(err.Error(), "ClusterRole") {
		t.Errorf("forbidden: %v", err)
	}
	for _, name := range []string{"", "../nodes/other", "a?b"} {
		if _, err := kubenode.New(server.Config(), name); err == nil {
			t.Errorf("%q is taken for the name of a Node", name)
		}
	}
}
