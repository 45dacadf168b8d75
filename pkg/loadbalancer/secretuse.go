package loadbalancer

import (
	"context"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// secretUse remembers which Secrets the Services that this program looks after name, and which version of each they have read. A
// Service of another controller is not there.
type secretUse struct {
	mu       sync.Mutex
	uses     map[cache.ObjectName]map[types.UID]*oneUse
	names    map[types.UID]map[cache.ObjectName]bool
	followed map[cache.ObjectName]bool
	fresh    []cache.ObjectName // that nothing follows yet
	changed  chan struct{}      // has an element when there are fresh ones
}

// oneUse is a Secret's use by one Service.
type oneUse struct {
	service string    // its name
	read    string    // the version that the load balancer was last brought up to date with; empty: that is still under way
	failed  int       // how often in a row a renewal has failed
	retry   time.Time // when it is tried again
}

// renewalRetry is the longest time between two tries of a renewal that fails. The controller tries by itself, too.
const renewalRetry = 5 * time.Minute

// set notes which Secrets a Service names.
func (u *secretUse) set(service *v1.Service, asked *settings.Settings) {
	names := map[cache.ObjectName]bool{}
	for _, port := range asked.EveryPort() {
		for _, certificate := range port.Certificates {
			if certificate.Secret != "" {
				names[cache.NewObjectName(service.Namespace, certificate.Secret)] = true
			}
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for name := range u.names[service.UID] {
		if !names[name] {
			u.drop(name, service.UID)
		}
	}
	for name := range names {
		u.add(name, service)
	}
}

func (u *secretUse) add(name cache.ObjectName, service *v1.Service) {
	if u.uses == nil {
		u.uses, u.names = map[cache.ObjectName]map[types.UID]*oneUse{}, map[types.UID]map[cache.ObjectName]bool{}
		u.followed = map[cache.ObjectName]bool{}
	}
	if u.uses[name] == nil {
		u.uses[name] = map[types.UID]*oneUse{}
	}
	if u.names[service.UID] == nil {
		u.names[service.UID] = map[cache.ObjectName]bool{}
	}
	if u.uses[name][service.UID] == nil {
		u.uses[name][service.UID], u.names[service.UID][name] = &oneUse{service: service.Name}, true
	}
	if u.followed[name] {
		return
	}
	u.followed[name] = true
	u.fresh = append(u.fresh, name)
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

func (u *secretUse) drop(name cache.ObjectName, service types.UID) {
	delete(u.uses[name], service)
	if len(u.uses[name]) == 0 {
		delete(u.uses, name)
	}
	delete(u.names[service], name)
	if len(u.names[service]) == 0 {
		delete(u.names, service)
	}
}

// hand gives each Secret that is named for the first time to who follows it, until ctx ends.
func (u *secretUse) hand(ctx context.Context, follow func(cache.ObjectName)) {
	for {
		u.mu.Lock()
		fresh := u.fresh
		u.fresh = nil
		u.mu.Unlock()
		for _, name := range fresh {
			follow(name)
		}
		select {
		case <-u.changed:
		case <-ctx.Done():
			return
		}
	}
}

// users are the Services that name a Secret. Without any, it is not followed any more, until one names it.
func (u *secretUse) users(name cache.ObjectName, services corelisters.ServiceLister) (users []*v1.Service) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for uid, use := range u.uses[name] {
		service, err := services.Services(name.Namespace).Get(use.service)
		if err != nil || service.UID != uid { // it is gone
			u.drop(name, uid)
			continue
		}
		users = append(users, service)
	}
	if len(users) == 0 {
		delete(u.followed, name)
	}
	return users
}

// noteRead notes that a Service's load balancer is being brought up to date with a version of a Secret.
func (u *secretUse) noteRead(service *v1.Service, name, version string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if use := u.uses[cache.NewObjectName(service.Namespace, name)][service.UID]; use != nil {
		use.read = version
	}
}

// begin says whether a Service's load balancer is to be brought up to date with the version of a Secret that there is. If so, end follows.
func (u *secretUse) begin(name cache.ObjectName, service *v1.Service, version string, now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	use := u.uses[name][service.UID]
	if use == nil || use.read == "" {
		return false
	}
	if use.read == version && (use.failed == 0 || now.Before(use.retry)) {
		return false
	}
	use.read = ""
	return true
}

// end notes how that ended, and returns when to try again; zero: it need not be.
func (u *secretUse) end(name cache.ObjectName, service *v1.Service, version string, err error, now time.Time) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	use := u.uses[name][service.UID]
	if use == nil {
		return 0
	}
	if use.read == "" { // what has read the Secret meanwhile knows better: it did not ask for any version
		use.read = version
	}
	if err == nil {
		use.failed = 0
		return 0
	}
	use.failed++
	pause, steps := fairness.IsContinues(err)
	if !steps {
		pause = min(time.Second<<min(use.failed-1, 10), renewalRetry)
	}
	use.retry = now.Add(pause)
	return pause
}
