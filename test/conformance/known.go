package main

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

//go:embed known-differences.yaml
var knownDifferences []byte

// known is what is known to differ from the real API, each with its reason.
type known struct {
	Tests      []knownTest       `json:"tests"`
	Recordings []knownDifference `json:"recordings"`
}

type knownTest struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// knownDifference is one difference that a replay finds, or several of the same cause.
type knownDifference struct {
	Recording string `json:"recording"`
	Request   string `json:"request"` // how the request's line begins: method, path
	Path      string `json:"path"`    // in the answer; empty: whatever differs
	Reason    string `json:"reason"`
}

func readKnown() (*known, error) {
	var k known
	if err := yaml.UnmarshalStrict(knownDifferences, &k); err != nil {
		return nil, fmt.Errorf("known-differences.yaml: %w", err)
	}
	for _, t := range k.Tests {
		if t.Name == "" || t.Reason == "" {
			return nil, fmt.Errorf("known-differences.yaml: the test %q needs a name and a reason", t.Name)
		}
	}
	for _, d := range k.Recordings {
		if d.Recording == "" || d.Request == "" || d.Reason == "" {
			return nil, fmt.Errorf("known-differences.yaml: the difference in %q needs recording, request and reason", d.Recording)
		}
	}
	return &k, nil
}

// test returns why a test is known to fail; empty: it is not.
func (k *known) test(name string) string {
	for _, t := range k.Tests {
		if t.Name == name {
			return t.Reason
		}
	}
	return ""
}

// speaksOf says whether something in the recording is known to differ.
func (k *known) speaksOf(recording string) bool {
	return slices.ContainsFunc(k.Recordings, func(d knownDifference) bool { return d.Recording == recording })
}

// recording returns why an answer is known to differ there; empty: it is not.
func (k *known) recording(name string, d difference) string {
	for _, known := range k.Recordings {
		if known.Recording == name && strings.HasPrefix(d.request, known.Request) &&
			(known.Path == "" || known.Path == canonical(d.path)) {
			return known.Reason
		}
	}
	return ""
}
