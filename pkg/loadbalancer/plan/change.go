package plan

import (
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
	DeleteBundles *BundleCleanup
}

// BundleCleanup says which certificate bundles of a Service are not to be deleted.
type BundleCleanup struct {
	Identity Identity
	Keep     []string
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
