package loadbalancer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Change is one API call on one component of a load balancer. Which one is said by the one field that is set beside Name and
// Owner.
type Change struct {
	Name  string         // of the component
	Owner cloud.TLSOwner // of a rule or a TLS configuration

	CreateLabel, ModifyLabel *string // the value
	DeleteLabel              bool

	ModifyLoad     *cloud.LoadBalancerPatch
	CreateFrontend *cloud.Frontend
	ModifyFrontend *cloud.FrontendPatch
	DeleteFrontend bool
	RenameFrontend string // what to; of shared load balancers

	CreateRule, ReplaceRule *cloud.Rule
	DeleteRule              bool

	CreateTLS, ModifyTLS *cloud.TLSConfig
	DeleteTLS            bool

	CreateBackend *cloud.Backend
	ModifyBackend *cloud.BackendPatch
	DeleteBackend bool

	CreateResolver, ReplaceResolver *cloud.Resolver
	DeleteResolver                  bool

	AttachAddress *cloud.FloatingAddress
	DetachAddress bool

	// DeleteBundles deletes the certificate bundles made for the Service of that UID, but for those named.
	DeleteBundles *bundleCleanup
}

type bundleCleanup struct {
	serviceUID string
	keep       []string
}

// String is for logs and tests.
func (c Change) String() string {
	switch {
	case c.CreateLabel != nil:
		return fmt.Sprintf("create label %s=%s", c.Name, *c.CreateLabel)
	case c.ModifyLabel != nil:
		return fmt.Sprintf("modify label %s=%s", c.Name, *c.ModifyLabel)
	case c.DeleteLabel:
		return "delete label " + c.Name
	case c.ModifyLoad != nil:
		return "modify load balancer" + loadPatchText(*c.ModifyLoad)
	case c.CreateFrontend != nil:
		return fmt.Sprintf("create frontend %s :%d", c.Name, c.CreateFrontend.Port)
	case c.ModifyFrontend != nil:
		return fmt.Sprintf("modify frontend %s%s", c.Name, frontendPatchText(*c.ModifyFrontend))
	case c.DeleteFrontend:
		return "delete frontend " + c.Name
	case c.RenameFrontend != "":
		return fmt.Sprintf("rename frontend %s to %s", c.Name, c.RenameFrontend)
	case c.CreateRule != nil, c.ReplaceRule != nil, c.DeleteRule:
		return fmt.Sprintf("%s rule %s of frontend %s", verb(c.CreateRule != nil, c.ReplaceRule != nil), c.Name, c.Owner.Frontend)
	case c.CreateTLS != nil, c.ModifyTLS != nil, c.DeleteTLS:
		return fmt.Sprintf("%s TLS configuration %s of %s", verb(c.CreateTLS != nil, c.ModifyTLS != nil), c.Name, ownerText(c.Owner))
	case c.CreateBackend != nil:
		return fmt.Sprintf("create backend %s (%d members)", c.Name, len(c.CreateBackend.Members))
	case c.ModifyBackend != nil:
		return "modify backend " + c.Name + backendPatchText(*c.ModifyBackend)
	case c.DeleteBackend:
		return "delete backend " + c.Name
	case c.CreateResolver != nil, c.ReplaceResolver != nil, c.DeleteResolver:
		return verb(c.CreateResolver != nil, c.ReplaceResolver != nil) + " resolver " + c.Name
	case c.AttachAddress != nil:
		return "attach address " + c.Name
	case c.DetachAddress:
		return "detach address " + c.Name
	case c.DeleteBundles != nil:
		return "delete certificate bundles that are not used"
	}
	return "nothing on " + c.Name
}

func verb(create, modify bool) string {
	switch {
	case create:
		return "create"
	case modify:
		return "modify"
	}
	return "delete"
}

func ownerText(owner cloud.TLSOwner) string {
	if owner.Frontend != "" {
		return "frontend " + owner.Frontend
	}
	return "backend " + owner.Backend
}

func loadPatchText(patch cloud.LoadBalancerPatch) string {
	var text string
	for _, pair := range [][2]string{
		{"name", patch.Name}, {"plan", patch.Plan}, {"status", patch.ConfiguredStatus}, {"maintenance day", patch.MaintenanceDay},
		{"maintenance time", patch.MaintenanceTime},
	} {
		if pair[1] != "" {
			text += " " + pair[0] + "=" + pair[1]
		}
	}
	return text
}

