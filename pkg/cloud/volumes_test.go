package cloud

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

const otherID = "00a5568f-4766-4ce7-abf5-7d257892a5c5"

const unknownID = "01a5568f-4766-4ce7-abf5-7d257892a5c5"

func testSpec(name string) VolumeSpec {
	return VolumeSpec{Name: name, SizeGiB: 10, Tier: "maxiops", Zone: testZone}
}

func mustCreate(t *testing.T, c *Cloud, name string) *Volume {
	t.Helper()
	volume, err := c.CreateVolume(t.Context(), testSpec(name))
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// storagesNamed are the UUIDs of all storages that carry a name, as the API lists them.
func storagesNamed(t *testing.T, sim *simulatortest.Server, name string) []string {
	t.Helper()
	var list struct {
		Storages struct{ Storage []struct{ UUID string } }
	}
	sim.Do(t, "GET", "/storage?label=csi-name%3D"+name, "", &list)
	var ids []string
	for _, storage := range list.Storages.Storage {
		ids = append(ids, storage.UUID)
	}
	return ids
}

// makeTwin makes a storage as another process of ours would.
func makeTwin(t *testing.T, sim *simulatortest.Server, name string) string {
	t.Helper()
	body := fmt.Sprintf(`{"storage":{"size":"10","tier":"maxiops","title":%[1]q,"zone":%[2]q,
		"labels":[{"key":"csi-name","value":%[1]q}]}}`, name, testZone)
	var answer struct{ Storage struct{ UUID string } }
	sim.Do(t, "POST", "/storage", body, &answer)
	return answer.Storage.UUID
}

func TestCreateVolumeTakesTwoCallsAndItsRetryOne(t *testing.T) {
	const name = "pvc-0e5c2f8a-7d1b-4c3e-9a6f-2b4d6e8f0a1c"
	c, sim := startCloud(t, simulator.Config{})
	spec := testSpec(name)
	spec.Encrypted = true
	spec.Labels = map[string]string{"pvc-namespace": "default"}
	made, err := c.CreateVolume(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	wantCalls(t, sim, map[string]int{"GET /storage": 1, "POST /storage": 1})
	if made.Name != name || made.Title != name || made.SizeGiB != 10 || made.Tier != "maxiops" || made.Zone != testZone ||
		!made.Encrypted || made.State != "online" || made.Labels["pvc-namespace"] != "default" || made.Created.IsZero() {
		t.Errorf("made %+v", made)
	}

	sim.ResetRequests()
	again, err := c.CreateVolume(t.Context(), spec)
	if err != nil || again.ID != made.ID {
		t.Errorf("the retry got %+v, %v, want %s", again, err, made.ID)
	}
	wantCalls(t, sim, map[string]int{"GET /storage": 1})

	read, err := c.Volume(t.Context(), made.ID)
	if err != nil || read.ID != made.ID || read.Name != name || !read.Encrypted || len(read.ServerIDs) != 0 {
		t.Errorf("read %+v, %v", read, err)
	}
}

func TestTwentyIdenticalCreationsMakeOneStorage(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	sim.Inject(simulator.Fault{Operation: "POST /storage", Latency: 50 * time.Millisecond})
	ids := make([]string, 20)
	var callers sync.WaitGroup
	for i := range ids {
		callers.Go(func() {
			volume, err := c.CreateVolume(t.Context(), testSpec("pvc-1"))
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = volume.ID
		})
	}
	callers.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("callers got different volumes: %v", ids)
			break
		}
	}
	if got := storagesNamed(t, sim, "pvc-1"); len(got) != 1 {
		t.Errorf("%d storages were made", len(got))
	}
	if n := sim.Requests().Of("POST /storage"); n != 1 {
		t.Errorf("%d storages were asked for", n)
	}
}

func TestCreateVolumeRefusesAnotherOfTheSameName(t *testing.T) {
	c, _ := startCloud(t, simulator.Config{})
	made := mustCreate(t, c, "pvc-1")
	for what, change := range map[string]func(*VolumeSpec){
		"size":       func(s *VolumeSpec) { s.SizeGiB = 11 },
		"tier":       func(s *VolumeSpec) { s.Tier = "standard" },
		"zone":       func(s *VolumeSpec) { s.Zone = "de-fra1" },
		"encryption": func(s *VolumeSpec) { s.Encrypted = true },
	} {
		spec := testSpec("pvc-1")
		change(&spec)
		_, err := c.CreateVolume(t.Context(), spec)
		wantKind(t, err, ErrAlreadyExists, "pvc-1", made.ID, what)
	}
}

