package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// lateAnswers keeps the answer to one request back for a minute.
type lateAnswers struct {
	http.RoundTripper
	in atomic.Int32 // so many requests from now
}

func (l *lateAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if l.in.Add(-1) == 0 {
		time.Sleep(time.Minute)
	}
	return response, err
}

// A retry may come while the work that the call before left is still waiting for an answer: what that tells was so before the
// retry came, and may be so no more.
func TestRetryOfALeftCallLooksAgain(t *testing.T) {
	type scene struct {
		*Cloud
		sim            *simulatortest.Server
		volume, server string
	}
	create := func(ctx context.Context, s scene) (string, error) {
		volume, err := s.CreateVolume(ctx, testSpec("pvc-1"))
		if err != nil {
			return "", err
		}
		return volume.ID, nil
	}
	snapshot := func(ctx context.Context, s scene) (string, error) {
		made, err := s.CreateSnapshot(ctx, SnapshotSpec{Name: "snapshot-1", VolumeID: s.volume})
		if err != nil {
			return "", err
		}
		return made.ID, nil
	}
	modify := func(ctx context.Context, s scene) (string, error) {
		_, err := s.ModifyVolume(ctx, s.volume, VolumeChange{Labels: map[string]string{"team": "storage"}})
		return s.volume, err
	}
	attach := func(ctx context.Context, s scene) (string, error) { return s.volume, s.Attach(ctx, s.volume, s.server) }
	detach := func(ctx context.Context, s scene) (string, error) { return s.volume, s.Detach(ctx, s.volume, s.server) }
	byHand := func(s scene, what, body string) {
		s.sim.Do(t, "POST", "/server/"+s.server+"/storage/"+what, fmt.Sprintf(`{"storage_device":`+body+`}`, s.volume), nil)
	}
	remove := func(s scene, id string) { s.sim.Do(t, "DELETE", "/storage/"+id, "", nil) }
	for name, test := range map[string]struct {
		call   func(context.Context, scene) (id string, err error)
		late   int32 // which of its answers
		change func(s scene, id string)
	}{
		"CreateVolume":   {create, 1, remove},
		"CreateSnapshot": {snapshot, 1, remove},
		"Attach":         {attach, 2, func(s scene, _ string) { byHand(s, "detach", `{"storage":%q}`) }},
		"Detach": {detach, 2, func(s scene, _ string) {
			byHand(s, "attach", `{"type":"disk","address":"virtio","storage":%q}`)
		}},
		"ModifyVolume": {modify, 1, func(s scene, id string) {
			s.sim.Do(t, "PUT", "/storage/"+id, `{"storage":{"labels":[{"key":"csi-name","value":"pvc-1"},{"key":"team","value":"others"}]}}`, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim := simulatortest.StartInMemory(t, simulator.Config{})
				late := &lateAnswers{RoundTripper: sim.Transport()}
				c := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, Transport: late})
				s := scene{c, sim, mustCreate(t, c, "pvc-1").ID, sim.CreateServer(t, "node-1", testZone)}
				id := ""
				for range 2 { // a snapshot has its labels the second time
					made, err := test.call(t.Context(), s)
					if err != nil {
						t.Fatal(err)
					}
					id = made
				}
				late.in.Store(test.late)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := test.call(ctx, s); !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("the call was not left: %v", err)
				}
				test.change(s, id)
				id, err := test.call(t.Context(), s)
				if err != nil {
					t.Fatal(err)
				}
				shown, err := c.volume(t.Context(), id)
				if err != nil {
					t.Fatalf("the ID that was answered names nothing: %v", err)
				}
				if want := map[string]int{"Attach": 1}[name]; len(shown.ServerIDs) != want {
					t.Errorf("the volume is attached to %v after %s was answered as done", shown.ServerIDs, name)
				}
				if name == "ModifyVolume" && shown.Labels["team"] != "storage" {
					t.Errorf("the labels are %v after a change that was answered as done", shown.Labels)
				}
			})
		})
	}
}
