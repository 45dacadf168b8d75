package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// judgeOrphan judges a load balancer whose Service is gone.
func (e *look) judgeOrphan(lb *cloud.LoadBalancer, trace plan.Trace, reviewed bool) *Finding {
	kept := balancerKeptBy(lb)
	if why := cmp.Or(e.mentioned(lb.ID, nameBefore(lb)), kept); why != "" && carriesStage(lb.Labels) {
		f := e.restoringBalancer(lb, trace)
		f.Note = why
		return f
	}
	f := &Finding{Kind: OrphanBalancer, balancer: balancer{trace: trace, lb: lb}, subject: &balancerSubject{e.config.Cloud, lb}}
	f.describe()
	f.Adopt = adoptLine(lb)
	f.stage, f.Proof = e.stageOf(lb.ID, lb.Labels), e.proof(trace, lb.ID)
	if f.Kept = e.whyNever(lb, trace); f.Kept == "" {
		f.Kept = kept
		if f.Kept == "" && e.record.things[lb.ID].wish == wishRetain {
			f.Kept = "its Service had the annotation retain or deletion-protection"
		}
		f.onPurpose = f.Kept != ""
	}
	e.config.decide(f, e.now, reviewed, e.stop)
	return f
}

// judgeBundle finds out whether a certificate bundle was left behind.
func (e *look) judgeBundle(bundle *cloud.CertificateBundle) {
	trace, made := e.cluster().TraceOfBundle(bundle)
	switch {
	case !made || e.ignored(trace):
	case !e.needs(bundle, trace):
		e.addOrWait(e.judgeLeftBundle(bundle, trace, false))
	case carriesStage(bundle.Labels):
		f := e.restoringBundle(bundle, trace)
		f.Note = "its Service needs it"
		e.report.Findings = append(e.report.Findings, f)
	}
}

// needs reports whether a Service needs a certificate bundle, or is about to let it go by itself.
func (e *look) needs(bundle *cloud.CertificateBundle, trace plan.Trace) bool {
	service := e.knows(trace)
	return service != nil && (e.userOf(bundle.ID) != nil || service.DeletionTimestamp != nil || e.cluster().AsksFor(service, bundle.Name))
}

func (e *look) judgeLeftBundle(bundle *cloud.CertificateBundle, trace plan.Trace, reviewed bool) *Finding {
	kept, mentioned := keptBy(bundle.Labels, ""), e.mentioned(bundle.ID, "")
	if why := cmp.Or(mentioned, kept); why != "" && carriesStage(bundle.Labels) {
		f := e.restoringBundle(bundle, trace)
		f.Note = why
		return f
	}
	f := &Finding{Kind: OrphanCertificate, balancer: balancer{trace: trace, bundle: bundle}, subject: &bundleSubject{e.config.Cloud, bundle}}
	f.describe()
	f.stage, f.Proof = e.stageOf(bundle.ID, bundle.Labels), e.proof(trace, bundle.ID)
	if e.knows(trace) != nil && f.Proof == ProofMade {
		f.Proof = ProofRecorded // its Service is there, and asks for another
	}
	switch user := e.userOf(bundle.ID); {
	case trace.Created.IsZero():
		f.Kept = "the API does not tell its age"
	case user != nil:
		f.Kept = fmt.Sprintf("load balancer %s (%s) uses it", user.ID, user.Name)
	case mentioned != "":
		f.Kept = mentioned
	default:
		f.Kept = kept
		f.onPurpose = f.Kept != ""
	}
	e.config.decide(f, e.now, reviewed, e.stop)
	return f
}

func (e *look) proof(trace plan.Trace, id string) Proof {
	switch {
	case trace.ClusterUID == "" || trace.ClusterUID != e.uid:
		return ProofNone
	case e.record.things[id].wish == wishDelete:
		return ProofRecorded
	}
	return ProofMade
}

// stageOf is the stage of a thing, if this cluster's record knows the look that put it there.
func (e *look) stageOf(id string, labels map[string]string) stage {
	found := stageOf(labels)
	if found.Stage == StageNone || e.record.things[id].look != found.look || found.since.After(e.now) {
		return stage{}
	}
	return found
}

// whyNever says which rule forbids to touch a load balancer, whoever asks.
func (e *look) whyNever(lb *cloud.LoadBalancer, trace plan.Trace) string {
	if trace.Created.IsZero() {
		return "the API does not tell its age"
	}
	if why := e.mentioned(lb.ID, nameBefore(lb)); why != "" {
		return why
	}
	// A member that cannot be reached any more looks like one that is slow: that nothing uses it, nothing proves.
	for _, backend := range lb.Backends {
		if len(backend.Members) > 0 {
			return fmt.Sprintf("it is in use: backend %s has %d members", backend.Name, len(backend.Members))
		}
	}
	if len(lb.Addresses) > 0 {
		return "floating IP address " + lb.Addresses[0].Address + " leads to it"
	}
	if all := plan.Uninvited(lb); len(all) > 0 {
		return "on it is what was not made for its Service: " + strings.Join(all, ", ")
	}
	return ""
}

