package simulator

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

const fileStorageKind byte = 0x17

// States of a file storage.
const (
	fsPending        = "pending"
	fsRunning        = "running"
	fsStopped        = "stopped"
	fsDeleteInstance = "delete-instance"
)

// Sizes in GiB.
const minFileStorage, maxFileStorage = 250, 25000

// fileStorage is a managed NFS server: what it is to be, and what it is.
type fileStorage struct {
	FileStorage
	applied  *FileStorage // as it last ran; nil: it never did
	changes  int          // counts changes, so that the last of several in a row is the one that settles
	deleting bool
	address  netip.Addr // taken of the network
}

// FileStorage is a file storage as the API shows it.
type FileStorage struct {
	ConfiguredStatus string               `json:"configured_status"`
	CreatedAt        stamp                `json:"created_at"`
	Labels           []Label              `json:"labels"`
	Name             string               `json:"name"`
	Networks         []FileStorageNetwork `json:"networks"`
	OperationalState string               `json:"operational_state"`
	Shares           []FileStorageShare   `json:"shares"`
	SizeGiB          int                  `json:"size_gib"`
	StateMessages    []string             `json:"state_messages"`
	UpdatedAt        stamp                `json:"updated_at"`
	UUID             string               `json:"uuid"`
	Zone             string               `json:"zone"`
}

// FileStorageNetwork is a private network on which a file storage serves.
type FileStorageNetwork struct {
	Family    string `json:"family"`
	IPAddress string `json:"ip_address"`
	Name      string `json:"name"`
	UUID      string `json:"uuid"`
}

// FileStorageShare is a folder that clients can mount.
type FileStorageShare struct {
	ACL      []FileStorageACL `json:"acl"`
	Deleting bool             `json:"deleting,omitempty"`
	Name     string           `json:"name"`
	Path     string           `json:"path"`
}

// FileStorageACL says who may mount a share.
type FileStorageACL struct {
	Name       string `json:"name"`
	Permission string `json:"permission"` // ro or rw
	Target     string `json:"target"`     // an address, a prefix, or *
}

func (f *FileStorage) clone() FileStorage {
	next := *f
	next.Labels = append([]Label{}, f.Labels...)
	next.Networks = append([]FileStorageNetwork{}, f.Networks...)
	next.StateMessages = append([]string{}, f.StateMessages...)
	next.Shares = make([]FileStorageShare, 0, len(f.Shares))
	for _, share := range f.Shares {
		share.ACL = append([]FileStorageACL{}, share.ACL...)
		next.Shares = append(next.Shares, share)
	}
	return next
}

func (s *Simulator) fileStorage(c *call) (*fileStorage, error) {
	f, ok := s.fileStorages.get(c.path("uuid"))
	if !ok {
		return nil, &problem{status: http.StatusNotFound, code: "RESOURCE_NOT_FOUND",
			title: "The resource you requested does not exist."}
	}
	return f, nil
}

// mutableFileStorage refuses file storages that are going.
func (s *Simulator) mutableFileStorage(c *call) (*fileStorage, error) {
	f, err := s.fileStorage(c)
	if err == nil && f.deleting {
		return nil, &problem{status: http.StatusConflict, code: "SERVICE_STATE_ILLEGAL", title: "Service is being deleted."}
	}
	return f, err
}

func (s *Simulator) listFileStorages(c *call) (any, error) {
	filters := labelFilters(c.request.URL.Query())
	var list []FileStorage
	for f := range s.fileStorages.all() {
		if matchLabels(f.Labels, filters) {
			list = append(list, f.FileStorage)
		}
	}
	sortByCreation(list, func(f *FileStorage) stamp { return f.CreatedAt })
	return page(c, list)
}

func (s *Simulator) getFileStorage(c *call) (any, error) {
	f, err := s.fileStorage(c)
	if err != nil {
		return nil, err
	}
	return f.FileStorage, nil
}

// getFileStorageState answers with what runs: changes show when they have been applied.
func (s *Simulator) getFileStorageState(c *call) (any, error) {
	f, err := s.fileStorage(c)
	if err != nil {
		return nil, err
	}
	if f.applied == nil {
		return f.FileStorage, nil
	}
	return *f.applied, nil
}

func (s *Simulator) createFileStorage(c *call) (any, error) {
	var req FileStorage
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	if err := s.checkZone(req.Zone); err != nil {
		return nil, invalid(invalidParam{"zone", "Unknown zone."})
	}
	f := &fileStorage{FileStorage: FileStorage{UUID: s.newUUID(fileStorageKind), Zone: req.Zone, CreatedAt: s.creation()}}
	if err := s.changeFileStorage(f, req); err != nil {
		return nil, err
	}
	s.fileStorages.put(f.UUID, f)
	s.applyFileStorage(f, realistic.fileStorageCreate)
	return f.FileStorage, nil
}

func (s *Simulator) replaceFileStorage(c *call) (any, error) {
	return s.updateFileStorage(c, func(*FileStorage) FileStorage { return FileStorage{} })
}

func (s *Simulator) modifyFileStorage(c *call) (any, error) {
	return s.updateFileStorage(c, (*FileStorage).clone)
}

// updateFileStorage changes a file storage to the request's, with what start gives where the request is silent.
func (s *Simulator) updateFileStorage(c *call, start func(*FileStorage) FileStorage) (any, error) {
	f, err := s.mutableFileStorage(c)
	if err != nil {
		return nil, err
	}
	next := start(&f.FileStorage)
	if err := c.decodeNew(&next); err != nil {
		return nil, err
	}
	if err := s.changeFileStorage(f, next); err != nil {
		return nil, err
	}
	s.applyFileStorage(f, realistic.fileStorageChange)
	return f.FileStorage, nil
}

