package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// LabelDeleting is on a load balancer that was made for a group and is about to be deleted: by which Service's controller, and
// since when. Whoever sees it adds nothing.
//
// Between a look that finds nobody on the load balancer and its deletion, somebody could join. So the label is put there first, and
// stays for so long that every call that began without having seen it has ended; only then comes the look that counts. A label
// that is older than the one who put it there would use it is a dead one's, and is taken off by whoever wants to join.
const LabelDeleting = "ccm_deleting"

const (
	// doomWait is longer than any call of a controller takes, with some room for clocks.
	doomWait = operationLimit + 30*time.Second
	// doomUse is for how long after that the label serves for a deletion.
	doomUse = 5 * time.Minute
	// doomDead is when a label is somebody's who died. It leaves room for clocks that differ.
	doomDead = doomWait + doomUse + 10*time.Minute
)

// doom is what LabelDeleting says.
type doom struct {
	key   string // of the Service
	since time.Time
}

func doomOf(lb *cloud.LoadBalancer) (doom, bool) {
	text, there := lb.Labels[LabelDeleting]
	if !there {
		return doom{}, false
	}
	key, since, _ := strings.Cut(text, "@")
	seconds, err := strconv.ParseInt(since, 10, 64)
	if err != nil {
		return doom{key: key}, true // as old as can be
	}
	return doom{key, time.Unix(seconds, 0)}, true
}

// notDoomed returns an error while the load balancer is about to be deleted.
func (w *work) notDoomed(ctx context.Context, lb *cloud.LoadBalancer) error {
	d, there := doomOf(lb)
	if !there || lb.Labels[settings.LabelSharedGroup] == "" {
		return nil
	}
	if d.key == w.identity.ServiceKey() || w.now().Sub(d.since) > doomDead {
		return w.config.Cloud.Group(lb.ID).DeleteLabel(ctx, LabelDeleting)
	}
	return api.NewRetryError(fmt.Sprintf("load balancer %s (%s) is about to be deleted, as nobody used it: it is made again when it is gone",
		lb.ID, lb.Name), conflictDelay)
}

// lastOfGroup says whether the load balancer is the Service's to delete.
func (l *LoadBalancers) lastOfGroup(ctx context.Context, service *v1.Service, asked *settings.Settings, lb *cloud.LoadBalancer) (bool, error) {
	if plan.InUse(lb) {
		return false, nil
	}
	return l.deletesLast(ctx, service, asked, lb)
}

// deletesLast says whether the Service may have the load balancer of its group deleted: it asks for that, and may share the load balancer.
// One that may not was never on it, and must not end by going what others keep for themselves.
func (l *LoadBalancers) deletesLast(ctx context.Context, service *v1.Service, asked *settings.Settings, lb *cloud.LoadBalancer) (bool, error) {
	if !asked.DeleteLast || asked.Shared.Group == "" || !asked.Shared.Names(lb) {
		return false, nil
	}
	if shares, err := l.policyShares(ctx, asked.Shared.String(), service.Namespace); err != nil || !shares {
		return false, err
	}
	access, err := l.accessOf(ctx, service, *asked.Shared)
	if err != nil {
		return false, err
	}
	return settings.MayShare(access, lb, *asked.Shared, service, asked) == nil, nil
}

// deleteLast deletes a load balancer that was made for a group if nobody uses it any more. Until it is gone it returns an error.
func (l *LoadBalancers) deleteLast(ctx context.Context, identity plan.Identity, service *v1.Service, id string) error {
	group := l.config.Cloud.Group(id)
	lb, err := group.Read(ctx)
	if errors.Is(err, cloud.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d, there := doomOf(lb)
	ours, age := there && d.key == identity.ServiceKey(), l.now().Sub(d.since)
	switch {
	case plan.InUse(lb) && ours:
		return group.DeleteLabel(ctx, LabelDeleting)
	case plan.InUse(lb):
		return nil
	case !there:
		value := fmt.Sprintf("%s@%d", identity.ServiceKey(), l.now().Unix())
		if err := group.CreateLabel(ctx, LabelDeleting, value); err != nil {
			return err
		}
		return l.waiting(lb, doomWait)
	case !ours && age <= doomDead:
		return nil // somebody else sees to it
	case !ours, age > doomWait+doomUse:
		if err := group.DeleteLabel(ctx, LabelDeleting); err != nil {
			return err
		}
		return l.waiting(lb, doomWait)
	case age < doomWait:
		return l.waiting(lb, doomWait-age)
	}
	klog.FromContext(ctx).Info("Deleting a load balancer that nobody shares any more", "service", klog.KObj(service), "loadBalancer", lb.ID)
	return group.Delete(ctx)
}

func (l *LoadBalancers) waiting(lb *cloud.LoadBalancer, left time.Duration) error {
	return fmt.Errorf("load balancer %s (%s) is deleted in %s, if nobody wants to share it until then", lb.ID, lb.Name,
		left.Round(time.Second))
}
