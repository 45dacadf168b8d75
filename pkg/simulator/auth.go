package simulator

import (
	"crypto/subtle"
	"net/http"
	"strings"
)

// authenticate accepts the configured user and password, or token. The code is the SDK's; the wording is the API's
// documented one.
func (s *Simulator) authenticate(r *http.Request) error {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if s.cfg.Token != "" && equal(token, s.cfg.Token) {
			return nil
		}
		if t := s.tokenOf(r); t != nil {
			used := stamp(s.now())
			t.LastUsedAt = &used
			return nil
		}
		return refuse(http.StatusUnauthorized, "AUTHENTICATION_FAILED", "Authentication failed using the given token.")
	}
	username, password, ok := r.BasicAuth()
	if !ok {
		return refuse(http.StatusUnauthorized, "AUTHENTICATION_FAILED", "Authentication is required.")
	}
	if s.cfg.Username == "" || !equal(username, s.cfg.Username) || !equal(password, s.cfg.Password) {
		return refuse(http.StatusUnauthorized, "AUTHENTICATION_FAILED",
			"Authentication failed using the given username and password.")
	}
	return nil
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
