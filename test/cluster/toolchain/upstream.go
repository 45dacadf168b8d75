package toolchain

import (
	"context"
	"os"
	"path/filepath"
)

// agnhostImage is the one image that the specs of load balancers start, as version KubernetesVersion of the suite names it.
const agnhostImage = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

// agnhostPackages are the Debian packages in place of the Alpine ones of the official image: what specs run in its Pods.
var agnhostPackages = []string{"curl", "netcat-openbsd", "wget"}

// wgetConfig makes GNU's wget as the one of Alpine is, which the specs are written for: it tries once.
const wgetConfig = "tries = 1\n"

// Suite builds what Kubernetes' own end-to-end tests take into the folder in the answer: e2e.test, the ginkgo that runs its
// specs side by side, agnhost for their Pods, and the CoreDNS that these ask for Services.
func (c *Cache) Suite(ctx context.Context, paths Paths) (dir string, err error) {
	module := filepath.Join(paths.module(), "upstream")
	key, err := key([]string{KubernetesVersion}, []string{module})
	if err != nil {
		return "", err
	}
	return c.get(ctx, "kubernetes-tests", key, func(dir string) error {
		if err := goTool(ctx, module, nil, "build", "-trimpath", "-ldflags", "-s -w", "-o", dir+"/", "tool", "./coredns"); err != nil {
			return err
		}
		ldflags := "-s -w -X k8s.io/component-base/version.gitVersion=" + KubernetesVersion
		// Without -vet=off the suite's own dependencies are vetted as well, which takes minutes.
		return goTool(ctx, module, nil, "test", "-c", "-vet=off", "-trimpath", "-ldflags", ldflags, "-o", filepath.Join(dir, "e2e.test"),
			"k8s.io/kubernetes/test/e2e")
	})
}

// SuiteImages makes the archive of the images that Kubernetes' own tests start, out of the folder that Suite has filled.
func (c *Cache) SuiteImages(ctx context.Context, suite string) (archive string, err error) {
	base, err := c.debian(ctx, "agnhost-base", agnhostPackages, smallDebian...)
	if err != nil {
		return "", err
	}
	key, err := key([]string{suite, base, agnhostImage, wgetConfig}, nil)
	if err != nil {
		return "", err
	}
	return c.get(ctx, "kubernetes-test-images", key, func(path string) error {
		config := path + ".wgetrc"
		defer os.Remove(config)
		if err := os.WriteFile(config, []byte(wgetConfig), 0o644); err != nil {
			return err
		}
		return WriteArchive(path, Image{Name: agnhostImage, Base: base, Entrypoint: []string{"/agnhost"}, Command: []string{"pause"},
			Files: map[string]string{"/agnhost": filepath.Join(suite, "agnhost"), "/etc/wgetrc": config}})
	})
}
