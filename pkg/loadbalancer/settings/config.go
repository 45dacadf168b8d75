package settings

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// The shapes of the API's own request to create a load balancer: ranges are those of the OpenAPI document and of the
// Terraform provider's validators, the narrower where they differ.

var componentName = like(text("name", "1 to 64 letters, digits, dashes and underscores", `[a-zA-Z0-9_-]{1,64}`))

// Bounds of properties.
const (
	maxTimeout  = 86400   // seconds
	maxTunnel   = 3024000 // seconds
	maxSessions = 500000
)

var frontendProperties = map[string]shape{
	"timeout_client":         number(1, maxTimeout),
	"inbound_proxy_protocol": truth,
	"http2_enabled":          truth,
}

var backendProperties = map[string]shape{
	"timeout_server":                   number(1, maxTimeout),
	"timeout_tunnel":                   number(1, maxTunnel),
	"health_check_type":                optional(word("tcp", "http")),
	"health_check_interval":            number(1, maxTimeout),
	"health_check_fall":                number(1, 100),
	"health_check_rise":                number(1, 100),
	"health_check_url":                 optional(characters(1, 255)),
	"health_check_expected_status":     number(100, 599),
	"health_check_tls_verify":          truth,
	"health_check_on_down":             word("", "shutdown-sessions"),
	"outbound_proxy_protocol":          word("", "v1", "v2"),
	"sticky_session_cookie_name":       orEmpty(like(cookieName)),
	"sticky_session_cookie_attributes": orEmpty(characters(1, 64)),
	"tls_enabled":                      truth,
	"tls_verify":                       truth,
	"tls_use_system_ca":                truth,
	"http2_enabled":                    truth,
}

// orEmpty lets a text be empty, which switches the thing off.
func orEmpty(inner shape) shape {
	return func(at place, value any) (any, error) {
		if value == "" {
			return value, nil
		}
		return inner(at, value)
	}
}

var configShape = object(map[string]shape{
	"name":              optional(componentName),
	"plan":              optional(like(planName)),
	"zone":              optional(like(zoneName)),
	"network_uuid":      optional(like(uuids)),
	"networks":          list(networkShape, 0, 8),
	"ip_addresses":      list(with(object(map[string]shape{"address": like(ipAddress), "network_name": optional(componentName)}), "address"), 0, 8),
	"configured_status": optional(word("started", "stopped")),
	"frontends": list(object(map[string]shape{
		"name": optional(componentName), "mode": optional(word("tcp", "http")), "port": number(1, 65535),
		"default_backend": optional(componentName), "networks": list(object(map[string]shape{"name": componentName}), 0, 8),
		"rules": list(ruleShape, 0, maxFrontendRules), "tls_configs": list(tlsConfigShape, 0, maxCertificates), "properties": object(frontendProperties),
	}), 0, maxFrontends),
	"backends": list(object(map[string]shape{
		"name": optional(componentName), "resolver": optional(componentName), "members": list(memberShape, 0, maxMembers),
		"properties": object(backendProperties), "tls_configs": list(tlsConfigShape, 0, maxCertificates),
	}), 0, maxFrontends),
	"resolvers": list(with(object(map[string]shape{
		"name": componentName, "nameservers": list(characters(1, 64), 1, 10), "retries": number(1, 10), "timeout": number(1, 60),
		"timeout_retry": number(1, 60), "cache_valid": number(1, maxTimeout), "cache_invalid": number(1, maxTimeout),
	}), "name", "nameservers"), 0, 10),
	"labels":           list(labelShape, 0, maxLabels),
	"maintenance_dow":  optional(word(weekdays...)),
	"maintenance_time": optional(like(text("time", "a time such as 03:15:00Z", `([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z`))),
})

var networkShape = with(object(map[string]shape{
	"name": componentName, "type": word("public", "private"), "family": word("IPv4"), "uuid": optional(like(uuids)),
}), "name", "type")

var tlsConfigShape = with(object(map[string]shape{
	"name": componentName, "certificate_bundle_uuid": optional(like(uuids)),
}), "name")

