package doctor

import (
	"fmt"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// adoptLine is the annotation with which a Service takes a load balancer as its own.
func adoptLine(lb *cloud.LoadBalancer) string {
	return fmt.Sprintf("%s%s: %s", settings.AnnotationPrefix, settings.AdoptName, lb.ID)
}

// judgeAdoptable lists load balancers that a Service here can take as its own: those that retain left in the account, and those that a Service
// names which was restored from a backup of another cluster. They are no findings: someone wanted them to stay.
func (e *look) judgeAdoptable(lb *cloud.LoadBalancer) {
	if trace, retained := e.config.Cluster.RetainedOn(lb); retained {
		if trace.Claim == cloud.ClaimOther && trace.ClusterUID != e.uid {
			return
		}
		f := e.adoptable(lb, trace)
		f.Kept = "annotation retain left it in the account"
		if trace.Words != "" {
			f.Object = "Service/" + trace.Words
			f.Kept += " when " + f.Object + " was deleted"
		}
		if namespace, _, _ := strings.Cut(trace.Words, "/"); namespace == "" || trace.ClusterUID != e.uid {
			f.Kept += "; " + needsEntry
		}
		e.report.Kept = append(e.report.Kept, f)
		return
	}
	trace, made := e.config.Cluster.TraceOf(lb)
	service := e.named(lb.ID)
	if !made || service == nil || trace.ClusterUID == e.uid || trace.Of(e.config.Cluster, service) {
		return
	}
	f := e.adoptable(lb, trace)
	f.Object = serviceName(service)
	f.Kept = fmt.Sprintf("%s names it, and its labels are those of another cluster's Service; %s", f.Object, needsEntry)
	e.report.Kept = append(e.report.Kept, f)
}

const needsEntry = "adoptableLoadBalancers of ccm's configuration must allow it"

func (e *look) adoptable(lb *cloud.LoadBalancer, trace plan.Trace) *Finding {
	f := balancerFinding(AdoptableBalancer, lb, trace.Claim, "")
	f.Adopt = adoptLine(lb)
	return f
}
