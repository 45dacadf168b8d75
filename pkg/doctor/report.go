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

// The kinds of findings about storage. Fix removes the first three.
const (
	OrphanVolume          Kind = "orphan-volume"
	UnfinishedCopy        Kind = "unfinished-copy"
	OrphanSnapshot        Kind = "orphan-snapshot"
	UnexplainedAttachment Kind = "unexplained-attachment"
	LostVolume            Kind = "lost-volume"
	LostSnapshot          Kind = "lost-snapshot"
	LostAttachment        Kind = "lost-attachment"
)

// The kinds of findings about load balancers. Fix removes the first three.
const (
	OrphanBalancer    Kind = "orphan-load-balancer"
	OrphanComponents  Kind = "orphan-components"
	OrphanCertificate Kind = "orphan-certificate"
	UnusedGroup       Kind = "unused-shared-load-balancer"
	TwinBalancer      Kind = "second-load-balancer"
	StuckBalancer     Kind = "stuck-load-balancer"
	LostBalancer      Kind = "lost-load-balancer"
)

// Kinds are all kinds in the order in which they are told.
var Kinds = []Kind{
	OrphanVolume, UnfinishedCopy, OrphanSnapshot, UnexplainedAttachment, LostVolume, LostSnapshot, LostAttachment,
	OrphanBalancer, OrphanComponents, OrphanCertificate, UnusedGroup, TwinBalancer, StuckBalancer, LostBalancer,
}

// Title is the kind's heading.
func (k Kind) Title() string { return kindWords[k].title }

// Remedy is what a person can do about it.
func (k Kind) Remedy() string { return kindWords[k].remedy }

var kindWords = map[Kind]struct{ title, remedy string }{
	OrphanVolume: {"Storages that no PersistentVolume knows",
		"remove them with --fix, or make PersistentVolumes of those that hold wanted data"},
	UnfinishedCopy: {"Unfinished copies", "remove them with --fix: they were never anybody's volume"},
	OrphanSnapshot: {"Backups that no VolumeSnapshotContent knows",
		"remove them with --fix, or make VolumeSnapshotContents of those that are wanted"},
	UnexplainedAttachment: {"Attachments that no VolumeAttachment explains",
		"detach them in UpCloud once nothing on the server has them mounted; the doctor never detaches"},
	LostVolume: {"PersistentVolumes whose storage is gone",
		"the data is gone: restore a snapshot, then delete the claim and the PersistentVolume"},
	LostSnapshot: {"VolumeSnapshotContents whose backup is gone",
		"delete the VolumeSnapshot, or the content where it has none"},
	LostAttachment: {"VolumeAttachments whose storage is not attached there",
		"delete the Pod that uses the volume, so that it is attached again"},
	OrphanBalancer: {"Load balancers whose Service is gone", "remove them with --fix"},
	OrphanComponents: {"Components on shared load balancers whose Service is gone",
		"remove them with --fix: what others have there stays"},
	OrphanCertificate: {"Certificate bundles that no Service asks for", "remove them with --fix"},
	UnusedGroup: {"Load balancers made to be shared that nobody uses",
		"delete them in UpCloud if no cluster is about to use them; the doctor never deletes what clusters share"},
	TwinBalancer: {"Load balancers that claim to be a Service's beside the one that it uses",
		"the oldest is used: look whether somebody copied its labels, and delete the other in UpCloud"},
	StuckBalancer: {"Load balancers that have not come up", "look at them in the UpCloud control panel, or ask UpCloud's support"},
	LostBalancer: {"Services whose load balancer is gone",
		"ccm makes it anew within minutes: look at the Service's events and at ccm's log if it does not"},
}

// Outcomes of Fix.
const (
	OutcomeRemoved  = "removed"
	OutcomeKept     = "kept"     // a rule forbids it, see Kept
	OutcomeDeclined = "declined" // the answer was no
	OutcomeFailed   = "failed"   // see Error
	OutcomeResolved = "resolved" // when it was looked at again, it was no leftover any more
)

// Finding is one thing that one side has and the other does not know.
type Finding struct {
	Kind Kind `json:"kind"`
	// StorageID is the UUID of the disk or backup; in findings about an object the one that it names.
	StorageID string `json:"storageID,omitempty"`
	// LoadBalancerID is the UUID of the load balancer that it is about, or that something is on.
	LoadBalancerID string `json:"loadBalancerID,omitempty"`
	// CertificateID is the UUID of a certificate bundle.
	CertificateID string      `json:"certificateID,omitempty"`
	Title         string      `json:"title,omitempty"`
	Claim         cloud.Claim `json:"claim,omitempty"`
	SizeGiB       int         `json:"sizeGiB,omitempty"`
	Zone          string      `json:"zone,omitempty"`
	State         string      `json:"state,omitempty"`
	Created       *time.Time  `json:"created,omitempty"`
	// ServerIDs are the servers that it is attached to; in findings about attachments the one concerned.
	ServerIDs []string `json:"serverIDs,omitempty"`
	// Object is the Kubernetes object concerned, such as "PersistentVolume/pvc-…".
	Object string `json:"object,omitempty"`
	Note   string `json:"note,omitempty"`
	// Kept says why Fix leaves it as it is; empty when it would be removed.
	Kept    string `json:"kept,omitempty"`
	Outcome string `json:"outcome,omitempty"` // after Fix
	Error   string `json:"error,omitempty"`

	storage *cloud.Storage // as listed
	balancer
}

// Removable reports whether Fix can do something about findings of this kind.
func (f *Finding) Removable() bool { return f.storage != nil || f.balancer.removable() }

// Unclaimed reports whether nothing says which cluster's it is.
func (f *Finding) Unclaimed() bool { return f.Claim == cloud.ClaimNone }

// Report is what was found.
type Report struct {
	Findings []*Finding `json:"findings"`
	// Undecided are things that look like leftovers and may be work that is under way; they are no findings.
	Undecided []*Finding `json:"undecided"`
	Examined  int        `json:"storagesExamined"`
	// ExaminedBalancers is how many load balancers there are in the account.
	ExaminedBalancers int `json:"loadBalancersExamined,omitempty"`
	// WithoutSnapshots says that the cluster has no kind VolumeSnapshotContent.
	WithoutSnapshots bool `json:"withoutSnapshots,omitempty"`

	known int // things of the account that the cluster's objects know
}

// Left is the number of findings that Fix did not settle.
func (r *Report) Left() int {
	n := 0
	for _, finding := range r.Findings {
		if finding.Outcome != OutcomeRemoved && finding.Outcome != OutcomeResolved {
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
	for _, list := range []*[]*Finding{&r.Findings, &r.Undecided} {
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

// Subject is what the finding is about in words for a question.
func (f *Finding) Subject() string {
	if f.balancer.removable() {
		return f.balancer.subject(f)
	}
	what := map[Kind]string{OrphanVolume: "storage", UnfinishedCopy: "unfinished copy", OrphanSnapshot: "backup"}[f.Kind]
	subject := fmt.Sprintf("%s %s, titled %q, of %d GiB in %s", what, f.StorageID, f.Title, f.SizeGiB, f.Zone)
	if f.Unclaimed() {
		subject += ", which does not say whose it is"
	}
	return subject
}

func isGone(err error) bool { return errors.Is(err, cloud.ErrNotFound) }
