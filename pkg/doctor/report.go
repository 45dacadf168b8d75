package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Kind is what is wrong.
type Kind string

// The kinds of findings about storage.
const (
	OrphanVolume          Kind = "orphan-volume"
	UnfinishedCopy        Kind = "unfinished-copy"
	OrphanSnapshot        Kind = "orphan-snapshot"
	ScheduledBackup       Kind = "scheduled-backup"
	WantedAgain           Kind = "wanted-again"
	UnexplainedAttachment Kind = "unexplained-attachment"
	LostVolume            Kind = "lost-volume"
	LostSnapshot          Kind = "lost-snapshot"
	LostAttachment        Kind = "lost-attachment"
)

// The kinds of findings about load balancers.
const (
	OrphanBalancer     Kind = "orphan-load-balancer"
	OtherClassBalancer Kind = "other-class-load-balancer"
	AdoptableBalancer  Kind = "adoptable-load-balancer"
	OrphanComponents   Kind = "orphan-components"
	OrphanCertificate  Kind = "orphan-certificate"
	UnusedGroup        Kind = "unused-shared-load-balancer"
	TwinBalancer       Kind = "second-load-balancer"
	StuckBalancer      Kind = "stuck-load-balancer"
	LostBalancer       Kind = "lost-load-balancer"
)

// The kinds of findings about routes.
const (
	DeadRoute    Kind = "route-of-another-cluster"
	UnusedRouter Kind = "unused-router"
)

// Kinds are all kinds in the order in which they are printed.
var Kinds = []Kind{
	WantedAgain, OrphanVolume, UnfinishedCopy, OrphanSnapshot, ScheduledBackup, UnexplainedAttachment, LostVolume, LostSnapshot, LostAttachment,
	OrphanBalancer, AdoptableBalancer, OtherClassBalancer, OrphanComponents, OrphanCertificate, UnusedGroup, TwinBalancer, StuckBalancer, LostBalancer,
	DeadRoute, UnusedRouter,
}

// Outcomes of Fix.
const (
	OutcomeMarked      = "marked"
	OutcomeQuarantined = "quarantined"
	OutcomeRestored    = "restored"
	OutcomeRemoved     = "removed"
	OutcomeWaiting     = "waiting"  // see Due
	OutcomeKept        = "kept"     // a rule forbids it, see Kept
	OutcomeDeclined    = "declined" // the answer was no
	OutcomeFailed      = "failed"   // see Error
	OutcomeResolved    = "resolved" // when it was looked at again, it was no leftover any more
)

var outcomeOf = map[Action]string{
	ActionMark: OutcomeMarked, ActionQuarantine: OutcomeQuarantined, ActionRestore: OutcomeRestored, ActionRemove: OutcomeRemoved,
}

// Finding is one thing that one side has and the other does not know.
type Finding struct {
	Kind Kind `json:"kind"`
	// StorageID is the UUID of the disk or backup; in findings about an object the one that it names.
	StorageID string `json:"storageID,omitempty"`
	// LoadBalancerID is the UUID of the load balancer that it is about, or that something is on.
	LoadBalancerID string `json:"loadBalancerID,omitempty"`
	// CertificateID is the UUID of a certificate bundle.
	CertificateID string `json:"certificateID,omitempty"`
	// RouterID is the UUID of a router, or of the one that a route is on.
	RouterID string      `json:"routerID,omitempty"`
	Title    string      `json:"title,omitempty"`
	Claim    cloud.Claim `json:"claim,omitempty"`
	SizeGiB  int         `json:"sizeGiB,omitempty"`
	Zone     string      `json:"zone,omitempty"`
	State    string      `json:"state,omitempty"`
	Created  *time.Time  `json:"created,omitempty"`
	// ServerIDs are the servers that it is attached to; in findings about attachments the one concerned.
	ServerIDs []string `json:"serverIDs,omitempty"`
	// Object is the Kubernetes object concerned, such as "PersistentVolume/pvc-…".
	Object string `json:"object,omitempty"`
	Note   string `json:"note,omitempty"`
	// Proof is what shows that this cluster left it behind, for things of the account.
	Proof Proof `json:"proof,omitempty"`
	// Stage is how far it is on its way out, and Since when it came there, by the account's clock.
	Stage Stage      `json:"stage,omitempty"`
	Since *time.Time `json:"since,omitempty"`
	// Action is what Fix does next, and what a plan may ask for; empty for findings about objects of Kubernetes.
	Action Action `json:"action,omitempty"`
	// Due is when the action after the present stage can come.
	Due *time.Time `json:"due,omitempty"`
	// Kept says why Fix leaves it as it is.
	Kept string `json:"kept,omitempty"`
	// Adopt is the annotation with which a Service takes a load balancer as its own.
	Adopt string `json:"adopt,omitempty"`
	// CreditsPerMonth is what it costs in 730 hours, by the account's price list; zero where that does not say.
	CreditsPerMonth float64 `json:"creditsPerMonth,omitempty"`
	// Fingerprint tells whether it has changed since: a plan is applied to what it was made for.
	Fingerprint string `json:"fingerprint,omitempty"`
	Outcome     string `json:"outcome,omitempty"` // after Fix
	Error       string `json:"error,omitempty"`

	subject              subject // nil where there is nothing to label or remove
	stage                stage
	undecided, onPurpose bool
	balancer
}

