package driver

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/kubenode"
)

// TaintNotReady is the key of the taint that Nodes may start with, so that no Pod lands there before its volumes can be
// mounted. The node plugin takes it off.
const TaintNotReady = Name + "/agent-not-ready"

// registrationTimeout bounds one look at the Node and what follows from it. While a node starts, the API server's address
// may lead nowhere until kube-proxy is at work.
const registrationTimeout = 3 * time.Second

// registrationPauses are how long to wait between looks while the node is not ready: a kubelet registers a plugin within
// a second or two, and an API server that is out of order must not be asked by every node at once.
func registrationPauses() *wait.Backoff {
	return &wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 30, Cap: 5 * time.Second}
}

// registration sees the node through from the kubelet's registration to a Node that Pods may land on.
type registration struct {
	kubernetes *kubenode.Client // nil outside Kubernetes, where there is nothing to see through
	nodeID     string
	log        klog.Logger
	again      chan struct{} // has room for one

	mu     sync.Mutex
	reason error // why the node is not ready yet, nil if it is
}

func newRegistration(kubernetes *kubenode.Client, nodeID string, log klog.Logger) *registration {
	r := &registration{kubernetes: kubernetes, nodeID: nodeID, log: log, again: make(chan struct{}, 1)}
	if kubernetes != nil {
		r.reason = errors.New("the Node has not been looked at yet")
	}
	return r
}

// ready is nil when the kubelet has registered the driver, and the Node has no taint of ours.
func (r *registration) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reason
}

// look makes run look at once.
func (r *registration) look() {
	select {
	case r.again <- struct{}{}:
	default: // it is about to
	}
}

// seen is told of the Node when it was read for another purpose: one that was made anew may have its taint again.
func (r *registration) seen(node *kubenode.Node) {
	if r.ready() != nil || node.Tainted(TaintNotReady) {
		r.look()
	}
}

// run tries until the node is ready, and again whenever it is told to look, until ctx is done.
func (r *registration) run(ctx context.Context) {
	if r.kubernetes == nil {
		return
	}
	pauses := registrationPauses()
	for {
		err := r.settle(ctx)
		if ctx.Err() != nil {
			return
		}
		r.note(err)
		var pause <-chan time.Time // never, when there is nothing left to do
		var timer *time.Timer
		if err != nil {
			timer = time.NewTimer(pauses.Step())
			pause = timer.C
		}
		select {
		case <-ctx.Done():
		case <-pause:
		case <-r.again:
			pauses = registrationPauses()
		}
		if timer != nil {
			timer.Stop()
		}
	}
}

// settle looks at the Node, and takes the taint off as soon as the kubelet has registered the driver.
func (r *registration) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registrationTimeout)
	defer cancel()
	node, err := r.kubernetes.Node(ctx)
	if err != nil {
		return err
	}
	if err := r.kubernetes.Registered(ctx, node, Name, r.nodeID); err != nil {
		return err
	}
	if !node.Tainted(TaintNotReady) {
		return nil
	}
	if err := r.kubernetes.RemoveTaint(ctx, node, TaintNotReady); err != nil {
		return err
	}
	r.log.Info("Took the startup taint off the Node", "kubernetesNode", r.kubernetes.Name(), "taint", TaintNotReady)
	return nil
}

// note remembers how it went, and tells of it once.
func (r *registration) note(err error) {
	r.mu.Lock()
	before := r.reason
	r.reason = err
	r.mu.Unlock()
	switch {
	case err == nil && before != nil:
		r.log.Info("The kubelet has registered the driver; the node is ready", "kubernetesNode", r.kubernetes.Name())
	case err != nil && (before == nil || before.Error() != err.Error()):
		r.log.Info("The node is not ready yet", "kubernetesNode", r.kubernetes.Name(), "reason", err.Error())
	}
}
