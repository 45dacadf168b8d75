package fairness

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/cloud-provider/api"
)

func TestContinuesIsRetryErrorThroughOtherErrors(t *testing.T) {
	err := fmt.Errorf("load balancer: %w", Continues("3 changes are left", time.Second))
	var retry *api.RetryError
	if !errors.As(err, &retry) || retry.RetryAfter() != time.Second {
		t.Errorf("%v is not an api.RetryError for 1 s", err)
	}
	if pause, ok := IsContinues(err); !ok || pause != time.Second {
		t.Errorf("got %s, %t", pause, ok)
	}
	if _, ok := IsContinues(api.NewRetryError("waits for UpCloud", time.Second)); ok {
		t.Error("any api.RetryError counts as work that goes on")
	}
}

// The events of work that goes on are not recorded, whether new or repeated; all others are.
func TestEventsOfWorkThatContinuesAreNotRecorded(t *testing.T) {
	client := fake.NewClientset()
	sink := &typedv1.EventSinkImpl{Interface: withoutContinuing{client}.CoreV1().Events("")}
	event := func(name, kind, message string) *v1.Event {
		return &v1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Type: kind, Message: message}
	}
	goesOn := event("goes-on", v1.EventTypeWarning, "Error syncing load balancer: "+Continues("3 changes are left", time.Second).Error())
	failed := event("failed", v1.EventTypeWarning, "Error syncing load balancer: no such plan")
	for _, one := range []*v1.Event{goesOn, failed, event("done", v1.EventTypeNormal, "Ensured load balancer")} {
		if _, err := sink.Create(one); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range map[string]error{
		"patched": second(sink.Patch(goesOn, []byte(`{"count":2}`))), "updated": second(sink.Update(goesOn)),
		"patched too": second(sink.Patch(failed, []byte(`{"count":2}`))),
	} {
		if err != nil {
			t.Errorf("an event cannot be %s: %v", what, err)
		}
	}
	list, err := client.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range list.Items {
		names = append(names, one.Name)
	}
	if got := strings.Join(names, " "); got != "done failed" {
		t.Errorf("recorded are %s", got)
	}
}

func second(_ *v1.Event, err error) error { return err }
