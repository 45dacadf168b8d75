package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// madeLately remembers what was made for each namespace and may not be in the API's lists yet.
type madeLately struct {
	mu   sync.Mutex
	byID map[string]madeFor
}

type madeFor struct {
	kind string // of the resource, and its namespace
	at   time.Time
}

// listLag is for how long a list may not show what was made.
const listLag = time.Minute

func (m *madeLately) note(kind, id string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID == nil {
		m.byID = map[string]madeFor{}
	}
	m.byID[id] = madeFor{kind, now}
}

// missing counts those of a kind that were made lately, are not among those listed, and are there still.
func (m *madeLately) missing(kind string, listed map[string]bool, now time.Time, there func(id string) error) (int, error) {
	m.mu.Lock()
	var ids []string
	for id, one := range m.byID {
		switch {
		case now.Sub(one.at) > listLag:
			delete(m.byID, id)
		case one.kind == kind && !listed[id]:
			ids = append(ids, id)
		}
	}
	m.mu.Unlock()
	count := 0
	for _, id := range ids {
		err := there(id)
		switch {
		case err == nil:
			count++
		case !errors.Is(err, cloud.ErrNotFound):
			return 0, err
		}
	}
	return count, nil
}

// deny puts an event on the Service, and returns an error that has it looked at again later.
func (w *work) deny(reason, message string) error {
	w.said.say(w.service, []settings.Problem{{Reason: reason, Message: message}}, w.warn)
	return because(reason, api.NewRetryError(message, deniedRetry))
}

// withRoom makes a load balancer, if the namespace has not got as many in the account already as it may have. Two Services of one
// namespace take turns.
func (w *work) withRoom(ctx context.Context, create func() (*cloud.LoadBalancer, error)) (*cloud.LoadBalancer, error) {
	limits, err := w.limitsOf(ctx, w.service.Namespace)
	if err != nil || limits == nil {
		if err == nil {
			return create()
		}
		return nil, err
	}
	kind := "load balancers of " + w.service.Namespace
	unlock, err := w.locks.lock(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := w.config.Cloud.LoadBalancers(ctx, cloud.Labels{settings.LabelNamespace: w.service.Namespace})
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	count := 0
	for _, lb := range all {
		listed[lb.ID] = true
		if w.identity.OfNamespace(lb.Labels) && !w.identity.Owns(&lb) && !lb.State.Deleting() {
			count++
		}
	}
	unlisted, err := w.made.missing(kind, listed, w.now(), func(id string) error {
		_, err := w.config.Cloud.LoadBalancer(ctx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if count += unlisted; count >= *limits.MaxLoadBalancers {
		return nil, w.deny(ReasonDenied, w.full("load balancers", count, *limits.MaxLoadBalancers))
	}
	lb, err := create()
	if err == nil {
		w.made.note(kind, lb.ID, w.now())
	}
	return lb, err
}

// isBlocked says whether the generated name of a Service's load balancer is that of another's, where the cluster has tenants: one must
// not keep the other from having a load balancer. That the account lists the other shows that it is not one whose making was not answered.
func (w *work) isBlocked(ctx context.Context, desired plan.Desired, conflict error) bool {
	if w.identity.Namespace == "" || desired.Load.Name != "" || reasonOf(conflict) != ReasonNameTaken {
		return false
	}
	all, err := w.config.Cloud.LoadBalancers(ctx, nil)
	return err == nil && slices.ContainsFunc(all, func(lb cloud.LoadBalancer) bool { return lb.Name == w.identity.Name && !w.identity.Owns(&lb) })
}

func (w *work) full(what string, have, limit int) string {
	return fmt.Sprintf("namespace %s asks for one more of its %s, allowed are %d and it has %d in the account, those that its Services left "+
		"there included; delete one, or the cluster's operator can change data.tenants in the CCM's configuration", w.service.Namespace, what, limit, have)
}

// makeBundle makes a certificate bundle, if the namespace has not got as many in the account already as it may have.
func (p *provider) makeBundle(ctx context.Context, want cloud.CertificateBundle) (*cloud.CertificateBundle, error) {
	l := p.balancers
	w := &work{LoadBalancers: l, service: p.service, identity: p.desired.Identity}
	limits, err := l.limitsOf(ctx, p.service.Namespace)
	if err != nil {
		return nil, err
	}
	if limits == nil {
		return l.config.Cloud.CreateCertificateBundle(ctx, want)
	}
	kind := "certificate bundles of " + p.service.Namespace
	unlock, err := l.locks.lock(ctx, kind)
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := l.config.Cloud.CertificateBundles(ctx, cloud.Labels{settings.LabelNamespace: p.service.Namespace})
	if err != nil {
		return nil, err
	}
	listed := map[string]bool{}
	count := 0
	for _, bundle := range all {
		listed[bundle.ID] = true
		if w.identity.OfNamespace(bundle.Labels) {
			count++
		}
	}
	unlisted, err := l.made.missing(kind, listed, l.now(), func(id string) error {
		_, err := l.config.Cloud.CertificateBundle(ctx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if count += unlisted; count >= *limits.MaxCertificates {
		return nil, w.deny(ReasonDenied, w.full("certificate bundles", count, *limits.MaxCertificates))
	}
	made, err := l.config.Cloud.CreateCertificateBundle(ctx, want)
	if err == nil {
		l.made.note(kind, made.ID, l.now())
	}
	return made, err
}