// changeFileStorage checks what the file storage is to be, and makes it that. What clients cannot choose stays.
func (s *Simulator) changeFileStorage(f *fileStorage, next FileStorage) error {
	for i := range next.Shares {
		if next.Shares[i].ACL == nil {
			next.Shares[i].ACL = []FileStorageACL{}
		}
	}
	next = next.clone()
	next.UUID, next.Zone, next.CreatedAt = f.UUID, f.Zone, f.CreatedAt
	next.UpdatedAt, next.OperationalState = stamp(s.now()), f.OperationalState
	if params := next.check(f.SizeGiB); len(params) > 0 {
		return invalid(params...)
	}
	if err := s.connectFileStorage(f, &next); err != nil {
		return err
	}
	f.FileStorage = next
	return nil
}

// applyFileStorage has a change take effect after a while.
func (s *Simulator) applyFileStorage(f *fileStorage, takes time.Duration) {
	f.OperationalState, f.UpdatedAt = fsPending, stamp(s.now())
	f.changes++
	change := f.changes
	s.after(s.durationOf(takes), func() {
		if f.deleting || f.changes != change {
			return
		}
		f.Shares = slices.DeleteFunc(f.Shares, func(share FileStorageShare) bool { return share.Deleting })
		f.OperationalState, f.UpdatedAt = fsRunning, stamp(s.now())
		if f.ConfiguredStatus == fsStopped {
			f.OperationalState = fsStopped
		}
		applied := f.clone()
		f.applied = &applied
	})
}

func (s *Simulator) deleteFileStorage(c *call) (any, error) {
	f, err := s.mutableFileStorage(c)
	if err != nil {
		return nil, err
	}
	f.deleting = true
	f.OperationalState, f.UpdatedAt = fsPending, stamp(s.now())
	s.takeDownFileStorage(f)
	return nil, nil
}

func (s *Simulator) takeDownFileStorage(f *fileStorage) {
	half := s.durationOf(realistic.fileStorageDelete) / 2
	s.after(half, func() {
		f.OperationalState, f.UpdatedAt = fsDeleteInstance, stamp(s.now())
		s.after(half, func() {
			s.releaseFileStorage(f)
			s.fileStorages.remove(f.UUID)
		})
	})
}

// resumeFileStorage goes on with what was under way.
func (s *Simulator) resumeFileStorage(f *fileStorage) {
	switch {
	case f.deleting:
		s.takeDownFileStorage(f)
	case f.OperationalState == fsPending:
		s.applyFileStorage(f, realistic.fileStorageChange)
	}
}

var fileStorageName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// check returns what is wrong with a file storage. Sizes only grow.
func (f *FileStorage) check(size int) (bad []invalidParam) {
	refuse := func(name, reason string) { bad = append(bad, invalidParam{name, reason}) }
	if !fileStorageName.MatchString(f.Name) {
		refuse("name", "Must have 1 to 64 letters, digits, underscores and hyphens.")
	}
	if f.ConfiguredStatus != "started" && f.ConfiguredStatus != fsStopped {
		refuse("configured_status", "Must be one of started, stopped.")
	}
	if f.SizeGiB < minFileStorage || f.SizeGiB > maxFileStorage {
		refuse("size_gib", "Must be between 250 and 25000.")
	} else if f.SizeGiB < size {
		refuse("size_gib", "Can only grow.")
	}
	if err := checkLabels(f.Labels); err != nil {
		refuse("labels", err.Error())
	}
	if len(f.Networks) > 1 {
		refuse("networks", "At most one network.")
	}
	for i, share := range f.Shares {
		at := "shares." + itoa(i)
		if !fileStorageName.MatchString(share.Name) {
			refuse(at+".name", "Must have 1 to 64 letters, digits, underscores and hyphens.")
		}
		if !strings.HasPrefix(share.Path, "/") || len(share.Path) < 2 {
			refuse(at+".path", "Must be an absolute path.")
		}
		for _, other := range f.Shares[:i] {
			if other.Name == share.Name || other.Path == share.Path {
				refuse(at, "Name and path must be unique.")
			}
		}
		for j := range share.ACL {
			if reason := share.checkACL(j); reason != "" {
				refuse(at+".acl."+itoa(j), reason)
			}
		}
	}
	return bad
}

func (share *FileStorageShare) checkACL(i int) string {
	a := share.ACL[i]
	if !fileStorageName.MatchString(a.Name) {
		return "The name must have 1 to 64 letters, digits, underscores and hyphens."
	}
	if a.Permission != "ro" && a.Permission != "rw" {
		return "The permission must be one of ro, rw."
	}
	_, notAddress := netip.ParseAddr(a.Target)
	_, notPrefix := netip.ParsePrefix(a.Target)
	if a.Target != "*" && notAddress != nil && notPrefix != nil {
		return "The target must be an IP address, an IP network or *."
	}
	if slices.ContainsFunc(share.ACL[:i], func(o FileStorageACL) bool { return o.Name == a.Name }) {
		return "The name must be unique."
	}
	return ""
}

// UnmarshalJSON implements json.Unmarshaler: a list in the request takes the place of the one that is there.
func (f *FileStorage) UnmarshalJSON(b []byte) error {
	type plain FileStorage
	var given map[string]json.RawMessage
	if err := json.Unmarshal(b, &given); err != nil {
		return err
	}
	next := plain(*f)
	if given["labels"] != nil {
		next.Labels = nil
	}
	if given["networks"] != nil {
		next.Networks = nil
	}
	if given["shares"] != nil {
		next.Shares = nil
	}
	if err := json.Unmarshal(b, &next); err != nil {
		return err
	}
	*f = FileStorage(next)
	return nil
}