// memberShape fills in the API's defaults.
func memberShape(at place, value any) (any, error) {
	checked, err := with(object(map[string]shape{
		"name": characters(1, 255), "ip": optional(characters(1, 64)), "port": number(1, 65535), "weight": number(0, 100),
		"max_sessions": number(0, maxSessions), "type": optional(word("static", "dynamic")), "enabled": truth, "backup": truth,
	}), "name")(at, value)
	if err != nil {
		return nil, err
	}
	fields := checked.(map[string]any)
	for name, standard := range map[string]any{"weight": 100, "max_sessions": 1000, "type": "static", "enabled": true} {
		if _, ok := fields[name]; !ok {
			fields[name] = standard
		}
	}
	return fields, nil
}

func labelShape(at place, value any) (any, error) {
	checked, err := with(object(map[string]shape{"key": characters(2, 32), "value": characters(0, 255)}), "key")(at, value)
	if err != nil {
		return nil, err
	}
	pair := checked.(map[string]any)
	key, _ := pair["key"].(string)
	text, _ := pair["value"].(string)
	if err := checkLabel(key, text); err != nil {
		return nil, fmt.Errorf("%s is %s: %w", at, shown(value), err)
	}
	return pair, nil
}

var ruleShape = with(object(map[string]shape{
	"name": componentName, "priority": number(0, 100), "matching_condition": optional(word("and", "or")),
	"matchers": list(kinds("match_", matcherShapes, map[string]shape{"inverse": truth}), 0, maxRanges),
	"actions":  list(kinds("action_", actionShapes, nil), 1, 40),
}), "name", "actions")

var matcherShapes = map[string]shape{
	"src_ip":          with(object(map[string]shape{"value": addressOrPrefix}), "value"),
	"src_port":        numberMatch(65535),
	"body_size":       numberMatch(1<<31 - 1),
	"path":            textMatch(nil),
	"url":             textMatch(nil),
	"url_query":       textMatch(nil),
	"host":            with(object(map[string]shape{"value": characters(1, 255)}), "value"),
	"http_method":     with(object(map[string]shape{"value": word("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE")}), "value"),
	"http_status":     numberMatch(1000),
	"cookie":          textMatch(headerName),
	"header":          textMatch(headerName),
	"request_header":  textMatch(headerName),
	"response_header": textMatch(headerName),
	"url_param":       textMatch(headerName),
	"num_members_up":  membersMatch,
}

// dropped is a field that Terraform's provider has, and the API has not.
func dropped(place, any) (any, error) { return nil, nil }

// These work in frontends of mode tcp too; all others in those of mode http only.
var (
	tcpMatchers = []string{"src_ip", "src_port", "num_members_up"}
	tcpActions  = []string{"tcp_reject", "use_backend"}
)

var headerName = like(text("name", "a name of letters, digits, dashes, dots and underscores", `[A-Za-z0-9_.-]{1,255}`))

func addressOrPrefix(at place, value any) (any, error) {
	text, _ := value.(string)
	if _, err := netip.ParseAddr(text); err == nil {
		return text, nil
	}
	if _, err := netip.ParsePrefix(text); err == nil {
		return text, nil
	}
	return nil, wrong(at, value, "an IP address or a network such as 203.0.113.0/24")
}

var numberMethods = []string{"equal", "greater", "greater_or_equal", "less", "less_or_equal", "range"}

func numberFields(most int) map[string]shape {
	return map[string]shape{
		"method": word(numberMethods...), "value": number(0, most), "range_start": number(0, most), "range_end": number(0, most),
	}
}

// numberMatch has a value, or with the method range the two ends of one.
func numberMatch(most int) shape { return numberMatchOf(with(object(numberFields(most)), "method")) }

func numberMatchOf(inner shape) shape {
	return func(at place, value any) (any, error) {
		checked, err := inner(at, value)
		if err != nil {
			return nil, err
		}
		fields := checked.(map[string]any)
		required := []string{"value"}
		if fields["method"] == "range" {
			required = []string{"range_start", "range_end"}
		}
		for _, name := range required {
			if _, ok := fields[name]; !ok {
				return nil, missing(at.field(name))
			}
		}
		return fields, nil
	}
}

func membersMatch(at place, value any) (any, error) {
	fields := numberFields(100)
	fields["backend"] = componentName
	return numberMatchOf(with(object(fields), "method", "backend"))(at, value)
}

var textMethods = []string{"exact", "substring", "regexp", "starts", "ends", "domain", "ip", "exists"}

