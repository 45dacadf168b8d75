package cloud

import (
	"os"
	"path/filepath"
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
