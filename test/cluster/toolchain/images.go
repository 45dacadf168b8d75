package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Names of the images, as the manifests ask for them.
const (
	PauseImage   = "docker.io/cloud-provider-upcloud/pause:local"
	busyboxImage = "docker.io/library/busybox:1.35"
	nginxImage   = "docker.io/library/nginx:1.22"
	driverImage  = "docker.io/cloud-provider-upcloud/csi-driver:local"
	ccmImage     = "docker.io/cloud-provider-upcloud/ccm:local"
)

// sidecarImages are the images of the CSI sidecars that the shipped manifests ask for, and their programs.
var sidecarImages = map[string]string{
	"registry.k8s.io/sig-storage/csi-provisioner:v6.3.0":            "csi-provisioner",
	"registry.k8s.io/sig-storage/csi-attacher:v4.12.0":              "csi-attacher",
	"registry.k8s.io/sig-storage/csi-resizer:v2.2.0":                "csi-resizer",
	"registry.k8s.io/sig-storage/csi-snapshotter:v8.6.0":            "csi-snapshotter",
	"registry.k8s.io/sig-storage/snapshot-controller:v8.6.0":        "snapshot-controller",
	"registry.k8s.io/sig-storage/csi-node-driver-registrar:v2.15.0": "csi-node-driver-registrar",
}

// ForeignImages makes the archive of the images that are not the project's own, out of the sidecars' folder, the
// machine's static busybox, and Debian's nginx.
func (c *Cache) ForeignImages(ctx context.Context, sidecars string) (archive string, err error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", fmt.Errorf("find busybox (Debian package busybox-static): %w", err)
	}
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return "", fmt.Errorf("ask busybox for its applets: %w", err)
	}
	nginx, err := c.webServer(ctx)
	if err != nil {
		return "", err
	}
	key, err := key([]string{sidecars, nginx, nginxImage, fmt.Sprint(sidecarImages)}, []string{busybox})
	if err != nil {
		return "", err
	}
	links := map[string]string{}
	for _, applet := range strings.Fields(string(applets)) {
		links["/bin/"+applet] = "/bin/busybox"
	}
	delete(links, "/bin/busybox")
	files := map[string]string{"/bin/busybox": busybox}
	images := []Image{
		{Name: PauseImage, Files: files, Entrypoint: []string{"/bin/busybox", "sleep", "2147483647"}},
		{Name: busyboxImage, Files: files, Links: links, Entrypoint: []string{"/bin/sh"}},
		// As nginx's own image has it: with this signal nginx ends when it has answered.
		{Name: nginxImage, Base: nginx, Files: files, StopSignal: "SIGQUIT", Entrypoint: []string{"nginx", "-g", "daemon off;"},
			Links: map[string]string{"/bin/sh": "busybox", "/bin/touch": "busybox", "/bin/sleep": "busybox"}},
	}
	for _, name := range sortedKeys(sidecarImages) {
		program := "/" + sidecarImages[name]
		images = append(images, Image{Name: name, Entrypoint: []string{program},
			Files: map[string]string{program: filepath.Join(sidecars, sidecarImages[name])}})
	}
	return c.get(ctx, "images", key, func(path string) error { return WriteArchive(path, images...) })
}

// ProjectImages makes the archive of the project's images, as the Dockerfile would make them, out of the programs in
// paths.Output.
func ProjectImages(paths Paths, driverBase string) (archive string, err error) {
	archive = filepath.Join(paths.Output, "images.tar")
	const certificates = "/etc/ssl/certs/ca-certificates.crt"
	ccmFiles := map[string]string{"/ccm": filepath.Join(paths.Output, "ccm")}
	if _, err := os.Stat(certificates); err == nil {
		ccmFiles[certificates] = certificates
	}
	return archive, WriteArchive(archive,
		Image{Name: driverImage, Base: driverBase, Entrypoint: []string{"/csi-driver"},
			Files: map[string]string{"/csi-driver": filepath.Join(paths.Output, "csi-driver")}},
		Image{Name: ccmImage, Entrypoint: []string{"/ccm"}, Files: ccmFiles})
}
