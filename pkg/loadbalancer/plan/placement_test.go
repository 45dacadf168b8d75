package plan

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

func TestChoosePlacement(t *testing.T) {
	node := func(name, ip string) LocatedNode {
		return LocatedNode{name: name, serverID: "00-" + name, Zone: "fi-hel1", ips: []netip.Addr{netip.MustParseAddr(ip)}}
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
		if got.NetworkID != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %+v, %v, want %s", test.name, got, err, test.want)
		}
		outside := Outside(test.networks, []cloud.LoadBalancerNetwork{{ID: got.NetworkID}}, nodes)
		if err == nil && !slices.Equal(outside, test.outside) {
			t.Errorf("%s: outside %v, want %v", test.name, outside, test.outside)
		}
	}
}

// The network of the nodes' first addresses wins over another one that they are all in, too.
func TestChoosePlacementOfNodesInTwoNetworks(t *testing.T) {
	node := func(name, first, second string) LocatedNode {
		return LocatedNode{name: name, serverID: name, ips: []netip.Addr{netip.MustParseAddr(first), netip.MustParseAddr(second)}}
	}
	nodes := []LocatedNode{node("a", "172.16.0.1", "10.9.0.1"), node("b", "172.16.0.2", "10.9.0.2"), node("c", "192.168.0.3", "10.9.0.3")}
	storage := cloud.PrivateNetwork{ID: "03-a", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24")}, ServerIDs: []string{"a", "b", "c"}}
	primary := cloud.PrivateNetwork{ID: "03-b", Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24")}, ServerIDs: []string{"a", "b"}}
	for want, networks := range map[string][]cloud.PrivateNetwork{"03-b": {storage, primary}, "03-a": {storage}} {
		place, err := ChoosePlacement("fi-hel1", nodes, networks)
		if err != nil || place.NetworkID != want {
			t.Errorf("of %d networks: %+v, %v, want %s", len(networks), place, err, want)
		}
	}
	if outside := Outside([]cloud.PrivateNetwork{storage, primary}, []cloud.LoadBalancerNetwork{{ID: "03-a"}}, nodes); len(outside) > 0 {
		t.Errorf("outside of a network in which all have their second address: %v", outside)
	}
}

func TestMostOf(t *testing.T) {
	if got := MostOf(map[string]int{"b": 2, "a": 2, "c": 1}); got != "a" {
		t.Errorf("mostOf = %s", got)
	}
}