func TestCreateVolumeTellsWhatIsWrongBeforeItAsks(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	for name, test := range map[string]struct {
		change func(*VolumeSpec)
		words  []string
	}{
		"no name":         {func(s *VolumeSpec) { s.Name = "" }, []string{"no name"}},
		"long name":       {func(s *VolumeSpec) { s.Name = strings.Repeat("n", 256) }, []string{"name", "256", "255"}},
		"no zone":         {func(s *VolumeSpec) { s.Zone = "" }, []string{"zone"}},
		"no tier":         {func(s *VolumeSpec) { s.Tier = "" }, []string{"tier", "maxiops, standard, hdd"}},
		"unknown tier":    {func(s *VolumeSpec) { s.Tier = "ssd" }, []string{`"ssd"`, "maxiops, standard, hdd"}},
		"no size":         {func(s *VolumeSpec) { s.SizeGiB = 0 }, []string{"size 0 GiB", "1 to 4096"}},
		"too large":       {func(s *VolumeSpec) { s.SizeGiB = 4097 }, []string{"4097", "1 to 4096"}},
		"small hdd":       {func(s *VolumeSpec) { s.Tier, s.SizeGiB = "hdd", 9 }, []string{"9 GiB", "hdd", "10 to 4096"}},
		"short label key": {func(s *VolumeSpec) { s.Labels = map[string]string{"k": "v"} }, []string{`"k"`, "2 to 32"}},
		"long label key":  {func(s *VolumeSpec) { s.Labels = map[string]string{strings.Repeat("k", 33): "v"} }, []string{"33", "2 to 32"}},
		"long label":      {func(s *VolumeSpec) { s.Labels = map[string]string{"key": strings.Repeat("v", 256)} }, []string{"key", "256", "255"}},
		"control in key":  {func(s *VolumeSpec) { s.Labels = map[string]string{"key\n": "v"} }, []string{"printable"}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := testSpec("pvc-1")
			test.change(&spec)
			_, err := c.CreateVolume(t.Context(), spec)
			wantKind(t, err, ErrInvalid, test.words...)
		})
	}
	wantCalls(t, sim, map[string]int{})
}

func TestArchiveIsHDD(t *testing.T) {
	c, _ := startCloud(t, simulator.Config{})
	spec := testSpec("pvc-1")
	spec.Tier = "archive"
	volume, err := c.CreateVolume(t.Context(), spec)
	if err != nil || volume.Tier != "hdd" {
		t.Errorf("got %+v, %v", volume, err)
	}
}

func TestLostAnswersMakeNoSecondStorage(t *testing.T) {
	for name, fault := range map[string]simulator.Fault{
		"dropped before the effect": {Drop: true},
		"dropped after the effect":  {Drop: true, AfterEffect: true},
		"error before the effect":   {Status: 500},
		"error after the effect":    {Status: 502, AfterEffect: true},
		"throttled":                 {Status: 429},
	} {
		t.Run(name, func(t *testing.T) {
			c, sim := startCloud(t, simulator.Config{})
			fault.Operation, fault.Count = "POST /storage", 1
			sim.Inject(fault)
			volume := mustCreate(t, c, "pvc-1")
			if got := storagesNamed(t, sim, "pvc-1"); len(got) != 1 || got[0] != volume.ID {
				t.Errorf("storages %v, returned %s", got, volume.ID)
			}
		})
	}
}

func TestLostAnswersEndInAnErrorThatSaysSo(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	sim.Inject(simulator.Fault{Operation: "POST /storage", Drop: true})
	_, err := c.CreateVolume(t.Context(), testSpec("pvc-1"))
	wantKind(t, err, ErrUnavailable, "create volume pvc-1", "did not answer")
	if n := sim.Requests().Of("POST /storage"); n != maxCreations {
		t.Errorf("asked %d times, want %d", n, maxCreations)
	}
}

// A refusal after a lost answer must not read as the end: the storage may be there.
func TestARefusalAfterALostAnswerIsNotFinal(t *testing.T) {
	for _, refusal := range []simulator.Fault{
		{Operation: "GET /storage", Status: 401, Skip: 1},
		{Operation: "GET /storage", Status: 403, Skip: 1},
		{Operation: "POST /storage", Status: 402, Skip: 1},
	} {
		c, sim := startCloud(t, simulator.Config{})
		sim.Inject(refusal)
		sim.Inject(simulator.Fault{Operation: "POST /storage", Drop: true, Count: 1})
		_, err := c.CreateVolume(t.Context(), testSpec("pvc-1"))
		wantKind(t, err, ErrUnavailable, "pvc-1")
	}
}

