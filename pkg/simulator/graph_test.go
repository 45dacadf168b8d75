package simulator

import (
	"reflect"
	"testing"
)

// Whatever the state gets in future must be plain data, or it could be neither copied nor kept.
func TestStateIsPlainData(t *testing.T) {
	if err := checkGraph(reflect.TypeFor[state](), "state", map[reflect.Type]bool{}); err != nil {
		t.Error(err)
	}
}

func TestCopyKeepsTheShapeAndSharesNothing(t *testing.T) {
	type node struct {
		name  string
		peers map[string]*node
		list  []*node
		flags *bool
	}
	yes := true
	a := &node{name: "a", flags: &yes}
	b := &node{name: "b", list: []*node{a}, peers: map[string]*node{"a": a}}
	a.peers = map[string]*node{"b": b}
	c := copyGraph(a)
	if c.peers["b"].list[0] != c || c.peers["b"].peers["a"] != c {
		t.Error("the copy points elsewhere than the original did")
	}
	if c.peers["b"] == b || c.flags == a.flags || !*c.flags {
		t.Error("the copy shares something with the original")
	}
}
