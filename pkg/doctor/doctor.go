// Package doctor compares the storages and the load balancers of an UpCloud account with what a Kubernetes cluster knows of
// them: it finds what was left behind on either side, and removes leftovers of the account when told to.
//
// It knows which Kubernetes object stands for what. What the storages of a cluster look like is pkg/cloud's to know, and what
// its load balancers look like pkg/loadbalancer's. It reads each kind of object with one list, and the account with as few as
// it has pages, looks at a thing again before it is called a finding, and changes nothing in Kubernetes.
package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Config is what the doctor of storages looks at, and how strict it is.
type Config struct {
	// Cloud is the account, with the cluster's ID.
	Cloud      *cloud.Cloud
	Kubernetes kubernetes.Interface
	// Dynamic reads VolumeSnapshotContents, whose kind a cluster may lack.
	Dynamic dynamic.Interface
	// Driver is the name of the CSI driver whose volumes are judged.
	Driver string
	// SafetyAge is how old a storage must be to be called a leftover: a younger one may be waited for by somebody.
	SafetyAge time.Duration
	// Unclaimed is what becomes of storages that do not tell whose they are.
	Unclaimed Unclaimed
}

// Unclaimed says how to treat storages that look like a CSI driver's and name no cluster: those made without a cluster
// ID, and those of UpCloud's own driver.
type Unclaimed string

// The treatments of unclaimed storages.
const (
	UnclaimedReport Unclaimed = "report"
	UnclaimedIgnore Unclaimed = "ignore"
	UnclaimedRemove Unclaimed = "remove" // by Fix, as if they were this cluster's
)

// Doctor examines the storages of one cluster and one account.
type Doctor struct{ config Config }

// New makes a Doctor.
func New(config Config) (*Doctor, error) {
	if err := checkRules(config.Unclaimed, config.SafetyAge); err != nil {
		return nil, err
	}
	return &Doctor{config: config}, nil
}

// Examine finds the leftovers. It changes nothing.
func (d *Doctor) Examine(ctx context.Context) (*Report, error) {
	// The account is read first: what was made after is not in its list, and cannot be mistaken for a leftover.
	listed, err := d.config.Cloud.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	known, err := d.readObjects(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := d.readNodes(ctx)
	if err != nil {
		return nil, err
	}
	e := &examination{
		Doctor: d, storages: make(map[string]*cloud.Storage, len(listed)), objects: known, nodes: nodes,
		servers: map[string]string{},
	}
	for _, storage := range listed {
		e.storages[storage.ID] = storage
	}
	// Attachments are made and undone while their VolumeAttachment is there, so that these are read last.
	if err := e.readAttached(ctx); err != nil {
		return nil, err
	}
	if e.attachments, err = d.readAttachments(ctx); err != nil {
		return nil, err
	}
	for _, judge := range []func(context.Context) error{e.judgeStorages, e.judgeAttached, e.judgeVolumes, e.judgeContents, e.judgeAttachments} {
		if err := judge(ctx); err != nil {
			return nil, err
		}
	}
	e.report.Examined = len(e.storages)
	e.report.known = e.knownHere()
	e.report.order()
	return &e.report, nil
}

// examination is one pass.
type examination struct {
	*Doctor
	storages    map[string]*cloud.Storage
	objects     *objects
	nodes       map[string]string // Node -> node ID
	servers     map[string]string // node ID and zone -> server, as far as asked
	attachments []*attachment
	attached    map[string][]string // storage -> servers
	report      Report
}

// knownHere counts the storages that may be this cluster's and that its PersistentVolumes know.
func (e *examination) knownHere() int {
	n := 0
	for _, volume := range e.objects.volumes {
		storage := e.storages[volume.handle]
		if volume.driver == e.config.Driver && storage != nil && storage.Claim != cloud.ClaimOther {
			n++
		}
	}
	return n
}

// ignored reports whether a storage is none of this cluster's business.
func (e *examination) ignored(s *cloud.Storage) bool {
	return s.Role == cloud.RoleOther || s.Claim == cloud.ClaimOther ||
		s.Claim == cloud.ClaimNone && e.config.Unclaimed == UnclaimedIgnore
}

// judgeStorages finds the storages that no object knows.
func (e *examination) judgeStorages(ctx context.Context) error {
	for _, id := range slices.Sorted(maps.Keys(e.storages)) {
		listed := e.storages[id]
		if e.ignored(listed) || e.objects.knows(listed) {
			continue
		}
		now, err := e.again(ctx, listed)
		if err != nil {
			return err
		}
		if now == nil {
			continue
		}
		finding := findingOf(kindOf[listed.Role], now)
		finding.storage = listed
		if why := e.undecided(now); why != "" {
			finding.Note = why
			e.report.Undecided = append(e.report.Undecided, finding)
			continue
		}
		finding.Note = e.objects.told(now)
		finding.Kept = e.whyKept(now, e.objects)
		e.report.Findings = append(e.report.Findings, finding)
	}
	return nil
}

var kindOf = map[cloud.Role]Kind{
	cloud.RoleVolume: OrphanVolume, cloud.RoleCopy: UnfinishedCopy, cloud.RoleSnapshot: OrphanSnapshot,
}

// again looks at a storage once more; nil when it is gone or something has become of it.
func (d *Doctor) again(ctx context.Context, before *cloud.Storage) (*cloud.Storage, error) {
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

// undecided says why it is too early to judge a storage that no object knows.
func (e *examination) undecided(s *cloud.Storage) string {
	switch age := time.Since(s.Created); {
	case s.Created.IsZero():
	case age < e.config.SafetyAge:
		return fmt.Sprintf("younger than %s: it may be waited for", e.config.SafetyAge)
	}
	return e.objects.waiting(s)
}
