package loadbalancer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Whoever made a frontend may replace it, as Terraform does to rename one, and the rules and certificates of Services go with it. So
// shared load balancers are looked at often, and their Services are looked after at once where one has changed.

// lookPeriod is how often one of the shared load balancers is looked at. Each has its turn, so that this costs twelve calls a minute at most.
const lookPeriod = 5 * time.Second

// sharedLooks remembers how shared load balancers looked.
type sharedLooks struct {
	last   string // ID of the one that was looked at last
	digest map[string][sha256.Size]byte
}

// lookShared looks at the shared load balancer whose turn it is, and begins to look after its Services if it has changed since it was
// looked at before.
func (l *LoadBalancers) lookShared(
	ctx context.Context, services corelisters.ServiceLister, nodes corelisters.NodeLister, looks *sharedLooks, rounds *rounds,
) {
	users := l.usersOfShared(services)
	id, some := looks.next(slices.Sorted(maps.Keys(users)))
	if !some {
		return
	}
	lb, err := l.lookAtShared(ctx, id)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Whether a shared load balancer has changed is not known", "loadBalancer", id)
		return
	}
	if !looks.changed(id, lb) {
		return
	}
	seen := &sightings{byID: map[string]*cloud.LoadBalancer{id: lb}}
	rounds.begin(ctx, users[id], func(ctx context.Context, uid types.UID) error {
		return l.mendOne(ctx, uid, services, nodes, seen)
	}, "A shared load balancer is not up to date")
}

// usersOfShared are the Services on shared load balancers, by the ID of the load balancer and by namespace.
func (l *LoadBalancers) usersOfShared(services corelisters.ServiceLister) map[string]map[string][]types.UID {
	users := map[string]map[string][]types.UID{}
	for namespace, uids := range l.sharing.byNamespace() {
		for _, uid := range uids {
			one, _ := l.sharing.get(uid)
			service, wanted := one.service(uid, services)
			if !wanted || service.Annotations[settings.AnnotationID] == "" {
				continue
			}
			id := service.Annotations[settings.AnnotationID]
			if users[id] == nil {
				users[id] = map[string][]types.UID{}
			}
			users[id][namespace] = append(users[id][namespace], uid)
		}
	}
	return users
}

func (l *LoadBalancers) lookAtShared(ctx context.Context, id string) (*cloud.LoadBalancer, error) {
	ctx, cancel := l.operation(ctx, "")
	defer cancel()
	return l.config.Cloud.LoadBalancer(ctx, id)
}

// next is the one that comes after the last one.
func (s *sharedLooks) next(sorted []string) (id string, some bool) {
	maps.DeleteFunc(s.digest, func(id string, _ [sha256.Size]byte) bool { return !slices.Contains(sorted, id) })
	if len(sorted) == 0 {
		return "", false
	}
	at, found := slices.BinarySearch(sorted, s.last)
	if found {
		at++
	}
	s.last = sorted[at%len(sorted)]
	return s.last, true
}

// changed says whether a load balancer is another than before. Of one that is seen for the first time nothing is known.
func (s *sharedLooks) changed(id string, lb *cloud.LoadBalancer) bool {
	text, err := json.Marshal(lb)
	if err != nil {
		return true // whoever is not sure looks again
	}
	now := sha256.Sum256(text)
	before, known := s.digest[id]
	if s.digest == nil {
		s.digest = map[string][sha256.Size]byte{}
	}
	s.digest[id] = now
	return known && before != now
}
