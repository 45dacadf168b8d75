package example

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// Repeated is many of a text with something between, each with its number in place of %d.
func Repeated(n int, format, between string) string {
	var all []string
	for i := range n {
		all = append(all, strings.ReplaceAll(format, "%d", fmt.Sprint(i)))
	}
	return strings.Join(all, between)
}

// TooLarge are Services just beyond a limit, by what must be said of them.
func TooLarge() map[string]*v1.Service {
	sharing := func(name, value string) *v1.Service {
		return Annotated(Service("http 80 30080"), "shared", "create/web", name, value)
	}
	config := func(text string) *v1.Service { return Annotated(Service("http 80 30080"), "config", text) }
	ranges := Service("http 80 30080")
	ranges.Spec.LoadBalancerSourceRanges = strings.Split(Repeated(1001, "10.0.0.0/8", ","), ",")
	annotatedRanges := Service("http 80 30080")
	annotatedRanges.Annotations = map[string]string{v1.AnnotationLoadBalancerSourceRangesKey: Repeated(1001, "10.0.0.0/8", ",")}
	ports := strings.Split(Repeated(101, "p%d 1%d 3%d", ","), ",")
	const rule = `{"name":"r%d","actions":[{"type":"tcp_reject","action_tcp_reject":{}}]}`
	frontends := Repeated(100, `{"name":"f%d","port":1%d,"default_backend":"http"}`, ",")
	manyRules := Repeated(11, `{"name":"f%d","port":1%d,"default_backend":"http","rules":[`+Repeated(91, rule, ",")+`]}`, ",")
	manyMembers := Repeated(2, `{"name":"b%d","members":[`+Repeated(501, `{"name":"m%d","ip":"10.0.0.1","port":80}`, ",")+`]}`, ",")
	manyBundles := Repeated(2, `{"name":"b%d","tls_configs":[`+Repeated(51, `{"name":"c%d","certificate_bundle_uuid":"0aded5c1-c7a3-498a-b9c8-a871611c47a2"}`, ",")+`]}`, ",")
	return map[string]*v1.Service{
		"routes=&h [{host: a.example, path: /}]: line 1: YAML anchor &h is not allowed": sharing("routes",
			"&h [{host: a.example, path: /}]"),
		"line 1: YAML anchor &p is not allowed; remove it":                 sharing("routes", "[{host: a.example, path: &p /x}, {host: b.example, path: *p}]"),
		"line 1: YAML anchor &l is not allowed":                            Annotated(Service("http 80 30080"), "node-selector", "{matchLabels: &l {pool: web}}"),
		"node-selector=[[[[[[[[[]]]]]]]]]: nested too deeply: more than 8": Annotated(Service("http 80 30080"), "node-selector", "[[[[[[[[[]]]]]]]]]"),
		"too many values: 1001 or more, at most 1000":                      sharing("routes", "["+Repeated(1000, "1", ",")+"]"),
		"too large: 65537 bytes, at most 65536 are allowed":                sharing("routes", `[{path: /}] #`+strings.Repeat("x", 65537-13)),
		"too large: 16385 bytes, at most 16384 are allowed":                Annotated(Service("http 80 30080"), "node-selector", "{} #"+strings.Repeat("x", 16385-4)),
		"config: too large: 262145 bytes, at most 262144":                  config("{}" + strings.Repeat(" ", 262143)),
		"config: too many values: 20001 or more, at most 20000":            config("[" + strings.Repeat("1,", 20000) + "1]"),
		"config: nested too deeply: more than 16":                          config(strings.Repeat("[", 17) + strings.Repeat("]", 17)),
		"plan=xxx": Annotated(Service("http 80 30080"), "plan", strings.Repeat("x", 64<<10+1)),
		"too many values: 101, at most 100 are allowed; use fewer: want 1 to 100":         Annotated(Service("http 80 30080"), "tls-hostnames", Repeated(101, "a%d.b", ",")),
		"too many labels: 101, at most 100":                                               Annotated(Service("http 80 30080"), "labels", Repeated(101, "a%d=b", ",")),
		"want 1 to 20, with commas between, of: the name of a Secret":                     Annotated(Service("http 80 30080"), "tls-secret", strings.Repeat("a.", 127)),
		"spec.loadBalancerSourceRanges: too many networks: 1001, at most 1000":            ranges,
		"service.beta.kubernetes.io/load-balancer-source-ranges: too many networks: 1001": annotatedRanges,
		"spec.ports: too many ports: 101, at most 100":                                    Service(ports...),
		"ask for too many frontends: 101, at most 100":                                    config(`{"frontends":[` + frontends + `]}`),
		"ask for too many rules: 1001, at most 1000":                                      config(`{"frontends":[` + manyRules + `]}`),
		"ask for too many members: 1002, at most 1000":                                    config(`{"backends":[` + manyMembers + `]}`),
		"ask for too many certificates: 102, at most 100":                                 config(`{"backends":[` + manyBundles + `]}`),
		"1 more mistakes": Annotated(Service("http 80 30080"), strings.Split(Repeated(11, "no-such-%d|x", "|"), "|")...),
	}
}
