// Package image makes OCI images for several platforms out of trees of files, and writes them as image layouts.
package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/rootfs"
)

// Image is what one image is to be, for one platform.
type Image struct {
	Architecture string
	// Layers are what the image is made of, the one that changes least first.
	Layers     []Layer
	Entrypoint []string
	// User is the one that the program runs as, "" for root.
	User string
	// Labels are those of the image, and annotations of its index.
	Labels map[string]string
	// Created is the time of everything in the image.
	Created time.Time
}

// Layer is one, and what history says of it.
type Layer struct {
	Tree    *rootfs.Tree
	Comment string
}

// build makes the image.
func (i Image) build() (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	var additions []mutate.Addendum
	for _, each := range i.Layers {
		layer, err := each.build(i.Created)
		if err != nil {
			return nil, err
		}
		additions = append(additions, mutate.Addendum{
			Layer: layer, MediaType: types.OCILayer,
			History: v1.History{Created: v1.Time{Time: i.Created}, CreatedBy: "hack/release", Comment: each.Comment},
		})
	}
	image, err := mutate.Append(image, additions...)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", i.Architecture, v1.Time{Time: i.Created}
	if i.Architecture == "arm64" {
		config.Variant = "v8"
	}
	config.Config = v1.Config{
		Entrypoint: i.Entrypoint, User: i.User, Labels: i.Labels, WorkingDir: "/",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	return mutate.ConfigFile(image, config)
}

func (l Layer) build(when time.Time) (v1.Layer, error) {
	var files bytes.Buffer
	if err := l.Tree.WriteTar(&files, when); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil },
		tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

// Write makes the images, one a platform, and writes them as a layout whose only entry is their index; name is how tools that
// import a layout call it. The answer is the digest of the index, by which the image can be pulled once it is published.
func Write(dir, name string, annotations map[string]string, images ...Image) (digest string, err error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, each := range images {
		image, err := each.build()
		if err != nil {
			return "", fmt.Errorf("%s for %s: %w", name, each.Architecture, err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			return "", err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: config.Platform()}})
	}
	index = mutate.Annotations(index, annotations).(v1.ImageIndex)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return "", err
	}
	// containerd takes the first for the name, others the second.
	named := map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
	if err := path.AppendIndex(index, layout.WithAnnotations(named)); err != nil {
		return "", err
	}
	hash, err := index.Digest()
	return hash.String(), err
}

// Open reads the index of a layout that Write made.
func Open(dir string) (v1.ImageIndex, error) {
	path, err := layout.FromPath(dir)
	if err != nil {
		return nil, err
	}
	top, err := path.ImageIndex()
	if err != nil {
		return nil, err
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		return nil, err
	}
	if len(manifest.Manifests) != 1 || !manifest.Manifests[0].MediaType.IsIndex() {
		return nil, fmt.Errorf("the layout %s has not one index but %d entries", dir, len(manifest.Manifests))
	}
	return top.ImageIndex(manifest.Manifests[0].Digest)
}

// Files is all that the image of a layout has for an architecture, with its configuration.
func Files(dir, architecture string) (*rootfs.Tree, *v1.ConfigFile, error) {
	found, err := imageOf(dir, architecture)
	if err != nil {
		return nil, nil, err
	}
	config, err := found.ConfigFile()
	if err != nil {
		return nil, nil, err
	}
	layers, err := found.Layers()
	if err != nil {
		return nil, nil, err
	}
	if len(layers) != len(config.RootFS.DiffIDs) {
		return nil, nil, fmt.Errorf("the layout %s has %d layers for %s, and names %d", dir, len(layers), architecture, len(config.RootFS.DiffIDs))
	}
	tree := rootfs.New()
	for i, layer := range layers {
		if err := addLayer(tree, layer, config.RootFS.DiffIDs[i]); err != nil {
			return nil, nil, fmt.Errorf("the layout %s, layer %d for %s: %w", dir, i+1, architecture, err)
		}
	}
	return tree, config, nil
}

func addLayer(tree *rootfs.Tree, layer v1.Layer, want v1.Hash) error {
	files, err := layer.Uncompressed()
	if err != nil {
		return err
	}
	defer files.Close()
	hash := sha256.New()
	content := io.TeeReader(files, hash)
	if err := tree.AddTar(content); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return err
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != want.Hex {
		return fmt.Errorf("it is %s, and the image's configuration says %s", got, want.Hex)
	}
	return nil
}

// CheckBlobs says whether everything in a layout is what its name says.
func CheckBlobs(dir string) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	entries, err := os.ReadDir(blobs)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(blobs, entry.Name()))
		if err != nil {
			return err
		}
		if hash := sha256.Sum256(content); hex.EncodeToString(hash[:]) != entry.Name() {
			return fmt.Errorf("the blob %s is not what its name says", entry.Name())
		}
	}
	return nil
}

// Digest is the digest of a layout's image for an architecture, in hex.
func Digest(dir, architecture string) (string, error) {
	found, err := imageOf(dir, architecture)
	if err != nil {
		return "", err
	}
	hash, err := found.Digest()
	return hash.Hex, err
}

func imageOf(dir, architecture string) (v1.Image, error) {
	index, err := Open(dir)
	if err != nil {
		return nil, err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, each := range manifest.Manifests {
		if each.Platform != nil && each.Platform.OS == "linux" && each.Platform.Architecture == architecture {
			return index.Image(each.Digest)
		}
	}
	return nil, fmt.Errorf("the layout %s has no image for linux/%s", dir, architecture)
}
