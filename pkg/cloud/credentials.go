package cloud

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
)

// credentialCheckInterval is how long a mounted secret is trusted before its files are looked at again.
const credentialCheckInterval = 2 * time.Second

// credentialFiles are the keys of the secret: those that deployments of UpCloud's own driver use, and token.
var credentialFiles = []string{"token", "username", "password"}

// credentials authenticate a request. They print as nothing.
type credentials struct {
	token, username, password string
}

// apply sets the Authorization header.
func (c credentials) apply(header http.Header) {
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
		return
	}
	request := http.Request{Header: header}
	request.SetBasicAuth(c.username, c.password)
}

func (c credentials) String() string   { return "[redacted]" }
func (c credentials) GoString() string { return "[redacted]" }

// credentialSource gives the credentials in force now: fixed ones, or those of files that may change.
type credentialSource struct {
	setting string                      // what to name in an error message
	paths   []string                    // files; none: fixed
	read    func() (credentials, error) // what is in the files

	mu      sync.Mutex
	current credentials
	seen    []fs.FileInfo // of paths when last read; nil where a file is absent
	halfway []fs.FileInfo // of a change that looks like half of one
	checked time.Time
	now     func() time.Time
}

func newCredentialSource(config Config) (*credentialSource, error) {
	s := &credentialSource{setting: config.setting, now: time.Now}
	switch {
	case config.CredentialsDir != "":
		s.setting = "the credentials directory " + config.CredentialsDir
		s.read = func() (credentials, error) { return readCredentials(config.CredentialsDir) }
		for _, name := range credentialFiles {
			s.paths = append(s.paths, filepath.Join(config.CredentialsDir, name))
		}
	case config.CredentialsFile != "":
		s.setting = firstNonEmpty(s.setting, "the file "+config.CredentialsFile)
		s.read = func() (credentials, error) { return parseCredentials(config.CredentialsFile, config.ParseCredentials) }
		s.paths = []string{config.CredentialsFile}
	default:
		s.current = credentials{config.Token, config.Username, config.Password}
		if s.setting == "" && config.Token != "" {
			s.setting = client.EnvToken
		}
		s.setting = firstNonEmpty(s.setting, client.EnvUsername+" and "+client.EnvPassword)
		return s, nil
	}
	s.checked = s.now()
	var err error
	s.current, s.seen, err = s.readWhole()
	return s, err
}

// get returns the credentials in force, having looked at the files if the last look was long enough ago.
func (s *credentialSource) get() credentials {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.paths) > 0 && s.now().Sub(s.checked) >= credentialCheckInterval {
		s.refresh(true)
	}
	return s.current
}

// refused is told that the API did not take these credentials. It looks at the files at once, and reports whether
// there are others now that are worth a try.
func (s *credentialSource) refused(used credentials) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.paths) > 0 {
		s.seen = nil // a rotation may leave times and sizes as they were: read whatever is there
		s.refresh(false)
	}
	return s.current != used
}

// refresh reads the files again if they changed. Half a rotation does not read as credentials, and the old ones stay:
// the next look, or the next refusal, finds the whole. A new user name with the password as it was, or the other way
// round, may be half of one that is written file by file: while the old ones still do, it is given time until the next look.
func (s *credentialSource) refresh(patient bool) {
	s.checked = s.now()
	found := s.look()
	if s.seen != nil && sameFiles(s.seen, found) {
		return
	}
	if patient && s.half(found) && (s.halfway == nil || !sameFiles(s.halfway, found)) {
		s.halfway = found
		return
	}
	if read, seen, err := s.readWhole(); err == nil {
		s.current, s.seen, s.halfway = read, seen, nil
	}
}

// half says whether one alone of user name and password changed. When Kubernetes swaps a mounted secret, both files do.
func (s *credentialSource) half(found []fs.FileInfo) bool {
	if s.seen == nil || len(found) != len(credentialFiles) {
		return false
	}
	return sameFiles(s.seen[1:2], found[1:2]) != sameFiles(s.seen[2:3], found[2:3])
}

// readWhole reads the files as they were at one moment: should they change meanwhile, a name and a password could come from
// two versions.
func (s *credentialSource) readWhole() (read credentials, seen []fs.FileInfo, err error) {
	for range 3 {
		seen = s.look()
		if read, err = s.read(); sameFiles(seen, s.look()) {
			return read, seen, err
		}
	}
	return credentials{}, nil, errors.New(s.setting + " changes while it is being read")
}

// look follows links, as Kubernetes swaps a link to a directory when a mounted secret changes.
func (s *credentialSource) look() []fs.FileInfo {
	found := make([]fs.FileInfo, len(s.paths))
	for i, path := range s.paths {
		if info, err := os.Stat(path); err == nil {
			found[i] = info
		}
	}
	return found
}

func sameFiles(a, b []fs.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] == nil {
			continue
		}
		if !os.SameFile(a[i], b[i]) || a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) {
			return false
		}
	}
	return true
}

// checkToken refuses what cannot be sent in a header, before it fails there with words about HTTP.
func checkToken(token string) error {
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return errors.New("has characters that no token has, such as a line break or a space: give the token alone")
		}
	}
	return nil
}

// maxCredential is how many bytes a token, a user name or a password may have.
const maxCredential = 64 << 10

// readCredentials reads a mounted secret. Its errors name the files, never what is in them.
func readCredentials(dir string) (credentials, error) {
	if _, err := os.Stat(dir); err != nil {
		return credentials{}, fmt.Errorf("the credentials directory %s cannot be used: %w", dir, err)
	}
	values := map[string]string{}
	for _, name := range credentialFiles {
		content, err := bounded.ReadFile(filepath.Join(dir, name), maxCredential)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return credentials{}, fmt.Errorf("read the UpCloud credentials: %w", err)
		}
		values[name] = strings.TrimSpace(string(content))
	}
	found := credentials{values["token"], values["username"], values["password"]}
	user := found.username != "" || found.password != ""
	switch {
	case found.token != "" && user:
		return credentials{}, fmt.Errorf("the credentials directory %s has both a token and a user: "+
			"the API takes one way to authenticate, leave one out", dir)
	case found.token == "" && (found.username == "" || found.password == ""):
		return credentials{}, fmt.Errorf("the credentials directory %s has no credentials: "+
			"put there the file token, or the files username and password", dir)
	}
	if err := checkToken(found.token); err != nil {
		return credentials{}, fmt.Errorf("the file %s %w", filepath.Join(dir, "token"), err)
	}
	return found, nil
}

// parseCredentials reads them out of a file that holds more than that. Its errors name the file, never what is in it.
func parseCredentials(path string, parse func([]byte) (token, username, password string, err error)) (credentials, error) {
	text, err := bounded.ReadFile(path, bounded.File.Bytes)
	if err != nil {
		return credentials{}, fmt.Errorf("read the UpCloud credentials: %w", err)
	}
	var found credentials
	if found.token, found.username, found.password, err = parse(text); err != nil {
		return credentials{}, fmt.Errorf("the file %s: %w", path, err)
	}
	if found.token == "" && (found.username == "" || found.password == "") {
		return credentials{}, fmt.Errorf("the file %s has no credentials: put a token there, or a user and a password", path)
	}
	if err := checkToken(found.token); err != nil {
		return credentials{}, fmt.Errorf("the token in the file %s %w", path, err)
	}
	return found, nil
}
