package simulator

import (
	"slices"
	"strconv"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

// backupRule says when backups are made by themselves. Empty: never.
type backupRule struct {
	Interval  string `json:"interval,omitempty"`
	Retention string `json:"retention,omitempty"` // days
	Time      string `json:"time,omitempty"`      // HHMM, UTC
}

// backupRuleRequest is the same, as clients write it.
type backupRuleRequest struct {
	Interval  string `json:"interval"`
	Retention number `json:"retention"`
	Time      string `json:"time"`
}

var backupIntervals = []string{"daily", "mon", "tue", "wed", "thu", "fri", "sat", "sun"}

const maxRetention = 1095

func (r *backupRuleRequest) rule() (backupRule, error) {
	if r == nil || *r == (backupRuleRequest{}) {
		return backupRule{}, nil
	}
	if !slices.Contains(backupIntervals, r.Interval) {
		return backupRule{}, badRequest("BACKUP_RULE_INVALID", "The backup interval '%s' is not valid.", r.Interval)
	}
	if _, err := time.Parse("1504", r.Time); err != nil {
		return backupRule{}, badRequest("BACKUP_RULE_INVALID", "The backup time '%s' is not valid.", r.Time)
	}
	if r.Retention < 1 || r.Retention > maxRetention {
		return backupRule{}, badRequest("BACKUP_RULE_INVALID", "The backup retention '%d' is not valid.", r.Retention)
	}
	return backupRule{Interval: r.Interval, Retention: itoa(int(r.Retention)), Time: r.Time}, nil
}

// storageRequest is the body of the requests that make or change a storage.
type storageRequest struct {
	Storage struct {
		Size       *number            `json:"size"`
		Encrypted  yesNo              `json:"encrypted"`
		Tier       string             `json:"tier"`
		Title      string             `json:"title"`
		Zone       string             `json:"zone"`
		BackupRule *backupRuleRequest `json:"backup_rule"`
		Labels     *[]Label           `json:"labels"`
	} `json:"storage"`
}

func checkTitle(title string) error {
	if title == "" {
		return badRequest("TITLE_MISSING", "The required attribute 'title' is missing from the request.")
	}
	if len(title) > maxTitle {
		return badRequest("TITLE_INVALID", "The attribute 'title' has more than %d characters.", maxTitle)
	}
	return nil
}

func tierOrDefault(tier string) (string, error) {
	if tier == "" {
		return defaultTier, nil
	}
	if !slices.Contains(tiers, tier) {
		return "", badRequest("TIER_INVALID", "The storage tier '%s' does not exist.", tier)
	}
	return tier, nil
}

func checkSize(size int, tier string) error {
	smallest := minStorageSize
	if tier == "hdd" {
		smallest = minHDDStorageSize
	}
	if size < smallest || size > maxStorageSize {
		return badRequest("SIZE_INVALID", "The storage size %d is not valid: it must be between %d and %d GiB.",
			size, smallest, maxStorageSize)
	}
	return nil
}

func (s *Simulator) createStorage(c *call) (any, error) {
	var req storageRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.Storage
	if r.Size == nil {
		return nil, badRequest("SIZE_MISSING", "The required attribute 'size' is missing from the request.")
	}
	if err := checkTitle(r.Title); err != nil {
		return nil, err
	}
	if err := s.checkZone(r.Zone); err != nil {
		return nil, err
	}
	rule, err := r.BackupRule.rule()
	if err != nil {
		return nil, err
	}
	st, err := s.newDisk(diskSpec{title: r.Title, zone: r.Zone, tier: r.Tier, size: int(*r.Size),
		encrypted: bool(r.Encrypted)})
	if err != nil {
		return nil, err
	}
	st.rule = rule
	if r.Labels != nil {
		if err := checkLabels(*r.Labels); err != nil {
			return nil, err
		}
		st.labels = *r.Labels
	}
	if err := s.createDisk(st); err != nil {
		return nil, err
	}
	s.storages.put(st.uuid, st)
	s.followRule(st)
	return s.storageDetails(st), nil
}

type diskSpec struct {
	title, zone, tier string
	size              int
	encrypted         bool
}

// newDisk returns a storage that fits the request; it is in no table yet.
func (s *Simulator) newDisk(spec diskSpec) (*storage, error) {
	tier, err := tierOrDefault(spec.tier)
	if err != nil {
		return nil, err
	}
	if err := checkSize(spec.size, tier); err != nil {
		return nil, err
	}
	if err := s.checkStorageLimit(tier, spec.size); err != nil {
		return nil, err
	}
	return &storage{
		uuid: s.newUUID(storageKind), title: spec.title, zone: spec.zone, tier: tier, size: spec.size,
		encrypted: spec.encrypted, kind: kindNormal, access: "private", state: storageOnline, created: s.now(),
	}, nil
}

// createDisk gives an empty storage its bytes.
func (s *Simulator) createDisk(st *storage) error {
	if s.cfg.Disks == nil {
		return nil
	}
	return planeFailed(s.cfg.Disks.Create(st.uuid, st.size))
}

// planeFailed is what the API says when the cloud behind it has a problem of its own.
func planeFailed(err error) error {
	if err == nil {
		return nil
	}
	return refuse(503, "STORAGE_RESOURCES_UNAVAILABLE", "The storage backend failed: %v.", err)
}

func (s *Simulator) modifyStorage(c *call) (any, error) {
	st, err := s.ownStorage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req storageRequest
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.Storage
	if r.Title != "" {
		if err := checkTitle(r.Title); err != nil {
			return nil, err
		}
	}
	if r.Labels != nil {
		if err := checkLabels(*r.Labels); err != nil {
			return nil, err
		}
	}
	rule, err := r.BackupRule.rule()
	if err != nil {
		return nil, err
	}
	if err := requireOnline(st); err != nil {
		return nil, err
	}
	if r.Size != nil {
		if err := s.growStorage(st, int(*r.Size)); err != nil {
			return nil, err
		}
	}
	if r.Title != "" {
		st.title = r.Title
	}
	if r.Labels != nil {
		st.labels = *r.Labels
	}
	if r.BackupRule != nil {
		st.rule = rule
		s.followRule(st)
	}
	return s.storageDetails(st), nil
}

// growStorage makes a storage larger, also while a started server uses it (offered since November 2025).
func (s *Simulator) growStorage(st *storage, size int) error {
	if size == st.size {
		return nil
	}
	if st.kind != kindNormal {
		return conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s' and cannot be resized.", st.uuid, st.kind)
	}
	if size < st.size {
		return badRequest("SIZE_INVALID", "The storage size can only be increased: it is %d GiB.", st.size)
	}
	if err := checkSize(size, st.tier); err != nil {
		return err
	}
	if err := s.checkStorageLimit(st.tier, size-st.size); err != nil {
		return err
	}
	for _, uuid := range st.servers {
		if srv, ok := s.servers.get(uuid); ok {
			if err := srv.requireSettled(); err != nil {
				return err
			}
		}
	}
	if s.cfg.Disks != nil {
		if err := planeFailed(s.cfg.Disks.Resize(st.uuid, size)); err != nil {
			return err
		}
	}
	st.size = size
	return nil
}

func (s *Simulator) deleteStorage(c *call) (any, error) {
	st, err := s.ownStorage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	policy, err := backupPolicy(c.query("backups"))
	if err != nil {
		return nil, err
	}
	if err := s.checkDeletable(st, policy); err != nil {
		return nil, err
	}
	if st.attached() {
		return nil, conflict("STORAGE_ATTACHED", "The storage %s is attached to a server.", st.uuid)
	}
	s.removeStorage(st, policy)
	return nil, nil
}

// backupPolicy says what becomes of a storage's backups when it is deleted.
func backupPolicy(text string) (string, error) {
	switch text {
	case "":
		return "keep", nil
	case "keep", "keep_latest", "delete":
		return text, nil
	}
	return "", badRequest("BACKUP_DELETION_POLICY_INVALID", "The backup deletion policy '%s' is not valid.", text)
}

// checkDeletable refuses storages that are busy: themselves, or one of the backups that go with them.
func (s *Simulator) checkDeletable(st *storage, policy string) error {
	if st.state != storageOnline && st.state != storageError {
		return conflict("STORAGE_STATE_ILLEGAL", "The storage %s is in the state '%s' and cannot be deleted.", st.uuid,
			st.state)
	}
	for _, b := range s.backupsThatGo(st, policy) {
		if b.state != storageOnline && b.state != storageError {
			return conflict("STORAGE_STATE_ILLEGAL", "The backup %s is in the state '%s' and cannot be deleted.", b.uuid, b.state)
		}
	}
	return nil
}

func (s *Simulator) backupsThatGo(st *storage, policy string) []*storage {
	if st.kind != kindNormal || policy == "keep" {
		return nil
	}
	uuids := s.backupsOf(st)
	if policy == "keep_latest" && len(uuids) > 0 {
		uuids = uuids[:len(uuids)-1]
	}
	out := make([]*storage, 0, len(uuids))
	for _, uuid := range uuids {
		b, _ := s.storages.get(uuid)
		out = append(out, b)
	}
	return out
}

// removeStorage deletes a storage that checkDeletable let pass.
func (s *Simulator) removeStorage(st *storage, policy string) {
	for _, gone := range append(s.backupsThatGo(st, policy), st) {
		s.storages.remove(gone.uuid)
		if s.cfg.Disks != nil {
			s.reportPlane("delete disk", gone.uuid, s.cfg.Disks.Delete(gone.uuid))
		}
	}
}
