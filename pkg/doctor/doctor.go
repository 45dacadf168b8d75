// Package doctor compares the storages and the load balancers of an UpCloud account with what a Kubernetes cluster knows of
// them: it finds what was left behind on either side, and takes leftovers of the account out of the way, step by step.
//
// What is removed is proven: it carries the UID of this cluster, the cluster's own record says that it was to be deleted, or a person
// has said so in a plan, and two looks a safety age apart found that nothing wants it. Then it goes into a quarantine that a person
// sees and can end, and only from there away. docs/doctor.md says why each rule is as it is.
//
// The package knows which Kubernetes object stands for what. What the storages of a cluster look like is pkg/cloud's to know, and what
// its load balancers look like pkg/loadbalancer's. It reads each kind of object with one list, and the account with as few as
// it has pages, and looks at a thing again before anything is done to it. In Kubernetes it writes one ConfigMap, its record.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Rules are how careful a doctor is.
type Rules struct {
	// SafetyAge is how old a thing must be, and how long ago it must have been marked, to be put into quarantine.
	SafetyAge time.Duration
	// Quarantine is how long a thing is in quarantine before it is removed.
	Quarantine time.Duration
	// Now skips the two waits, and no other rule.
	Now bool
	// Unclaimed is what becomes of things that do not tell whose they are.
	Unclaimed Unclaimed
	// Journal gets every change before it is made and after. Its error ends the run. nil: no journal.
	Journal func(Entry) error
}

// Config is what the doctor of storages looks at, and how strict it is.
type Config struct {
	Rules
	// Cloud is the account, with the cluster's ID.
	Cloud *cloud.Cloud
	// ClusterID is that ID, as csi-driver has it.
	ClusterID  string
	Kubernetes kubernetes.Interface
	// Dynamic reads VolumeSnapshotContents, whose kind a cluster may lack.
	Dynamic dynamic.Interface
	// Driver is the name of the CSI driver whose volumes are judged.
	Driver string
}

// Unclaimed says how to treat things that name no cluster: those made without a cluster ID, and those of UpCloud's own programs. They
// are never touched.
type Unclaimed string

// The treatments of what is unclaimed.
const (
	UnclaimedReport Unclaimed = "report"
	UnclaimedIgnore Unclaimed = "ignore"
)

// Doctor examines the storages of one cluster and one account.
type Doctor struct{ config Config }

// New makes a Doctor.
func New(config Config) (*Doctor, error) {
	if err := config.Rules.check(); err != nil {
		return nil, err
	}
	return &Doctor{config: config}, nil
}

func (r *Rules) check() error {
	switch {
	case r.Unclaimed != UnclaimedReport && r.Unclaimed != UnclaimedIgnore:
		return fmt.Errorf("invalid treatment %q of what is unclaimed: must be report or ignore", r.Unclaimed)
	case r.SafetyAge < 0 || r.Quarantine < 0:
		return errors.New("invalid safety age or quarantine: must not be negative")
	}
	return nil
}

// view is both sides as they were read once.
type view struct {
	*Doctor
	uid         string    // of this cluster
	now         time.Time // by the account's clock
	storages    map[string]*cloud.Storage
	favorites   map[string]bool
	prices      cloud.StoragePrices
	named       map[string]int // how many disks carry a name
	objects     *objects
	record      *record
	nodes       map[string]string   // Node -> node ID
	servers     map[string]bool     // of the cluster's nodes
	attached    map[string][]string // storage -> servers
	attachments []*attachment
	stop        string // why nothing may go on without a person
}

// read reads both sides. The account is read first: what was made after is not in its list, and cannot be mistaken for a leftover.
func (d *Doctor) read(ctx context.Context) (*view, error) {
	v := &view{Doctor: d, storages: map[string]*cloud.Storage{}, named: map[string]int{}}
	listed, err := d.config.Cloud.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	for _, s := range listed {
		v.storages[s.ID] = s
		if s.Role == cloud.RoleVolume {
			v.named[s.Name]++
		}
	}
	for _, part := range []func(context.Context) error{v.readAccount, v.readCluster, v.readAttached, v.readAttachments, v.checkAccount} {
		if err := part(ctx); err != nil {
			return nil, err
		}
	}
	if err := v.checkID(); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *view) readAccount(ctx context.Context) (err error) {
	if v.now, err = v.config.Cloud.AccountTime(ctx); err != nil {
		return err
	}
	if v.favorites, err = v.config.Cloud.Favorites(ctx); err != nil {
		return err
	}
	// Without prices there is no figure, and nothing else is missing.
	v.prices, _ = v.config.Cloud.StoragePrices(ctx)
	return nil
}

func (v *view) readCluster(ctx context.Context) (err error) {
	if v.uid, err = v.clusterUID(ctx); err != nil {
		return err
	}
	if v.record, err = readRecord(ctx, v.config.Kubernetes, "storages"); err != nil {
		return err
	}
	if v.objects, err = v.readObjects(ctx); err != nil {
		return err
	}
	return v.readNodes(ctx)
}

