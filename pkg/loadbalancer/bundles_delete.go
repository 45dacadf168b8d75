package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/plan"
)

// deleteBundles deletes those of a Service's certificate bundles that are not to be kept. It leaves those in the account that something
// uses, and returns them.
func deleteBundles(ctx context.Context, api *cloud.Cloud, cleanup plan.BundleCleanup) (used []cloud.CertificateBundle, err error) {
	all, err := serviceBundles(ctx, api, cleanup.Identity)
	if err != nil {
		return nil, err
	}
	for _, bundle := range all {
		if cleanup.Identity.IsBundleOf(cleanup.Keep, bundle.Name) {
			continue
		}
		err := api.DeleteCertificateBundle(ctx, bundle.ID)
		switch {
		case errors.Is(err, cloud.ErrInUse):
			used = append(used, bundle)
		case err != nil:
			return nil, err
		}
	}
	return used, nil
}

// deleteAllBundles deletes the certificate bundles of a Service that is about to go. A bundle that another load balancer uses does not
// keep the Service: it stays in the account, where upcloud-doctor finds it. A bundle that no load balancer uses any more, and that the
// API does not delete yet, is tried again.
func (l *LoadBalancers) deleteAllBundles(ctx context.Context, service *v1.Service, identity plan.Identity) error {
	used, err := deleteBundles(ctx, l.config.Cloud, plan.BundleCleanup{Identity: identity})
	if err != nil {
		return err
	}
	for _, bundle := range used {
		users, err := l.bundleUsers(ctx, bundle.ID)
		if err != nil {
			return err
		}
		if len(users) == 0 {
			return fmt.Errorf("certificate bundle %s (%s) is still in use by a load balancer that is being changed", bundle.ID, bundle.Name)
		}
		l.warn(service, "CertificateInUse", "Certificate bundle %s (%s) stays in the account: %s uses it; remove it there, then delete it "+
			"with upcloud-doctor load-balancers", bundle.ID, bundle.Name, strings.Join(users, ", "))
	}
	return nil
}

// bundleUsers names the load balancers of the account that use a certificate bundle. Those that are about to go do not count.
func (l *LoadBalancers) bundleUsers(ctx context.Context, id string) ([]string, error) {
	all, err := l.config.Cloud.LoadBalancers(ctx, nil)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, lb := range all {
		if !lb.State.Deleting() && presents(&lb, id) {
			users = append(users, fmt.Sprintf("load balancer %s (%s)", lb.ID, lb.Name))
		}
	}
	return users, nil
}

// presents says whether a load balancer uses a certificate bundle.
func presents(lb *cloud.LoadBalancer, id string) bool {
	has := func(configs []cloud.TLSConfig) bool {
		return slices.ContainsFunc(configs, func(t cloud.TLSConfig) bool { return strings.EqualFold(t.BundleID, id) })
	}
	return slices.ContainsFunc(lb.Frontends, func(f cloud.Frontend) bool { return has(f.TLSConfigs) }) ||
		slices.ContainsFunc(lb.Backends, func(b cloud.Backend) bool { return has(b.TLSConfigs) })
}
