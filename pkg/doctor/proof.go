package doctor

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Proof is what shows that a thing was left behind by this cluster.
type Proof string

// The proofs, from none to enough.
const (
	// ProofNone: nothing on it says that this very cluster made it. It is listed, and never touched.
	ProofNone Proof = "none"
	// ProofMade: it carries the cluster's UID, so that this cluster made it, or a copy of it. Whether it is wanted, a person has to
	// say in a plan.
	ProofMade Proof = "made-here"
	// ProofRecorded: besides, the cluster's own record says that it was to be deleted. Fix may take it out of the way.
	ProofRecorded Proof = "recorded"
)

// Action is what Fix, or a plan, does with a finding.
type Action string

// The actions.
const (
	ActionKeep       Action = "keep"
	ActionWait       Action = "wait" // for Finding.Due
	ActionMark       Action = "mark"
	ActionQuarantine Action = "quarantine"
	ActionRemove     Action = "remove"
	ActionRestore    Action = "restore" // take mark and quarantine off again
)

// judge finds out about a storage that no object names: nil for one that does not concern this cluster. s is as StorageNow reads
// it. reviewed says that a person has looked at this very thing and wants it gone.
func (v *view) judge(s *cloud.Storage, reviewed bool) *Finding {
	named := v.objects.namedBy(s.ID)
	if why := cmp.Or(named, v.storageKeptBy(s)); why != "" && carriesStage(s.Labels) {
		f := v.restoring(s) // an object needs it, or a person has seen it and wants it
		f.Note = why
		return f
	}
	f := findingOf(kindOf[s.Role], s)
	f.Claim, f.Note, f.subject = v.claim(s), v.objects.origin(s), &storageSubject{v.config.Cloud, s}
	f.stage = v.stageOf(s.ID, s.Labels)
	f.Proof = v.proof(s)
	if why := v.tooEarly(s); why != "" {
		f.undecided, f.Kept = true, why
		return f
	}
	f.Kept = cmp.Or(v.whyNever(s), named)
	if f.Kept == "" {
		f.Kept, f.onPurpose = v.onPurpose(s)
	}
	if reviewed && f.onPurpose && s.Role == cloud.RoleSnapshot && v.storageKeptBy(s) == "" {
		f.Kept, f.onPurpose = "", false // nothing but a person's word can say so of a backup
	}
	v.config.decide(f, v.now, reviewed, v.stop)
	return f
}

// decide finds the next action. stop says why nothing may go on without a person.
func (r *Rules) decide(f *Finding, now time.Time, reviewed bool, stop string) {
	reviewed = reviewed || f.stage.Stage == StageQuarantine && f.stage.reviewed
	switch {
	case f.Kept != "":
	case f.Proof == ProofNone:
		f.Kept = "no label says that this cluster made it; the doctor never touches it"
	case f.Proof == ProofMade && !reviewed:
		f.Kept = "this cluster did not see it being deleted: whether it is wanted, a person must say in a plan"
	case stop != "" && !reviewed:
		f.Kept = stop
	}
	f.Stage = f.stage.Stage
	if f.Stage != StageNone {
		f.Since = &f.stage.since
	}
	switch wait := r.waitOf(f.stage.Stage); {
	case f.Kept != "":
		f.Action = ActionKeep
	case r.Now:
		f.Action = ActionRemove
	case f.Stage == StageNone:
		f.Action = ActionMark
	case now.Sub(f.stage.since) < wait:
		due := f.stage.since.Add(wait)
		f.Action, f.Due = ActionWait, &due
	case f.Stage == StageMarked:
		f.Action = ActionQuarantine
	default:
		f.Action = ActionRemove
	}
}

// young reports whether a thing is younger than the safety age. The account's clock is read in whole seconds, so that what was just made
// may seem to be made in a moment.
func (r *Rules) young(now, created time.Time) bool {
	return r.SafetyAge > 0 && now.Sub(created) < r.SafetyAge
}

// waitOf is how long a thing stays in a stage at least.
func (r *Rules) waitOf(s Stage) time.Duration {
	switch s {
	case StageMarked:
		return r.SafetyAge
	case StageQuarantine:
		return r.Quarantine
	}
	return 0
}

// stageOf is the stage of a thing, if this cluster's record knows the look that put it there: any other is of a copy of this
// cluster, or of a time that etcd was set back before, and begins again.
func (v *view) stageOf(id string, labels map[string]string) stage {
	found := stageOf(labels)
	if found.Stage == StageNone || v.record.things[id].look != found.look || found.since.After(v.now) {
		return stage{}
	}
	return found
}

