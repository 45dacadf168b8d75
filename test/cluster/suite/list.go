package suite

import (
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

//go:embed left-out.yaml
var leftOutYAML []byte

// leftOut are specs that do not pass for one reason, as left-out.yaml has them.
type leftOut struct {
	Specs   []string           `json:"specs"`
	Why     string             `json:"why"`
	Event   string             `json:"event"`
	Service corev1.ServiceSpec `json:"service"`
	Skip    string             `json:"skip"`
	Long    bool               `json:"long"`
}

// runs tells whether the specs are run at all.
func (l leftOut) runs(short bool) bool { return l.Skip != "" || l.Long && !short }

// parseLeftOut reads the list. Each of its entries has one kind of proof, and no spec is named twice.
func parseLeftOut(text []byte) ([]leftOut, error) {
	var list []leftOut
	if err := yaml.UnmarshalStrict(text, &list); err != nil {
		return nil, fmt.Errorf("left-out.yaml: %w", err)
	}
	var named []string
	for i, entry := range list {
		proofs := 0
		for _, given := range []bool{entry.Event != "", entry.Skip != "", entry.Long} {
			if given {
				proofs++
			}
		}
		if len(entry.Specs) == 0 || entry.Why == "" || proofs != 1 || (entry.Event != "") != (len(entry.Service.Ports) > 0) {
			return nil, fmt.Errorf("left-out.yaml: entry %d: want specs, why, and one of event with service, skip, long", i+1)
		}
		for _, spec := range entry.Specs {
			if slices.Contains(named, spec) {
				return nil, fmt.Errorf("left-out.yaml: entry %d names %q for the second time", i+1, spec)
			}
			named = append(named, spec)
		}
	}
	return list, nil
}

// skipped is the regular expression of the specs that are not run.
func skipped(list []leftOut, short bool) string {
	var names []string
	for _, entry := range list {
		if entry.runs(short) {
			continue
		}
		for _, spec := range entry.Specs {
			names = append(names, regexp.QuoteMeta(spec))
		}
	}
	return strings.Join(names, "|")
}

// outcome is what is to be said of a spec.
type outcome struct {
	spec   testCase
	reason string // why it was left out; empty: it passed, or err says why not
	err    error
}

// judge compares what the suite says of its specs with the list. What is neither passed nor rightly left out is an error of its
// outcome; the error in the answer is of a list that does not fit the suite.
func judge(specs []testCase, list []leftOut, short bool) (outcomes []outcome, err error) {
	if len(specs) == 0 {
		return nil, errors.New("the suite has no specs of load balancers")
	}
	entries := map[string]leftOut{}
	for _, entry := range list {
		for _, spec := range entry.Specs {
			entries[spec] = entry
			if !slices.ContainsFunc(specs, func(s testCase) bool { return s.spec() == spec }) {
				err = errors.Join(err, fmt.Errorf("left-out.yaml names %q, and there is no such spec: correct it or take it off", spec))
			}
		}
	}
	for _, spec := range specs {
		o := outcome{spec: spec}
		entry, listed := entries[spec.spec()]
		switch {
		case listed && !(entry.Long && !short):
			o.reason = entry.Why
			o.err = leftOutRightly(spec, entry)
		case spec.Status != statusPassed:
			o.err = fmt.Errorf("%s: %s", spec.Status, spec.said())
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, err
}

func leftOutRightly(spec testCase, entry leftOut) error {
	switch {
	case spec.Status == statusPassed:
		return errors.New("it passes now: take it off left-out.yaml")
	case spec.Status != statusSkipped:
		return fmt.Errorf("%s: %s", spec.Status, spec.said())
	case entry.Skip != "" && !strings.Contains(spec.said(), entry.Skip):
		return fmt.Errorf("it was skipped with %q, and not with %q", spec.said(), entry.Skip)
	}
	return nil
}
