package settings

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/bounded"
)

// maxRanges is how many source ranges one rule can hold: as many matchers as the API takes.
const maxRanges = 40

// SourceRanges are the networks that a Service is open to, joined as far as they can be, and those of IPv4 alone if there are any; none: open
// to all. They come from spec.loadBalancerSourceRanges, or if that is empty from the older annotation, which kube-proxy and other clouds
// heed too.
func SourceRanges(service *v1.Service) ([]netip.Prefix, error) {
	given, from := service.Spec.LoadBalancerSourceRanges, "spec.loadBalancerSourceRanges"
	if len(given) == 0 {
		text := strings.TrimSpace(service.Annotations[v1.AnnotationLoadBalancerSourceRangesKey])
		if text == "" {
			return nil, nil
		}
		from = "annotation " + v1.AnnotationLoadBalancerSourceRangesKey
		if err := bounded.Count(strings.Count(text, ",")+1, maxSourceRanges, "networks"); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		given = strings.Split(text, ",")
	}
	if err := bounded.Count(len(given), maxSourceRanges, "networks"); err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	var all []netip.Prefix
	for _, text := range given {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%s has %q: want networks such as 203.0.113.0/24", from, Abbreviated(text))
		}
		all = append(all, prefix.Masked())
	}
	all = joined(all)
	if slices.Contains(all, netip.MustParsePrefix("0.0.0.0/0")) {
		return nil, nil // load balancers have IPv4 addresses only
	}
	all = ofIPv4(all)
	if len(all) > maxRanges {
		return nil, fmt.Errorf("%s has %d networks that do not join into larger ones, and a rule can hold %d: use fewer, larger ones",
			from, len(all), maxRanges)
	}
	return all, nil
}

// ofIPv4 leaves out networks of IPv6, from which no client comes to a load balancer, as it has IPv4 addresses only. If there are no others, one
// of them stays: without any, everybody could come.
func ofIPv4(all []netip.Prefix) []netip.Prefix {
	kept := slices.DeleteFunc(slices.Clone(all), func(p netip.Prefix) bool { return !p.Addr().Is4() })
	if len(kept) == 0 {
		return all[:min(1, len(all))]
	}
	return kept
}

// joined leaves out networks that are part of another, and makes one of two halves.
func joined(all []netip.Prefix) []netip.Prefix {
	for {
		slices.SortFunc(all, func(a, b netip.Prefix) int {
			return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
		})
		var out []netip.Prefix
		changed := false
		for _, prefix := range all {
			if len(out) == 0 {
				out = append(out, prefix)
				continue
			}
			last := out[len(out)-1]
			switch {
			case last.Addr().Is4() == prefix.Addr().Is4() && last.Bits() <= prefix.Bits() && last.Contains(prefix.Addr()):
				changed = true
			case isOtherHalf(last, prefix):
				out[len(out)-1] = netip.PrefixFrom(last.Addr(), last.Bits()-1)
				changed = true
			default:
				out = append(out, prefix)
			}
		}
		all = out
		if !changed {
			return all
		}
	}
}

func isOtherHalf(a, b netip.Prefix) bool {
	if a.Bits() != b.Bits() || a.Bits() == 0 || a.Addr().Is4() != b.Addr().Is4() {
		return false
	}
	whole := netip.PrefixFrom(a.Addr(), a.Bits()-1)
	return whole.Masked().Addr() == a.Addr() && whole.Contains(b.Addr())
}
