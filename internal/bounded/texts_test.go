package bounded_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
)

// texts has a text wherever one can be.
type texts struct {
	inner  `json:",inline"`
	Data   *struct{ Names []string }
	Labels map[string]string `json:"labels"`
	On     bool              `json:"on"`
	Rate   float64           `json:"rate"`
	Any    map[string]any    `json:"any"`
}

type inner struct {
	Kind string `json:"kind,omitempty"`
}

// A text that YAML reads as something else is named, wherever it is; one that stays as it is written is not.
func TestMisreadTexts(t *testing.T) {
	for text, want := range map[string]string{
		"kind: y": "kind:1:boolean", "kind: No": "kind:1:boolean", "KIND: ON": "KIND:1:boolean", "kind: 010": "kind:1:number", "kind: 1.10": "kind:1:number",
		"kind: 1e3": "kind:1:number", "kind: 0x1F": "kind:1:number", "kind: 1_000": "kind:1:number", "kind: 123456789012345678901": "kind:1:number",
		"labels:\n  pool: y\n  n: web": "labels.pool:2:boolean labels:3:boolean", "data: {names: [a, 1.0, off]}": "data.names[1]:1:number data.names[2]:1:boolean",
		"kind: true": "", "kind: 12": "", "kind: -5": "", "kind: 'y'": "", `kind: "010"`: "", "kind: yo": "", "kind: null": "", "kind: ~": "", "kind:": "", "kind: !!str y": "",
		"kind: 2026-01-02": "", "kind: |-\n  y": "", "on: yes": "", "rate: 1.10": "", "any: {a: y, b: 010}": "", "other: y": "", "kind: [y]": "", "": "", "y": "", "[": "",
	} {
		var got []string
		for _, one := range bounded.File.Misreads([]byte(text), texts{}) {
			got = append(got, strings.Join([]string{one.Path, string(rune('0' + one.Line)), one.Kind}, ":"))
			if message := one.Error(); !strings.Contains(message, "put it in quotes") || strings.Contains(message, "010") {
				t.Errorf("%q: %s", text, message)
			}
		}
		slices.Sort(got)
		if wanted := strings.Fields(want); !slices.Equal(got, sorted(wanted)) {
			t.Errorf("%q: %q, want %q", text, got, wanted)
		}
	}
}

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}