func TestCreationOutlivesItsCaller(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim := startCloud(t, simulator.Config{Clock: clock})
	sim.Inject(simulator.Fault{Operation: "POST /storage", Latency: time.Second, Count: 1})
	before := clock.Pending()
	held := func() bool { return clock.Pending() > before }
	err := leaveWhen(t, "the creation is on its way", held, func(ctx context.Context) error {
		_, err := c.CreateVolume(ctx, testSpec("pvc-1"))
		return err
	})
	wantKind(t, err, context.Canceled, "pvc-1", "a retry joins it")

	retried := make(chan error)
	var volume *Volume
	go func() {
		var err error
		volume, err = c.CreateVolume(t.Context(), testSpec("pvc-1"))
		retried <- err
	}()
	if err := advanceUntil(t, clock, retried); err != nil {
		t.Fatal(err)
	}
	if got := storagesNamed(t, sim, "pvc-1"); len(got) != 1 || got[0] != volume.ID {
		t.Errorf("storages %v, returned %s", got, volume.ID)
	}
	if n := sim.Requests().Of("POST /storage"); n != 1 {
		t.Errorf("%d storages were asked for", n)
	}
}

func TestOfTwoNewVolumesOfANameOneIsKept(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	first, second := makeTwin(t, sim, "pvc-1"), makeTwin(t, sim, "pvc-1")
	volume := mustCreate(t, c, "pvc-1")
	if got := storagesNamed(t, sim, "pvc-1"); len(got) != 1 || got[0] != volume.ID {
		t.Errorf("of %s and %s are left %v, returned %s", first, second, got, volume.ID)
	}
}

func TestTheAttachedOneOfTwoVolumesIsKept(t *testing.T) {
	const name = "pvc-0e5c2f8a-7d1b-4c3e-9a6f-2b4d6e8f0a1c"
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	makeTwin(t, sim, name)
	used := makeTwin(t, sim, name)
	if err := c.Attach(t.Context(), used, server); err != nil {
		t.Fatal(err)
	}
	volume := mustCreate(t, c, name)
	if volume.ID != used {
		t.Errorf("kept %s, want the attached %s", volume.ID, used)
	}
	if got := storagesNamed(t, sim, name); len(got) != 1 {
		t.Errorf("left are %v", got)
	}
}

func TestTwoAttachedVolumesOfANameAreLeftToAPerson(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	twins := []string{makeTwin(t, sim, "pvc-1"), makeTwin(t, sim, "pvc-1")}
	for _, id := range twins {
		if err := c.Attach(t.Context(), id, server); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.CreateVolume(t.Context(), testSpec("pvc-1"))
	wantKind(t, err, ErrAlreadyExists, twins[0], twins[1], "csi-name")
}

func TestAVolumeThatMayHoldDataIsNeverDeletedAsExtra(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	twins := []string{makeTwin(t, sim, "pvc-1"), makeTwin(t, sim, "pvc-1")}
	for _, id := range twins {
		sim.Do(t, "POST", "/storage/"+id+"/backup", `{"storage":{"title":"backup"}}`, nil)
	}
	mustCreate(t, c, "pvc-1")
	if got := storagesNamed(t, sim, "pvc-1"); len(got) != 2 {
		t.Errorf("left are %v of %v, which both have backups", got, twins)
	}
}

func TestAnOldVolumeIsNeverDeletedAsExtra(t *testing.T) {
	clock := simulator.NewManualClock() // its years are long past
	c, sim := startCloud(t, simulator.Config{Clock: clock})
	first := makeTwin(t, sim, "pvc-1")
	clock.Advance(time.Minute)
	makeTwin(t, sim, "pvc-1")
	if time.Since(clock.Now()) < 2*time.Hour {
		t.Fatal("the simulated storages are new: the test needs old ones")
	}
	if volume := mustCreate(t, c, "pvc-1"); volume.ID != first {
		t.Errorf("kept %s, want the one made first, %s", volume.ID, first)
	}
	if got := storagesNamed(t, sim, "pvc-1"); len(got) != 2 {
		t.Errorf("left are %v, want both", got)
	}
}

func TestClustersDoNotFindEachOthersVolumes(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	a := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, ClusterID: "a"})
	b := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, ClusterID: "b"})
	if mustCreate(t, a, "data").ID == mustCreate(t, b, "data").ID {
		t.Error("two clusters share a volume")
	}
	if mustCreate(t, a, "data").Labels[LabelCluster] != "a" {
		t.Error("the volume does not tell its cluster")
	}
	nameless := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token})
	own := mustCreate(t, nameless, "data")
	if own.Labels[LabelCluster] != "" {
		t.Errorf("a cluster without a name took the volume of cluster %s", own.Labels[LabelCluster])
	}
	mustCreate(t, a, "data")
	mustCreate(t, nameless, "data")
	if got := storagesNamed(t, sim, "data"); len(got) != 3 {
		t.Errorf("left are %v, want one for each cluster", got)
	}
}

