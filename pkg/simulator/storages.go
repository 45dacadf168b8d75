package simulator

import (
	"net/http"
	"slices"
	"time"
)

// Kinds of storage, in the API's words.
const (
	kindNormal   = "normal"
	kindBackup   = "backup"
	kindTemplate = "template"
	kindCDROM    = "cdrom"
)

// States of a storage.
const (
	storageOnline      = "online"
	storageMaintenance = "maintenance"
	storageCloning     = "cloning"
	storageBackuping   = "backuping"
	storageError       = "error"
)

// Sizes in GiB.
const (
	minStorageSize    = 1
	minHDDStorageSize = 10
	maxStorageSize    = 4096
)

const maxTitle = 255

// defaultTier is what a request that names no tier gets, as documented.
const defaultTier = "hdd"

var tiers = []string{"maxiops", "standard", "hdd"}

type storage struct {
	uuid, title, zone  string
	kind, access, tier string
	state              string
	origin             string // of a backup: the storage it was made of
	templateType       string
	size               int // GiB
	encrypted          bool
	created            time.Time
	labels             []Label
	rule               backupRule
	ruleChanges        int  // counts them: a backup that a former rule planned is not made
	scheduled          bool // a backup that a rule made

	started  time.Time // of the operation it is in, for the progress shown
	due      time.Time
	reserved string   // UUID of the server to which it is being attached
	servers  []string // UUIDs of the servers it is attached to; only a public CD-ROM has more than one
	favorite bool
}

func (st *storage) public() bool { return st.access == "public" }

// attached says whether st is attached, or about to be.
func (st *storage) attached() bool { return st.reserved != "" || len(st.servers) > 0 }

// storageEntry is a storage in lists. Fields are in the order of the recordings.
type storageEntry struct {
	Access       string  `json:"access"`
	Created      string  `json:"created,omitempty"`
	Encrypted    yesNo   `json:"encrypted"`
	Labels       []Label `json:"labels"`
	License      float64 `json:"license"`
	Origin       string  `json:"origin,omitempty"`
	Progress     string  `json:"progress,omitempty"`
	Size         int     `json:"size"`
	State        string  `json:"state"`
	TemplateType string  `json:"template_type,omitempty"`
	Tier         string  `json:"tier,omitempty"`
	Title        string  `json:"title"`
	Type         string  `json:"type"`
	UUID         string  `json:"uuid"`
	Zone         string  `json:"zone,omitempty"`
}

// storageDetails is a storage on its own. Backups and templates have neither backup rule nor backups.
type storageDetails struct {
	BackupRule *backupRule  `json:"backup_rule,omitempty"`
	Backups    *backupUUIDs `json:"backups,omitempty"`
	storageEntry
	Servers serverUUIDs `json:"servers"`
}

type backupUUIDs struct {
	Backup []string `json:"backup"`
}

type serverUUIDs struct {
	Server []string `json:"server"`
}

type storageAnswer struct {
	Storage storageDetails `json:"storage"`
}

type storageList struct {
	Storages struct {
		Storage []storageEntry `json:"storage"`
	} `json:"storages"`
}

func (s *Simulator) storageEntry(st *storage) storageEntry {
	e := storageEntry{
		Access:       st.access,
		Encrypted:    yesNo(st.encrypted),
		Labels:       labelsOrNone(st.labels),
		Origin:       st.origin,
		Size:         st.size,
		State:        st.state,
		TemplateType: st.templateType,
		Tier:         st.tier,
		Title:        st.title,
		Type:         st.kind,
		UUID:         st.uuid,
		Zone:         st.zone,
	}
	if !st.created.IsZero() {
		e.Created = st.created.UTC().Format(time.RFC3339)
	}
	if st.state == storageMaintenance && st.kind != kindTemplate {
		e.Progress = progress(st.started, st.due, s.now())
	}
	return e
}

func (s *Simulator) storageDetails(st *storage) storageAnswer {
	d := storageDetails{storageEntry: s.storageEntry(st)}
	if st.kind == kindNormal {
		d.BackupRule = &st.rule
		d.Backups = &backupUUIDs{Backup: s.backupsOf(st)}
	}
	d.Servers.Server = append([]string{}, st.servers...)
	return storageAnswer{d}
}

// backupsOf returns the UUIDs of a storage's backups, oldest first.
func (s *Simulator) backupsOf(origin *storage) []string {
	var backups []*storage
	for st := range s.storages.all() {
		if st.kind == kindBackup && st.origin == origin.uuid {
			backups = append(backups, st)
		}
	}
	slices.SortStableFunc(backups, func(a, b *storage) int { return a.created.Compare(b.created) })
	uuids := make([]string, 0, len(backups))
	for _, st := range backups {
		uuids = append(uuids, st.uuid)
	}
	return uuids
}

// storage returns the storage a path names.
func (s *Simulator) storage(uuid string) (*storage, error) {
	if !validUUID(uuid) {
		return nil, badRequest("STORAGE_INVALID", "The storage UUID is invalid.")
	}
	st, ok := s.storages.get(uuid)
	if !ok {
		return nil, notFound("STORAGE_NOT_FOUND", "The storage %s does not exist.", uuid)
	}
	return st, nil
}

// ownStorage returns the storage a path names, and refuses UpCloud's own.
func (s *Simulator) ownStorage(uuid string) (*storage, error) {
	st, err := s.storage(uuid)
	if err != nil {
		return nil, err
	}
	if st.public() {
		return nil, refuse(http.StatusForbidden, "STORAGE_FORBIDDEN", "The storage %s is not yours to change.", uuid)
	}
	return st, nil
}

func requireOnline(st *storage) error {
	if st.state != storageOnline {
		return conflict("STORAGE_STATE_ILLEGAL", "The storage %s is in the state '%s'; it must be 'online'.",
			st.uuid, st.state)
	}
	return nil
}

// listStorages serves one of the lists: all, or those for which keep says so.
func (s *Simulator) listStorages(keep func(*storage) bool) func(*call) (any, error) {
	return func(c *call) (any, error) {
		filters := labelFilters(c.request.URL.Query())
		var out storageList
		out.Storages.Storage = make([]storageEntry, 0, s.storages.len())
		for st := range s.storages.all() {
			if keep(st) && matchLabels(st.labels, filters) {
				out.Storages.Storage = append(out.Storages.Storage, s.storageEntry(st))
			}
		}
		return out, nil
	}
}

func ofKind(kind string) func(*storage) bool {
	return func(st *storage) bool { return st.kind == kind }
}

func ofAccess(access string) func(*storage) bool {
	return func(st *storage) bool { return st.access == access }
}

func (s *Simulator) getStorage(c *call) (any, error) {
	st, err := s.storage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	return s.storageDetails(st), nil
}

// progress is how far an operation is, in percent, as the API writes it.
func progress(started, due, now time.Time) string {
	if !due.After(started) || now.Before(started) {
		return "0"
	}
	percent := int(100 * now.Sub(started) / due.Sub(started))
	return itoa(min(percent, 99))
}
