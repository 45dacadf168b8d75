package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// ConditionReady is the type of the condition in a Service's status that says whether its load balancer is as the Service asks, and
// serves. Its reason is that of the event that tells the same, or one of those below.
const ConditionReady = "upcloud.com/LoadBalancerReady"

// The reasons of ConditionReady that are no events.
const (
	ReasonReady              = "Ready"
	ReasonSettingUp          = "SettingUp"          // UpCloud is at it
	ReasonUpdating           = "Updating"           // the changes are made in steps
	ReasonStopped            = "Stopped"            // by a person
	ReasonFailing            = "Failing"            // says UpCloud
	ReasonCertificatePending = "CertificatePending" // the former one is presented until then
	ReasonNameTaken          = "NameTaken"
	ReasonNoSuchPlan         = "NoSuchPlan"
	ReasonWaiting            = "Waiting" // for what the message says
	ReasonUnauthorized       = "Unauthorized"
	ReasonAPIUnavailable     = "APIUnavailable"
	ReasonSyncFailed         = "SyncFailed"
	ReasonDeleting           = "Deleting"
)

// unready are remarks of which one means that the load balancer does not do what the Service is for. With any other it is ready, and
// the condition has it as its reason.
var unready = []string{
	ReasonCertificatePending, reasonInvalidSecret, "PortConflict", "RouteConflict", "NoSuchFrontend", "NoEligibleNodes", reasonNoLocalEndpoints,
}

// conditionMessage is how long a condition's message gets. The API server takes 32768 characters.
const conditionMessage = 2048

// conditionTimeout bounds the writing of a condition.
const conditionTimeout = 10 * time.Second

// informerLag is for how long a Service may be seen without a condition that was written.
const informerLag = time.Minute

// reasonedError is an error that knows the reason that ConditionReady shall have.
type reasonedError struct {
	error
	reason string
}

func (e *reasonedError) Unwrap() error { return e.error }

// because gives an error a reason; no error stays none.
func because(reason string, err error) error {
	if err == nil {
		return nil
	}
	return &reasonedError{err, reason}
}

func reasonOf(err error) string {
	var reasoned *reasonedError
	var retry *api.RetryError
	switch {
	case errors.As(err, &reasoned):
		return reasoned.reason
	case errors.Is(err, errNoSuchPlan):
		return ReasonNoSuchPlan
	case errors.As(err, &retry):
		return ReasonWaiting
	case errors.Is(err, cloud.ErrUnauthorized):
		return ReasonUnauthorized
	case errors.Is(err, cloud.ErrUnavailable):
		return ReasonAPIUnavailable
	}
	return ReasonSyncFailed
}

// reportOutcome tells in the Service's status what came of ensure.
func (l *LoadBalancers) reportOutcome(ctx context.Context, service *v1.Service, err error) {
	if !notOurs(err) {
		l.report(ctx, service, l.outcome(service, err))
	}
}

// reportLeaving tells in the Service's status why its load balancer is there still.
func (l *LoadBalancers) reportLeaving(ctx context.Context, service *v1.Service, err error) {
	condition := metav1.Condition{Status: metav1.ConditionFalse, Reason: reasonOf(err), Message: err.Error()}
	if condition.Reason == ReasonSyncFailed || condition.Reason == ReasonWaiting {
		condition.Reason = ReasonDeleting
	}
	if !notOurs(err) {
		l.report(ctx, service, condition)
	}
}

// notOurs says whether an error is no news of the load balancer: another copy of this program has become the leader, and tells.
func notOurs(err error) bool {
	var failed *cloud.Error
	return errors.As(err, &failed) && failed.NotPermitted
}

