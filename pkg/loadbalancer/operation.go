package loadbalancer

import (
	"context"
	"fmt"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
)

// apiGroup is the group of this package's requests to the API, see cloud.Share.
const apiGroup = "load balancers"

// DefaultStepTime is for how long changes of one Service's load balancer are made at one go. After that other Services have their turn,
// and what the Service asks for is looked at again: it may have changed.
const DefaultStepTime = 5 * time.Second

// stepPause is how long after that the changes go on.
const stepPause = 200 * time.Millisecond

// operation bounds the time of an operation for a Service of the namespace, and has the API's limits shared out: the requests of one
// namespace do not delay those of others.
func (l *LoadBalancers) operation(ctx context.Context, namespace string) (context.Context, context.CancelFunc) {
	ctx = cloud.WithShare(ctx, cloud.Share{Group: apiGroup, Tenant: namespace})
	return context.WithTimeout(ctx, l.operationLimit)
}

// step bounds the changes that are made at one go.
type step struct {
	end      time.Time
	awaited  func() bool // whether another namespace waits for the load balancer; nil: it is the Service's own
	endEarly time.Time   // if so
}

type stepKey struct{}

// inSteps has changes made under the context until Config.StepTime from now, and then stopped with an error of fairness.Continues.
func (l *LoadBalancers) inSteps(ctx context.Context) context.Context {
	return context.WithValue(ctx, stepKey{}, step{end: l.now().Add(l.config.StepTime)})
}

// stepEnded is an error if the changes that are left are to be made later. It is asked after each change, so that there is progress in
// any case.
func (l *LoadBalancers) stepEnded(ctx context.Context, left int) error {
	own, bounded := ctx.Value(stepKey{}).(step)
	if !bounded || left == 0 {
		return nil
	}
	if now := l.now(); now.Before(own.end) && (own.awaited == nil || now.Before(own.endEarly) || !own.awaited()) {
		return nil
	}
	return because(ReasonUpdating, fairness.Continues(fmt.Sprintf("%d changes of the load balancer are left", left), stepPause))
}

// lockShared keeps every other Service from a load balancer that Services share until unlock is called. One Service of each namespace
// waits for it at most, and who holds it makes shorter steps while others wait: so it goes from namespace to namespace.
func (l *LoadBalancers) lockShared(ctx context.Context, id, namespace string) (_ context.Context, unlock func(), err error) {
	leave, err := l.locks.lock(ctx, id+" "+namespace)
	if err != nil {
		return nil, nil, err
	}
	release, err := l.locks.lock(ctx, id)
	if err != nil {
		leave()
		return nil, nil, err
	}
	own := step{
		end: l.now().Add(l.config.StepTime), endEarly: l.now().Add(l.config.StepTime / 10),
		awaited: func() bool { return l.locks.awaited(id) },
	}
	return context.WithValue(ctx, stepKey{}, own), func() {
		release()
		leave()
	}, nil
}
