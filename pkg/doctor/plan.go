package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// PlanEntry is one line of a reviewed plan: a finding as the report had it, with the action that a person wants.
type PlanEntry struct {
	Kind           Kind   `json:"kind"`
	StorageID      string `json:"storageID,omitempty"`
	LoadBalancerID string `json:"loadBalancerID,omitempty"`
	CertificateID  string `json:"certificateID,omitempty"`
	Action         Action `json:"action,omitempty"`
	Fingerprint    string `json:"fingerprint,omitempty"`
}

func (e PlanEntry) id() string { return cmp.Or(e.StorageID, e.CertificateID, e.LoadBalancerID) }

// Plan is a report that a person has reviewed, and may have edited: what stands in it is done, and nothing else.
type Plan struct {
	Subject    string      `json:"subject"`    // of the report
	ClusterUID string      `json:"clusterUID"` // of the report
	Made       time.Time   `json:"made"`       // by the account's clock
	Findings   []PlanEntry `json:"findings"`
	Kept       []PlanEntry `json:"keptOnPurpose"`
}

// Entries are those that ask for something to be done.
func (p *Plan) Entries() []PlanEntry {
	var asked []PlanEntry
	for _, list := range [][]PlanEntry{p.Findings, p.Kept} {
		for _, entry := range list {
			if entry.Action != "" && entry.Action != ActionKeep && entry.Action != ActionWait {
				asked = append(asked, entry)
			}
		}
	}
	return asked
}

// Check finds what is wrong with a plan before anything is done.
func (p *Plan) Check() error {
	switch {
	case p.ClusterUID == "" || p.Made.IsZero():
		return errors.New("no clusterUID or no made in it; make a plan with --output yaml")
	case p.Subject != "storage" && p.Subject != "load-balancers":
		return fmt.Errorf("invalid subject %q: must be storage or load-balancers", p.Subject)
	}
	for _, entry := range p.Entries() {
		if entry.Action != ActionMark && entry.Action != ActionQuarantine && entry.Action != ActionRemove && entry.Action != ActionRestore {
			return fmt.Errorf("invalid action %q of %s in the plan: must be keep, mark, quarantine, remove or restore", entry.Action,
				entry.id())
		}
		if entry.Fingerprint == "" {
			return fmt.Errorf("the plan has no fingerprint of %s; make the plan again", entry.id())
		}
	}
	return nil
}

// Apply does exactly what the plan says: to the things that it names, if they are as they were when the plan was made, and if no rule
// forbids it. r is a report that was just made. It returns a report of what the plan names alone. Errors: ErrMismatch.
func (r *Report) Apply(ctx context.Context, plan *Plan) (*Report, error) {
	if plan.ClusterUID != r.ClusterUID {
		return nil, otherCluster(plan.ClusterUID, r.ClusterUID)
	}
	t, look := r.treatment, newLook()
	done := *r
	done.Findings, done.Kept, done.Undecided = []*Finding{}, []*Finding{}, []*Finding{}
	for _, entry := range plan.Entries() {
		f := r.find(entry)
		if f == nil {
			f = &Finding{Kind: entry.Kind, StorageID: entry.StorageID, LoadBalancerID: entry.LoadBalancerID, CertificateID: entry.CertificateID}
		} else if f.stage.Stage == StageNone && entry.Action != ActionRestore {
			t.record.looked(f.subject.id(), look)
		}
		f.Action = entry.Action
		done.Findings = append(done.Findings, f)
	}
	if err := t.record.save(ctx); err != nil {
		return nil, err
	}
	for i, entry := range plan.Entries() {
		if err := t.applyEntry(ctx, plan, entry, done.Findings[i], look); err != nil {
			return &done, err
		}
	}
	return &done, nil
}

// find finds the thing of an entry in the report; nil when it is no finding any more.
func (r *Report) find(entry PlanEntry) *Finding {
	for _, list := range [][]*Finding{r.Findings, r.Kept} {
		for _, f := range list {
			if f.subject != nil && f.subject.id() == entry.id() {
				return f
			}
		}
	}
	return nil
}

func (t *treatment) applyEntry(ctx context.Context, plan *Plan, entry PlanEntry, f *Finding, look string) error {
	if f.subject == nil {
		f.Outcome = OutcomeResolved
		return nil
	}
	now, err := t.again(ctx, f, true)
	if err != nil {
		return err
	}
	if f.Kept = t.whyNotPlanned(plan, entry, now); f.Kept != "" {
		f.Outcome = OutcomeKept
		return nil
	}
	return t.finish(ctx, f, now, look, true)
}

// whyNotPlanned says what stands against an entry of a plan; empty when nothing does. now is the thing as it is, judged as reviewed.
func (t *treatment) whyNotPlanned(plan *Plan, entry PlanEntry, now *Finding) string {
	looked := func(since time.Time) bool { return t.now.Sub(since) >= t.SafetyAge }
	switch {
	case now == nil:
		return "it has changed since it was listed, or an object names it now"
	case fingerprint(now.subject) != entry.Fingerprint:
		return "its title or its labels have changed since the plan was made; make the plan again"
	case entry.Action == ActionRestore && !carriesStage(now.subject.labels()):
		return "it is neither marked nor in quarantine"
	case entry.Action == ActionRestore:
		return ""
	case now.Kept != "":
		return now.Kept
	case t.Now || entry.Action == ActionMark:
		return ""
	case entry.Action == ActionQuarantine && !looked(plan.Made) && (now.stage.Stage == StageNone || !looked(now.stage.since)):
		return fmt.Sprintf("it was first looked at less than %s ago; apply the plan later, or with --now", t.SafetyAge)
	case entry.Action == ActionRemove && now.stage.Stage != StageQuarantine:
		return "only what is in quarantine is removed; plan the action quarantine first, or apply with --now"
	case entry.Action == ActionRemove && t.now.Sub(now.stage.since) < t.Quarantine:
		return "its quarantine ends at " + now.stage.since.Add(t.Quarantine).Format(time.RFC3339)
	}
	return ""
}
