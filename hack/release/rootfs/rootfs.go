// Package rootfs holds the files of an image in memory and writes them as a tar whose bytes depend on nothing but them.
package rootfs

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Node is a file, directory or link. Names that are hard links of each other share one Node.
type Node struct {
	// Type is that of package tar: TypeReg, TypeDir or TypeSymlink.
	Type    byte
	Mode    int64
	Content []byte
	// Target is where a symbolic link leads.
	Target string
}

// Tree is a root file system: nodes by their names, which have no slash at either end.
type Tree struct{ nodes map[string]*Node }

// merged are the directories that are links into usr, as on every Debian since version 12.
var merged = []string{"bin", "lib", "lib32", "lib64", "libx32", "sbin"}

// New makes an empty tree.
func New() *Tree { return &Tree{nodes: map[string]*Node{}} }

// AddTar adds what an archive of a Debian package has. Owners and times are left out, and with them the rights of programs that
// run as their owner: nothing in an image needs them.
func (t *Tree) AddTar(r io.Reader) error {
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := clean(header.Name)
		if name == "" || (slices.Contains(merged, name) && header.Typeflag == tar.TypeSymlink) { // WriteTar makes those links
			continue
		}
		node := &Node{Type: header.Typeflag, Mode: header.Mode & 0o1777}
		switch header.Typeflag {
		case tar.TypeDir:
		case tar.TypeReg:
			if node.Content, err = io.ReadAll(archive); err != nil {
				return fmt.Errorf("%s: %w", header.Name, err)
			}
		case tar.TypeSymlink:
			node.Target = target(header.Name, header.Linkname)
		case tar.TypeLink:
			if node = t.nodes[merge(clean(header.Linkname))]; node == nil {
				return fmt.Errorf("%s: hard link to %s, which comes later or not at all", header.Name, header.Linkname)
			}
		default:
			return fmt.Errorf("%s: an image should have nothing of type %q", header.Name, header.Typeflag)
		}
		if err := t.add(merge(name), node); err != nil {
			return err
		}
	}
}

func (t *Tree) add(name string, node *Node) error {
	if old := t.nodes[name]; old != nil {
		if old.Type == tar.TypeDir && node.Type == tar.TypeDir {
			return nil
		}
		return fmt.Errorf("/%s: two packages have it", name)
	}
	t.nodes[name] = node
	return nil
}

// AddFile adds a file, or takes the place of the one of that name.
func (t *Tree) AddFile(name string, mode int64, content []byte) {
	t.nodes[merge(clean(name))] = &Node{Type: tar.TypeReg, Mode: mode, Content: content}
}

// AddDir adds a directory.
func (t *Tree) AddDir(name string, mode int64) {
	t.nodes[merge(clean(name))] = &Node{Type: tar.TypeDir, Mode: mode}
}

// Drop takes out every name for which drop says so. It is asked for names without a slash in front.
func (t *Tree) Drop(drop func(name string) bool) {
	maps.DeleteFunc(t.nodes, func(name string, _ *Node) bool { return drop(name) })
}

// Names are the names of all nodes, sorted.
func (t *Tree) Names() []string { return slices.Sorted(maps.Keys(t.nodes)) }

// Lookup follows links from a name to a file or directory; nil where there is nothing.
func (t *Tree) Lookup(name string) *Node {
	_, node := t.resolve(clean(name), 0)
	return node
}

// Resolve is the name behind all links, "" where there is nothing.
func (t *Tree) Resolve(name string) string {
	found, _ := t.resolve(clean(name), 0)
	return found
}

func (t *Tree) resolve(name string, depth int) (string, *Node) {
	const enough = 40 // as the kernel has it
	if depth > enough {
		return "", nil
	}
	name = merge(name)
	if node := t.nodes[name]; node != nil {
		if node.Type != tar.TypeSymlink {
			return name, node
		}
		return t.resolve(join(path.Dir(name), node.Target), depth+1)
	}
	// One of the directories above may be a link.
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if node := t.nodes[dir]; node != nil && node.Type == tar.TypeSymlink {
			return t.resolve(path.Join(join(path.Dir(dir), node.Target), strings.TrimPrefix(name, dir)), depth+1)
		}
	}
	return "", nil
}

// WriteTar writes the tree: sorted, owned by root, everything of one time, directories before what is in them.
func (t *Tree) WriteTar(w io.Writer, when time.Time) error {
	nodes := maps.Clone(t.nodes)
	for name := range t.nodes {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if nodes[dir] == nil {
				nodes[dir] = &Node{Type: tar.TypeDir, Mode: 0o755}
			}
		}
	}
	for _, name := range merged {
		if nodes["usr/"+name] != nil {
			nodes[name] = &Node{Type: tar.TypeSymlink, Mode: 0o777, Target: "usr/" + name}
		}
	}
	archive := tar.NewWriter(w)
	written := map[*Node]string{}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		node := nodes[name]
		header := &tar.Header{Name: name, Typeflag: node.Type, Mode: node.Mode, ModTime: when.UTC().Truncate(time.Second), Linkname: node.Target}
		switch node.Type {
		case tar.TypeDir:
			header.Name += "/"
		case tar.TypeReg:
			if first, ok := written[node]; ok {
				header.Typeflag, header.Linkname = tar.TypeLink, first
			} else {
				written[node], header.Size = name, int64(len(node.Content))
			}
		}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if header.Size > 0 {
			if _, err := archive.Write(node.Content); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return archive.Close()
}

// clean makes a name of a tar one of a tree: "./bin/sh" is bin/sh.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// merge moves a name of one of the old directories at the top into usr.
func merge(name string) string {
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged, first) {
		return "usr/" + name
	}
	return name
}

// target is where a link leads that stands in a tar under a name. One that goes up from a directory which is moved into usr, as in
// /sbin/x -> ../usr/sbin/y, would lead elsewhere from there.
func target(name, link string) string {
	if merge(clean(name)) == clean(name) || !strings.HasPrefix(link, "../") {
		return link
	}
	return path.Join("/", path.Dir(clean(name)), link)
}

// join is where a link in a directory leads.
func join(dir, link string) string {
	if path.IsAbs(link) {
		return clean(link)
	}
	return clean(path.Join("/", dir, link))
}
