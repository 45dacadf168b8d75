package cloud

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeSecret makes dir hold these files and no others, as Kubernetes does: a new directory, and a link that is moved.
func writeSecret(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	version, err := os.MkdirTemp(dir, "..version")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(version, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := filepath.Join(dir, "..next")
	if err := os.Symlink(version, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	for _, name := range credentialFiles {
		_ = os.Remove(filepath.Join(dir, name))
		if _, wanted := files[name]; wanted {
			if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func newTestSource(t *testing.T, dir string) (source *credentialSource, clock *time.Time) {
	t.Helper()
	source, err := newCredentialSource(Config{CredentialsDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	now := source.checked
	source.now = func() time.Time { return now }
	return source, &now
}

func TestCredentialsOfADirectoryFollowItsFiles(t *testing.T) {
	dir := t.TempDir()
	writeSecret(t, dir, map[string]string{"username": "u\n", "password": "old\n"})
	source, clock := newTestSource(t, dir)
	old, rotated := credentials{username: "u", password: "old"}, credentials{username: "u", password: "new"}
	if got := source.get(); got != old {
		t.Fatal("the files were not read")
	}

	writeSecret(t, dir, map[string]string{"username": "u", "password": "new"})
	if source.get() != old {
		t.Error("the files were looked at again at once: too costly on each request")
	}
	*clock = clock.Add(credentialCheckInterval)
	if source.get() != rotated {
		t.Error("the new password is not in force after the interval")
	}

	writeSecret(t, dir, map[string]string{"token": "t"})
	*clock = clock.Add(credentialCheckInterval)
	if source.get() != (credentials{token: "t"}) {
		t.Error("the change to a token is not in force")
	}
}

func TestCredentialsThatAreRefusedAreReadAgainAtOnce(t *testing.T) {
	dir := t.TempDir()
	writeSecret(t, dir, map[string]string{"token": "old"})
	source, _ := newTestSource(t, dir)
	used := source.get()
	if source.refused(used) {
		t.Error("nothing changed, and another try is called worth it")
	}
	writeSecret(t, dir, map[string]string{"token": "new"})
	if !source.refused(used) || source.get() != (credentials{token: "new"}) {
		t.Error("the new token is not in force")
	}
	if !source.refused(used) {
		t.Error("a second request with the old token is not worth another try with the new one")
	}
}

func TestHalfARotationKeepsTheOldCredentials(t *testing.T) {
	dir := t.TempDir()
	writeSecret(t, dir, map[string]string{"username": "u", "password": "p"})
	source, clock := newTestSource(t, dir)
	old := source.get()
	for _, half := range []map[string]string{{"username": "u2"}, {}, {"token": "t", "username": "u2", "password": "p2"}, {"token": "t\nt"}} {
		writeSecret(t, dir, half)
		*clock = clock.Add(credentialCheckInterval)
		if source.get() != old {
			t.Errorf("files %v put the old credentials out of force", half)
		}
	}
	writeSecret(t, dir, map[string]string{"username": "u2", "password": "p2"})
	*clock = clock.Add(credentialCheckInterval)
	if source.get() != (credentials{username: "u2", password: "p2"}) {
		t.Error("the whole is not in force")
	}
}

// A user name that changes alone may be half of a rotation by hand, file by file: it gets time until the next look.
func TestRotationFileByFileIsNeverSwappedByHalf(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("username", "old")
	write("password", "old-password")
	source, clock := newTestSource(t, dir)
	old, rotated := credentials{username: "old", password: "old-password"}, credentials{username: "newer", password: "newer-password"}
	write("username", "newer")
	*clock = clock.Add(credentialCheckInterval)
	if source.get() != old {
		t.Error("the new name is used with the old password")
	}
	write("password", "newer-password")
	*clock = clock.Add(credentialCheckInterval)
	if source.get() != rotated {
		t.Error("the rotation is not in force")
	}
	write("password", "newest-password") // and no other name, ever
	for range 2 {
		*clock = clock.Add(credentialCheckInterval)
		source.get()
	}
	if source.get() != (credentials{username: "newer", password: "newest-password"}) {
		t.Error("a new password for the same name is not in force")
	}
}

// The secret is swapped between the reading of the user name and that of the password.
func TestCredentialsAreNeverOfTwoVersions(t *testing.T) {
	dir := t.TempDir()
	writeSecret(t, dir, map[string]string{"username": "old", "password": "old"})
	source, clock := newTestSource(t, dir)
	whole, swaps := source.read, 0
	source.read = func() (credentials, error) {
		before, err := whole()
		if swaps++; swaps > 1 {
			return before, err
		}
		writeSecret(t, dir, map[string]string{"username": "newest", "password": "newest"})
		after, err := whole()
		return credentials{username: before.username, password: after.password}, err
	}
	writeSecret(t, dir, map[string]string{"username": "newer", "password": "newer"})
	*clock = clock.Add(credentialCheckInterval)
	if got := source.get(); got != (credentials{username: "newest", password: "newest"}) {
		t.Errorf("user name of version %s with the password of version %s", got.username, got.password)
	}
}

// A mistaken mount must not fill the memory of the program, which reads the files again and again.
func TestCredentialsThatAreTooLargeAreRefused(t *testing.T) {
	dir := t.TempDir()
	writeSecret(t, dir, map[string]string{"token": strings.Repeat("x", maxCredential)})
	if _, err := readCredentials(dir); err != nil {
		t.Errorf("the largest token that is allowed: %v", err)
	}
	writeSecret(t, dir, map[string]string{"token": strings.Repeat("x", maxCredential+1)})
	if _, err := readCredentials(dir); err == nil || !strings.Contains(err.Error(), "token is too large: at most 65536 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestCredentialsOfAFileThatHoldsMore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".next", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".next", path); err != nil {
			t.Fatal(err)
		}
	}
	parse := func(text []byte) (token, username, password string, err error) { return string(text), "", "", nil }
	config := Config{CredentialsFile: path, ParseCredentials: parse}
	if _, err := newCredentialSource(config); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want one that names the file", err)
	}
	write("old")
	source, err := newCredentialSource(config)
	if err != nil {
		t.Fatal(err)
	}
	used := source.get()
	write("")
	if source.refused(used) || source.get() != used {
		t.Error("an empty file put the old token out of force")
	}
	write("new")
	if !source.refused(used) || source.get() != (credentials{token: "new"}) {
		t.Error("the new token is not in force")
	}
}
