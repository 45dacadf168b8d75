package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
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

// maxPlanEntries is how many entries a plan has at most, and maxPlanText how long a text of one may be: an ID, an action, a fingerprint.
const maxPlanEntries, maxPlanText = 200_000, 256

// ParsePlan reads a plan in YAML or JSON, and checks it. What it costs is limited before it is parsed.
func ParsePlan(text []byte) (*Plan, error) {
	var plan Plan
	if err := bounded.Plan.Unmarshal(text, &plan); err != nil {
		return nil, err
	}
	return &plan, plan.Check()
}

// Check finds what is wrong with a plan before anything is done.
func (p *Plan) Check() error {
	switch {
	case p.ClusterUID == "" || p.Made.IsZero():
		return errors.New("no clusterUID or no made in it; make a plan with --output yaml")
	case p.Subject != "storage" && p.Subject != "load-balancers":
		return fmt.Errorf("invalid subject %q: must be storage or load-balancers", p.Subject)
	}
	if err := bounded.Count(len(p.Findings)+len(p.Kept), maxPlanEntries, "entries"); err != nil {
		return err
	}
	actions := map[string]Action{}
	for _, entry := range p.Entries() {
		if err := entry.check(); err != nil {
			return err
		}
		if other, twice := actions[entry.id()]; twice {
			return fmt.Errorf("the plan has two entries for %s, with the actions %s and %s; leave one of them", entry.id(), other, entry.Action)
		}
		actions[entry.id()] = entry.Action
	}
	return nil
}

// check finds what is wrong with an entry that asks for something to be done.
func (e PlanEntry) check() error {
	for field, text := range map[string]string{"kind": string(e.Kind), "storageID": e.StorageID, "loadBalancerID": e.LoadBalancerID,
		"certificateID": e.CertificateID, "action": string(e.Action), "fingerprint": e.Fingerprint} {
		if err := bounded.Text(text, maxPlanText); err != nil {
			return fmt.Errorf("%s of an entry in the plan is %w", field, err)
		}
	}
	switch {
	case e.id() == "":
		return fmt.Errorf("an entry of the plan has the action %q and no storageID, loadBalancerID or certificateID; make the plan again", e.Action)
	case e.Action != ActionMark && e.Action != ActionQuarantine && e.Action != ActionRemove && e.Action != ActionRestore:
		return fmt.Errorf("invalid action %q of %s in the plan: must be keep, mark, quarantine, remove or restore", e.Action, e.id())
	case e.Fingerprint == "":
		return fmt.Errorf("the plan has no fingerprint of %s; make the plan again", e.id())
	}
	return nil
}

// Apply does exactly what the plan says: to the things that it names, if they are as they were when the plan was made, and if no rule
// forbids it. r is a report that was just made. It returns a report of what the plan names alone. Errors: ErrMismatch, and those of Check.
func (r *Report) Apply(ctx context.Context, plan *Plan) (*Report, error) {
	if err := plan.Check(); err != nil {
		return nil, err
	}
	if plan.ClusterUID != r.ClusterUID {
		return nil, otherCluster(plan.ClusterUID, r.ClusterUID)
	}
	t, look := r.treatment, newLook()
	done := *r
	done.Findings, done.Kept, done.Undecided = []*Finding{}, []*Finding{}, []*Finding{}
	found := r.byID()
	for _, entry := range plan.Entries() {
		f := found[entry.id()]
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

// byID are the findings about things of the account.
func (r *Report) byID() map[string]*Finding {
	found := map[string]*Finding{}
	for _, list := range [][]*Finding{r.Kept, r.Findings} {
		for _, f := range list {
			if f.subject != nil {
				found[f.subject.id()] = f
			}
		}
	}
	return found
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