// outcome is the condition that says what came of ensure.
func (l *LoadBalancers) outcome(service *v1.Service, err error) metav1.Condition {
	if err != nil {
		return metav1.Condition{Status: metav1.ConditionFalse, Reason: reasonOf(err), Message: err.Error()}
	}
	remarks := l.said.last(service)
	if len(remarks) == 0 {
		return metav1.Condition{Status: metav1.ConditionTrue, Reason: ReasonReady, Message: "The load balancer is as the Service asks."}
	}
	slices.SortStableFunc(remarks, func(a, b settings.Problem) int { return rank(a) - rank(b) })
	var messages []string
	for _, remark := range remarks {
		messages = append(messages, remark.Message)
	}
	condition := metav1.Condition{Status: metav1.ConditionTrue, Reason: remarks[0].Reason, Message: strings.Join(messages, "; ")}
	if rank(remarks[0]) == 0 {
		condition.Status = metav1.ConditionFalse
	}
	return condition
}

func rank(remark settings.Problem) int {
	if slices.Contains(unready, remark.Reason) {
		return 0
	}
	return 1
}

// conditions remembers what was written last, as a Service that comes from an informer may not show it yet.
type conditions struct{ *records }

type written struct {
	condition metav1.Condition
	at        time.Time
}

func (c conditions) last(uid types.UID) (written, bool) {
	last := c.get(uid).written
	if last == nil {
		return written{}, false
	}
	return *last, true
}

func (c conditions) set(uid types.UID, condition metav1.Condition, at time.Time) {
	c.change(uid, func(r *serviceRecord) { r.written = &written{condition, at} })
}

func (c conditions) forget(uid types.UID) {
	c.change(uid, func(r *serviceRecord) { r.written = nil })
}

// report writes ConditionReady into the Service's status, if it is not there already. The service controller writes nothing but
// status.loadBalancer there. That it cannot be written is no reason to fail.
func (l *LoadBalancers) report(ctx context.Context, service *v1.Service, condition metav1.Condition) {
	if l.client == nil {
		return
	}
	condition.Type, condition.ObservedGeneration = ConditionReady, service.Generation
	condition.Message = strings.ToValidUTF8(settings.Cut(condition.Message, conditionMessage), "")
	have := meta.FindStatusCondition(service.Status.Conditions, ConditionReady)
	if have != nil && sameCondition(*have, condition) {
		return
	}
	condition.LastTransitionTime = metav1.NewTime(l.now())
	if have != nil && have.Status == condition.Status {
		condition.LastTransitionTime = have.LastTransitionTime
	}
	if last, known := l.conditions.last(service.UID); known {
		if sameCondition(last.condition, condition) && l.now().Sub(last.at) < informerLag {
			return
		}
		if last.condition.Status == condition.Status {
			condition.LastTransitionTime = last.condition.LastTransitionTime
		}
	}
	if l.patchConditions(ctx, service, condition) {
		l.conditions.set(service.UID, condition, l.now())
	}
}

// sameCondition compares what a condition says. How far a deletion, or a large change, has come is no news.
func sameCondition(a, b metav1.Condition) bool {
	return a.Status == b.Status && a.Reason == b.Reason && a.ObservedGeneration == b.ObservedGeneration &&
		(a.Message == b.Message || a.Reason == ReasonDeleting || a.Reason == ReasonUpdating)
}

// unreport takes the condition away from a Service that has no load balancer any more.
func (l *LoadBalancers) unreport(ctx context.Context, service *v1.Service) {
	_, known := l.conditions.last(service.UID)
	l.conditions.forget(service.UID)
	there := known || meta.FindStatusCondition(service.Status.Conditions, ConditionReady) != nil
	if there && l.client != nil && service.DeletionTimestamp == nil {
		l.patchConditions(ctx, service, map[string]string{"$patch": "delete", "type": ConditionReady})
	}
}

// patchConditions merges one entry into the conditions, whose others stay: they are a list by type.
func (l *LoadBalancers) patchConditions(ctx context.Context, service *v1.Service, entry any) bool {
	ctx, cancel := context.WithTimeout(ctx, conditionTimeout)
	defer cancel()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{entry}}})
	if err == nil {
		_, err = l.client.CoreV1().Services(service.Namespace).
			Patch(ctx, service.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil && !apierrors.IsNotFound(err) {
		klog.FromContext(ctx).Error(err, "The condition of a load balancer cannot be written", "service", klog.KObj(service))
	}
	return err == nil
}
