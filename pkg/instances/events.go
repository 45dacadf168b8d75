package instances

import (
	"errors"
	"maps"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Reasons of events on Nodes.
const (
	// ReasonNotInitialized: the Node stays tainted, because its server or its addresses are not clear.
	ReasonNotInitialized = "NotInitialized"
	// ReasonHeldBack: the Node is kept although its server is not found.
	ReasonHeldBack = "NodeDeletionHeldBack"
	// ReasonReplaced: the Node's server is gone, and another one has its name.
	ReasonReplaced = "ServerReplaced"
	// ReasonDuplicate: the Node names a server that belongs to another Node.
	ReasonDuplicate = "DuplicateProviderID"
)

// tellAgain is the least time between two events of one Node with the same text.
const tellAgain = 10 * time.Minute

// teller puts events on Nodes, none of them again and again: controllers try every few seconds.
type teller struct {
	mu       sync.Mutex
	recorder record.EventRecorder // nil: nobody is told
	told     map[string]time.Time
}

func (t *teller) start(recorder record.EventRecorder) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recorder, t.told = recorder, map[string]time.Time{}
}

func (t *teller) warn(node *v1.Node, reason, message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := node.Name + "\n" + reason + "\n" + message
	now := time.Now()
	if t.recorder == nil || now.Sub(t.told[key]) < tellAgain {
		return
	}
	maps.DeleteFunc(t.told, func(_ string, told time.Time) bool { return now.Sub(told) >= tellAgain })
	t.told[key] = now
	t.recorder.Event(&v1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}, v1.EventTypeWarning, reason, message)
}

// notInitialized tells why a node stays tainted, where somebody can do something about it: the API's own troubles pass, and
// are in the log and the metrics.
func (t *teller) notInitialized(node *v1.Node, err error) {
	var duplicate *duplicateError
	if errors.As(err, &duplicate) {
		return // it has an event of its own
	}
	var failed *cloud.Error
	if errors.As(err, &failed) && !errors.Is(err, cloud.ErrNotFound) {
		return
	}
	t.warn(node, ReasonNotInitialized, err.Error())
}
