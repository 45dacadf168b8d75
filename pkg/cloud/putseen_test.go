package cloud

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/request"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// labelledBefore is a network on which something else labels a storage right before the first PUT of a storage arrives, which
// then gets another answer than the API's.
type labelledBefore struct {
	http.RoundTripper
	other  *Cloud
	answer func(*http.Request) (*http.Response, error)
	puts   atomic.Int32
	failed atomic.Pointer[error]
}

func (l *labelledBefore) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodPut || l.puts.Add(1) > 1 {
		return l.RoundTripper.RoundTrip(r)
	}
	if err := l.label(r.Context(), r.URL.Path[len("/1.3"):]); err != nil {
		l.failed.Store(&err)
	}
	return l.answer(r)
}

func (l *labelledBefore) label(ctx context.Context, storage string) error {
	var details upcloud.StorageDetails
	if err := l.other.call(ctx, http.MethodGet, storage, nil, &details); err != nil {
		return err
	}
	labels := append(details.Labels, upcloud.Label{Key: "owner", Value: "people"})
	return l.other.call(ctx, http.MethodPut, storage, request.ModifyStorageRequest{Labels: &labels}, nil)
}

// The API replaces all labels of a storage at once. A label that something else sets between two tries of a request stays.
func TestLabelSetBetweenTwoTriesOfAPutStays(t *testing.T) {
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"throttled":       status(http.StatusTooManyRequests),
		"unavailable":     status(http.StatusServiceUnavailable),
		"connection lost": brokenAfterSending,
	} {
		for call, labelled := range map[string]func(c *Cloud, volume string) (string, error){
			"modify": func(c *Cloud, volume string) (string, error) {
				_, err := c.ModifyVolume(t.Context(), volume, VolumeChange{Labels: map[string]string{"team": "storage"}})
				return volume, err
			},
			"copy": func(c *Cloud, volume string) (string, error) {
				spec := testSpec("copy")
				spec.SourceID = volume
				made, err := c.CreateVolume(t.Context(), spec)
				if err != nil {
					return "", err
				}
				return made.ID, nil
			},
			"snapshot": func(c *Cloud, volume string) (string, error) {
				for {
					made, err := c.CreateSnapshot(t.Context(), SnapshotSpec{Name: "snapshot", VolumeID: volume})
					if err != nil {
						return "", err
					}
					if made.Ready {
						return made.ID, nil
					}
				}
			},
		} {
			t.Run(name+" "+call, func(t *testing.T) {
				sim := simulatortest.Start(t, simulator.Config{})
				other := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token})
				volume := mustCreate(t, other, "pvc-1").ID
				network := &labelledBefore{RoundTripper: sim.Transport(), other: other, answer: answer}
				c := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, Transport: network})
				id, err := labelled(c, volume)
				if failed := network.failed.Load(); err != nil || failed != nil {
					t.Fatal(err, failed)
				}
				var is upcloud.StorageDetails
				if err := other.call(t.Context(), http.MethodGet, "/storage/"+id, nil, &is); err != nil {
					t.Fatal(err)
				}
				if has := labelMap(is.Labels); has["owner"] != "people" || len(has) < 2 {
					t.Errorf("the labels are %v, without owner=people or those asked for", has)
				}
				if got := network.puts.Load(); got != 2 {
					t.Errorf("%d requests to put labels, want 2", got)
				}
			})
		}
	}
}

// Whoever calls RelabelStorage makes all labels from its own look: a second try is the caller's to make.
func TestRelabelStorageThatFailedIsNotSentAgain(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	other := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token})
	volume := mustCreate(t, other, "pvc-1").ID
	network := &labelledBefore{RoundTripper: sim.Transport(), other: other, answer: status(http.StatusTooManyRequests)}
	c := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, Transport: network})
	wantKind(t, c.RelabelStorage(t.Context(), volume, "", map[string]string{"team": "storage"}), ErrUnavailable)
	is, err := other.Volume(t.Context(), volume)
	if err != nil {
		t.Fatal(err)
	}
	if is.Labels["owner"] != "people" {
		t.Errorf("the labels are %v, without owner=people", is.Labels)
	}
}

// labelledAfterList is a network on which something else labels the backups of a list as soon as that has been read.
type labelledAfterList struct {
	labelledBefore
	backup atomic.Value // path of the backup
}

func (l *labelledAfterList) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(r)
	if path, set := l.backup.Load().(string); set && r.URL.Path == "/1.3/storage/backup" && l.puts.Add(1) == 1 {
		if err := l.label(r.Context(), path); err != nil {
			l.failed.Store(&err)
		}
	}
	return answer, err
}

func TestLabelSetAfterTheListOfSnapshotsStaysWhenOneIsFinished(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	other := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token})
	volume := mustCreate(t, other, "pvc-1").ID
	made, err := other.CreateSnapshot(t.Context(), SnapshotSpec{Name: "mine", VolumeID: volume})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the backup is online", func() bool {
		is, err := other.Snapshot(t.Context(), made.ID)
		return err == nil && is.Ready
	})
	network := &labelledAfterList{labelledBefore: labelledBefore{RoundTripper: sim.Transport(), other: other}}
	network.backup.Store("/storage/" + made.ID)
	c := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, Transport: network})
	listed, err := c.Snapshots(t.Context(), nil)
	if failed := network.failed.Load(); err != nil || failed != nil || len(listed) != 1 {
		t.Fatal(listed, err, failed)
	}
	is, err := other.Snapshot(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if is.Labels["owner"] != "people" || is.Labels[LabelSnapshotName] != "mine" || listed[0].Name != "mine" {
		t.Errorf("the labels are %v, listed as %q", is.Labels, listed[0].Name)
	}
}
