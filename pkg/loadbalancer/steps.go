package loadbalancer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// applyAll is apply for all that a Service asks for. What was changed in one step is not changed again in the next one: that it was is
// noted on the load balancer only after the last change, so that the difference has it until then. A copy of this program that takes over
// in between makes those changes once more.
func (l *LoadBalancers) applyAll(ctx context.Context, service *v1.Service, lb *cloud.LoadBalancer, changes []plan.Change) error {
	logger := klog.FromContext(ctx)
	for i, change := range changes {
		if l.unfinished.has(service.UID, change) {
			continue
		}
		logger.Info("Changing a load balancer", "service", klog.KObj(service), "loadBalancer", lb.ID, "change", change.String())
		if err := doChange(ctx, change, l.config.Cloud, lb.ID); err != nil {
			l.unfinished.forget(service.UID)
			return fmt.Errorf("load balancer %s: %s: %w", lb.ID, change, err)
		}
		noteDone(ctx, change)
		l.unfinished.note(service.UID, change)
		if err := l.stepEnded(ctx, len(changes)-i-1); err != nil {
			return err
		}
	}
	l.unfinished.forget(service.UID)
	return nil
}

// unfinished remembers, of Services whose changes are made in steps, how components were changed in the steps so far.
type unfinished struct {
	mu    sync.Mutex
	bySvc map[types.UID]map[string]string // by component: what it was changed to last
}

// repeats says whether the difference may have a change again that was made: one whose reason is a note. Members are not among those.
func repeats(c plan.Change) bool {
	return c.ReplaceRule != nil || c.ReplaceResolver != nil || c.ModifyFrontend != nil || c.ModifyTLS != nil ||
		c.ModifyBackend != nil && c.ModifyBackend.Members == nil
}

// holdsOthers says whether other components come or go with a change.
func holdsOthers(c plan.Change) bool {
	return c.CreateFrontend != nil || c.DeleteFrontend || c.RenameFrontend != "" || c.CreateBackend != nil || c.DeleteBackend
}

// componentOf names what a change is about.
func componentOf(c plan.Change) string {
	kind := "rule"
	switch {
	case c.CreateTLS != nil, c.ModifyTLS != nil, c.DeleteTLS:
		kind = "tls"
	case c.ModifyFrontend != nil:
		kind = "frontend"
	case c.ModifyBackend != nil:
		kind = "backend"
	case c.CreateResolver != nil, c.ReplaceResolver != nil, c.DeleteResolver:
		kind = "resolver"
	}
	return fmt.Sprintf("%s/%s/%s/%s", kind, c.Owner.Frontend, c.Owner.Backend, c.Name)
}

func (u *unfinished) has(uid types.UID, change plan.Change) bool {
	if !repeats(change) {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	last, known := u.bySvc[uid][componentOf(change)]
	return known && last == contentOf(change)
}

func (u *unfinished) note(uid types.UID, change plan.Change) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case holdsOthers(change):
		delete(u.bySvc, uid)
	case !repeats(change):
		delete(u.bySvc[uid], componentOf(change))
	default:
		if u.bySvc == nil {
			u.bySvc = map[types.UID]map[string]string{}
		}
		if u.bySvc[uid] == nil {
			u.bySvc[uid] = map[string]string{}
		}
		u.bySvc[uid][componentOf(change)] = contentOf(change)
	}
}

func (u *unfinished) forget(uid types.UID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.bySvc, uid)
}

func contentOf(change plan.Change) string {
	text, err := json.Marshal(change)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return string(sum[:])
}
