package main

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	kubetesting "k8s.io/client-go/testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/fence"
)

func TestFence(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { testFence(t, hostname) })
}

func testFence(t *testing.T, hostname string) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "ccm"}}
	hold := func(holder string) { lease.Spec.HolderIdentity = &holder }
	client := fake.NewClientset()
	var failure error
	client.PrependReactor("get", "leases", func(kubetesting.Action) (bool, runtime.Object, error) { return true, lease, failure })
	f := newLeadership("ccm")
	aged := func() error {
		f.fence.Forget()
		return f.check(t.Context())
	}
	hold("other_1")
	if err := aged(); err != nil {
		t.Errorf("%v before any election was won", err)
	}
	hold(hostname + "_1")
	f.begin(t.Context(), client.CoordinationV1().Leases("kube-system"))
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
	f.begin(t.Context(), client.CoordinationV1().Leases("kube-system"))
	hold("other_1")
	if err := aged(); !errors.Is(err, errNotLeader) {
		t.Errorf("lost before the first look: error %v", err)
	}
}

// Two copies on one machine have names that begin alike.
func TestFenceKnowsItselfFromTheBeginning(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	holder := hostname + "_1"
	client := fake.NewClientset()
	client.PrependReactor("get", "leases", func(kubetesting.Action) (bool, runtime.Object, error) {
		return true, &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: new(holder)}}, nil
	})
	f := newLeadership("ccm")
	f.begin(t.Context(), client.CoordinationV1().Leases("kube-system"))
	holder = hostname + "_2"
	f.fence.Forget()
	if err := f.check(t.Context()); !errors.Is(err, errNotLeader) {
		t.Errorf("error %v, although another copy on this machine leads", err)
	}
}

// The process is stopped while it looks: the answer that it finds when it goes on is of long ago.
func TestFenceDoesNotBelieveOldAnswers(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		answers := []string{hostname + "_1", hostname + "_1", hostname + "_2"}
		client := fake.NewClientset()
		client.PrependReactor("get", "leases", func(kubetesting.Action) (bool, runtime.Object, error) {
			holder := answers[0]
			if answers = answers[1:]; len(answers) == 1 {
				time.Sleep(time.Minute)
			}
			return true, &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder}}, nil
		})
		f := newLeadership("ccm")
		f.begin(t.Context(), client.CoordinationV1().Leases("kube-system"))
		time.Sleep(fence.Age)
		if err := f.check(t.Context()); !errors.Is(err, errNotLeader) {
			t.Errorf("error %v, although another ccm has become the leader", err)
		}
	})
}
