package simulator

import (
	"compress/gzip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"
)

const importKind byte = 0x07

// Sources and states of a storage import.
const (
	importHTTP   = "http_import"
	importUpload = "direct_upload"

	importPrepared  = "prepared"
	importPending   = "pending"
	importImporting = "importing"
	importCompleted = "completed"
	importFailed    = "failed"
	importCancelled = "cancelled"
)

const uploadPrefix = "/uploader/session/"

var webURL = regexp.MustCompile(`^https?://[^/]`)

// DiskWriter is a DiskPlane that can take the bytes of an import.
type DiskWriter interface {
	// Write puts the bytes at the beginning of the disk, which is not attached.
	Write(ctx context.Context, storage string, from io.Reader) error
}

// storageImport is the last import into a storage.
type storageImport struct {
	ClientContentLength int64  `json:"client_content_length"`
	ClientContentType   string `json:"client_content_type"`
	Completed           string `json:"completed"`
	Created             string `json:"created"`
	DirectUploadURL     string `json:"direct_upload_url,omitempty"`
	ErrorCode           string `json:"error_code"`
	ErrorMessage        string `json:"error_message"`
	MD5Sum              string `json:"md5sum"`
	ReadBytes           int64  `json:"read_bytes"`
	SHA256Sum           string `json:"sha256sum"`
	Source              string `json:"source"`
	SourceLocation      string `json:"source_location,omitempty"`
	State               string `json:"state"`
	UUID                string `json:"uuid"`
	WrittenBytes        int64  `json:"written_bytes"`

	Storage string `json:"-"`
}

type importAnswer struct {
	StorageImport storageImport `json:"storage_import"`
}

type importBody struct {
	StorageImport struct {
		Source         string `json:"source"`
		SourceLocation string `json:"source_location"`
	} `json:"storage_import"`
}

func (i *storageImport) over() bool {
	return i.State == importCompleted || i.State == importFailed || i.State == importCancelled
}

// createImport starts an import. The storage is in maintenance until it is over.
func (s *Simulator) createImport(c *call) (any, error) {
	st, err := s.ownStorage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	var req importBody
	if err := c.decode(&req); err != nil {
		return nil, err
	}
	r := &req.StorageImport
	if r.Source != importHTTP && r.Source != importUpload {
		return nil, badRequest("INVALID_REQUEST", "The import source '%s' is not valid.", r.Source)
	}
	if r.Source == importHTTP && !webURL.MatchString(r.SourceLocation) {
		return nil, badRequest("INVALID_REQUEST", "The source location '%s' is not an HTTP URL.", r.SourceLocation)
	}
	if st.kind != kindNormal {
		return nil, conflict("STORAGE_TYPE_ILLEGAL", "The storage %s is of the type '%s'.", st.uuid, st.kind)
	}
	if err := requireOnline(st); err != nil {
		return nil, err
	}
	if st.attached() {
		return nil, conflict("STORAGE_ATTACHED", "The storage %s is attached to a server.", st.uuid)
	}
	i := &storageImport{
		Created: s.now().UTC().Format(time.RFC3339), Source: r.Source, State: importPrepared, UUID: s.newUUID(importKind),
		Storage: st.uuid,
	}
	if r.Source == importHTTP {
		i.SourceLocation = r.SourceLocation
		s.after(s.durationOf(realistic.importStart), func() { s.fetch(i) })
	} else {
		i.DirectUploadURL = baseURL(c.request) + uploadPrefix + i.UUID
	}
	s.imports.put(st.uuid, i)
	st.state = storageMaintenance
	st.started, st.due = s.now(), s.now()
	return importAnswer{*i}, nil
}

