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
)

// release takes everything of the Service's off a shared load balancer. Its backends go last: while one is there, there is work
// left, whoever dies in between.
func (l *LoadBalancers) release(ctx context.Context, service *v1.Service, identity Identity, lb *cloud.LoadBalancer) error {
	return l.releaseKey(ctx, service, identity.serviceKey(), lb)
}

// releaseKey is release for the Service that the key stands for. service is for the log, and may be nil.
func (l *LoadBalancers) releaseKey(ctx context.Context, service *v1.Service, key string, lb *cloud.LoadBalancer) error {
	shared := l.config.Cloud.Shared(lb.ID)
	d := &shareDiffer{want: sharedDesired{key: key}, lb: lb, used: map[string]bool{}}
	claims, certificates, backends := d.stale()
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
	if !slices.ContainsFunc(seen.Frontends, isHub) && !hasNone(seen) {
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
		if isHub(frontend) && isEmpty(frontend) {
			if err := l.sweepOne(ctx, service, lb, frontend.Name); err != nil {
				return err
			}
		}
	}
	used := slices.ContainsFunc(now.Frontends, func(f cloud.Frontend) bool { return leadsTo(f, noneBackend) && !(isHub(f) && isEmpty(f)) })
	if used || !hasNone(now) {
		return nil
	}
	err = l.applyShared(ctx, service, lb, []Change{{Name: noneBackend, DeleteBackend: true}})
	if refusedAsUsed(err) {
		return nil // somebody has made a hub again
	}
	return err
}

func hasNone(lb *cloud.LoadBalancer) bool {
	return slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return b.Name == noneBackend })
}

func isEmpty(frontend cloud.Frontend) bool { return len(frontend.Rules)+len(frontend.TLSConfigs) == 0 }

func leadsTo(frontend cloud.Frontend, backend string) bool {
	return frontend.DefaultBackend == backend || slices.ContainsFunc(frontend.Rules, func(rule cloud.Rule) bool {
		_, to := ruleOwner(rule)
		return to == backend
	})
}

// sweepOne removes one hub, or finds that somebody needs it.
func (l *LoadBalancers) sweepOne(ctx context.Context, service *v1.Service, lb cloud.SharedLoadBalancer, name string) error {
	nonce := make([]byte, 8)
	if _, err := rand.Read(nonce); err != nil {
		return err
	}
	going := "ccm-" + hubPort(name) + goingMark + hex.EncodeToString(nonce)
	err := l.applyShared(ctx, service, lb, []Change{{Name: name, RenameFrontend: going}})
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
	change := Change{Name: going, DeleteFrontend: true}
	if !isEmpty(now.Frontends[i]) || !isHub(now.Frontends[i]) {
		change = Change{Name: going, RenameFrontend: "ccm-" + hubPort(going)}
	}
	err = l.applyShared(ctx, service, lb, []Change{change})
	if errors.Is(err, cloud.ErrNotFound) || errors.Is(err, cloud.ErrAlreadyExists) {
		return nil
	}
	return err
}
