package doctor

import (
	"context"
	"errors"
	"time"

	"k8s.io/klog/v2"
)

// ErrStop is what an Ask returns to end Fix without an error.
var ErrStop = errors.New("stopped")

// Ask asks a person whether the action of a finding may be carried out.
type Ask func(*Finding) (bool, error)

// treatment is what a report's findings can be treated with.
type treatment struct {
	*Rules
	now    time.Time // of the account, as the report was made
	record *record
	// again reads everything that a finding rests on again, and judges its thing; nil when it is gone, has changed, or is wanted.
	// reviewed says that a person wants it gone.
	again func(ctx context.Context, f *Finding, reviewed bool) (*Finding, error)
}

// Fix takes every finding of the report one step further that its proof allows: a mark at the first look, a quarantine a safety age
// later, the removal when the quarantine is over. What is wanted again is restored. It notes in each finding what came of it, and in
// the cluster's record what was seen. nil for ask asks no questions. Both sides are looked at again just before each step.
func (r *Report) Fix(ctx context.Context, ask Ask) error {
	t, look := r.treatment, newLook()
	for _, f := range r.Findings {
		if f.stage.Stage == StageNone && (f.Action == ActionMark || f.Action == ActionQuarantine) {
			t.record.looked(f.subject.id(), look)
		}
	}
	// Before the account is changed: a mark that the record does not know is worth nothing.
	if err := t.record.save(ctx); err != nil {
		return err
	}
	for _, f := range r.Findings {
		agreed, err := f.agreed(ask)
		if errors.Is(err, ErrStop) {
			return nil
		}
		if err != nil {
			return err
		}
		if !agreed {
			continue
		}
		if err := t.step(ctx, f, look); err != nil {
			return err
		}
	}
	return nil
}

// agreed reports whether there is something to do that a person does not mind, and notes in the finding why not.
func (f *Finding) agreed(ask Ask) (bool, error) {
	switch f.Action {
	case "":
		return false, nil
	case ActionKeep:
		f.Outcome = OutcomeKept
		return false, nil
	case ActionWait:
		f.Outcome = OutcomeWaiting
		return false, nil
	}
	if ask == nil {
		return true, nil
	}
	agreed, err := ask(f)
	if err == nil && !agreed {
		f.Outcome = OutcomeDeclined
	}
	return agreed, err
}

// step looks at both sides again, and carries the action out if it is still the right one. Its error ends Fix; that the one step
// failed does not.
func (t *treatment) step(ctx context.Context, f *Finding, look string) error {
	now, err := t.again(ctx, f, false)
	if err != nil {
		return err
	}
	if now == nil || now.undecided || now.Action != f.Action {
		f.Outcome = OutcomeResolved
		if now != nil && now.Kept != "" {
			f.Kept, f.Outcome = now.Kept, OutcomeKept
		}
		return nil
	}
	return t.finish(ctx, f, now, look, now.stage.reviewed && f.Action != ActionRestore)
}

// finish carries the action of f out on what was just read, and notes in f what came of it.
func (t *treatment) finish(ctx context.Context, f, now *Finding, look string, reviewed bool) error {
	if now.stage.look != "" {
		look = now.stage.look
	}
	err := t.carryOut(ctx, now, f.Action, t.now, look, reviewed)
	f.Outcome, f.Error = now.Outcome, now.Error
	if err != nil {
		return err
	}
	klog.FromContext(ctx).V(2).Info("Changed a leftover", "action", f.Action, "kind", f.Kind, "id", now.subject.id(), "outcome", f.Outcome)
	return ctx.Err()
}
