package simulator_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

type importState struct {
	Import struct {
		State, SHA256Sum string
		URL              string `json:"direct_upload_url"`
		Code             string `json:"error_code"`
		Read             int64  `json:"read_bytes"`
		Written          int64  `json:"written_bytes"`
	} `json:"storage_import"`
}

func getImport(t *testing.T, sim *simulatortest.Server, disk string) importState {
	t.Helper()
	var i importState
	sim.Do(t, "GET", "/storage/"+disk+"/import", "", &i)
	return i
}

func put(t *testing.T, url, contentType string, body []byte) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestUploadIsUnpackedAndSummed(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Clock: clock, Profile: simulator.Realistic})
	disk := createStorage(t, sim, "data")
	refused(t, sim, "GET", "/storage/"+disk+"/import", "", 404, "STORAGE_IMPORT_NOT_FOUND")
	var i importState
	sim.Do(t, "POST", "/storage/"+disk+"/import", `{"storage_import":{"source":"direct_upload"}}`, &i)
	if got := getStorage(t, sim, disk).Storage.State; got != "maintenance" {
		t.Errorf("during an import the storage is %s", got)
	}
	image := []byte("an image of a disk")
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(image)
	w.Close()
	if got := put(t, i.Import.URL, "application/gzip", packed.Bytes()); got != 200 {
		t.Fatalf("upload: %d", got)
	}
	if got := put(t, i.Import.URL, "application/gzip", packed.Bytes()); got != 404 {
		t.Errorf("a second upload to one session: %d", got)
	}
	for _, want := range []string{"pending", "importing", "completed"} {
		if got := getImport(t, sim, disk).Import.State; got != want {
			t.Errorf("state %s, want %s", got, want)
		}
		clock.Advance(5 * time.Second)
		if want == "importing" {
			clock.Advance(5 * time.Second)
		}
	}
	sum := sha256.Sum256(image)
	got := getImport(t, sim, disk).Import
	if got.SHA256Sum != hex.EncodeToString(sum[:]) || got.Written != int64(len(image)) || got.Read != int64(packed.Len()) {
		t.Errorf("import %+v", got)
	}
	if got := getStorage(t, sim, disk).Storage.State; got != "online" {
		t.Errorf("after the import the storage is %s", got)
	}
}

func TestImportFromTheWebNeedsAClient(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/image.raw" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("an image"))
	}))
	defer web.Close()
	for name, test := range map[string]struct {
		client     *http.Client
		path, want string
	}{
		"no client": {nil, "/image.raw", "failed"}, "a file": {web.Client(), "/image.raw", "completed"},
		"no file": {web.Client(), "/missing.raw", "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			sim := simulatortest.Start(t, simulator.Config{ImportClient: test.client})
			disk := createStorage(t, sim, "data")
			sim.Do(t, "POST", "/storage/"+disk+"/import",
				`{"storage_import":{"source":"http_import","source_location":"`+web.URL+test.path+`"}}`, nil)
			var got importState
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				if got = getImport(t, sim, disk); got.Import.State == "completed" || got.Import.State == "failed" {
					break
				}
			}
			if got.Import.State != test.want || (got.Import.Code != "") != (test.want == "failed") {
				t.Errorf("import %+v, want %s", got, test.want)
			}
			if got := getStorage(t, sim, disk).Storage.State; got != "online" {
				t.Errorf("after the import the storage is %s", got)
			}
		})
	}
}

func TestImportsAreRefusedAndCancelled(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	disk := createStorage(t, sim, "data")
	path := "/storage/" + disk + "/import"
	refused(t, sim, "POST", path, `{"storage_import":{"source":"telepathy"}}`, 400, "INVALID_REQUEST")
	const ftp = `{"storage_import":{"source":"http_import","source_location":"ftp://x"}}`
	refused(t, sim, "POST", path, ftp, 400, "INVALID_REQUEST")
	sim.Do(t, "POST", path, `{"storage_import":{"source":"direct_upload"}}`, nil)
	refused(t, sim, "POST", path, `{"storage_import":{"source":"direct_upload"}}`, 409, "STORAGE_STATE_ILLEGAL")
	sim.Do(t, "DELETE", path, "", nil)
	if got := getImport(t, sim, disk).Import.State; got != "cancelled" {
		t.Errorf("state %s", got)
	}
	refused(t, sim, "DELETE", path, "", 409, "STORAGE_IMPORT_NOT_IN_PROGRESS")
	attach(t, sim, sim.CreateServer(t, "node-1", zone), disk)
	refused(t, sim, "POST", path, `{"storage_import":{"source":"direct_upload"}}`, 409, "STORAGE_ATTACHED")
}
