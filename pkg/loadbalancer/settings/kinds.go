package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// kind is a type of annotation value. What is allowed is said once, to the parser, to messages, to the reference page and to
// the admission policy.
type kind[T any] struct {
	name    string // in the reference page
	allowed string // completes "want …"
	pattern string // a regular expression of all of a value, for the admission policy; empty: it checks nothing
	list    int    // if not zero, the pattern is of one of so many at most with commas between
	longest int    // if not zero, how many bytes a value (of a list: each) may have besides
	// document, if not nil, limits the YAML or JSON that a value is.
	document *bounded.Document
	// least and most bound numbers, for the admission policy; both zero: no number.
	least, most int
	timed       bool // a number of seconds, which may be a duration
	parse       func(text string) (T, error)
}

var errNotAllowed = errors.New("not allowed")

func oneOf(values ...string) kind[string] {
	return kind[string]{
		name: strings.Join(values, ", "), allowed: orList(values), pattern: strings.Join(values, "|"),
		parse: func(text string) (string, error) {
			if !slices.Contains(values, text) {
				return "", errNotAllowed
			}
			return text, nil
		},
	}
}

func orList(values []string) string {
	if len(values) == 1 {
		return values[0]
	}
	return strings.Join(values[:len(values)-1], ", ") + " or " + values[len(values)-1]
}

var boolean = kind[bool]{
	name: "true, false", allowed: "true or false", pattern: "true|false",
	parse: func(text string) (bool, error) {
		if text != "true" && text != "false" {
			return false, errNotAllowed
		}
		return text == "true", nil
	},
}

func integer(least, most int) kind[int] {
	return kind[int]{
		name: "number", allowed: fmt.Sprintf("a whole number from %d to %d", least, most), pattern: "[0-9]{1,8}", least: least, most: most,
		parse: func(text string) (int, error) {
			if !digits.MatchString(text) {
				return 0, errNotAllowed
			}
			n, err := strconv.Atoi(text)
			if err != nil || n < least || n > most {
				return 0, errNotAllowed
			}
			return n, nil
		},
	}
}

var digits = regexp.MustCompile(`^[0-9]{1,8}$`)

// seconds is a number of seconds, or a duration such as 90s or 1h30m.
func seconds(most int) kind[int] {
	const least = 1
	number := integer(least, most)
	number.name, number.timed = "seconds", true
	number.allowed = fmt.Sprintf("seconds from %d to %d, or a duration such as 90s, 5m or 1h", least, most)
	number.pattern = "[0-9]{1,8}|([0-9]{1,8}h)?([0-9]{1,8}m)?([0-9]{1,8}s)?"
	plain := number.parse
	number.parse = func(text string) (int, error) {
		if n, err := plain(text); err == nil {
			return n, nil
		}
		d, err := time.ParseDuration(text)
		if err != nil || !wholeDuration.MatchString(text) || d < time.Duration(least)*time.Second || d > time.Duration(most)*time.Second {
			return 0, errNotAllowed
		}
		return int(d / time.Second), nil
	}
	return number
}

var wholeDuration = regexp.MustCompile(`^([0-9]{1,8}h)?([0-9]{1,8}m)?([0-9]{1,8}s)?$`)

// text is any text that a regular expression matches.
func text(name, allowed, pattern string) kind[string] {
	whole := regexp.MustCompile("^(?:" + pattern + ")$")
	return kind[string]{
		name: name, allowed: allowed, pattern: pattern,
		parse: func(text string) (string, error) {
			if !whole.MatchString(text) {
				return "", errNotAllowed
			}
			return text, nil
		},
	}
}

// upTo is a kind whose values have so many bytes at most.
func upTo(longest int, k kind[string]) kind[string] {
	plain := k.parse
	k.longest = longest
	k.parse = func(text string) (string, error) {
		if len(text) > longest {
			return "", errNotAllowed
		}
		return plain(text)
	}
	return k
}

