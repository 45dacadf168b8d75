package plan

import (
	"fmt"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Foreign returns the frontends and backends that have a desired one's name and were not made for the Service: whatever is
// made is noted before. On a load balancer that has no notes yet, because UpCloud's own CCM made it, everything of the right
// name is the Service's.
func Foreign(desired Desired, lb *cloud.LoadBalancer) []string {
	if _, noted := lb.Labels[settings.LabelComponents]; !noted {
		return nil
	}
	ours := NotesOf(lb.Labels, settings.LabelComponents)
	var foreign []string
	for _, frontend := range lb.Frontends {
		if _, wanted := desired.frontend(frontend.Name); wanted && !ours.hasFrontend(frontend.Name) {
			foreign = append(foreign, frontend.Name)
		}
	}
	for _, backend := range lb.Backends {
		if desired.hasBackend(backend.Name) && !ours.HasBackend(backend.Name) && !slices.Contains(foreign, backend.Name) {
			foreign = append(foreign, backend.Name)
		}
	}
	return foreign
}

// ForeignRules returns the rules that have a desired one's name and were not made for the Service.
func ForeignRules(desired Desired, lb *cloud.LoadBalancer) []string {
	if _, noted := lb.Labels[settings.LabelComponents]; !noted {
		return nil
	}
	ours := NotesOf(lb.Labels, settings.LabelComponents)
	var foreign []string
	for _, have := range lb.Frontends {
		want, wanted := desired.frontend(have.Name)
		for _, rule := range have.Rules {
			if wanted && hasRule(want.Rules, rule.Name) && !ours.Has(noteRule(have.Name, rule.Name)) {
				foreign = append(foreign, fmt.Sprintf("%s of frontend %s", rule.Name, have.Name))
			}
		}
	}
	return foreign
}

// Without leaves out the frontends and backends of these names, and the frontends that lead to such a backend.
func (d Desired) Without(names []string) Desired {
	if len(names) == 0 {
		return d
	}
	gone := slices.Clone(names)
	for _, frontend := range d.Frontends {
		if slices.Contains(names, frontend.Name) {
			gone = append(gone, frontend.Backend)
		}
	}
	d.Frontends = slices.DeleteFunc(slices.Clone(d.Frontends), func(f Frontend) bool {
		return slices.Contains(names, f.Name) || slices.Contains(gone, f.Backend)
	})
	d.Backends = slices.DeleteFunc(slices.Clone(d.Backends), func(b Backend) bool { return slices.Contains(gone, b.Name) })
	return d
}
