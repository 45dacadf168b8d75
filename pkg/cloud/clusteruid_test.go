package cloud

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Volumes, copies and snapshots say which cluster made them, at the price of no call, and are found whether they do or not.
func TestClusterUIDIsOnAllThatIsMade(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	before, err := c.CreateVolume(t.Context(), VolumeSpec{Name: "before", SizeGiB: 1, Tier: "maxiops", Zone: testZone})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetClusterUID("uid-1"); err != nil {
		t.Fatal(err)
	}
	again, err := c.CreateVolume(t.Context(), VolumeSpec{Name: "before", SizeGiB: 1, Tier: "maxiops", Zone: testZone})
	if err != nil || again.ID != before.ID {
		t.Errorf("the volume made before is not found: %v, %v", again, err)
	}
	sim.ResetRequests()
	volume, err := c.CreateVolume(t.Context(), VolumeSpec{Name: "v", SizeGiB: 1, Tier: "maxiops", Zone: testZone})
	if err != nil {
		t.Fatal(err)
	}
	wantCalls(t, sim, map[string]int{"GET /storage": 1, "POST /storage": 1})
	clone, err := c.CreateVolume(t.Context(), VolumeSpec{Name: "copy", SizeGiB: 1, Tier: "maxiops", Zone: testZone, SourceID: volume.ID})
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := c.CreateSnapshot(t.Context(), SnapshotSpec{Name: "s", VolumeID: volume.ID})
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; !snapshot.Ready && i < 1000; i++ {
		if snapshot, err = c.CreateSnapshot(t.Context(), SnapshotSpec{Name: "s", VolumeID: volume.ID}); err != nil {
			t.Fatal(err)
		}
	}
	for what, labels := range map[string]map[string]string{"volume": volume.Labels, "copy": clone.Labels, "snapshot": snapshot.Labels} {
		if labels[LabelClusterUID] != "uid-1" {
			t.Errorf("labels of the %s: %v", what, labels)
		}
	}
	if err := c.SetClusterUID("a\nb"); err == nil {
		t.Error("a UID that cannot be a label was taken")
	}
}

// The account's clock counts, not this machine's.
func TestAccountTimeIsTheAPIs(t *testing.T) {
	there := time.Date(2031, 2, 3, 4, 5, 6, 0, time.UTC)
	c, sim := startCloud(t, simulator.Config{Clock: simulator.NewManualClockAt(there)})
	if now, err := c.AccountTime(t.Context()); err != nil || !now.Equal(there) {
		t.Errorf("%v, %v, want %v", now, err, there)
	}
	proxy := sim.Proxy(t)
	proxy.ModifyResponse = func(answer *http.Response) error {
		answer.Header.Set("Date", "today")
		return nil
	}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	through := newCloud(t, Config{BaseURL: front.URL, Token: sim.Token})
	if _, err := through.AccountTime(t.Context()); err == nil {
		t.Error("an answer without a date was taken")
	}
}