// listOf is a list with commas between, in which nothing comes twice.
func listOf(item kind[string], most int) kind[[]string] {
	return kind[[]string]{
		name: "list of " + item.name, allowed: fmt.Sprintf("1 to %d, with commas between, of: %s", most, item.allowed),
		pattern: item.pattern, list: most, longest: item.longest,
		parse: func(text string) ([]string, error) {
			if err := bounded.Count(strings.Count(text, ",")+1, most, "values"); err != nil {
				return nil, err
			}
			var all []string
			for part := range strings.SplitSeq(text, ",") {
				one, err := item.parse(strings.TrimSpace(part))
				if err != nil || slices.Contains(all, one) {
					return nil, fmt.Errorf("%q: %w", strings.TrimSpace(part), errNotAllowed)
				}
				all = append(all, one)
			}
			return all, nil
		},
	}
}

const (
	uuidPattern = `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`
	octet       = `(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`
	dnsLabel    = `[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?`
	// longestDomain is how many bytes the name of a domain, and of most of Kubernetes' objects, has at most.
	longestDomain = 253
)

var (
	uuids = func() kind[string] {
		k := text("UUID", "a UUID such as 0aded5c1-c7a3-498a-b9c8-a871611c47a2", uuidPattern)
		whole := k.parse
		k.parse = func(text string) (string, error) {
			if _, err := whole(text); err != nil {
				return "", err
			}
			id, err := uuid.Parse(text)
			return id.String(), err
		}
		return k
	}()
	planName = text("plan", "the name of a load balancer plan, such as production-small", `[a-z0-9][a-z0-9-]{0,63}`)
	zoneName = text("zone", "a zone such as fi-hel1", `[a-z0-9][a-z0-9-]{0,63}`)
	hostname = upTo(longestDomain, text("host name", "a host name such as www.example.com, or *.example.com",
		`(?:\*\.)?(?:`+dnsLabel+`\.)+`+dnsLabel))
	secretName = upTo(longestDomain, text("Secret", "the name of a Secret of type kubernetes.io/tls in the Service's namespace",
		dnsLabel+`(?:\.`+dnsLabel+`)*`))
	cookieName = text("cookie name", "a cookie's name: 1 to 64 letters, digits, dashes, dots and underscores", `[A-Za-z0-9_.-]{1,64}`)
	urlPath    = text("path", "a path that begins with a slash, at most 200 characters, without blanks and semicolons", `/[!-:<-~]{0,199}`)
	ipAddress  = func() kind[string] {
		k := text("IPv4 address", "an IPv4 address such as 94.237.0.1", octet+`(?:\.`+octet+`){3}`)
		k.parse = func(text string) (string, error) {
			ip, err := netip.ParseAddr(text)
			if err != nil || !ip.Is4() {
				return "", errNotAllowed
			}
			return ip.String(), nil
		}
		return k
	}()
)

// window is a time of the week.
type window struct{ day, time string }

var maintenanceWindow = kind[window]{
	name: "day and time", allowed: "a day of the week, and a time in UTC if you like: sunday, or sunday 03:00",
	pattern: `(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)(?:\s+(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?Z?)?`,
	parse: func(text string) (window, error) {
		fields := strings.Fields(text)
		if len(fields) == 0 || len(fields) > 2 || !slices.Contains(weekdays, fields[0]) {
			return window{}, errNotAllowed
		}
		w := window{day: fields[0]}
		if len(fields) == 2 {
			for _, layout := range []string{"15:04:05", "15:04"} {
				at := strings.TrimSuffix(fields[1], "Z")
				if t, err := time.Parse(layout, at); err == nil && len(at) == len(layout) {
					w.time = t.Format("15:04:05Z")
				}
			}
			if w.time == "" {
				return window{}, errNotAllowed
			}
		}
		return w, nil
	},
}

var weekdays = []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}

