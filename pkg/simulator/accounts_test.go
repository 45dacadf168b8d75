package simulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// refusedNew is refused in the format of the newer resources; param names what is invalid, if anything.
func refusedNew(t *testing.T, sim *simulatortest.Server, method, path, body string, status int, param string) {
	t.Helper()
	got, answer := sim.Raw(t, method, path, body)
	var p struct {
		Type    string
		Invalid []struct{ Name string } `json:"invalid_params"`
	}
	_ = json.Unmarshal(answer, &p)
	if got != status || p.Type == "" || param != "" && (len(p.Invalid) == 0 || p.Invalid[0].Name != param) {
		t.Errorf("%s %s: %d %s, want %d about %q", method, path, got, answer, status, param)
	}
}

type tokenState struct {
	ID, Token string
}

func createToken(t *testing.T, sim *simulatortest.Server, expires time.Time, canCreate bool, ranges string) tokenState {
	t.Helper()
	var made tokenState
	body := fmt.Sprintf(`{"name":"t","expires_at":%q,"can_create_tokens":%t,"allowed_ip_ranges":[%s]}`,
		expires.Format(time.RFC3339), canCreate, ranges)
	sim.Do(t, "POST", "/account/tokens", body, &made)
	return made
}

// withToken returns the status of a request that comes with the token.
func withToken(t *testing.T, sim *simulatortest.Server, token, method, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, sim.URL+"/1.3"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestTokensAuthenticateWhileTheyHold(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Clock: clock})
	token := createToken(t, sim, clock.Now().Add(time.Hour), false, `"127.0.0.0/8"`)
	elsewhere := createToken(t, sim, clock.Now().Add(time.Hour), true, `"192.0.2.0/24"`)
	if got := withToken(t, sim, token.Token, "GET", "/server"); got != 200 {
		t.Errorf("a valid token: %d", got)
	}
	if got := withToken(t, sim, token.Token, "POST", "/account/tokens"); got != 403 {
		t.Errorf("a token that cannot create tokens creates one: %d", got)
	}
	if got := withToken(t, sim, elsewhere.Token, "GET", "/server"); got != 401 {
		t.Errorf("a token for another range: %d", got)
	}
	clock.Advance(2 * time.Hour)
	if got := withToken(t, sim, token.Token, "GET", "/server"); got != 401 {
		t.Errorf("an expired token: %d", got)
	}
	again := createToken(t, sim, clock.Now().Add(time.Hour), false, `"127.0.0.0/8"`)
	sim.Do(t, "DELETE", "/account/tokens/"+again.ID, "", nil)
	if got := withToken(t, sim, again.Token, "GET", "/server"); got != 401 {
		t.Errorf("a deleted token: %d", got)
	}
	var shown tokenState
	sim.Do(t, "GET", "/account/tokens/"+token.ID, "", &shown)
	if shown.Token != "" {
		t.Error("a token shows its secret after its creation")
	}
	refusedNew(t, sim, "POST", "/account/tokens", `{"name":"t","expires_at":"2020-01-01T00:00:00Z"}`, 400, "expires_at")
	refusedNew(t, sim, "GET", "/account/tokens/unknown", "", 404, "")
}

func TestSubaccountsAreCheckedAndKeptApart(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	const body = `{"sub_account":{"username":"helper","password":"secret","allow_api":"yes"}}`
	sim.Do(t, "POST", "/account/sub", body, nil)
	refused(t, sim, "POST", "/account/sub", body, 409, "RESOURCE_ALREADY_EXISTS")
	const unnamed = `{"sub_account":{"username":"Not Valid","password":"x"}}`
	refused(t, sim, "POST", "/account/sub", unnamed, 400, "INVALID_USERNAME")
	const unknownTag = `{"account":{"tag_access":{"tag":[{"name":"nowhere"}]}}}`
	refused(t, sim, "PUT", "/account/sub/helper", unknownTag, 404, "TAG_NOT_FOUND")
	sim.Do(t, "DELETE", "/account/sub/helper", "", nil)
	refused(t, sim, "GET", "/account/details/helper", "", 404, "USER_NOT_FOUND")
}

func TestTagsFollowServersAndNames(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", zone)
	sim.Do(t, "POST", "/tag", fmt.Sprintf(`{"tag":{"name":"prod","servers":{"server":[%q]}}}`, server), nil)
	refused(t, sim, "POST", "/tag", `{"tag":{"name":"PROD"}}`, 409, "TAG_EXISTS")
	refused(t, sim, "POST", "/tag", `{"tag":{"name":"not valid"}}`, 400, "TAG_INVALID")
	refused(t, sim, "POST", "/server/"+server+"/tag/prod,missing", "", 404, "TAG_NOT_FOUND")
	sim.Do(t, "PUT", "/tag/prod", `{"tag":{"name":"production"}}`, nil)
	tags := func() []string {
		var v struct {
			Server struct{ Tags struct{ Tag []string } }
		}
		sim.Do(t, "GET", "/server/"+server, "", &v)
		return v.Server.Tags.Tag
	}
	if got := tags(); len(got) != 1 || got[0] != "production" {
		t.Errorf("after the tag was renamed the server has %v", got)
	}
	sim.Do(t, "DELETE", "/tag/production", "", nil)
	if got := tags(); len(got) != 0 {
		t.Errorf("after the tag was deleted the server has %v", got)
	}
}
