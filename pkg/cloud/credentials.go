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

// credentialSource gives the credentials in force now: fixed ones, or those of a directory whose files may change.
type credentialSource struct {
	setting string // what to name in an error message
	dir     string // empty: fixed

	mu      sync.Mutex
	current credentials
	seen    []fs.FileInfo // of credentialFiles when last read; nil where a file is absent
	checked time.Time
	now     func() time.Time
}

func newCredentialSource(config Config) (*credentialSource, error) {
	s := &credentialSource{dir: config.CredentialsDir, setting: config.setting, now: time.Now}
	if s.dir == "" {
		s.current = credentials{config.Token, config.Username, config.Password}
		if s.setting == "" && config.Token != "" {
			s.setting = client.EnvToken
		}
		s.setting = firstNonEmpty(s.setting, client.EnvUsername+" and "+client.EnvPassword)
		return s, nil
	}
	s.setting = "the credentials directory " + s.dir
	s.seen, s.checked = s.look(), s.now()
	var err error
	s.current, err = readCredentials(s.dir)
	return s, err
}

// get returns the credentials in force, having looked at the files if the last look was long enough ago.
func (s *credentialSource) get() credentials {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir != "" && s.now().Sub(s.checked) >= credentialCheckInterval {
		s.refresh()
	}
	return s.current
}

// refused is told that the API did not take these credentials. It looks at the files at once, and reports whether
// there are others now that are worth a try.
func (s *credentialSource) refused(used credentials) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir != "" {
		s.seen = nil // a rotation may leave times and sizes as they were: read whatever is there
		s.refresh()
	}
	return s.current != used
}

// refresh reads the files again if they changed. Half a rotation does not read as credentials, and the old ones stay:
// the next look, or the next refusal, finds the whole.
func (s *credentialSource) refresh() {
	s.checked = s.now()
	found := s.look()
	if s.seen != nil && sameFiles(s.seen, found) {
		return
	}
	if read, err := readCredentials(s.dir); err == nil {
		s.current, s.seen = read, found
	}
}

// look follows links, as Kubernetes swaps a link to a directory when a mounted secret changes.
func (s *credentialSource) look() []fs.FileInfo {
	found := make([]fs.FileInfo, len(credentialFiles))
	for i, name := range credentialFiles {
		if info, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
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

// readCredentials reads a mounted secret. Its errors name the files, never what is in them.
func readCredentials(dir string) (credentials, error) {
	if _, err := os.Stat(dir); err != nil {
		return credentials{}, fmt.Errorf("the credentials directory %s cannot be used: %w", dir, err)
	}
	values := map[string]string{}
	for _, name := range credentialFiles {
		content, err := os.ReadFile(filepath.Join(dir, name))
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
