// Package elfcheck says whether the programs of a root file system can be loaded: that they are of its architecture and that every
// shared library they need is there. It runs nothing, so that it serves for architectures that this machine is not of.
package elfcheck

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/rootfs"
)

// machines are what a program of an architecture of Go says of itself.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// triplets are Debian's names of the directories with libraries of an architecture.
var triplets = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

// Check looks at every program and library of the tree. The answer has a line for each problem, and how many files were looked at.
func Check(tree *rootfs.Tree, architecture string) (problems []string, checked int) {
	for _, name := range tree.Names() {
		if tree.Resolve(name) != name { // a link: what it leads to is looked at
			continue
		}
		node := tree.Lookup(name)
		if node.Type != tar.TypeReg || !bytes.HasPrefix(node.Content, []byte(elf.ELFMAG)) {
			continue
		}
		checked++
		for _, each := range checkFile(tree, node.Content, architecture) {
			problems = append(problems, fmt.Sprintf("/%s %s", name, each))
		}
	}
	return problems, checked
}

func checkFile(tree *rootfs.Tree, content []byte, architecture string) (problems []string) {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return []string{fmt.Sprintf("cannot be read: %v", err)}
	}
	defer file.Close()
	if file.Machine != machines[architecture] {
		problems = append(problems, fmt.Sprintf("is for %v, the image for %s", file.Machine, architecture))
	}
	if loader := interpreter(file); loader != "" && tree.Lookup(loader) == nil {
		problems = append(problems, fmt.Sprintf("is loaded by %s, which is not there", loader))
	}
	libraries, err := file.ImportedLibraries()
	if err != nil {
		return append(problems, fmt.Sprintf("cannot be read: %v", err))
	}
	dirs := []string{"/usr/lib/" + triplets[architecture], "/usr/lib"}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		if paths, err := file.DynString(tag); err == nil {
			for _, each := range paths {
				dirs = slices.Concat(dirs, strings.Split(each, ":"))
			}
		}
	}
	for _, library := range libraries {
		if !slices.ContainsFunc(dirs, func(dir string) bool { return tree.Lookup(path.Join(dir, library)) != nil }) {
			problems = append(problems, fmt.Sprintf("needs %s, which is not there", library))
		}
	}
	return problems
}

// interpreter is the program that loads another with its libraries, "" for one that is static.
func interpreter(file *elf.File) string {
	for _, each := range file.Progs {
		if each.Type == elf.PT_INTERP {
			content := make([]byte, each.Filesz)
			if _, err := each.ReadAt(content, 0); err == nil {
				return string(bytes.TrimRight(content, "\x00"))
			}
		}
	}
	return ""
}
