package logstest

import (
	"strings"
	"testing"
)

// Any part of a secret is found that one line of a log can hold.
func TestPartsOfSecretsAreFound(t *testing.T) {
	const secret = "ucat_01HSECRET0TOKEN0OF0THE0ACCOUNT"
	for log, found := range map[string]bool{
		"a line\nAuthorization: Bearer " + secret + "\n":            true,
		"00000010  48 53 45 43 52 45 54 30  |" + secret[5:21] + "|": true,
		"the token begins with ucat_ and is not shown":              false,
		"": false,
	} {
		if got := partIn(log, secret); (got != "") != found {
			t.Errorf("%q: %q", log, got)
		}
	}
	if body := KeyBody("-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("h", 64) + "\nsecret\n-----END PRIVATE KEY-----\n"); body != "secret" {
		t.Errorf("body %q", body)
	}
}
