package disk_test

import (
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

func TestSerialInVitalProductData(t *testing.T) {
	for page, want := range map[string]string{
		"\x00\x80\x00\x14014e425736724563ab83":     "014e425736724563ab83",
		"\x00\x80\x00\x18014e425736724563ab83    ": "014e425736724563ab83",
		"\x00\x80\x00\xff014e425736724563ab83":     "014e425736724563ab83", // says more than there is
		"\x00\x83\x00\x14014e425736724563ab83":     "",                     // another page
		"\x00\x80\x00\x00":                         "",
		"\x00\x80":                                 "",
		"":                                         "",
	} {
		if got := disk.SerialInPage([]byte(page)); got != want {
			t.Errorf("%q: %q, want %q", page, got, want)
		}
	}
}
