package settings

import (
	"testing"
)

func TestParseStatusMode(t *testing.T) {
	for text, want := range map[string]StatusMode{"": StatusHostname, "hostname": StatusHostname, "ip": StatusIP, "both": StatusBoth} {
		if got, err := ParseStatusMode(text); got != want || err != nil {
			t.Errorf("ParseStatusMode(%q) = %q, %v", text, got, err)
		}
	}
	if _, err := ParseStatusMode("IP"); err == nil {
		t.Error("IP is taken for a mode")
	}
}