// claim is whose a storage is. The UID wins over the ID, which people give, and may give twice.
func (v *view) claim(s *cloud.Storage) cloud.Claim {
	switch s.Labels[cloud.LabelClusterUID] {
	case "":
		return s.Claim
	case v.uid:
		return cloud.ClaimOurs
	}
	return cloud.ClaimOther
}

func (v *view) carriesUID(s *cloud.Storage) bool {
	return v.uid != "" && s.Labels[cloud.LabelClusterUID] == v.uid
}

func (v *view) proof(s *cloud.Storage) Proof {
	if s.Role == cloud.RoleCopy {
		// A copy has no labels yet. While its source is there, all that is in it is in the source.
		if source := v.storages[s.SourceID]; source != nil && v.carriesUID(source) && s.Claim != cloud.ClaimOther {
			return ProofRecorded
		}
		return ProofNone
	}
	switch {
	case !v.carriesUID(s):
		return ProofNone
	case s.Role == cloud.RoleVolume && v.record.things[s.ID].wish == wishDelete:
		return ProofRecorded
	}
	return ProofMade
}

// tooEarly says why it is too early to judge a storage that no object knows.
func (v *view) tooEarly(s *cloud.Storage) string {
	if !s.Created.IsZero() && v.config.young(v.now, s.Created) {
		return fmt.Sprintf("younger than %s: it may be waited for", v.config.SafetyAge)
	}
	return v.objects.waiting(s)
}

// whyNever says which rule forbids to touch a storage, whoever asks.
func (v *view) whyNever(s *cloud.Storage) string {
	switch {
	case v.claim(s) == cloud.ClaimOther:
		return "it is another cluster's"
	case s.Role == cloud.RoleOther:
		return "nothing says that a CSI driver made it"
	case len(s.ServerIDs) > 0:
		return "it is attached to server " + strings.Join(s.ServerIDs, ", ")
	case s.Created.IsZero():
		return "the API does not tell its age"
	case s.Role == cloud.RoleSnapshot && !v.objects.hasContents:
		return "the cluster has no kind VolumeSnapshotContent, so that nothing could know it"
	case s.State != stateOnline && s.State != stateError:
		return "it is in state " + s.State
	}
	if lost := v.objects.lostVolume(s); lost != "" {
		return lost + " is still there, and its PersistentVolume is not"
	}
	return ""
}

// onPurpose says why a person or a program may keep a storage that no object names, although it costs money.
func (v *view) onPurpose(s *cloud.Storage) (why string, onPurpose bool) {
	why = v.storageKeptBy(s)
	switch {
	case s.Role == cloud.RoleSnapshot:
		why = cmp.Or(why, "a backup tool such as Velero, or a person, may keep it: neither leaves a VolumeSnapshotContent")
	case v.record.things[s.ID].wish == wishRetain:
		why = cmp.Or(why, "its PersistentVolume had the reclaim policy Retain")
	}
	return why, why != ""
}

// unknown finds a disk that says it is this cluster's and that this cluster has never known: a copy of the cluster is at work, or
// etcd was set back, or a creation was interrupted. Which of them it is nothing says. A young one counts, too: a copy of the cluster may
// have begun to run just now.
func (v *view) unknown() string {
	for _, s := range v.sorted() {
		_, remembered := v.record.things[s.ID]
		if s.Role != cloud.RoleVolume || !v.carriesUID(s) || remembered || v.objects.knows(s) || v.objects.waiting(s) != "" || v.storageKeptBy(s) != "" {
			continue
		}
		return fmt.Sprintf("storage %s says that this cluster made it, and this cluster's record does not know it: etcd may have been set back, "+
			"or copied to another cluster that runs; decide about that storage in a plan, or label it keep, and the doctor goes on", s.ID)
	}
	return ""
}

// twin is said where a disk of this cluster is attached to a server that is not one of its nodes.
func twin(s *cloud.Storage, server string) string {
	return fmt.Sprintf("storage %s says that this cluster made it, and server %s has it attached, which is no node of this cluster: another "+
		"cluster with this one's UID may be running, on a copy of its etcd; nothing is removed while that is so", s.ID, server)
}

// States in which nothing is under way with a storage.
const (
	stateOnline = "online"
	stateError  = "error"
)
