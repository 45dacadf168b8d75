package settings

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
)

// Limits on what users write, which are checked before it is parsed. docs/security.md lists them.
var (
	configLimits   = bounded.Document{Bytes: 256 << 10, Values: 20_000, Depth: 16}
	routesLimits   = bounded.Document{Bytes: 64 << 10, Values: 1_000, Depth: 8}
	selectorLimits = bounded.Document{Bytes: 16 << 10, Values: 1_000, Depth: 8}
)

const (
	// maxAnnotation is how many bytes an annotation may have that is no document: enough for 100 host names for each of two ports.
	maxAnnotation = 64 << 10
	// maxSourceRanges is how many source ranges may be given. Joined, they must be maxRanges.
	maxSourceRanges = 1000
	// maxProblems is how many mistakes of a Service are listed, each in at most maxMessage bytes.
	maxProblems, maxMessage = 10, 1000
)

// Limits on the components that one Service may ask for, over all its ports. Rules are those of the config annotation, and those
// that source ranges, redirects and routes make: 50 routes with 10 source ranges on 2 ports take 1000.
const (
	maxPorts         = 100
	maxFrontends     = 100
	maxFrontendRules = 100 // in the config annotation
	maxRules         = 1000
	maxMatchers      = 4000
	maxCertificates  = 100
	maxMembers       = 1000 // given one by one
	maxLabels        = 100
)

// tooManyPorts is a Problem of a Service of which nothing else is read; nil: it has not too many.
func tooManyPorts(service *v1.Service) *Problem {
	if err := bounded.Count(len(service.Spec.Ports), maxPorts, "ports"); err != nil {
		return &Problem{"TooManyComponents", fmt.Sprintf("spec.ports: %s, or several Services", err)}
	}
	return nil
}

// components counts what the Service asks for.
func (c *checker) components() {
	s := c.settings
	ranges := len(c.ranges)
	rules, matchers, certificates, members := 0, 0, 0, 0
	for _, port := range s.EveryPort() {
		rules += len(port.Rules)
		for _, rule := range port.Rules {
			matchers += len(rule.Matchers)
		}
		for _, made := range []bool{ranges > 0, port.Redirect, port.Forwarded} {
			if made {
				rules++
			}
		}
		matchers += ranges
		certificates += len(port.Certificates) + len(port.BackendTLS)
		members += len(port.Members)
	}
	for _, backend := range s.MoreBackends {
		certificates += len(backend.TLSConfigs)
		members += len(backend.Members)
	}
	for _, port := range c.service.Spec.Ports {
		for _, route := range s.Routes {
			if RouteHasPort(route, port) {
				rules += max(1, ranges)
			}
		}
	}
	for _, one := range []struct {
		count, most int
		things      string
	}{
		{len(s.Ports) + len(s.MoreFrontends), maxFrontends, "frontends"},
		{rules, maxRules, "rules"}, {matchers, maxMatchers, "matchers of rules"},
		{certificates, maxCertificates, "certificates"}, {members, maxMembers, "members"},
	} {
		if err := bounded.Count(one.count, one.most, one.things); err != nil {
			c.problems = append(c.problems, Problem{"TooManyComponents", fmt.Sprintf("the Service's annotations and ports ask for %s, or several Services", err)})
		}
	}
}

// fewProblems are the first of many, with a word about the rest, each no longer than an event may be.
func fewProblems(all []Problem) []Problem {
	if more := len(all) - maxProblems; more > 0 {
		last := all[maxProblems]
		last.Message = fmt.Sprintf("%d more mistakes, which are listed when these are corrected", more)
		all = append(all[:maxProblems:maxProblems], last)
	}
	for i := range all {
		if message := all[i].Message; len(message) > maxMessage {
			all[i].Message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
		}
	}
	return all
}
