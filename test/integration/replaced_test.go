package integration

import (
	"fmt"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
)

// Terraform replaces 4 of 10 servers under their names. Two kubelets are silent long enough for their Nodes to go, and register them again;
// two are on the new servers before anything was noticed, and go on with the old Nodes.
func TestServersAreReplacedUnderTheirNames(t *testing.T) {
	t.Parallel()
	c := started(t, "--node-status-update-frequency=1s")
	nodes := c.members("replaced", 10)
	slow, quick := nodes[:2], nodes[2:4]
	c.lose(slow...)
	for _, name := range slow {
		c.gone(name)
	}
	successors := map[string]string{}
	for _, name := range quick {
		if err := c.RemoveServer(c.node(name).Spec.ProviderID[len("upcloud:////"):]); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range nodes[:4] {
		successors[name] = c.CreateServer(t, name, zone)
	}
	for _, name := range slow {
		c.register(c.newNode(name))
	}
	c.initialized(slow...)
	for _, name := range slow {
		if got := c.node(name).Spec.ProviderID; got != "upcloud:////"+successors[name] {
			t.Errorf("%s: provider ID %s, want that of %s", name, got, successors[name])
		}
	}
	for _, name := range quick {
		c.eventually(name+" has the new server's address", func() string {
			have := addresses(c.node(name), v1.NodeInternalIP)
			if want := c.privateAddress(successors[name]); !slices.Equal(have, []string{want}) {
				return fmt.Sprintf("%v, want %s", have, want)
			}
			return ""
		})
		c.eventuallyEvent(name, "ServerReplaced", "kubectl delete node "+name)
	}
	c.always("the Nodes of running kubelets stay", "GET /server", 3, func() string {
		for _, name := range nodes {
			if !c.exists(name) {
				return name + " is gone"
			}
		}
		return ""
	})
}
