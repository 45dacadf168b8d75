package instances

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// networkChoice is Config.PrivateNetworks, understood.
type networkChoice struct {
	ids      []string
	names    []string
	prefixes []netip.Prefix
}

func parseNetworks(texts []string) (networkChoice, error) {
	var choice networkChoice
	for _, text := range texts {
		switch {
		case text == "":
			return networkChoice{}, fmt.Errorf("an entry is empty: want a private network's UUID, name or prefix")
		case strings.Contains(text, "/"):
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return networkChoice{}, fmt.Errorf("%q is no prefix: want one as 10.0.0.0/24, or a private network's UUID or name", text)
			}
			choice.prefixes = append(choice.prefixes, prefix.Masked())
		default:
			if id, err := uuid.Parse(text); err == nil && len(text) == 36 {
				choice.ids = append(choice.ids, id.String())
				continue
			}
			choice.names = append(choice.names, text)
		}
	}
	return choice, nil
}

// ValidatePrivateNetworks says what is wrong with Config.PrivateNetworks.
func ValidatePrivateNetworks(texts []string) error {
	_, err := parseNetworks(texts)
	return err
}

// chosen leaves out the private addresses that are not on a chosen network. No choice is every network; with a choice, a
// server without an address on one of them is an error, as any other address would be a guess.
func (i *Instances) chosen(ctx context.Context, addresses []cloud.Address) ([]cloud.Address, error) {
	choice := i.networks
	if len(choice.ids)+len(choice.names)+len(choice.prefixes) == 0 {
		return addresses, nil
	}
	ids := slices.Clone(choice.ids)
	for _, name := range choice.names {
		named, err := i.cloud.NetworksNamed(ctx, name)
		if err != nil {
			return nil, err
		}
		ids = append(ids, named...)
	}
	var kept []cloud.Address
	found := false
	for _, address := range addresses {
		if address.Access == "private" {
			inPrefix := func(p netip.Prefix) bool { return p.Contains(address.IP.Unmap()) }
			if !slices.Contains(ids, address.NetworkID) && !slices.ContainsFunc(choice.prefixes, inPrefix) {
				continue
			}
			found = true
		}
		kept = append(kept, address)
	}
	if !found {
		return nil, fmt.Errorf("none of the server's addresses (%s) is on one of the private networks %s: attach the server to one of "+
			"them, or add its network to data.nodePrivateNetworks", join(addresses), strings.Join(i.config.PrivateNetworks, ", "))
	}
	return kept, nil
}
