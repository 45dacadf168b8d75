package simulator_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestControlRequestFromAWebPageIsRefused(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	own := strings.TrimPrefix(sim.URL, "http://")
	for _, test := range []struct {
		name, method, path, host string
		headers                  map[string]string
		want                     int
	}{
		{name: "curl", method: "POST", path: "faults", want: http.StatusCreated},
		{name: "curl by another name", method: "POST", path: "faults", host: "upcloud-sim.test:8100", want: http.StatusCreated},
		{name: "a page of another origin", method: "POST", path: "faults",
			headers: map[string]string{"Origin": "https://pages.example"}, want: http.StatusForbidden},
		{name: "a page without an origin", method: "POST", path: "faults", headers: map[string]string{"Origin": "null"}, want: http.StatusForbidden},
		{name: "a form of another site", method: "POST", path: "faults",
			headers: map[string]string{"Sec-Fetch-Site": "cross-site"}, want: http.StatusForbidden},
		{name: "a page of another origin that deletes", method: "DELETE", path: "requests",
			headers: map[string]string{"Origin": "https://pages.example"}, want: http.StatusForbidden},
		{name: "a page whose name leads here", method: "POST", path: "faults", host: "pages.example:8100",
			headers: map[string]string{"Origin": "http://pages.example:8100", "Sec-Fetch-Site": "same-origin"}, want: http.StatusForbidden},
		{name: "a page whose name leads here that reads", method: "GET", path: "requests", host: "pages.example:8100",
			headers: map[string]string{"Sec-Fetch-Site": "same-origin"}, want: http.StatusForbidden},
		{name: "a page of its own", method: "POST", path: "faults", headers: map[string]string{"Origin": "http://" + own}, want: http.StatusCreated},
		{name: "an address typed into a browser", method: "GET", path: "requests", headers: map[string]string{"Sec-Fetch-Site": "none"}, want: http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), test.method, sim.URL+"/_simulator/"+test.path,
				strings.NewReader(`{"operation":"GET /zone","status":503,"count":1}`))
			if err != nil {
				t.Fatal(err)
			}
			request.Host = test.host
			request.Header.Set("Content-Type", "text/plain") // as a form sends it without asking first
			for name, value := range test.headers {
				request.Header.Set(name, value)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if response.StatusCode != test.want {
				t.Errorf("status %d, want %d", response.StatusCode, test.want)
			}
		})
	}
}