func TestDeleteVolume(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	volume := mustCreate(t, c, "pvc-1")
	server := sim.CreateServer(t, "node-1", testZone)
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}
	wantKind(t, c.DeleteVolume(t.Context(), volume.ID), ErrInUse, volume.ID, server, "detach")
	if err := c.Detach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}

	sim.ResetRequests()
	if err := c.DeleteVolume(t.Context(), volume.ID); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, sim, map[string]int{"DELETE /storage/{uuid}": 1}) // policies were read for the deletion that was refused
	_, err := c.Volume(t.Context(), volume.ID)
	wantKind(t, err, ErrNotFound, volume.ID)
	for _, gone := range []string{volume.ID, unknownID, "not-a-uuid", "", "../server"} {
		if err := c.DeleteVolume(t.Context(), gone); err != nil {
			t.Errorf("deleting %q, which does not exist: %v", gone, err)
		}
	}
}

func TestDeleteVolumeWhoseAnswerIsLost(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	volume := mustCreate(t, c, "pvc-1")
	sim.Inject(simulator.Fault{Operation: "DELETE /storage/{uuid}", Drop: true, AfterEffect: true, Count: 1})
	if err := c.DeleteVolume(t.Context(), volume.ID); err != nil {
		t.Error(err)
	}
}

func TestDeleteOfABusyVolumeNamesTheState(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{Profile: simulator.Realistic, Clock: simulator.NewManualClock()})
	volume := mustCreate(t, c, "pvc-1")
	sim.Do(t, "POST", "/storage/"+volume.ID+"/backup", `{"storage":{"title":"backup"}}`, nil)
	sim.ResetRequests()
	polled := func() bool { return sim.Requests().Of("GET /storage/{uuid}") > 1 }
	err := leaveWhen(t, "the volume's state is polled again", polled, func(ctx context.Context) error {
		return c.DeleteVolume(ctx, volume.ID)
	})
	wantKind(t, err, context.Canceled, volume.ID, "backuping")
}

func TestIDsInCapitalsNameTheSame(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", testZone)
	id := mustCreate(t, c, "pvc-1").ID
	volumeID, serverID := strings.ToUpper(id), strings.ToUpper(server)
	if volume, err := c.Volume(t.Context(), volumeID); err != nil || volume.ID != id {
		t.Errorf("read %+v, %v", volume, err)
	}
	for range 2 {
		if err := c.Attach(t.Context(), volumeID, serverID); err != nil {
			t.Error(err)
		}
	}
	if err := c.Detach(t.Context(), volumeID, serverID); err != nil {
		t.Error(err)
	}
	if got := disksOf(t, sim, server); len(got) != 0 {
		t.Errorf("still attached: %v", got)
	}
	if err := c.DeleteVolume(t.Context(), volumeID); err != nil {
		t.Error(err)
	}
	if got := storagesNamed(t, sim, "pvc-1"); len(got) != 0 {
		t.Errorf("still there: %v", got)
	}
}

// A proxy that answers everything with an empty object must not make the account look empty.
func TestEmptyAnswersAreNoAnswers(t *testing.T) {
	for _, body := range []string{"{}", "null", "[]", `{"storages":null}`, `{"storage":{}}`, `{"storage":{"uuid":"` + otherID + `"}}`,
		`{"server":{}}`, `{"storage":{"uuid":"` + unknownID + `","servers":null,"backups":7}}`} {
		posts := 0
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				posts++
			}
			_, _ = io.WriteString(w, body)
		}))
		c := newCloud(t, Config{BaseURL: proxy.URL, Token: "t"})
		_, err := c.Volume(t.Context(), unknownID)
		wantKind(t, err, ErrUnavailable)
		wantKind(t, c.Detach(t.Context(), unknownID, otherID), ErrUnavailable)
		wantKind(t, c.Detach(t.Context(), unknownID, ""), ErrUnavailable)
		_, err = c.CreateVolume(t.Context(), testSpec("pvc-1"))
		wantKind(t, err, ErrUnavailable)
		if posts > 0 {
			t.Errorf("%s: %d requests that change something", body, posts)
		}
		proxy.Close()
	}
}

func TestWhatIsNotAVolumeIsNotFound(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	for _, id := range []string{"", "not-a-uuid", "../server", unknownID + "/../" + unknownID} {
		_, err := c.Volume(t.Context(), id)
		wantKind(t, err, ErrNotFound)
	}
	wantCalls(t, sim, map[string]int{})
	_, err := c.Volume(t.Context(), unknownID)
	wantKind(t, err, ErrNotFound, unknownID, "STORAGE_NOT_FOUND")
}
