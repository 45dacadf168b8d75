package loadbalancer

import (
	"context"
	"sync"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
)

// followers is how many names are worked on at one time by who follows Pods, and by who follows Secrets: calls for one Service that hang,
// or that the API asks to wait with, hold up none of the others'. They are shared out between namespaces.
const followers = 30

type nameQueue = workqueue.TypedRateLimitingInterface[cache.ObjectName]

// follower does again and again what follows from a change of objects, for a name that the change is about.
type follower struct {
	// factory, informer, on and synced are for run.
	factory  informers.SharedInformerFactory // of the informer; nil: it is run by others
	informer cache.SharedIndexInformer
	// on queues names.
	on func(nameQueue) cache.ResourceEventHandler
	// synced is called when the informer has every object that there is; nil: nobody needs to know.
	synced func()
	// do is called for each name that is queued, several at a time, but for none twice at one time. What fails is done again, later
	// and later, and said in the log.
	do     func(context.Context, cache.ObjectName) error
	failed string
}

// run follows an informer's objects until ctx ends.
func (f follower) run(ctx context.Context) {
	queue := fairness.NewQueue(namespaceOf, workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]())
	defer queue.ShutDown()
	if _, err := f.informer.AddEventHandler(f.on(queue)); err != nil { // only of an informer that has been stopped already
		klog.FromContext(ctx).Error(err, f.failed)
		return
	}
	if f.factory != nil {
		f.factory.Start(ctx.Done())
		defer f.factory.Shutdown()
	}
	if f.synced != nil {
		if !cache.WaitForCacheSync(ctx.Done(), f.informer.HasSynced) {
			return
		}
		f.synced()
	}
	f.work(ctx, queue)
}

// work does what is queued, until ctx ends, and shuts the queue down.
func (f follower) work(ctx context.Context, queue nameQueue) {
	turns := fairness.NewTurns(followers)
	var workers sync.WaitGroup
	for range followers {
		workers.Go(func() {
			for f.next(ctx, queue, turns) {
			}
		})
	}
	<-ctx.Done()
	queue.ShutDown()
	workers.Wait()
}

func namespaceOf(name cache.ObjectName) string { return name.Namespace }

// next does one piece of work, and says whether there may be more.
func (f follower) next(ctx context.Context, queue nameQueue, turns *fairness.Turns) bool {
	name, ended := queue.Get()
	if ended {
		return false
	}
	defer queue.Done(name)
	if again, ok := turns.Take(name.Namespace, name.Name); !ok {
		queue.AddAfter(name, again)
		return true
	}
	turns.Begin(name.Namespace, name.Name)
	defer turns.End(name.Namespace, name.Name)
	err := f.do(ctx, name)
	if pause, ok := fairness.IsContinues(err); ok {
		queue.AddAfter(name, pause)
		return true
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, f.failed, "name", name)
		queue.AddRateLimited(name)
		return true
	}
	queue.Forget(name)
	return true
}