// Removable reports whether the finding is about a thing of the account, and not an object of Kubernetes.
func (f *Finding) Removable() bool { return f.subject != nil }

// Unclaimed reports whether nothing says which cluster's it is.
func (f *Finding) Unclaimed() bool { return f.Claim == cloud.ClaimNone }

// Report is what was found.
type Report struct {
	// Subject is the command that makes such reports, ClusterUID the cluster's, Made the account's time: what a plan needs.
	Subject    string     `json:"subject"`
	ClusterUID string     `json:"clusterUID"`
	Made       time.Time  `json:"made"`
	Findings   []*Finding `json:"findings"`
	// Kept are things that no object knows and that are kept on purpose, or may be; they are no findings.
	Kept []*Finding `json:"keptOnPurpose"`
	// Undecided are things that look like leftovers and may be work that is under way; they are no findings.
	Undecided []*Finding `json:"undecided"`
	Examined  int        `json:"storagesExamined"`
	// ExaminedBalancers is how many load balancers there are in the account.
	ExaminedBalancers int `json:"loadBalancersExamined,omitempty"`
	// WithoutSnapshots says that the cluster has no kind VolumeSnapshotContent.
	WithoutSnapshots bool `json:"withoutSnapshots,omitempty"`

	// Stopped says why nothing goes on without a plan of a person.
	Stopped string `json:"stopped,omitempty"`

	treatment *treatment
}

// Left is the number of findings that Fix did not settle.
func (r *Report) Left() int {
	n := 0
	for _, finding := range r.Findings {
		if !slices.Contains([]string{OutcomeRemoved, OutcomeResolved, OutcomeRestored}, finding.Outcome) {
			n++
		}
	}
	return n
}

// OneFailed reports whether a removal failed.
func (r *Report) OneFailed() bool {
	return slices.ContainsFunc(r.Findings, func(f *Finding) bool { return f.Outcome == OutcomeFailed })
}

func (r *Report) order() {
	rank := func(f *Finding) int { return slices.Index(Kinds, f.Kind) }
	for _, list := range []*[]*Finding{&r.Findings, &r.Kept, &r.Undecided} {
		if *list == nil {
			*list = []*Finding{} // an empty list in JSON, too
		}
		slices.SortStableFunc(*list, func(a, b *Finding) int {
			return cmp.Or(cmp.Compare(rank(a), rank(b)), -cmp.Compare(a.Claim, b.Claim),
				cmp.Compare(a.Object, b.Object), cmp.Compare(a.StorageID, b.StorageID),
				cmp.Compare(a.LoadBalancerID, b.LoadBalancerID), cmp.Compare(a.CertificateID, b.CertificateID))
		})
	}
}

func findingOf(kind Kind, s *cloud.Storage) *Finding {
	f := &Finding{
		Kind: kind, StorageID: s.ID, Title: s.Title, Claim: s.Claim, SizeGiB: s.SizeGiB, Zone: s.Zone,
		State: s.State, ServerIDs: s.ServerIDs,
	}
	if !s.Created.IsZero() {
		f.Created = &s.Created
	}
	return f
}

// Words are what the finding is about in words for a question.
func (f *Finding) Words() string {
	if f.balancer.removable() {
		return f.balancer.words(f)
	}
	what := "storage"
	switch f.Kind {
	case UnfinishedCopy:
		what = "unfinished copy"
	case OrphanSnapshot:
		what = "backup"
	}
	return fmt.Sprintf("%s %s, titled %q, of %d GiB in %s", what, f.StorageID, f.Title, f.SizeGiB, f.Zone)
}

func isGone(err error) bool { return errors.Is(err, cloud.ErrNotFound) }
