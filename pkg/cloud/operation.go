package cloud

import (
	"net/http"
	"net/netip"
	"regexp"
	"strings"
)

var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

// isUUID reports whether id can name a resource; anything else must not become part of a path.
func isUUID(id string) bool { return uuidPattern.MatchString(id) }

// canonicalID is how the API writes a UUID, so that one written in capitals is recognised in its answers. What is no
// UUID stays as it is.
func canonicalID(id string) string {
	if isUUID(id) {
		return strings.ToLower(id)
	}
	return id
}

// namedCollections are followed in a path by a name that somebody chose.
var namedCollections = map[string]bool{
	"frontends": true, "backends": true, "members": true, "rules": true, "tls-configs": true, "resolvers": true,
	"networks": true, "labels": true, "shares": true, "acl": true, "tag": true, "untag": true,
}

// operation names a request by its method and the pattern of its path, such as "POST /server/{uuid}/storage/attach":
// as many names as the API has operations, however many resources there are.
func operation(method, path string) string {
	path, _, _ = strings.Cut(path, "?")
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for i, segment := range segments {
		switch {
		case i == 0:
		case isUUID(segment):
			segments[i] = "{uuid}"
		case namedCollections[segments[i-1]]:
			segments[i] = "{name}"
		case isAddress(segment):
			segments[i] = "{address}"
		case isNumber(segment):
			segments[i] = "{index}"
		}
	}
	return method + " /" + strings.Join(segments, "/")
}

func isAddress(segment string) bool {
	_, err := netip.ParseAddr(segment)
	return err == nil
}

func isNumber(segment string) bool {
	return segment != "" && strings.Trim(segment, "0123456789") == ""
}

// idempotent reports whether a request may be repeated when nobody knows whether it had its effect. PATCH is not:
// one that renames a component misses it the second time.
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
