package driver

import (
	"encoding/base64"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tokenPrefix tells our tokens from anything else, and this form of them from later ones.
const tokenPrefix = "after:"

// page is which part of a list is asked for.
type page struct {
	after string // the ID that it begins after, empty for the first page
	most  int    // entries, 0 for all
}

// parsePage checks before anything is asked of the API.
func parsePage(req interface {
	GetMaxEntries() int32
	GetStartingToken() string
}) (page, error) {
	if req.GetMaxEntries() < 0 {
		return page{}, invalid("max_entries", "is negative: %d", req.GetMaxEntries())
	}
	after, err := parseToken(req.GetStartingToken())
	return page{after: after, most: int(req.GetMaxEntries())}, err
}

// pageOf returns a page of entries, and the token of the next page, empty on the last. Pages are in the order of the
// entries' IDs, and a token holds the last ID of its page: entries that come or go between two pages shift nothing, so
// that what is there all the time is listed once, whatever else happens, and a token is good for ever.
func pageOf[E any](asked page, entries []E, id func(E) string) (page []E, next string) {
	page = slices.DeleteFunc(slices.Clone(entries), func(e E) bool { return asked.after != "" && id(e) <= asked.after })
	slices.SortFunc(page, func(a, b E) int { return strings.Compare(id(a), id(b)) })
	if asked.most > 0 && len(page) > asked.most {
		page = page[:asked.most]
		next = base64.RawURLEncoding.EncodeToString([]byte(tokenPrefix + id(page[len(page)-1])))
	}
	return page, next
}

// parseToken returns the ID after which the page begins, empty for the first page.
func parseToken(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(token)
	after, ours := strings.CutPrefix(string(text), tokenPrefix)
	if err != nil || !ours || after == "" {
		return "", status.Errorf(codes.Aborted, "starting_token: %q is none that this driver gave: begin the list anew", token)
	}
	return after, nil
}
