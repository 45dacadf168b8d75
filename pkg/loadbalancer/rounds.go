package loadbalancer

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
)

// rounds looks after Services again and again, the namespaces side by side: one whose load balancers take long delays no other one. The
// zero value is ready.
type rounds struct {
	mu   sync.Mutex
	busy map[string]bool // namespaces in which the last round has not ended
	all  sync.WaitGroup
}

// begin looks after the Services once, those of a namespace one after the other, and does not wait for the end. A namespace in which the
// last round has not ended is left to that one. Work that is interrupted, see fairness.Continues, goes on after the namespace's other
// Services.
func (r *rounds) begin(ctx context.Context, byNamespace map[string][]types.UID, do func(context.Context, types.UID) error, failed string) {
	for namespace, uids := range byNamespace {
		r.mu.Lock()
		if r.busy == nil {
			r.busy = map[string]bool{}
		}
		if r.busy[namespace] {
			r.mu.Unlock()
			continue
		}
		r.busy[namespace] = true
		r.mu.Unlock()
		r.all.Go(func() {
			defer func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				delete(r.busy, namespace)
			}()
			inTurn(ctx, uids, do, failed)
		})
	}
}

// wait waits for the end of all rounds.
func (r *rounds) wait() { r.all.Wait() }

// inTurn looks after the Services of one namespace.
func inTurn(ctx context.Context, uids []types.UID, do func(context.Context, types.UID) error, failed string) {
	for len(uids) > 0 && ctx.Err() == nil {
		uid := uids[0]
		uids = uids[1:]
		err := do(ctx, uid)
		if rest, ok := fairness.IsContinues(err); ok {
			uids = append(uids[:len(uids):len(uids)], uid)
			if pause(ctx, rest) != nil {
				return
			}
			continue
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, failed, "serviceUID", uid)
		}
	}
}
