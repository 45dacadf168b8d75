package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/instances/providerid"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/routes"
)

// RoutesConfig is what the doctor of routes looks at.
type RoutesConfig struct {
	Cloud      *cloud.Cloud
	Kubernetes kubernetes.Interface
	// ClusterID is that of ccm's configuration. Empty: ccm names its routes after the cluster's UID.
	ClusterID string
}

// Routes examines the routers of an account. It only lists: whose a route is, its name does not prove.
type Routes struct{ config RoutesConfig }

// NewRoutes makes a doctor of routes.
func NewRoutes(config RoutesConfig) *Routes { return &Routes{config: config} }

// nameOfRoute is how ccm names routes: by digests of the cluster and the node, and the family.
var nameOfRoute = regexp.MustCompile(`^(ccm-[0-9a-f]{8}-)[0-9a-f]{12}-[46]$`)

// labelOfRouter is on the routers that a ccm makes.
const labelOfRouter = "ccm_cluster"

// Examine finds routes that a ccm made of which nothing shows that its cluster still runs, and routers that a ccm made and no network is on.
func (r *Routes) Examine(ctx context.Context) (*Report, error) {
	routers, err := r.config.Cloud.ListRouters(ctx)
	if err != nil {
		return nil, err
	}
	uid, err := clusterUID(ctx, r.config.Kubernetes)
	if err != nil {
		return nil, err
	}
	report := &Report{Subject: "routes", ClusterUID: uid, Findings: []*Finding{}, Kept: []*Finding{}, Undecided: []*Finding{}}
	if report.Made, err = r.config.Cloud.AccountTime(ctx); err != nil {
		return nil, err
	}
	own := []routes.Owner{routes.NewOwner(uid)}
	if r.config.ClusterID != "" {
		own = append(own, routes.NewOwner(r.config.ClusterID))
	}
	var hops map[netip.Addr]string
	for _, router := range routers {
		for _, route := range router.Routes {
			found := nameOfRoute.FindStringSubmatch(route.Name)
			if found == nil || found[1] == string(own[0]) || found[1] == string(own[len(own)-1]) {
				continue
			}
			if hops == nil {
				if hops, err = r.addresses(ctx); err != nil {
					return nil, err
				}
			}
			if note := hopNote(hops, route); note != "" {
				report.Findings = append(report.Findings, routeFinding(DeadRoute, &router, route.Name, note))
			}
		}
		if router.Labels[labelOfRouter] != "" && router.Networks == 0 {
			report.Findings = append(report.Findings, routeFinding(UnusedRouter, &router, router.Name, "made by the ccm of "+router.Labels[labelOfRouter]))
		}
	}
	report.order()
	return report, nil
}

func routeFinding(kind Kind, router *cloud.ListedRouter, title, note string) *Finding {
	return &Finding{Kind: kind, RouterID: router.ID, Title: title, Note: note}
}

// hopNote says why the route of another cluster's ccm may be left behind: empty where its next hop is a server outside this cluster.
func hopNote(hops map[netip.Addr]string, route cloud.StaticRoute) string {
	hop, err := netip.ParseAddr(route.NextHop)
	if err != nil {
		return ""
	}
	switch node, there := hops[hop.Unmap()]; {
	case !there:
		return fmt.Sprintf("%s via %s, which is no server's address", route.Prefix, route.NextHop)
	case node != "":
		return fmt.Sprintf("%s via %s, which is this cluster's node %s now", route.Prefix, route.NextHop, node)
	}
	return ""
}

// addresses are those of all servers, with the name of the Node where a server is one of this cluster's.
func (r *Routes) addresses(ctx context.Context) (map[netip.Addr]string, error) {
	list, err := r.config.Kubernetes.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err == nil {
		err = whole("nodes", list)
	}
	if err != nil {
		return nil, unreadable("nodes", err)
	}
	nodes := map[string]string{}
	for i := range list.Items {
		if server, err := providerid.Parse(list.Items[i].Spec.ProviderID); err == nil {
			nodes[server] = list.Items[i].Name
		}
	}
	servers, err := r.config.Cloud.Servers(ctx)
	if err != nil {
		return nil, err
	}
	hops := map[netip.Addr]string{}
	for _, id := range servers.IDs() {
		addresses, err := r.config.Cloud.ServerAddresses(ctx, id)
		if isGone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, address := range addresses {
			hops[address.IP.Unmap()] = nodes[strings.ToLower(id)]
		}
	}
	return hops, nil
}