func frontendPatchText(patch cloud.FrontendPatch) string {
	var text string
	if patch.Mode != "" {
		text += " " + patch.Mode
	}
	if patch.Port != 0 {
		text += fmt.Sprintf(" :%d", patch.Port)
	}
	if patch.DefaultBackend != "" {
		text += " -> " + patch.DefaultBackend
	}
	for _, network := range patch.Networks {
		text += " " + network.Name
	}
	return text + propertiesText(patch.Properties)
}

func backendPatchText(patch cloud.BackendPatch) string {
	var text string
	if patch.Members != nil {
		text += fmt.Sprintf(" (%d members)", len(patch.Members))
	}
	if patch.Resolver != nil {
		text += " resolver " + *patch.Resolver
	}
	return text + propertiesText(patch.Properties)
}

func propertiesText(properties cloud.Properties) string {
	if properties == nil {
		return ""
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		all = append(all, fmt.Sprintf("%s:%v", name, properties[name]))
	}
	return " {" + strings.Join(all, " ") + "}"
}

// do makes the call.
func (c Change) do(ctx context.Context, api *cloud.Cloud, id string) error {
	switch {
	case c.CreateLabel != nil:
		return api.CreateLoadBalancerLabel(ctx, id, c.Name, *c.CreateLabel)
	case c.ModifyLabel != nil:
		return api.ModifyLoadBalancerLabel(ctx, id, c.Name, *c.ModifyLabel)
	case c.DeleteLabel:
		return api.DeleteLoadBalancerLabel(ctx, id, c.Name)
	case c.ModifyLoad != nil:
		return api.ModifyLoadBalancer(ctx, id, *c.ModifyLoad)
	case c.CreateFrontend != nil:
		return api.CreateFrontend(ctx, id, *c.CreateFrontend)
	case c.ModifyFrontend != nil:
		return api.ModifyFrontend(ctx, id, c.Name, *c.ModifyFrontend)
	case c.DeleteFrontend:
		return api.DeleteFrontend(ctx, id, c.Name)
	case c.CreateRule != nil:
		return api.CreateRule(ctx, id, c.Owner.Frontend, *c.CreateRule)
	case c.ReplaceRule != nil:
		return api.ReplaceRule(ctx, id, c.Owner.Frontend, *c.ReplaceRule)
	case c.DeleteRule:
		return api.DeleteRule(ctx, id, c.Owner.Frontend, c.Name)
	case c.CreateTLS != nil:
		return api.CreateTLSConfig(ctx, id, c.Owner, *c.CreateTLS)
	case c.ModifyTLS != nil:
		return api.ModifyTLSConfig(ctx, id, c.Owner, c.Name, *c.ModifyTLS)
	case c.DeleteTLS:
		return api.DeleteTLSConfig(ctx, id, c.Owner, c.Name)
	}
	return c.doRest(ctx, api, id)
}

func (c Change) doRest(ctx context.Context, api *cloud.Cloud, id string) error {
	switch {
	case c.CreateBackend != nil:
		return api.CreateBackend(ctx, id, *c.CreateBackend)
	case c.ModifyBackend != nil:
		return api.ModifyBackend(ctx, id, c.Name, *c.ModifyBackend)
	case c.DeleteBackend:
		return api.DeleteBackend(ctx, id, c.Name)
	case c.CreateResolver != nil:
		return api.CreateResolver(ctx, id, *c.CreateResolver)
	case c.ReplaceResolver != nil:
		return api.ReplaceResolver(ctx, id, *c.ReplaceResolver)
	case c.DeleteResolver:
		return api.DeleteResolver(ctx, id, c.Name)
	case c.AttachAddress != nil:
		return api.AttachFloatingAddress(ctx, id, *c.AttachAddress)
	case c.DetachAddress:
		return api.DetachFloatingAddress(ctx, id, c.Name)
	case c.DeleteBundles != nil:
		return deleteBundles(ctx, api, *c.DeleteBundles)
	}
	return nil
}
