package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// ErrStop is what an Ask returns to end Fix without an error.
var ErrStop = errors.New("stopped")

// Ask asks a person whether a finding may be removed.
type Ask func(*Finding) (bool, error)

// ErrOtherCluster keeps Fix from removing unasked where nothing shows that account and cluster belong together: with a
// kubeconfig of another cluster, all that the first has would look left behind.
var ErrOtherCluster = errors.New("no PersistentVolume of this Kubernetes knows any storage of this cluster ID: check that " +
	"--kubeconfig and --cluster-id are of one cluster, and answer for each leftover instead of --yes")

// Fix removes the leftovers of a report from the account, and notes in each finding what came of it. nil for ask removes
// all that the rules allow. It never removes what is attached, young, or named by an object of Kubernetes; all of that is
// looked at again just before each removal.
func (d *Doctor) Fix(ctx context.Context, report *Report, ask Ask) error {
	if ask == nil && report.Strange() {
		return ErrOtherCluster
	}
	return report.fix(ask, func(finding *Finding) error { return d.remove(ctx, finding) })
}

// fix asks about each finding that can be removed, and removes what may go.
func (r *Report) fix(ask Ask, remove func(*Finding) error) error {
	for _, finding := range r.Findings {
		if !finding.Removable() {
			continue
		}
		if finding.Kept != "" {
			finding.Outcome = OutcomeKept
			continue
		}
		if ask != nil {
			agreed, err := ask(finding)
			if errors.Is(err, ErrStop) {
				return nil
			}
			if err != nil {
				return err
			}
			if !agreed {
				finding.Outcome = OutcomeDeclined
				continue
			}
		}
		if err := remove(finding); err != nil {
			return err
		}
	}
	return nil
}

// Strange reports whether there is something to remove, and nothing that shows that account and cluster belong together.
func (r *Report) Strange() bool {
	removable := func(f *Finding) bool { return f.Removable() && f.Kept == "" }
	return r.known == 0 && slices.ContainsFunc(r.Findings, removable)
}

// remove looks at both sides again, and then removes one storage. Its error ends Fix; that one storage could not be
// removed does not.
func (d *Doctor) remove(ctx context.Context, finding *Finding) error {
	known, err := d.readObjects(ctx)
	if err != nil {
		return err
	}
	now, err := d.again(ctx, finding.storage)
	switch {
	case err != nil:
		return err
	case now == nil || known.knows(now):
		finding.Outcome = OutcomeResolved
		return nil
	}
	if finding.Kept = d.whyKept(now, known); finding.Kept != "" {
		finding.Outcome = OutcomeKept
		return nil
	}
	if err := d.config.Cloud.RemoveStorage(ctx, now); err != nil {
		finding.Outcome, finding.Error = OutcomeFailed, err.Error()
		return ctx.Err()
	}
	finding.Outcome = OutcomeRemoved
	klog.FromContext(ctx).V(2).Info("Removed a leftover", "kind", finding.Kind, "storage", now.ID, "title", now.Title)
	return nil
}

// whyKept says which rule forbids the removal of a storage; empty when none does.
func (d *Doctor) whyKept(s *cloud.Storage, known *objects) string {
	age := time.Since(s.Created)
	switch {
	case s.Claim == cloud.ClaimOther:
		return "it is another cluster's"
	case s.Claim == cloud.ClaimNone && d.config.Unclaimed != UnclaimedRemove:
		return "it does not say whose it is: --unclaimed remove takes it for this cluster's"
	case s.Role == cloud.RoleOther:
		return "nothing says that a CSI driver made it"
	case len(s.ServerIDs) > 0:
		return "it is attached to server " + strings.Join(s.ServerIDs, ", ")
	case s.Created.IsZero():
		return "the API does not tell its age"
	case age < d.config.SafetyAge:
		return fmt.Sprintf("it is younger than %s", d.config.SafetyAge)
	case known.references[s.ID] != "":
		return known.references[s.ID] + " names it"
	case s.Role == cloud.RoleSnapshot && !known.hasContents:
		return "the cluster has no kind VolumeSnapshotContent, so that nothing could know it"
	}
	if waiting := known.waiting(s); waiting != "" {
		return waiting
	}
	if lost := known.lostVolume(s); lost != "" {
		return lost + " is still there, and its PersistentVolume is not"
	}
	if s.State != stateOnline && s.State != stateError {
		return "it is in state " + s.State
	}
	return ""
}

// States in which nothing is under way with a storage.
const (
	stateOnline = "online"
	stateError  = "error"
)
