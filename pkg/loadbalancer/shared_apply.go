package loadbalancer

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// applyShared carries out changes on a shared load balancer one after the other, and stops at the first that fails.
func (l *LoadBalancers) applyShared(ctx context.Context, service *v1.Service, lb cloud.SharedLoadBalancer, changes []plan.Change) error {
	logger := klog.FromContext(ctx)
	for i, change := range changes {
		logger.Info("Changing a shared load balancer", "service", klog.KObj(service), "loadBalancer", lb.ID, "change", change.String())
		if err := shareChange(ctx, change, lb); err != nil {
			return fmt.Errorf("load balancer %s: %s: %w", lb.ID, change, err)
		}
		noteDone(ctx, change)
		if err := l.stepEnded(ctx, len(changes)-i-1); err != nil {
			return err
		}
	}
	return nil
}

// shareChange makes the call on a load balancer that others use too. There are calls for components alone: whatever else a Change may
// hold is refused.
func shareChange(ctx context.Context, c plan.Change, lb cloud.SharedLoadBalancer) error {
	switch {
	case c.CreateFrontend != nil:
		return lb.CreateFrontend(ctx, *c.CreateFrontend)
	case c.ModifyFrontend != nil && c.ModifyFrontend.Networks == nil && c.ModifyFrontend.Port == 0:
		patch := c.ModifyFrontend
		return lb.ModifyFrontend(ctx, c.Name, cloud.SharedFrontendPatch{
			Mode: patch.Mode, DefaultBackend: patch.DefaultBackend, Properties: patch.Properties,
		})
	case c.RenameFrontend != "":
		return lb.RenameFrontend(ctx, c.Name, c.RenameFrontend)
	case c.DeleteFrontend:
		return lb.DeleteFrontend(ctx, c.Name)
	case c.CreateRule != nil:
		return lb.CreateRule(ctx, c.Owner.Frontend, *c.CreateRule)
	case c.ReplaceRule != nil:
		return lb.ReplaceRule(ctx, c.Owner.Frontend, *c.ReplaceRule)
	case c.DeleteRule:
		return lb.DeleteRule(ctx, c.Owner.Frontend, c.Name)
	case c.CreateTLS != nil:
		return lb.CreateTLSConfig(ctx, c.Owner, *c.CreateTLS)
	case c.ModifyTLS != nil:
		return lb.ModifyTLSConfig(ctx, c.Owner, c.Name, *c.ModifyTLS)
	case c.DeleteTLS:
		return lb.DeleteTLSConfig(ctx, c.Owner, c.Name)
	case c.CreateBackend != nil:
		return lb.CreateBackend(ctx, *c.CreateBackend)
	case c.ModifyBackend != nil:
		return lb.ModifyBackend(ctx, c.Name, *c.ModifyBackend)
	case c.DeleteBackend:
		return lb.DeleteBackend(ctx, c.Name)
	}
	return fmt.Errorf("internal error (this is a bug): %s is no call on a shared load balancer", c)
}
