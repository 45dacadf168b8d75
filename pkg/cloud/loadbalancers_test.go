package cloud

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPropertiesWith(t *testing.T) {
	var have Properties
	if err := json.Unmarshal([]byte(`{"health_check_type":"tcp","health_check_interval":10,"timeout_tunnel":3600,
		"health_check_on_down":"","tls_enabled":false,"cookie_attributes":null,"new_in_2027":{"a":[1]}}`), &have); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		changes Properties
		changed bool
		want    string
	}{
		{Properties{"health_check_interval": 10}, false,
			`{"health_check_interval":10,"health_check_type":"tcp","new_in_2027":{"a":[1]},"timeout_tunnel":3600}`},
		{Properties{"health_check_type": "http"}, true,
			`{"health_check_interval":10,"health_check_type":"http","new_in_2027":{"a":[1]},"timeout_tunnel":3600}`},
		{Properties{"tls_enabled": false}, false,
			`{"health_check_interval":10,"health_check_type":"tcp","new_in_2027":{"a":[1]},"timeout_tunnel":3600,"tls_enabled":false}`},
		{Properties{"unknown_yet": 1}, true,
			`{"health_check_interval":10,"health_check_type":"tcp","new_in_2027":{"a":[1]},"timeout_tunnel":3600,"unknown_yet":1}`},
		{nil, false, `{"health_check_interval":10,"health_check_type":"tcp","new_in_2027":{"a":[1]},"timeout_tunnel":3600}`},
	} {
		got, changed := have.With(test.changes)
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, string(text)); diff != "" || changed != test.changed {
			t.Errorf("with %v: changed %v, want %v %s", test.changes, changed, test.changed, diff)
		}
	}
}

func TestLabelsInBothForms(t *testing.T) {
	for _, text := range []string{
		`[{"key":"b","value":"2"},{"key":"a","value":"1"}]`,
		`{"label":[{"key":"a","value":"1"},{"key":"b","value":"2"}]}`,
	} {
		var labels Labels
		if err := json.Unmarshal([]byte(text), &labels); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Labels{"a": "1", "b": "2"}, labels); diff != "" {
			t.Error(diff)
		}
		back, err := json.Marshal(labels)
		if err != nil || string(back) != `[{"key":"a","value":"1"},{"key":"b","value":"2"}]` {
			t.Errorf("%s, %v", back, err)
		}
	}
	var none Labels
	if err := json.Unmarshal([]byte(`null`), &none); err != nil || len(none) != 0 {
		t.Error(none, err)
	}
	if text, err := json.Marshal(Labels(nil)); string(text) != "[]" || err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

func TestPatchesHoldOnlyWhatChanges(t *testing.T) {
	for _, test := range []struct {
		patch any
		want  string
	}{
		{FrontendPatch{Port: 80}, `{"port":80}`},
		{BackendPatch{Properties: Properties{"a": 1}}, `{"properties":{"a":1}}`},
		{BackendPatch{Members: []Member{}}, `{"members":[]}`},
		{BackendPatch{Members: []Member{{Name: "n", IP: "172.16.0.1", Port: 1, Weight: 100, MaxSessions: 2, Type: "static"}}},
			`{"members":[{"name":"n","ip":"172.16.0.1","port":1,"weight":100,"max_sessions":2,"type":"static","enabled":false}]}`},
	} {
		text, err := json.Marshal(test.patch)
		if err != nil || string(text) != test.want {
			t.Errorf("%s, %v, want %s", text, err, test.want)
		}
	}
}
