package toolchain

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"sort"
	"strings"
)

// Image is a container image to be made of files of this machine, without a Docker engine or a registry.
type Image struct {
	Name       string            // with its tag; containerd knows it by this name
	Base       string            // tar of a root file system to build on; empty: none
	Files      map[string]string // path in the image -> file on this machine
	Links      map[string]string // path in the image -> what the symbolic link points to
	Entrypoint []string
	Command    []string // what the entry point is given where the Pod says nothing
	StopSignal string   // how its program is asked to end; empty: SIGTERM
}

// WriteArchive writes the images as one archive in Docker's format, which `ctr images import` takes. A base that several
// images share is stored once.
// (The format is described in the Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format".)
func WriteArchive(path string, images ...Image) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	archive := archive{Writer: tar.NewWriter(out), bases: map[string]layer{}}
	for _, image := range images {
		if err := archive.addImage(image); err != nil {
			return fmt.Errorf("image %s: %w", image.Name, err)
		}
	}
	manifest, err := json.Marshal(archive.manifest)
	if err != nil {
		return err
	}
	if err := add(archive.Writer, "manifest.json", manifest); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return out.Close()
}

type archive struct {
	*tar.Writer
	bases    map[string]layer // by path
	manifest []imageManifest
}

type imageManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// layer is a file system layer in an archive: its place there, and the digest that its image's configuration names.
type layer struct{ name, digest string }

func (a *archive) addImage(image Image) error {
	var layers []layer
	if image.Base != "" {
		base, err := a.addBase(image.Base)
		if err != nil {
			return fmt.Errorf("add the base: %w", err)
		}
		layers = append(layers, base)
	}
	files, err := image.files()
	if err != nil {
		return err
	}
	digest := sum(files)
	if err := add(a.Writer, digest+"/layer.tar", files); err != nil {
		return err
	}
	return a.describe(image, append(layers, layer{digest + "/layer.tar", "sha256:" + digest}))
}

func (a *archive) describe(image Image, layers []layer) error {
	var names, digests []string
	for _, layer := range layers {
		names, digests = append(names, layer.name), append(digests, layer.digest)
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config": map[string]any{
			"Entrypoint": image.Entrypoint,
			"Cmd":        image.Command,
			"StopSignal": image.StopSignal,
			"Env":        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": digests},
	})
	if err != nil {
		return err
	}
	configName := sum(config) + ".json"
	a.manifest = append(a.manifest, imageManifest{configName, []string{image.Name}, names})
	return add(a.Writer, configName, config)
}

func (a *archive) addBase(path string) (layer, error) {
	if base, ok := a.bases[path]; ok {
		return base, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return layer{}, err
	}
	defer file.Close()
	digest := sha256.New()
	size, err := io.Copy(digest, file)
	if err != nil {
		return layer{}, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return layer{}, err
	}
	hexDigest := hex.EncodeToString(digest.Sum(nil))
	base := layer{hexDigest + "/layer.tar", "sha256:" + hexDigest}
	if err := a.WriteHeader(&tar.Header{Name: base.name, Mode: 0o644, Size: size}); err != nil {
		return layer{}, err
	}
	_, err = io.Copy(a, file)
	a.bases[path] = base
	return base, err
}

// files is the tar of the image's own files, the same bytes for the same files.
func (i Image) files() ([]byte, error) {
	var buffer bytes.Buffer
	layer := tar.NewWriter(&buffer)
	if i.Base == "" {
		if err := layer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
			return nil, err
		}
	}
	for _, target := range sortedKeys(i.Files) {
		content, err := os.ReadFile(i.Files[target])
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", i.Name, err)
		}
		if err := add(layer, strings.TrimPrefix(target, "/"), content); err != nil {
			return nil, err
		}
	}
	for _, target := range sortedKeys(i.Links) {
		header := &tar.Header{Typeflag: tar.TypeSymlink, Name: strings.TrimPrefix(target, "/"), Linkname: i.Links[target]}
		if err := layer.WriteHeader(header); err != nil {
			return nil, err
		}
	}
	err := layer.Close()
	return buffer.Bytes(), err
}

func add(archive *tar.Writer, name string, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
