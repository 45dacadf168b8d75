// Package providerid knows how a Node names its UpCloud server in spec.providerID, and nothing else.
package providerid

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// Scheme is the cloud provider's name, and with that the scheme of its provider IDs.
const Scheme = "upcloud"

// ForeignError says that a provider ID belongs to another cloud, so that the node is none of ours.
type ForeignError struct{ ProviderID string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("provider ID %q is not UpCloud's", e.ProviderID)
}

// New returns the provider ID of a server, as UpCloud's own CCM writes it: with four slashes. The field of a Node cannot be
// changed later, so this form must never change.
func New(serverID string) string { return Scheme + ":////" + serverID }

// Parse returns the server's UUID, in lower case. It accepts two to four slashes and a bare UUID, which kubelets were
// configured with. A provider ID of another scheme gives a *ForeignError; ours with anything but a UUID is an error.
func Parse(providerID string) (serverID string, err error) {
	rest, ours := strings.CutPrefix(providerID, Scheme+"://")
	switch {
	case ours:
		rest = strings.TrimPrefix(strings.TrimPrefix(rest, "/"), "/")
	case strings.Contains(providerID, ":"):
		return "", &ForeignError{ProviderID: providerID}
	}
	if len(rest) == 36 { // uuid.Parse takes other forms too: braces, urn:uuid:, no dashes
		if id, err := uuid.Parse(rest); err == nil {
			return id.String(), nil
		}
	}
	if !ours {
		return "", &ForeignError{ProviderID: providerID}
	}
	return "", fmt.Errorf("provider ID %q: want %s:////UUID with the server's UUID", providerID, Scheme)
}
