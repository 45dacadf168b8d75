package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/project"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/rootfs"
)

// imageFacts are what an image says of itself.
type imageFacts struct {
	reference, version, commit string
	time                       time.Time
}

// descriptions are a line for each image, which registries show.
var descriptions = map[string]string{
	"ccm":            "Cloud controller manager for Kubernetes on UpCloud",
	"csi-driver":     "CSI driver for UpCloud block storage",
	"upcloud-doctor": "Finds what a cluster left behind in an UpCloud account",
	"upcloud-sim":    "A local UpCloud for tests",
}

// singleFiles are the files that a release has for kubectl apply -f, and the kustomizations that they are made of.
var singleFiles = map[string]string{
	"upcloud.yaml":                     "deploy/kubernetes/base",
	"upcloud-snapshot-controller.yaml": "deploy/kubernetes/snapshot-controller",
	"upcloud-snapshot-class.yaml":      "deploy/kubernetes/snapshot-class",
	"upcloud-admission.yaml":           "deploy/kubernetes/admission",
	"upcloud-doctor.yaml":              "deploy/kubernetes/doctor",
}

// ours is an image of the project where a manifest or a chart's values name it.
var ours = regexp.MustCompile(`((?:image|repository): *"?)` + project.ImagePrefix + `([a-z-]+)`)

func (r *release) named(text []byte) []byte {
	return ours.ReplaceAll(text, []byte("${1}"+r.registry+"/${2}"))
}

func (r *release) writeManifests(context.Context) error {
	for name, dir := range singleFiles {
		resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join(r.tree.Dir, dir))
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		text, err := resources.AsYaml()
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		text = r.named(text)
		if bytes.Contains(text, []byte(": "+project.ImagePrefix)) {
			return fmt.Errorf("%s: an image of the project is left that is not in %s", dir, r.registry)
		}
		if err := r.write(name, 0o644, text); err != nil {
			return err
		}
	}
	charts, err := filepath.Glob(filepath.Join(r.tree.Dir, "deploy/helm/*/Chart.yaml"))
	if err != nil {
		return err
	}
	for _, chart := range charts {
		dir := filepath.Dir(chart)
		archive, err := r.packChart(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		name := fmt.Sprintf("%s-%s.tgz", filepath.Base(dir), strings.TrimPrefix(r.version, "v"))
		if err := r.write(name, 0o644, archive); err != nil {
			return err
		}
	}
	return nil
}

// packChart makes the archive of a chart, with the images of the release as its defaults. helm package would do, but for the times of
// the files.
func (r *release) packChart(dir string) ([]byte, error) {
	tree := rootfs.New()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(entry.Name(), ".") {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(filepath.Dir(dir), path)
		if err != nil {
			return err
		}
		if entry.Name() == "values.yaml" {
			content = r.named(content)
		}
		tree.AddFile(name, 0o644, content)
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	packed := gzip.NewWriter(&out)
	err = errors.Join(tree.WriteTar(packed, r.time), packed.Close())
	return out.Bytes(), err
}

func sum(content []byte) string {
	hash := sha256.Sum256(content)
	return hex.EncodeToString(hash[:])
}

// sums are the checksums of all files of a folder, by name.
func sums(dir string) (map[string]string, error) {
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		found[name] = sum(content)
		return err
	})
	return found, err
}

// extract writes a tree into a folder.
func extract(tree *rootfs.Tree, dir string) error {
	var b bytes.Buffer
	if err := tree.WriteTar(&b, time.Now()); err != nil {
		return err
	}
	for archive := tar.NewReader(&b); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(header.Linkname, path)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, header.Linkname), path)
		default:
			var content []byte
			if content, err = io.ReadAll(archive); err == nil {
				err = os.WriteFile(path, content, os.FileMode(header.Mode)) //nolint:gosec // no more than the modes of files
			}
		}
		if err != nil {
			return err
		}
	}
}
