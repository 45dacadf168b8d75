package simulator

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const tokenKind byte = 0x0c

// apiToken is a token that users made. What they show as their secret is kept as its SHA-256 alone.
type apiToken struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Type          string   `json:"type"`
	CreatedAt     stamp    `json:"created_at"`
	ExpiresAt     stamp    `json:"expires_at"`
	LastUsedAt    *stamp   `json:"last_used_at,omitempty"`
	CanCreate     bool     `json:"can_create_tokens"`
	AllowedRanges []string `json:"allowed_ip_ranges"`
	GUI           bool     `json:"gui"`

	Secret string `json:"-"`
}

// newAPIToken is the answer to a token's creation, the only one that shows the secret.
type newAPIToken struct {
	apiToken
	Token string `json:"token"`
}

type tokenBody struct {
	Name          string    `json:"name"`
	ExpiresAt     time.Time `json:"expires_at"`
	CanCreate     bool      `json:"can_create_tokens"`
	AllowedRanges []string  `json:"allowed_ip_ranges"`
}

func (s *Simulator) createToken(c *call) (any, error) {
	if t := s.tokenOf(c.request); t != nil && !t.CanCreate {
		return nil, &problem{status: http.StatusForbidden, code: "ACTION_FORBIDDEN", title: "This token cannot create tokens."}
	}
	var req tokenBody
	if err := c.decodeNew(&req); err != nil {
		return nil, err
	}
	if req.Name == "" {
		return nil, invalid(invalidParam{"name", "Required field."})
	}
	if !req.ExpiresAt.After(s.now()) {
		return nil, invalid(invalidParam{"expires_at", "Must be in the future."})
	}
	for _, text := range req.AllowedRanges {
		if _, err := netip.ParsePrefix(text); err != nil {
			return nil, invalid(invalidParam{"allowed_ip_ranges", "Not an IP range: " + text + "."})
		}
	}
	secret := "ucat_" + strings.ToUpper(randomHex(13))
	t := &apiToken{
		ID: s.newUUID(tokenKind), Name: req.Name, Type: "workspace", CreatedAt: s.creation(), ExpiresAt: stamp(req.ExpiresAt),
		CanCreate: req.CanCreate, AllowedRanges: append([]string{}, req.AllowedRanges...), Secret: digest(secret),
	}
	s.tokens.put(t.ID, t)
	return newAPIToken{*t, secret}, nil
}

func digest(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// tokenOf returns the token with which a request comes, if it is one that users made and that still holds.
func (s *Simulator) tokenOf(r *http.Request) *apiToken {
	secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil
	}
	sum := digest(secret)
	for t := range s.tokens.all() {
		if equal(t.Secret, sum) && time.Time(t.ExpiresAt).After(s.now()) && t.allows(r.RemoteAddr) {
			return t
		}
	}
	return nil
}

// allows says whether a client may use the token. A token without ranges is nobody's, as the API has it.
func (t *apiToken) allows(client string) bool {
	from, err := netip.ParseAddrPort(client)
	if err != nil {
		return false
	}
	for _, text := range t.AllowedRanges {
		if p, err := netip.ParsePrefix(text); err == nil && p.Contains(from.Addr().Unmap()) {
			return true
		}
	}
	return false
}

func (s *Simulator) token(id string) (*apiToken, error) {
	t, ok := s.tokens.get(id)
	if !ok {
		return nil, problemNotFound("Token")
	}
	return t, nil
}

func (s *Simulator) listTokens(c *call) (any, error) {
	list := make([]apiToken, 0, s.tokens.len())
	for t := range s.tokens.all() {
		list = append(list, *t)
	}
	sortByCreation(list, func(t *apiToken) stamp { return t.CreatedAt })
	return page(c, list)
}

func (s *Simulator) getToken(c *call) (any, error) {
	t, err := s.token(c.path("id"))
	if err != nil {
		return nil, err
	}
	return *t, nil
}

func (s *Simulator) deleteToken(c *call) (any, error) {
	t, err := s.token(c.path("id"))
	if err != nil {
		return nil, err
	}
	s.tokens.remove(t.ID)
	return nil, nil
}