// textMatch has a value but for the methods that need none; name, if not nil, is of what is looked at.
func textMatch(name shape) shape {
	fields := map[string]shape{"method": word(textMethods...), "value": characters(0, 255), "ignore_case": truth}
	required := []string{"method"}
	if name != nil {
		fields["name"] = name
		required = append(required, "name")
	}
	inner := with(object(fields), required...)
	return func(at place, value any) (any, error) {
		checked, err := inner(at, value)
		if err != nil {
			return nil, err
		}
		given := checked.(map[string]any)
		needsNone := given["method"] == "exists" || given["method"] == "ip"
		if text, _ := given["value"].(string); text == "" && !needsNone {
			return nil, missing(at.field("value"))
		}
		return given, nil
	}
}

var actionShapes = map[string]shape{
	"use_backend":           with(object(map[string]shape{"backend": componentName}), "backend"),
	"tcp_reject":            object(map[string]shape{"active": dropped}),
	"http_return":           httpReturnShape,
	"http_redirect":         httpRedirectShape,
	"set_forwarded_headers": object(map[string]shape{"active": dropped}),
	"set_request_header":    with(object(map[string]shape{"header": headerName, "value": characters(0, 256)}), "header"),
	"set_response_header":   with(object(map[string]shape{"header": headerName, "value": characters(0, 256)}), "header"),
	"http_rewrite_path":     with(object(map[string]shape{"match_pattern": characters(0, 255), "rewrite_to": characters(1, 255)}), "match_pattern", "rewrite_to"),
	"http_rewrite_uri":      with(object(map[string]shape{"match_pattern": characters(0, 255), "rewrite_to": characters(1, 255)}), "match_pattern", "rewrite_to"),
}

func httpReturnShape(at place, value any) (any, error) {
	return with(object(map[string]shape{
		"status":       number(100, 599),
		"content_type": word("text/plain", "text/html", "application/javascript", "application/json"),
		"payload": func(at place, value any) (any, error) {
			text, _ := value.(string)
			if _, err := base64.StdEncoding.DecodeString(text); err != nil || text == "" || len(text) > 4096 {
				return nil, wrong(at, value, "base64 of 1 to 4096 characters")
			}
			return text, nil
		},
	}), "status", "content_type", "payload")(at, value)
}

func httpRedirectShape(at place, value any) (any, error) {
	checked, err := object(map[string]shape{
		"location": optional(characters(1, 255)), "scheme": optional(word("http", "https")),
		"status": func(at place, value any) (any, error) {
			if n, ok := value.(float64); ok && slices.Contains([]float64{301, 302, 303, 307, 308}, n) {
				return int(n), nil
			}
			if value == 0.0 {
				return nil, nil
			}
			return nil, wrong(at, value, "301, 302, 303, 307 or 308")
		},
	})(at, value)
	if err != nil {
		return nil, err
	}
	fields := checked.(map[string]any)
	if (fields["location"] == nil) == (fields["scheme"] == nil) {
		return nil, wrong(at, value, "either location or scheme")
	}
	return fields, nil
}

// overlay is what the annotation with the configuration asks for: the API's request, of which every part may be missing.
type overlay struct {
	cloud.LoadBalancer
	NetworkID string   // deprecated by the API: the private network
	unknown   []string // fields that do not exist, which UpCloud's own CCM takes no notice of
}

// parseOverlay reads the annotation AnnotationConfig.
func parseOverlay(text string) (*overlay, error) {
	if err := configLimits.JSON(text); err != nil {
		return nil, err
	}
	var read overlay
	checked, err := parseShape(text, configShape, &read.unknown)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(checked)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(plain, &read.LoadBalancer); err != nil {
		return nil, err
	}
	var rest struct {
		NetworkID string `json:"network_uuid"`
	}
	if err := json.Unmarshal(plain, &rest); err != nil {
		return nil, err
	}
	read.NetworkID = rest.NetworkID
	return &read, nil
}

// IsFrontendProperty says whether the API has such a property of frontends.
func IsFrontendProperty(name string) bool { return frontendProperties[name] != nil }

// IsBackendProperty says whether the API has such a property of backends.
func IsBackendProperty(name string) bool { return backendProperties[name] != nil }
