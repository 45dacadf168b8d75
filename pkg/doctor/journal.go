package doctor

import (
	"context"
	"maps"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Entry is one line of the journal: a change that is about to be made, or what came of it. A journal that ends with "begun" tells
// what an interrupted run may or may not have done.
type Entry struct {
	Time    time.Time `json:"time"` // of this machine
	Action  Action    `json:"action"`
	Kind    Kind      `json:"kind"`
	ID      string    `json:"id"`
	Title   string    `json:"title,omitempty"`
	Outcome string    `json:"outcome"` // begun, done or failed
	Error   string    `json:"error,omitempty"`
}

// Outcomes in the journal.
const (
	EntryBegun  = "begun"
	EntryDone   = "done"
	EntryFailed = "failed"
)

// carryOut does one action with the thing that a finding is about. look names this run, now is the account's time.
func (r *Rules) carryOut(ctx context.Context, f *Finding, action Action, now time.Time, look string, reviewed bool) error {
	entry := Entry{Time: time.Now(), Action: action, Kind: f.Kind, ID: f.subject.id(), Title: f.subject.title(), Outcome: EntryBegun}
	if err := r.note(entry); err != nil {
		return err // what cannot be noted is not done
	}
	err := act(ctx, f, action, now, r.Quarantine, look, reviewed)
	entry.Time, entry.Outcome = time.Now(), EntryDone
	if err != nil {
		entry.Outcome, entry.Error = EntryFailed, words(err)
	}
	f.Outcome = outcomeOf[action]
	if err != nil {
		f.Outcome, f.Error = OutcomeFailed, entry.Error
	}
	return r.note(entry)
}

// words are an error's for who runs the doctor: nothing repeats what failed here.
func words(err error) string {
	return strings.ReplaceAll(err.Error(), cloud.RemedyRetry, "run upcloud-doctor again later")
}

func (r *Rules) note(entry Entry) error {
	if r.Journal == nil {
		return nil
	}
	return r.Journal(entry)
}

func act(ctx context.Context, f *Finding, action Action, now time.Time, quarantine time.Duration, look string, reviewed bool) error {
	labels, title := maps.Clone(f.subject.labels()), f.subject.title()
	if labels == nil {
		labels = map[string]string{}
	}
	switch action {
	case ActionRemove:
		return f.subject.remove(ctx)
	case ActionMark:
		stage{StageMarked, now, look, reviewed}.put(labels)
		title = plainTitle(title)
	case ActionQuarantine:
		stage{StageQuarantine, now, look, reviewed}.put(labels)
		title = quarantineTitle(title, now.Add(quarantine))
	case ActionRestore:
		stage{}.put(labels)
		if reviewed {
			labels[labelRestored] = valueRestored
		}
		title = plainTitle(title)
	}
	return f.subject.write(ctx, labels, title)
}