// unknown finds a load balancer or a certificate bundle that says it is this cluster's and that this cluster has never known: see
// view.unknown. A copy of the cluster whose Services all share makes certificates alone.
func (e *look) unknown() string {
	strange := func(id string, trace plan.Trace, kept string) bool {
		_, remembered := e.record.things[id]
		return trace.ClusterUID == e.uid && !remembered && e.knows(trace) == nil && kept == ""
	}
	const why = "%s %s (%s) says that this cluster made it, and this cluster's record does not know it: etcd may have been " +
		"set back, or copied to another cluster that runs; decide about it in a plan, or label it keep, and the doctor goes on"
	for i := range e.balancers {
		lb := &e.balancers[i]
		if trace, made := e.cluster().TraceOf(lb); made && !lb.State.Deleting() && strange(lb.ID, trace, balancerKeptBy(lb)) {
			return fmt.Sprintf(why, "load balancer", lb.ID, lb.Name)
		}
	}
	for i := range e.bundles {
		bundle := &e.bundles[i]
		if trace, made := e.cluster().TraceOfBundle(bundle); made && strange(bundle.ID, trace, keptBy(bundle.Labels, "")) {
			return fmt.Sprintf(why, "certificate bundle", bundle.ID, bundle.Name)
		}
	}
	return ""
}

// treatment notes what this look saw, and lets the report go on from it.
func (e *look) treatment() *treatment {
	seen, there := e.record.clone(), map[string]bool{}
	for i := range e.balancers {
		lb := &e.balancers[i]
		there[lb.ID] = true
		if trace, made := e.cluster().TraceOf(lb); made {
			if service := e.knows(trace); service != nil {
				seen.see(lb.ID, wishFor(lb, service))
			}
		}
	}
	for i := range e.bundles {
		bundle := &e.bundles[i]
		there[bundle.ID] = true
		if trace, made := e.cluster().TraceOfBundle(bundle); made {
			if service := e.knows(trace); service != nil {
				seen.see(bundle.ID, wishOfService(service))
			}
		}
	}
	seen.forgetBut(func(id string) bool { return there[id] })
	return &treatment{Rules: &e.config.Rules, now: e.now, record: seen, again: e.again}
}

// wishFor is wishOfService for a load balancer with the Service's labels. One that the Service's annotation does not name may have copied
// them, and does not go with the Service.
func wishFor(lb *cloud.LoadBalancer, service *corev1.Service) wish {
	if id := service.Annotations[settings.AnnotationID]; id != "" && !strings.EqualFold(id, lb.ID) {
		return wishStay
	}
	return wishOfService(service)
}

// wishOfService is what a Service says of the end of what was made for it. Where its annotations are not understood, it stays.
func wishOfService(service *corev1.Service) wish {
	asked, problems := settings.Parse(service)
	switch {
	case len(problems) > 0 || asked.Retain || asked.Protected:
		return wishRetain
	case service.DeletionTimestamp != nil:
		return wishDelete
	}
	return wishStay
}

// again reads both sides again, and judges one thing.
func (e *look) again(ctx context.Context, f *Finding, reviewed bool) (*Finding, error) {
	fresh, err := e.read(ctx)
	if err != nil {
		return nil, err
	}
	if fresh.uid != e.uid {
		return nil, nil
	}
	fresh.stop, fresh.record = e.stop, e.record
	if f.bundle != nil {
		i := slices.IndexFunc(fresh.bundles, func(b cloud.CertificateBundle) bool { return b.ID == f.bundle.ID })
		if i < 0 {
			return nil, nil
		}
		trace, made := e.cluster().TraceOfBundle(&fresh.bundles[i])
		switch needed := fresh.needs(&fresh.bundles[i], trace); {
		case !made || needed && !carriesStage(fresh.bundles[i].Labels):
			return nil, nil
		case needed:
			return fresh.restoringBundle(&fresh.bundles[i], trace), nil
		}
		return unchanged(f, fresh.judgeLeftBundle(&fresh.bundles[i], trace, reviewed)), nil
	}
	i := slices.IndexFunc(fresh.balancers, func(lb cloud.LoadBalancer) bool { return lb.ID == f.lb.ID })
	if i < 0 || fresh.balancers[i].State.Deleting() {
		return nil, nil
	}
	trace, made := e.cluster().TraceOf(&fresh.balancers[i])
	switch known := fresh.knows(trace) != nil; {
	case !made:
		return nil, nil
	case known && carriesStage(fresh.balancers[i].Labels):
		return fresh.restoringBalancer(&fresh.balancers[i], trace), nil
	case known:
		return nil, nil
	}
	return unchanged(f, fresh.judgeOrphan(&fresh.balancers[i], trace, reviewed)), nil
}

// unchanged is now, if its labels and its name are those that were judged before.
func unchanged(before, now *Finding) *Finding {
	if fingerprint(before.subject) != fingerprint(now.subject) {
		return nil
	}
	return now
}
