//go:build linux

package loopdisk_test

import (
	"bytes"
	"net/http"
	"os"
	"testing"
)

func TestImportedBytesAreOnTheDisk(t *testing.T) {
	b := start(t)
	disk := b.disk(t, "imported")
	var i struct {
		Import struct {
			URL string `json:"direct_upload_url"`
		} `json:"storage_import"`
	}
	b.Do(t, "POST", "/storage/"+disk+"/import", `{"storage_import":{"source":"direct_upload"}}`, &i)
	image := bytes.Repeat([]byte("image "), 10000)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, i.Import.URL, bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("upload: %s", resp.Status)
	}
	device := b.attach(t, disk)
	f, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, len(image))
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, image) {
		t.Error("the disk does not begin with what was uploaded")
	}
}
