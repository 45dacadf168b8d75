package cloud

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
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

// Lists come in pages of ten unless asked otherwise, and of a hundred at most.
func TestLoadBalancerListsAreReadToTheirEnd(t *testing.T) {
	ignoresOffset := false
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, offset := 10, 0
		if asked, err := strconv.Atoi(r.FormValue("limit")); err == nil {
			limit = min(asked, 100)
		}
		if asked, err := strconv.Atoi(r.FormValue("offset")); err == nil && !ignoresOffset {
			offset = asked
		}
		page := []map[string]string{}
		for i := offset; i < min(offset+limit, 200+len(r.URL.Path)); i++ {
			page = append(page, map[string]string{"uuid": fmt.Sprint("u", i), "name": fmt.Sprint("n", i)})
		}
		_ = json.NewEncoder(w).Encode(page)
	}))
	t.Cleanup(api.Close)
	c, err := New(Config{Token: "t", BaseURL: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	all, err := c.LoadBalancers(t.Context(), Labels{"a": "b"})
	if want := 200 + len("/1.3/load-balancer"); err != nil || len(all) != want || all[want-1].ID != fmt.Sprint("u", want-1) {
		t.Errorf("%d load balancers, %v, want %d", len(all), err, want)
	}
	plans, err := c.LoadBalancerPlans(t.Context())
	if want := 200 + len("/1.3/load-balancer/plans"); err != nil || len(plans) != want {
		t.Errorf("%d plans, %v, want %d", len(plans), err, want)
	}
	ignoresOffset = true
	if _, err := c.LoadBalancers(t.Context(), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v of an API that answers the same page for ever", err)
	}
}

// An answer that is about nothing, or about something else, proves nothing of a load balancer.
func TestAnswerAboutAnotherLoadBalancer(t *testing.T) {
	for _, answer := range []string{"{}", "null", `{"uuid":"0b"}`} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text := answer
			if r.Method == http.MethodPost && text != "null" {
				text = "{}"
			}
			_, _ = io.WriteString(w, text)
		}))
		t.Cleanup(api.Close)
		c, err := New(Config{Token: "t", BaseURL: api.URL})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if lb, err := c.LoadBalancer(t.Context(), "0a"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %+v, %v", answer, lb, err)
		}
		if lb, err := c.CreateLoadBalancer(t.Context(), LoadBalancer{Name: "n"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: made %+v, %v", answer, lb, err)
		}
	}
}
