package loadbalancer

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// said remembers which remarks a Service has been told, so that a reconcile with nothing new says nothing. It is lost at a
// restart, after which each is said once more.
type said struct{ *records }

// say says those remarks that were not among the Service's last ones.
func (s said) say(service *v1.Service, remarks []settings.Problem, warn func(runtime.Object, string, string, ...any)) {
	var before []settings.Problem
	s.change(service.UID, func(r *serviceRecord) { before, r.remarks = r.remarks, slices.Clone(remarks) })
	for _, remark := range remarks {
		if !slices.Contains(before, remark) {
			warn(service, remark.Reason, "%s", remark.Message)
		}
	}
}

// last are the remarks that were said last.
func (s said) last(service *v1.Service) []settings.Problem {
	return slices.Clone(s.get(service.UID).remarks)
}
