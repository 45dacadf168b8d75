package routes

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

func TestPodCIDRIsChecked(t *testing.T) {
	node := func(name string, age int, cidrs ...string) *v1.Node {
		return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(int64(1_700_000_000-age), 0))},
			Spec: v1.NodeSpec{PodCIDRs: cidrs}}
	}
	networks := []cloud.PrivateNetwork{{Name: "nodes", Prefixes: prefixes("172.16.0.0/22", "10.244.200.0/24", "fd00:16::/64")}}
	others := []*v1.Node{
		node("old", 1000, "10.244.1.0/24", "fd00:10:244:1::/64"), node("young", 10, "10.244.2.0/24"),
		// These get no route themselves, and so keep none from others.
		node("outside", 2000, "0.0.0.0/0", "10.0.0.0/8"), node("wide", 500, "10.244.0.0/16"),
	}
	for cidr, want := range map[string]string{
		"10.244.3.0/24":        "",
		"fd00:10:244:3::/64":   "",
		"10.244.2.0/24":        "", // of a younger Node
		"10.244.2.128/25":      "",
		"0.0.0.0/0":            "outside --cluster-cidr (10.244.0.0/16, fd00:10:244::/48)",
		"::/0":                 "outside --cluster-cidr",
		"10.0.0.0/8":           "outside --cluster-cidr",
		"10.245.0.0/24":        "outside --cluster-cidr",
		"172.16.0.0/22":        "outside --cluster-cidr",
		"10.244.200.0/25":      "overlaps private network nodes (10.244.200.0/24)",
		"10.244.192.0/20":      "overlaps private network nodes (10.244.200.0/24)",
		"10.244.1.0/24":        "overlaps 10.244.1.0/24 of Node old",
		"10.244.1.64/26":       "overlaps 10.244.1.0/24 of Node old",
		"10.244.0.0/20":        "overlaps 10.244.1.0/24 of Node old",
		"fd00:10:244:1:1::/96": "overlaps fd00:10:244:1::/64 of Node old",
	} {
		n := node("n", 100, cidr)
		err := newPodCIDRs(prefixes("10.244.0.0/16", "fd00:10:244::/48"), append(others, n)).check(n, mustPrefix(cidr), networks)
		var invalid *PodCIDRError
		if (err == nil) != (want == "") || err != nil && (!errors.As(err, &invalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", cidr, err, want)
		}
	}
}

func TestPodCIDROutsideTheClusterGetsNoRoute(t *testing.T) {
	r := newRig(t, simulator.Config{})
	r.put(foreign)
	// The cluster's CCM did not know --cluster-cidr before.
	named := func(c *Config) { c.ClusterID = "prod" }
	before := r.newCluster(r.URL, named).impatient()
	a, left := before.addNode("a", "10.244.0.0/24"), before.addNode("left", "10.99.0.0/24")
	before.settle()
	before.Close()
	evil := before.addNode("evil", "0.0.0.0/0")
	owner, _ := before.ownerOf(t.Context())
	r.put(append(r.raw(), fmt.Sprintf(`{"name":%q,"nexthop":%q,"route":"0.0.0.0/0"}`, owner.routeName("evil", mustPrefix("0.0.0.0/0")),
		internalIP(evil)))...)

	for _, test := range []struct {
		name, pods string
		want       string // beside the office's route
		event      bool
	}{
		{"no Node's Pod CIDR is inside: the flag is wrong", "10.7.0.0/16",
			fmt.Sprintf("0.0.0.0/0>%s 10.244.0.0/24>%s 10.99.0.0/24>%s", internalIP(evil), internalIP(a), internalIP(left)), true},
		{"routes outside go", "10.244.0.0/16", "10.244.0.0/24>" + internalIP(a), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			after := r.startAgain(func(c *Config) {
				named(c)
				c.ClusterCIDRs = prefixes(test.pods)
			}, a, evil, left)
			after.list()
			after.report("a", "evil", "left")
			after.list()
			_ = after.nodes.Delete(left)
			after.list()
			if err := after.create(evil); err == nil {
				t.Error("there is no error")
			}
			after.mustHaveEvent(ReasonPodCIDR, "0.0.0.0/0", test.pods)
			if got, want := r.leads(), test.want+" 192.168.7.0/24>172.16.9.9"; got != want {
				t.Errorf("routes %s, want %s", got, want)
			}
		})
	}
}

func TestRoutesThatOverlapAPodCIDR(t *testing.T) {
	for prefix, conflicts := range map[string]bool{
		"0.0.0.0/0":        false, // for what has no route of its own
		"10.0.0.0/8":       false,
		"10.244.0.0/16":    false,
		"10.244.1.0/24":    false,
		"10.244.0.0/20":    true,
		"10.244.0.0/24":    true,
		"10.244.0.128/25":  true,
		"10.244.0.1/32":    true,
		"fd00:10:244::/48": false,
	} {
		hop := "172.16.9.9"
		if strings.Contains(prefix, "::") {
			hop = "fd00::9"
		}
		r := newRig(t, simulator.Config{})
		r.put(fmt.Sprintf(`{"name":"office","nexthop":%q,"route":%q}`, hop, prefix))
		c := r.newCluster(r.URL, func(c *Config) { c.ClusterCIDRs = prefixes("10.244.0.0/16") }).impatient()
		err := c.create(c.addNode("a", "10.244.0.0/24"))
		var conflict *ConflictError
		if errors.As(err, &conflict) != conflicts || (err == nil) == conflicts {
			t.Errorf("%s: %v, want a conflict: %v", prefix, err, conflicts)
		}
		if routes := len(r.raw()); conflicts != (routes == 1) {
			t.Errorf("%s: %s", prefix, r.raw())
		}
	}
}

// Two Nodes with one Pod CIDR: the older one has the route, and does not lose it again and again.
func TestTwoNodesWithOnePodCIDR(t *testing.T) {
	r := newRig(t, simulator.Config{})
	c := r.newCluster(r.URL, nil).impatient()
	old, young := c.addNode("z-old", "10.244.0.0/24"), c.addNode("young", "10.244.0.0/24")
	old.CreationTimestamp = metav1.NewTime(time.Unix(1_700_000_000, 0))
	young.CreationTimestamp = metav1.NewTime(time.Unix(1_800_000_000, 0))
	c.mustCreate(old)
	var invalid *PodCIDRError
	if err := c.create(young); !errors.As(err, &invalid) {
		t.Errorf("error %v", err)
	}
	c.mustHaveEvent(ReasonPodCIDR, "z-old")
	if got, want := r.leads(), "10.244.0.0/24>"+internalIP(old); got != want {
		t.Errorf("routes %s, want %s", got, want)
	}
}
