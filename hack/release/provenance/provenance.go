// Package provenance writes how a release was made, as an in-toto statement with SLSA's predicate. The statement is not signed: whoever
// publishes the release signs it.
package provenance

import (
	"encoding/json"
	"fmt"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/hack/release/debian"
)

// Subject is a file or an image of the release.
type Subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// Build is what a release was made of, and by what.
type Build struct {
	// Type is where the way of building is described, and Builder who built, each an URI.
	Type, Builder string
	// Repository and Commit are what was built.
	Repository, Commit string
	// Parameters are those that the build was called with.
	Parameters map[string]string
	// Toolchain is the Go that was used, as go1.26.0.
	Toolchain string
	Packages  []debian.Package
}

type statement struct {
	Type          string    `json:"_type"`
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

type predicate struct {
	BuildDefinition struct {
		BuildType            string               `json:"buildType"`
		ExternalParameters   map[string]string    `json:"externalParameters"`
		ResolvedDependencies []resourceDescriptor `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID string `json:"id"`
		} `json:"builder"`
	} `json:"runDetails"`
}

type resourceDescriptor struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest,omitempty"`
}

// Statement is the provenance of the subjects. No time is in it, so that a second build gives the same.
func Statement(b Build, subjects []Subject) ([]byte, error) {
	s := statement{Type: "https://in-toto.io/Statement/v1", Subject: subjects, PredicateType: "https://slsa.dev/provenance/v1"}
	s.Predicate.BuildDefinition.BuildType = b.Type
	s.Predicate.BuildDefinition.ExternalParameters = b.Parameters
	s.Predicate.RunDetails.Builder.ID = b.Builder
	dependencies := []resourceDescriptor{
		{URI: "git+" + b.Repository, Digest: map[string]string{"gitCommit": b.Commit}},
		{URI: "pkg:golang/toolchain@" + b.Toolchain},
	}
	for _, p := range b.Packages {
		dependencies = append(dependencies, resourceDescriptor{
			URI:    fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", p.Name, p.Version, p.Architecture),
			Digest: map[string]string{"sha256": p.SHA256},
		})
	}
	s.Predicate.BuildDefinition.ResolvedDependencies = dependencies
	out, err := json.MarshalIndent(s, "", "  ")
	return append(out, '\n'), err
}