// clusterUID is what tells this cluster from any other: see cloud.LabelClusterUID.
func (d *Doctor) clusterUID(ctx context.Context) (string, error) {
	return clusterUID(ctx, d.config.Kubernetes)
}

func clusterUID(ctx context.Context, client kubernetes.Interface) (string, error) {
	namespace, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	switch {
	case err != nil:
		return "", unreadable("namespace "+metav1.NamespaceSystem, err)
	case namespace.UID == "":
		return "", apierrors.NewInternalError(errors.New("namespace kube-system has no UID"))
	}
	return string(namespace.UID), nil
}

// Examine finds the leftovers. It changes nothing. Errors: ErrMismatch.
func (d *Doctor) Examine(ctx context.Context) (*Report, error) {
	v, err := d.read(ctx)
	if err != nil {
		return nil, err
	}
	e := &examination{view: v, report: v.newReport(), asked: map[string]string{}}
	for _, judge := range []func(context.Context) error{e.judgeAttached, e.judgeStorages, e.judgeVolumes, e.judgeContents, e.judgeAttachments} {
		if err := judge(ctx); err != nil {
			return nil, err
		}
	}
	e.report.order()
	return e.report, nil
}

func (v *view) newReport() *Report {
	return &Report{
		Subject: "storage", ClusterUID: v.uid, Made: v.now, Examined: len(v.storages), treatment: v.treatment(),
		Findings: []*Finding{}, Kept: []*Finding{}, Undecided: []*Finding{}, WithoutSnapshots: !v.objects.hasContents,
	}
}

// treatment notes what this look saw, and lets the report go on from it.
func (v *view) treatment() *treatment {
	backedUp := map[string]bool{}
	for _, s := range v.storages {
		backedUp[s.SourceID] = true
	}
	// Of what is seen, the record is judged by as it was before.
	seen := v.record.clone()
	for id, wanted := range v.objects.wishes {
		if v.storages[id] != nil {
			seen.see(id, wanted)
		}
	}
	seen.forgetBut(func(id string) bool { return v.storages[id] != nil || backedUp[id] })
	return &treatment{Rules: &v.config.Rules, now: v.now, record: seen, again: v.again}
}

// sorted are the storages in the order of their IDs.
func (v *view) sorted() []*cloud.Storage {
	all := make([]*cloud.Storage, 0, len(v.storages))
	for _, id := range slices.Sorted(maps.Keys(v.storages)) {
		all = append(all, v.storages[id])
	}
	return all
}

// examination is one pass.
type examination struct {
	*view
	report *Report
	asked  map[string]string // node ID and zone -> server, as far as asked
}

// ignored reports whether a storage does not concern this cluster.
func (v *view) ignored(s *cloud.Storage) bool {
	claim := v.claim(s)
	return s.Role == cloud.RoleOther || claim == cloud.ClaimOther || claim == cloud.ClaimNone && v.config.Unclaimed == UnclaimedIgnore
}

// judgeStorages finds the storages that no object knows, and those that are wanted again.
func (e *examination) judgeStorages(ctx context.Context) error {
	if e.stop == "" {
		e.stop = e.unknown()
	}
	for _, listed := range e.sorted() {
		known := e.objects.knows(listed)
		switch {
		case known && !carriesStage(listed.Labels):
			continue
		case !known && e.isScheduled(listed):
			e.keepScheduled(listed)
			continue
		case !known && e.ignored(listed):
			continue
		}
		now, err := e.storageAgain(ctx, listed)
		if err != nil {
			return err
		}
		if now == nil {
			continue
		}
		if known {
			e.report.Findings = append(e.report.Findings, e.wantedAgain(now))
			continue
		}
		e.file(e.judge(now, false), now)
	}
	e.report.Stopped = e.stop
	return nil
}

// file puts a finding where it belongs in the report.
func (e *examination) file(f *Finding, s *cloud.Storage) {
	if credits, known := e.prices.CreditsPerMonth(s); known {
		f.CreditsPerMonth = credits
	}
	f.Fingerprint = fingerprint(f.subject)
	switch {
	case f.undecided:
		f.Note, f.Kept = f.Kept, ""
		e.report.Undecided = append(e.report.Undecided, f)
	case f.onPurpose:
		e.report.Kept = append(e.report.Kept, f)
	default:
		e.report.Findings = append(e.report.Findings, f)
	}
}

var kindOf = map[cloud.Role]Kind{
	cloud.RoleVolume: OrphanVolume, cloud.RoleCopy: UnfinishedCopy, cloud.RoleSnapshot: OrphanSnapshot,
}

// storageAgain looks at a storage once more; nil when it is gone or something has become of it.
func (d *Doctor) storageAgain(ctx context.Context, before *cloud.Storage) (*cloud.Storage, error) {
	now, err := d.config.Cloud.StorageNow(ctx, before.ID)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if now.Role != before.Role || now.Title != before.Title || !maps.Equal(now.Labels, before.Labels) {
		return nil, nil
	}
	now.Claim = before.Claim // which only the list tells of some backups
	if now.Created.IsZero() {
		now.Created = before.Created
	}
	return now, nil
}
