package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// archive makes a tar as a Debian package has it.
func archive(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["content"]
		h.PAXRecords, h.Size = nil, int64(len(content))
		h.ModTime, h.Uid, h.Uname = time.Now(), 1000, "builder"
		if err := errors.Join(w.WriteHeader(&h), second(w.Write([]byte(content)))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func second(_ int, err error) error { return err }

func file(name, content string, mode int64) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, PAXRecords: map[string]string{"content": content}}
}

func link(kind byte, name, target string) tar.Header {
	return tar.Header{Name: name, Typeflag: kind, Linkname: target}
}

// listing is what a tar has, a line for each entry.
func listing(t *testing.T, b []byte) (lines []string) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err != nil {
			return lines
		}
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || !h.ModTime.Equal(time.Unix(1000, 0)) {
			t.Errorf("%s: owner %d:%d %q, time %v", h.Name, h.Uid, h.Gid, h.Uname, h.ModTime)
		}
		line := h.Name
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		lines = append(lines, line)
	}
}

func TestTreeIsMergedSortedAndWithoutOwners(t *testing.T) {
	write := func(packages ...io.Reader) []byte {
		tree := New()
		for _, each := range packages {
			if err := tree.AddTar(each); err != nil {
				t.Fatal(err)
			}
		}
		var b bytes.Buffer
		if err := tree.WriteTar(&b, time.Unix(1000, 500)); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	first := func() io.Reader {
		return archive(t, tar.Header{Name: "./sbin/", Typeflag: tar.TypeDir, Mode: 0o755}, file("./sbin/mke2fs", "elf", 0o4755),
			link(tar.TypeLink, "./sbin/mkfs.ext4", "./sbin/mke2fs"), link(tar.TypeSymlink, "./sbin/e2", "../usr/sbin/y"))
	}
	second := func() io.Reader {
		return archive(t, file("./usr/bin/a", "a", 0o755), link(tar.TypeSymlink, "./bin/sh", "dash"))
	}
	got := write(first(), second())
	want := []string{
		"bin -> usr/bin", "sbin -> usr/sbin", "usr/", "usr/bin/", "usr/bin/a", "usr/bin/sh -> dash", "usr/sbin/",
		"usr/sbin/e2 -> /usr/sbin/y", "usr/sbin/mke2fs", "usr/sbin/mkfs.ext4 -> usr/sbin/mke2fs",
	}
	if lines := listing(t, got); !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if !bytes.Equal(got, write(second(), first())) {
		t.Error("another order of packages gives another tar")
	}
	if h, err := entry(got, "usr/sbin/mke2fs"); err != nil || h.Mode != 0o755 {
		t.Errorf("a program that runs as its owner: %+v, %v", h, err)
	}
}

func entry(b []byte, name string) (*tar.Header, error) {
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		if h, err := r.Next(); err != nil || h.Name == name {
			return h, err
		}
	}
}

func TestLinksAreFollowed(t *testing.T) {
	tree := New()
	if err := tree.AddTar(archive(t, file("./lib/x/libc.so.6", "c", 0o644), link(tar.TypeSymlink, "./lib64/ld.so", "/lib/x/libc.so.6"),
		link(tar.TypeSymlink, "./usr/share/up", "../lib/x"), link(tar.TypeSymlink, "./loop", "loop"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"/lib64/ld.so": "usr/lib/x/libc.so.6", "/usr/share/up/libc.so.6": "usr/lib/x/libc.so.6", "/loop": "", "/missing": "",
	} {
		if got := tree.Resolve(name); got != want {
			t.Errorf("%s leads to %q, want %q", name, got, want)
		}
	}
}

func TestArchivesThatCannotBe(t *testing.T) {
	for name, headers := range map[string][]tar.Header{
		"two packages have it":                 {file("./bin/a", "1", 0o755), file("./usr/bin/a", "2", 0o755)},
		"comes later or not at all":            {link(tar.TypeLink, "./a", "./b")},
		"an image should have nothing of type": {{Name: "./dev/sda", Typeflag: tar.TypeBlock}},
	} {
		if err := New().AddTar(archive(t, headers...)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}