// baseURL is where the client found the simulator.
func baseURL(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

func (s *Simulator) importOf(c *call) (*storageImport, error) {
	st, err := s.ownStorage(c.path("uuid"))
	if err != nil {
		return nil, err
	}
	i, ok := s.imports.get(st.uuid)
	if !ok {
		return nil, notFound("STORAGE_IMPORT_NOT_FOUND", "Nothing was imported into the storage %s.", st.uuid)
	}
	return i, nil
}

func (s *Simulator) getImport(c *call) (any, error) {
	i, err := s.importOf(c)
	if err != nil {
		return nil, err
	}
	return importAnswer{*i}, nil
}

func (s *Simulator) cancelImport(c *call) (any, error) {
	i, err := s.importOf(c)
	if err != nil {
		return nil, err
	}
	if i.over() {
		return nil, conflict("STORAGE_IMPORT_NOT_IN_PROGRESS", "The import into the storage %s is over.", i.Storage)
	}
	s.endImport(i, importCancelled)
	return nil, nil
}

func (s *Simulator) endImport(i *storageImport, state string) {
	i.State = state
	i.Completed = s.now().UTC().Format(time.RFC3339)
	if st, ok := s.storages.get(i.Storage); ok && st.state == storageMaintenance {
		st.state = storageOnline
	}
}

func (s *Simulator) failImport(i *storageImport, err error) {
	i.ErrorCode, i.ErrorMessage = "IMPORT_FAILED", err.Error()
	s.endImport(i, importFailed)
}

// transferred is what came of a transfer.
type transferred struct {
	read, written int64
	md5, sha256   string
	err           error
}

// transfer writes what it reads, unpacked when it is packed, to the storage. The sums are of what is written, as
// recorded. The lock is not held.
func (s *Simulator) transfer(
	ctx context.Context, storage string, size int64, contentType string, from io.Reader,
) (t transferred) {
	counted := &countingReader{from: from}
	var unpacked io.Reader = counted
	switch contentType {
	case "application/gzip":
		if unpacked, t.err = gzip.NewReader(counted); t.err != nil {
			return t
		}
	case "application/x-xz":
		t.err = errors.New("the simulator cannot unpack xz")
		return t
	}
	md, sha := md5.New(), sha256.New()
	written := &countingReader{from: io.TeeReader(unpacked, io.MultiWriter(md, sha)), limit: size}
	if plane, ok := s.cfg.Disks.(DiskWriter); ok {
		t.err = plane.Write(ctx, storage, written)
	} else if s.cfg.Disks != nil {
		t.err = errors.New("the simulator's disks cannot take the bytes of an import")
	} else {
		_, t.err = io.Copy(io.Discard, written)
	}
	t.read, t.written = counted.n, written.n
	t.md5, t.sha256 = hex.EncodeToString(md.Sum(nil)), hex.EncodeToString(sha.Sum(nil))
	return t
}

type countingReader struct {
	from     io.Reader
	n, limit int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	r.n += int64(n)
	if r.limit > 0 && r.n > r.limit {
		return n, errors.New("it is larger than the storage")
	}
	return n, err
}

// finishImport takes over what a transfer brought.
func (s *Simulator) finishImport(i *storageImport, t transferred) {
	if i.over() {
		return
	}
	i.ReadBytes, i.WrittenBytes = t.read, t.written
	if t.err != nil {
		s.failImport(i, t.err)
		return
	}
	i.MD5Sum, i.SHA256Sum = t.md5, t.sha256
	s.endImport(i, importCompleted)
}

// fetch imports from a web server. The lock is held.
func (s *Simulator) fetch(i *storageImport) {
	st, ok := s.storages.get(i.Storage)
	if !ok || i.over() {
		return
	}
	i.State = importImporting
	if s.cfg.ImportClient == nil {
		s.after(s.durationOf(realistic.importWork), func() {
			if !i.over() {
				s.failImport(i, errors.New("the simulator fetches nothing from web servers unless told to: start it with --http-import"))
			}
		})
		return
	}
	var t transferred
	storage, location, size := st.uuid, i.SourceLocation, int64(st.size)<<30
	var length int64
	var contentType string
	s.operate(s.durationOf(realistic.importWork), func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
		if err != nil {
			return err
		}
		resp, err := s.cfg.ImportClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s", location, resp.Status)
		}
		length, contentType = max(0, resp.ContentLength), resp.Header.Get("Content-Type")
		t = s.transfer(ctx, storage, size, contentType, resp.Body)
		return t.err
	}, func(err error) {
		t.err = err
		i.ClientContentLength, i.ClientContentType = length, contentType
		s.finishImport(i, t)
	})
}

// uploadAnswer is what the upload service says.
type uploadAnswer struct {
	WrittenBytes int64  `json:"written_bytes"`
	MD5Sum       string `json:"md5sum"`
	SHA256Sum    string `json:"sha256sum"`
}

// upload serves the upload service, which is not part of the API: the URL is all that it asks for.
func (s *Simulator) upload(w http.ResponseWriter, r *http.Request) {
	i, size := s.openUpload(strings.TrimPrefix(r.URL.Path, uploadPrefix))
	if i == nil {
		http.Error(w, "There is no such session.", http.StatusNotFound)
		return
	}
	contentType := r.Header.Get("Content-Type")
	t := s.transfer(r.Context(), i.Storage, size, contentType, r.Body)
	s.mu.Lock()
	s.changing()
	s.after(s.durationOf(realistic.importStart), func() {
		if !i.over() {
			i.State, i.ClientContentType, i.ReadBytes, i.WrittenBytes = importImporting, contentType, t.read, t.written
		}
		s.after(s.durationOf(realistic.importWork), func() { s.finishImport(i, t) })
	})
	s.runDue()
	s.mu.Unlock()
	if t.err != nil {
		http.Error(w, t.err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(uploadAnswer{t.written, t.md5, t.sha256})
}

// openUpload takes the session for one upload; nil: there is none, or one is under way.
func (s *Simulator) openUpload(session string) (*storageImport, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.imports.all() {
		st, ok := s.storages.get(i.Storage)
		if i.UUID == session && i.State == importPrepared && i.Source == importUpload && ok && !s.closed {
			s.changing()
			i.State = importPending
			return i, int64(st.size) << 30
		}
	}
	return nil, 0
}

// resumeImport ends an import that was under way when the simulator ended: what had come is lost.
func (s *Simulator) resumeImport(i *storageImport) {
	if !i.over() && i.State != importPrepared || i.State == importPrepared && i.Source == importHTTP {
		s.failImport(i, errors.New("the import was interrupted"))
	}
}
