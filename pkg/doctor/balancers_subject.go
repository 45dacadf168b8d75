package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// labelNameBefore holds the name that a load balancer had before its quarantine.
const labelNameBefore = "upcloud-doctor-name"

// quarantined is how the names of load balancers in quarantine begin.
var quarantined = regexp.MustCompile(`^to-be-removed-\d{4}-\d{2}-\d{2}-`)

// nameBefore is the name of a load balancer without what a quarantine makes of it.
func nameBefore(lb *cloud.LoadBalancer) string {
	if before := lb.Labels[labelNameBefore]; before != "" && quarantined.MatchString(lb.Name) {
		return before
	}
	return lb.Name
}

// maxBalancerName is how long the name of a load balancer may be.
const maxBalancerName = 64

// balancerSubject is a load balancer.
type balancerSubject struct {
	account *cloud.Cloud
	lb      *cloud.LoadBalancer
}

func (s *balancerSubject) id() string                { return s.lb.ID }
func (s *balancerSubject) title() string             { return s.lb.Name }
func (s *balancerSubject) labels() map[string]string { return s.lb.Labels }

// write changes labels one by one, and the name. Its title is the name with what a quarantine puts before it, which a name cannot have as
// it is: brackets and blanks are not allowed there. Wherever it is interrupted, what is in quarantine has a name that shows it, and what
// has such a name carries labelNameBefore.
func (s *balancerSubject) write(ctx context.Context, labels map[string]string, title string) error {
	wanted, name := maps.Clone(labels), nameBefore(s.lb)
	entering := stageOf(labels).Stage == StageQuarantine
	if entering {
		wanted[labelNameBefore] = name
		name = quarantineName(strings.TrimSuffix(title, s.lb.Name) + name)
	} else {
		delete(wanted, labelNameBefore)
	}
	others := func(key string) bool { return !isStage(key) }
	steps := []func() error{
		func() error { return s.setLabels(ctx, wanted, others) },
		func() error { return s.setLabels(ctx, wanted, isStage) },
		func() error { return s.dropLabels(ctx, wanted, isStage) },
		func() error { return s.rename(ctx, name) },
		func() error { return s.dropLabels(ctx, wanted, others) },
	}
	if entering {
		steps[1], steps[2], steps[3] = steps[3], steps[1], steps[2]
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// setLabels gives it the labels of some keys.
func (s *balancerSubject) setLabels(ctx context.Context, wanted map[string]string, which func(key string) bool) error {
	for _, key := range slices.Sorted(maps.Keys(wanted)) {
		value, there := s.lb.Labels[key]
		var err error
		switch {
		case !which(key) || there && value == wanted[key]:
		case there:
			err = s.account.ModifyLoadBalancerLabel(ctx, s.lb.ID, key, wanted[key])
		default:
			err = s.account.CreateLoadBalancerLabel(ctx, s.lb.ID, key, wanted[key])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropLabels takes off the labels of some keys that are not wanted.
func (s *balancerSubject) dropLabels(ctx context.Context, wanted map[string]string, which func(key string) bool) error {
	for _, key := range slices.Sorted(maps.Keys(s.lb.Labels)) {
		if _, stays := wanted[key]; stays || !which(key) {
			continue
		}
		if err := s.account.DeleteLoadBalancerLabel(ctx, s.lb.ID, key); err != nil {
			return err
		}
	}
	return nil
}

// rename gives it a name, or where another load balancer has that one, the name with the end of its ID: a Service of the same name may
// have a load balancer by now. No name is the one that it has.
func (s *balancerSubject) rename(ctx context.Context, name string) error {
	if name == "" || name == s.lb.Name {
		return nil
	}
	err := s.account.ModifyLoadBalancer(ctx, s.lb.ID, cloud.LoadBalancerPatch{Name: name})
	if !errors.Is(err, cloud.ErrAlreadyExists) {
		return err
	}
	end := suffixOf(s.lb)
	if name = name[:min(len(name), maxBalancerName-len(end))] + end; name == s.lb.Name {
		return nil
	}
	return s.account.ModifyLoadBalancer(ctx, s.lb.ID, cloud.LoadBalancerPatch{Name: name})
}

// suffixOf is what the name of a load balancer gets where another one has it.
func suffixOf(lb *cloud.LoadBalancer) string { return "-" + lb.ID[max(0, len(lb.ID)-8):] }

// isSuffixed reports whether a name is the one that a load balancer was made with, cut, and with suffixOf.
func isSuffixed(name string, lb *cloud.LoadBalancer) bool {
	cut, suffixed := strings.CutSuffix(name, suffixOf(lb))
	return suffixed && strings.HasPrefix(lb.Labels[settings.LabelGeneratedName], cut)
}

// quarantineName makes a name of a quarantine's title: to-be-removed-2026-12-07-NAME.
func quarantineName(title string) string {
	name := strings.NewReplacer("[to be removed after ", "to-be-removed-", "] ", "-").Replace(title)
	return name[:min(len(name), maxBalancerName)]
}

func (s *balancerSubject) remove(ctx context.Context) error {
	return s.account.DeleteLoadBalancer(ctx, s.lb.ID)
}

// bundleSubject is a certificate bundle. Its name cannot be changed.
type bundleSubject struct {
	account *cloud.Cloud
	bundle  *cloud.CertificateBundle
}

func (s *bundleSubject) id() string                { return s.bundle.ID }
func (s *bundleSubject) title() string             { return s.bundle.Name }
func (s *bundleSubject) labels() map[string]string { return s.bundle.Labels }

func (s *bundleSubject) write(ctx context.Context, labels map[string]string, _ string) error {
	return s.account.ModifyCertificateBundle(ctx, s.bundle.ID, cloud.CertificateBundlePatch{Labels: labels})
}

func (s *bundleSubject) remove(ctx context.Context) error {
	return s.account.DeleteCertificateBundle(ctx, s.bundle.ID)
}

// restoringBalancer is a finding about a load balancer whose mark or quarantine is to be taken off.
func (e *look) restoringBalancer(lb *cloud.LoadBalancer, trace plan.Trace) *Finding {
	f := &Finding{Kind: WantedAgain, balancer: balancer{trace: trace, lb: lb}, subject: &balancerSubject{e.config.Cloud, lb}}
	f.describe()
	f.stage, f.Action = stageOf(lb.Labels), ActionRestore
	f.Stage, f.Fingerprint = f.stage.Stage, fingerprint(f.subject)
	return f
}

// restoringBundle is the same for a certificate bundle.
func (e *look) restoringBundle(bundle *cloud.CertificateBundle, trace plan.Trace) *Finding {
	f := &Finding{Kind: WantedAgain, balancer: balancer{trace: trace, bundle: bundle}, subject: &bundleSubject{e.config.Cloud, bundle}}
	f.describe()
	f.stage, f.Action = stageOf(bundle.Labels), ActionRestore
	f.Stage, f.Fingerprint = f.stage.Stage, fingerprint(f.subject)
	return f
}

// Restore takes marks and quarantines off load balancers and certificate bundles, and labels them keep, so that they stay. ids are
// their IDs; none means all that carry this cluster's UID. Errors: ErrNotFound for an ID that is not in the account.
func (b *Balancers) Restore(ctx context.Context, ids []string) (*Report, error) {
	e, err := b.read(ctx)
	if err != nil {
		return nil, err
	}
	report := &Report{Subject: "load-balancers", ClusterUID: e.uid, Made: e.now, ExaminedBalancers: len(e.balancers),
		Findings: []*Finding{}, Kept: []*Finding{}, Undecided: []*Finding{}}
	there := map[string]*Finding{}
	for i := range e.balancers {
		trace, _ := e.cluster().TraceOf(&e.balancers[i])
		there[e.balancers[i].ID] = e.restoringBalancer(&e.balancers[i], trace)
	}
	for i := range e.bundles {
		trace, _ := e.cluster().TraceOfBundle(&e.bundles[i])
		there[e.bundles[i].ID] = e.restoringBundle(&e.bundles[i], trace)
	}
	for _, id := range ids {
		if there[canonical(id)] == nil {
			return nil, fmt.Errorf("restore load balancer or certificate bundle %s: it is not in this account: %w", id, cloud.ErrNotFound)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(there)) {
		f := there[id]
		asked := slices.ContainsFunc(ids, func(one string) bool { return canonical(one) == id }) || len(ids) == 0 && f.trace.ClusterUID == e.uid
		if !asked || !carriesStage(f.subject.labels()) {
			continue
		}
		report.Findings = append(report.Findings, f)
		if err := b.config.carryOut(ctx, f, ActionRestore, e.now, "", true); err != nil {
			return report, err
		}
	}
	return report, nil
}