// labelKey is a key that begins neither with an underscore nor with ccm_.
const labelKey = "[!-+\\--<>-^`abd-~][ -+\\--<>-~]{1,31}|c[ -+\\--<>-bd-~][ -+\\--<>-~]{0,30}|" +
	"cc(?:[ -+\\--<>-ln-~][ -+\\--<>-~]{0,29})?|ccm(?:[ -+\\--<>-^`-~][ -+\\--<>-~]{0,28})?"

var labelList = kind[cloud.Labels]{
	name: "list of key=value", allowed: "pairs such as env=prod,team=web: keys of 2 to 32 and values of 0 to 255 printable characters, keys " +
		"that do not begin with ccm_ or an underscore",
	pattern: `(?:` + labelKey + `)=[ -+\--~]{0,255}`, list: maxLabels,
	parse: func(text string) (cloud.Labels, error) {
		if err := bounded.Count(strings.Count(text, ",")+1, maxLabels, "labels"); err != nil {
			return nil, err
		}
		all := cloud.Labels{}
		for part := range strings.SplitSeq(text, ",") {
			key, value, found := strings.Cut(strings.TrimSpace(part), "=")
			if _, twice := all[key]; !found || twice || checkLabel(key, value) != nil {
				return nil, fmt.Errorf("%q: %w", strings.TrimSpace(part), errNotAllowed)
			}
			all[key] = value
		}
		return all, nil
	},
}

// checkLabel says whether a label may be asked for by a Service.
func checkLabel(key, value string) error {
	printable := func(text string) bool {
		return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
	}
	switch {
	case strings.HasPrefix(key, "ccm_"):
		return errors.New("keys that begin with ccm_ are the controller's own")
	case strings.HasPrefix(key, "_"):
		return errors.New("keys that begin with an underscore are UpCloud's own")
	case len(key) < 2 || len(key) > 32 || !printable(key):
		return errors.New("a key has 2 to 32 printable characters")
	case len(value) > 255 || !printable(value):
		return errors.New("a value has at most 255 printable characters")
	}
	return nil
}

var nodeSelector = kind[labels.Selector]{
	name: "label selector", allowed: "a label selector in YAML or JSON, such as {matchLabels: {pool: web}}", document: &selectorLimits,
	parse: func(text string) (labels.Selector, error) {
		plain, err := selectorLimits.YAMLToJSON([]byte(text))
		if err != nil {
			return nil, err
		}
		var selector metav1.LabelSelector
		if err := strictJSON(plain, &selector); err != nil {
			return nil, err
		}
		if len(selector.MatchLabels) == 0 && len(selector.MatchExpressions) == 0 {
			return labels.Everything(), nil // as documented by UpCloud: empty selects all
		}
		return metav1.LabelSelectorAsSelector(&selector)
	},
}

func strictJSON(text []byte, into any) error {
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	var mistyped *json.UnmarshalTypeError
	if errors.As(err, &mistyped) && mistyped.Type.Kind() == reflect.String && (mistyped.Value == "bool" || strings.HasPrefix(mistyped.Value, "number")) {
		return fmt.Errorf("%s has a %s where a text is wanted: put it in quotes", mistyped.Field, mistyped.Value)
	}
	return err
}

// cookieAttributes have commas between, as semicolons separate ports; the API wants semicolons.
var cookieAttributes = func() kind[string] {
	all := listOf(text("attribute", "SameSite=Strict, SameSite=Lax, SameSite=None, Secure, HttpOnly or Partitioned",
		`SameSite=Strict|SameSite=Lax|SameSite=None|Secure|HttpOnly|Partitioned`), 4)
	k := kind[string]{name: all.name, allowed: all.allowed, pattern: all.pattern, list: all.list}
	k.parse = func(value string) (string, error) {
		parts, err := all.parse(value)
		if err != nil {
			return "", err
		}
		joined := ""
		for i, part := range parts {
			if i > 0 {
				joined += "; "
			}
			joined += part
		}
		return joined, nil
	}
	return k
}()
