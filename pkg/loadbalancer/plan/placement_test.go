package plan

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

func TestChoosePlacement(t *testing.T) {
	node := func(name, ip string) LocatedNode {
		return LocatedNode{name: name, serverID: "00-" + name, Zone: "fi-hel1", ip: netip.MustParseAddr(ip)}
	}
	network := func(id, prefix string, nodes ...string) cloud.PrivateNetwork {
		n := cloud.PrivateNetwork{ID: id, Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
		for _, name := range nodes {
			n.ServerIDs = append(n.ServerIDs, "00-"+name)
		}
		return n
	}
	nodes := []LocatedNode{node("a", "172.16.0.1"), node("b", "172.16.0.2"), node("c", "10.6.0.3")}
	for _, test := range []struct {
		name     string
		networks []cloud.PrivateNetwork
		want     string
		outside  []string
	}{
		{"the network of the internal addresses, not the one with more servers", []cloud.PrivateNetwork{
			network("03-storage", "192.168.0.0/24", "a", "b", "c"), network("03-nodes", "172.16.0.0/24", "a", "b"),
		}, "03-nodes", []string{"c"}},
		{"one new or hybrid node does not stop it", []cloud.PrivateNetwork{
			network("03-x", "10.6.0.0/24", "c"), network("03-y", "172.16.0.0/24", "a", "b", "c"),
		}, "03-y", []string{"c"}},
		{"two that are as good: always the same", []cloud.PrivateNetwork{
			network("03-b", "172.16.0.0/24", "a"), network("03-a", "172.16.0.0/24", "b"),
		}, "03-a", []string{"a", "c"}},
		{"addresses from elsewhere", []cloud.PrivateNetwork{network("03-z", "192.168.0.0/24", "a")}, "03-z", []string{"a", "b", "c"}},
		{"others' networks", []cloud.PrivateNetwork{network("03-z", "172.16.0.0/24", "x")}, "", nil},
		{"no network", nil, "", nil},
	} {
		got, err := ChoosePlacement("fi-hel1", nodes, test.networks)
		if got.NetworkID != test.want || (err == nil) != (test.want != "") || !slices.Equal(got.Outside, test.outside) {
			t.Errorf("%s: %+v, %v, want %s", test.name, got, err, test.want)
		}
	}
}

func TestMostOf(t *testing.T) {
	if got := MostOf(map[string]int{"b": 2, "a": 2, "c": 1}); got != "a" {
		t.Errorf("mostOf = %s", got)
	}
}
