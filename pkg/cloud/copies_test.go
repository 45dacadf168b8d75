package cloud

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Two volumes whose long names end alike must not be made out of one storage.
func TestProvisionalTitlesOfLongNamesDiffer(t *testing.T) {
	_, sim := startCloud(t, simulator.Config{})
	for _, cluster := range []string{"", "production", strings.Repeat("ö", maxClusterID)} {
		c := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, ClusterID: cluster})
		title := func(name string) string { return c.provisionalTitle(VolumeSpec{Name: name, SourceID: unknownID}) }
		tail := strings.Repeat("ä", maxTitle-1)
		a, b := title("a"+tail), title("b"+tail)
		if a == b {
			t.Errorf("cluster %q: both are titled %q", cluster, a)
		}
		for _, text := range []string{a, b, title("pvc-1")} {
			if utf8.RuneCountInString(text) > maxTitle || !titleOfUnfinished.MatchString(text) {
				t.Errorf("cluster %q: title %q has %d characters", cluster, text, utf8.RuneCountInString(text))
			}
		}
	}
}

// Between the list and the deletion another process may have finished a copy, and Kubernetes may have its volume.
func TestACopyFinishedMeanwhileIsNotDropped(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	finished := mustCreate(t, c, "pvc-1")
	listed := &Volume{ID: finished.ID, Title: "pvc-1 (unfinished copy of " + unknownID + ")", State: "online"}
	_, err := c.creations.do(t.Context(), "drop", func(w *work) (*Volume, error) { return nil, c.dropUnfinished(w, listed) })
	wantKind(t, err, ErrBusy, finished.ID)
	if got := storagesNamed(t, sim, "pvc-1"); len(got) != 1 {
		t.Errorf("the volume is gone: %v", got)
	}
}

// Of two backups that were begun for one snapshot, the second may have become the snapshot since it was seen.
func TestASnapshotFinishedMeanwhileIsNotDropped(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	volume := mustCreate(t, c, "pvc-1")
	spec := SnapshotSpec{Name: "before the upgrade", VolumeID: volume.ID}
	var snapshot *Snapshot
	eventually(t, "the snapshot has its labels", func() (named bool) {
		var err error
		if snapshot, err = c.CreateSnapshot(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		return snapshot.Labels[LabelSnapshotName] != ""
	})
	seen := *snapshot
	seen.Title, seen.Labels = c.beginTitle(spec), nil
	c.dropSnapshotTwin(t.Context(), &Snapshot{ID: unknownID, Title: seen.Title}, &seen)
	if status, _ := sim.Raw(t, "GET", "/storage/"+snapshot.ID, ""); status != 200 {
		t.Errorf("the snapshot is gone: %d", status)
	}
}
