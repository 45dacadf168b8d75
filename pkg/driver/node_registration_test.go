package driver_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode/kubenodetest"
)

const serverID = "00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

var (
	startup  = corev1.Taint{Key: driver.TaintNotReady, Effect: corev1.TaintEffectNoExecute}
	cordoned = corev1.Taint{Key: "node.kubernetes.io/unschedulable", Effect: corev1.TaintEffectNoSchedule}
)

// kubelet is a Node of Kubernetes with the driver on it.
type kubelet struct {
	*rig
	api *kubenodetest.Server
}

func newKubelet(t *testing.T, taints ...corev1.Taint) *kubelet {
	t.Helper()
	api := kubenodetest.Start(t)
	api.CreateNode(t, "worker", taints)
	return &kubelet{rig: serveNode(t, api), api: api}
}

// serveNode runs the node service without any volumes: what it needs of the machine, any machine has.
func serveNode(t *testing.T, api *kubenodetest.Server) *rig {
	t.Helper()
	machine, err := disk.New(disk.Config{})
	if err != nil {
		t.Fatal(err)
	}
	config := driver.Config{Mode: driver.ModeNode, Disk: machine, NodeID: serverID}
	if api != nil {
		config.Kubernetes = api.Client(t, "worker")
	}
	return serve(t, nil, config)
}

func (k *kubelet) object(t *testing.T) *corev1.Node {
	t.Helper()
	node, err := k.api.Objects.CoreV1().Nodes().Get(t.Context(), "worker", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func (k *kubelet) tainted(t *testing.T, taint corev1.Taint) bool {
	t.Helper()
	return slices.Contains(k.object(t).Spec.Taints, taint)
}

func (k *kubelet) register(t *testing.T) {
	t.Helper()
	count := int32(15)
	k.api.Register(t, k.object(t), driver.Name, serverID, &count)
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true: %s", what)
		}
	}
}

func TestStartupTaintStaysUntilTheKubeletHasRegisteredTheDriver(t *testing.T) {
	k := newKubelet(t, cordoned, startup)
	eventually(t, "the Node is looked at, and again", func() bool { return k.api.Requests(http.MethodGet) > 3 })
	if !k.tainted(t, startup) {
		t.Fatal("the taint went before the kubelet had registered the driver: Pods would have failed to mount")
	}
	if err := k.driver.CheckReady(callContext(t)); err == nil || !strings.Contains(err.Error(), "CSINode") {
		t.Errorf("ready before it was registered: %v", err)
	}
	// Not being ready is nothing that a restart could mend, and the kubelet registers only what answers.
	if err := driver.CheckLive(callContext(t), k.endpoint); err != nil {
		t.Errorf("not alive: %v", err)
	}
	k.register(t)
	eventually(t, "the taint goes", func() bool { return !k.tainted(t, startup) })
	eventually(t, "the node is ready", func() bool { return k.driver.CheckReady(callContext(t)) == nil })
	if !k.tainted(t, cordoned) {
		t.Error("another taint went along")
	}
}

func TestStartupTaintIsTriedAgainAfterRefusals(t *testing.T) {
	k := newKubelet(t, startup)
	k.api.Refuse(http.StatusForbidden)
	k.register(t)
	eventually(t, "the refusal is told with its remedy", func() bool {
		err := k.driver.CheckReady(callContext(t))
		return err != nil && strings.Contains(err.Error(), "ClusterRole")
	})
	k.api.Refuse(0)
	eventually(t, "the taint goes", func() bool { return !k.tainted(t, startup) })
}

// Somebody else changes the taints between the look and the change: neither change is lost.
func TestStartupTaintAndAnotherChangeAtOnce(t *testing.T) {
	k := newKubelet(t, startup)
	var once sync.Once
	k.api.Before(func(r *http.Request) {
		if r.Method != http.MethodPatch {
			return
		}
		once.Do(func() {
			node := k.object(t)
			node.Spec.Taints = append(node.Spec.Taints, cordoned)
			if _, err := k.api.Objects.CoreV1().Nodes().Update(t.Context(), node, metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		})
	})
	k.register(t)
	eventually(t, "the taint goes", func() bool { return !k.tainted(t, startup) })
	if !k.tainted(t, cordoned) {
		t.Error("the other change was undone")
	}
}

// A Node that is deleted and made anew starts with its taint again, while the driver may have run all the time.
func TestStartupTaintOfANodeMadeAnew(t *testing.T) {
	k := newKubelet(t, startup)
	k.register(t)
	eventually(t, "the node is ready", func() bool { return k.driver.CheckReady(callContext(t)) == nil })
	if err := k.api.Objects.CoreV1().Nodes().Delete(t.Context(), "worker", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	k.api.CreateNode(t, "worker", []corev1.Taint{startup})
	if _, err := k.node.NodeGetInfo(callContext(t), &csi.NodeGetInfoRequest{}); err != nil { // as its kubelet does then
		t.Fatal(err)
	}
	eventually(t, "the taint goes", func() bool { return !k.tainted(t, startup) })
}

func TestTheEndDoesNotWaitForTheAPIServer(t *testing.T) {
	api := kubenodetest.Start(t)
	asked := make(chan struct{})
	var once sync.Once
	api.Before(func(r *http.Request) {
		once.Do(func() { close(asked) })
		<-r.Context().Done()
	})
	r := serveNode(t, api)
	<-asked
	ended := make(chan error, 1)
	go func() { ended <- r.stop() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for an API server that does not answer")
	}
	if err := r.driver.CheckReady(callContext(t)); err == nil {
		t.Error("ready after its end")
	}
}

func TestReadyOutsideKubernetes(t *testing.T) {
	r := serveNode(t, nil)
	if err := errors.Join(r.driver.CheckReady(callContext(t)), driver.CheckLive(callContext(t), r.endpoint)); err != nil {
		t.Error(err)
	}
}
