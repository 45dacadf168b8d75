package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// deleteWait is how long one call waits for a load balancer to go. The service controller repeats failed deletions after
// 5, 10, 20 … 300 seconds, whatever kind of error it gets; a short wait spares quick ones that, without holding a worker
// for the minutes that UpCloud may take.
const deleteWait = 10 * time.Second

// gonePause is the first pause between two looks at whether a load balancer is gone.
const gonePause = 100 * time.Millisecond

// delete deletes what is the Service's, and returns nil when it is gone.
func (l *LoadBalancers) delete(ctx context.Context, identity Identity, service *v1.Service) error {
	waiting, cancel := context.WithTimeout(ctx, l.deleteWait)
	defer cancel()
	for {
		lb, err := l.find(ctx, service, identity)
		if err != nil {
			return err
		}
		if lb == nil {
			break
		}
		if !lb.State.Deleting() {
			klog.FromContext(ctx).Info("Deleting a load balancer", "service", klog.KObj(service), "loadBalancer", lb.ID)
			if err := l.config.Cloud.DeleteLoadBalancer(ctx, lb.ID); err != nil {
				return err
			}
		}
		err = l.waitGone(waiting, lb.ID)
		if err == nil {
			err = pause(waiting, gonePause) // a list may still show what is gone already: do not ask without end
		}
		if err != nil {
			if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			return fmt.Errorf("load balancer %s (%s) is being deleted, which takes UpCloud up to three minutes; the Service goes "+
				"when it is gone", lb.ID, lb.Name)
		}
	}
	if service.DeletionTimestamp == nil {
		l.annotate(ctx, service, map[string]any{AnnotationID: nil, AnnotationName: nil})
	}
	return nil
}

// waitGone asks for a load balancer until the API says that there is none, less and less often.
func (l *LoadBalancers) waitGone(ctx context.Context, id string) error {
	interval := gonePause
	for {
		_, err := l.config.Cloud.LoadBalancer(ctx, id)
		if errors.Is(err, cloud.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := pause(ctx, interval); err != nil {
			return err
		}
		interval = min(2*interval, 2*time.Second)
	}
}

// pause waits, or returns the error of the context that ended.
func pause(ctx context.Context, duration time.Duration) error {
	timer := time.NewTimer(duration)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
