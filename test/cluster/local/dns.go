package local

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/test/cluster/machine"
)

// clusterDomain ends the names of Services.
const clusterDomain = "cluster.local"

// startDNS starts the name server that Pods ask for Services, beside the API server. Only what needs one has one: Kubernetes'
// own end-to-end tests.
func (c *Cluster) startDNS() error {
	if c.config.CoreDNS == "" {
		return nil
	}
	if err := c.kubeconfig(c.kubeconfigOf("admin"), "admin", apiServerURL()); err != nil {
		return err
	}
	corefile := filepath.Join(c.pki, "Corefile")
	content := fmt.Sprintf("%[1]s:53 {\n\terrors\n\tkubernetes %[1]s {\n\t\tkubeconfig %[2]s\n\t}\n}\n", clusterDomain, c.kubeconfigOf("admin"))
	if err := os.WriteFile(corefile, []byte(content), 0o600); err != nil {
		return err
	}
	return c.start(machine.Program{Name: "coredns", Args: []string{c.config.CoreDNS, "-conf", corefile}, Namespace: c.fabric})
}

// nameServers is what a kubelet's configuration says of names.
func (c *Cluster) nameServers() string {
	if c.config.CoreDNS == "" {
		return ""
	}
	return fmt.Sprintf("clusterDNS: [%s]\nclusterDomain: %s\n", privateGateway.Addr(), clusterDomain)
}
