package main

import (
	"errors"
	"os"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"
)

func TestFence(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "ccm"}}
	hold := func(holder string) { lease.Spec.HolderIdentity = &holder }
	client := fake.NewClientset()
	var failure error
	client.PrependReactor("get", "leases", func(kubetesting.Action) (bool, runtime.Object, error) { return true, lease, failure })
	f := &fence{lease: "ccm"}
	aged := func() error {
		f.looked = time.Now().Add(-fenceAge)
		return f.check(t.Context())
	}
	hold("other_1")
	if err := aged(); err != nil {
		t.Errorf("%v before any election was won", err)
	}
	hold(hostname + "_1")
	f.begin(client.CoordinationV1().Leases("kube-system"))
	if err := aged(); err != nil {
		t.Errorf("%v, although the lease is ours", err)
	}
	failure = errors.New("down")
	if err := f.check(t.Context()); err != nil {
		t.Errorf("%v, although the lease was looked at a moment ago", err)
	}
	if err := aged(); err == nil {
		t.Error("changes are made although the lease cannot be looked at")
	}
	failure = nil
	if err := aged(); err != nil {
		t.Errorf("%v, although the lease is still ours", err)
	}
	for _, holder := range []string{hostname + "_2", "other_1", ""} {
		hold(holder)
		if err := aged(); !errors.Is(err, errNotLeader) {
			t.Errorf("holder %q: error %v, want %v", holder, err, errNotLeader)
		}
	}
	f.begin(client.CoordinationV1().Leases("kube-system"))
	hold("other_1")
	if err := aged(); !errors.Is(err, errNotLeader) {
		t.Errorf("lost before the first look: error %v", err)
	}
}
