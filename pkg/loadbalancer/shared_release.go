package loadbalancer

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// release takes everything of the Service's off a shared load balancer. Its backends go last: while one is there, there is work
// left, whoever dies in between.
func (l *LoadBalancers) release(ctx context.Context, service *v1.Service, identity plan.Identity, lb *cloud.LoadBalancer) error {
	return l.releaseKey(ctx, service, identity.Key(), lb)
}

// releaseKey is release for the Service that the key stands for. service is for the log, and may be nil.
func (l *LoadBalancers) releaseKey(ctx context.Context, service *v1.Service, key plan.Key, lb *cloud.LoadBalancer) error {
	shared := l.config.Cloud.Shared(lb.ID)
	claims, certificates, backends := plan.RemovalOf(key, lb)
	if err := l.applyShared(ctx, service, shared, slices.Concat(claims, certificates)); err != nil {
		return err
	}
	if err := l.sweep(ctx, service, shared, lb); err != nil {
		return err
	}
	err := l.applyShared(ctx, service, shared, backends)
	if refusedAsUsed(err) {
		return fmt.Errorf("something that was not made for this Service leads to its backend, and keeps it there: take it away: %w", err)
	}
	return err
}

// refusedAsUsed says whether the API did not delete a backend because something leads to it.
func refusedAsUsed(err error) bool {
	return errors.Is(err, cloud.ErrInvalid) || errors.Is(err, cloud.ErrInUse) || errors.Is(err, cloud.ErrBusy) ||
		errors.Is(err, cloud.ErrAlreadyExists)
}

// sweep removes hubs that have become empty, and their common backend. seen is the load balancer as it was before.
//
// Somebody may add a rule to a hub in the moment before it is deleted, and the rule would go with it. So the hub is renamed first,
// to a name that nobody else ever uses: from then on, rules for it are refused, and who has one to add gives it its name back. If
// after that it is still empty, and still has the name that only this call knows, it can go.
func (l *LoadBalancers) sweep(ctx context.Context, service *v1.Service, lb cloud.SharedLoadBalancer, seen *cloud.LoadBalancer) error {
	if !slices.ContainsFunc(seen.Frontends, plan.IsHub) && !plan.HasNone(seen) {
		return nil
	}
	now, err := lb.Read(ctx)
	if errors.Is(err, cloud.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, frontend := range now.Frontends {
		if plan.IsHub(frontend) && plan.IsEmpty(frontend) {
			if err := l.sweepOne(ctx, service, lb, frontend.Name); err != nil {
				return err
			}
		}
	}
	used := slices.ContainsFunc(now.Frontends, func(f cloud.Frontend) bool {
		return plan.LeadsTo(f, plan.NoneBackend) && !(plan.IsHub(f) && plan.IsEmpty(f))
	})
	if used || !plan.HasNone(now) {
		return nil
	}
	err = l.applyShared(ctx, service, lb, []plan.Change{{Name: plan.NoneBackend, DeleteBackend: true}})
	if refusedAsUsed(err) {
		return nil // somebody has made a hub again
	}
	return err
}

// sweepOne removes one hub, or finds that somebody needs it.
func (l *LoadBalancers) sweepOne(ctx context.Context, service *v1.Service, lb cloud.SharedLoadBalancer, name string) error {
	nonce := make([]byte, 8)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	going := "ccm-" + plan.HubPort(name) + plan.GoingMark + hex.EncodeToString(nonce)
	err := l.applyShared(ctx, service, lb, []plan.Change{{Name: name, RenameFrontend: going}})
	if errors.Is(err, cloud.ErrNotFound) {
		return nil // somebody else is at it
	}
	if err != nil {
		return err
	}
	now, err := lb.Read(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(now.Frontends, func(f cloud.Frontend) bool { return f.Name == going })
	if i < 0 {
		return nil // it has its name back
	}
	change := plan.Change{Name: going, DeleteFrontend: true}
	if !plan.IsEmpty(now.Frontends[i]) || !plan.IsHub(now.Frontends[i]) {
		change = plan.Change{Name: going, RenameFrontend: "ccm-" + plan.HubPort(going)}
	}
	err = l.applyShared(ctx, service, lb, []plan.Change{change})
	if errors.Is(err, cloud.ErrNotFound) || errors.Is(err, cloud.ErrAlreadyExists) {
		return nil
	}
	return err
}

// RemoveTrace takes off a shared load balancer what TracesOn found there of one Service, and nothing else.
func RemoveTrace(ctx context.Context, account *cloud.Cloud, lb *cloud.LoadBalancer, trace plan.Trace) error {
	return New(Config{Cloud: account}).releaseKey(ctx, nil, trace.Key(), lb)
}
