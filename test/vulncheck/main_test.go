package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

const (
	beginning = `{"config":{"protocol_version":"v1.0.0"}}{"SBOM":{"go_version":"go1.26.10"}}{"osv":{"id":"GO-2026-0001"}}`
	inModule  = `{"finding":{"osv":"GO-2026-0001","fixed_version":"v1.2.0","trace":[{"module":"example.com/m","version":"v1.0.0"}]}}`
	called    = `{"finding":{"osv":"GO-2026-0001","fixed_version":"v1.2.0","trace":[{"module":"example.com/m","version":"v1.0.0","package":"example.com/m/p","function":"F"},{"module":"example.com/us","package":"example.com/us","function":"main"}]}}`
	notFixed  = `{"finding":{"osv":"GO-2026-0002","trace":[{"module":"example.com/n","version":"v1.0.0","package":"example.com/n","function":"G"}]}}`
)

func TestVulnerabilitiesThatFailTheCheck(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		report, exceptions string
		fails, prints      string
	}{
		"none": {
			report: beginning,
			prints: "no known vulnerability is called",
		},
		"in a module, and not called": {
			report: beginning + inModule,
			prints: "not called: GO-2026-0001 in example.com/m v1.0.0, fixed in v1.2.0",
		},
		"called and fixed": {
			report: beginning + inModule + called,
			fails:  "called, and fixed upstream: GO-2026-0001 in example.com/m v1.0.0, function example.com/m/p.F, fixed in v1.2.0",
		},
		"called before it is known to be in the module": {
			report: beginning + called + inModule,
			fails:  "called, and fixed upstream: GO-2026-0001",
		},
		"called and not fixed": {
			report: beginning + notFixed,
			prints: "called, without a fix upstream: GO-2026-0002",
		},
		"excepted": {
			report:     beginning + called,
			exceptions: "# ID UNTIL WHY\n\nGO-2026-0001 2026-12-31 only at start, on our own input\n",
			prints:     "excepted until 2026-12-31: GO-2026-0001",
		},
		"exception that has ended": {
			report:     beginning + called,
			exceptions: "GO-2026-0001 2026-11-29 only at start",
			fails:      "ended on 2026-11-29",
		},
		"exception for what is not called": {
			report:     beginning + inModule,
			exceptions: "GO-2026-0001 2026-12-31 only at start",
			fails:      "the exception for GO-2026-0001 is not needed any more",
		},
		"exception for another": {
			report:     beginning + called,
			exceptions: "GO-2026-0003 2026-12-31 only at start",
			fails:      "called, and fixed upstream: GO-2026-0001",
		},
		"exception without a reason": {
			report:     beginning,
			exceptions: "GO-2026-0001 2026-12-31",
			fails:      "invalid exception in line 1: must be ID UNTIL WHY",
		},
		"exception with another date": {
			report:     beginning,
			exceptions: "GO-2026-0001 31.12.2026 only at start",
			fails:      `invalid date "31.12.2026"`,
		},
		"the same exception twice": {
			report:     beginning,
			exceptions: "GO-2026-0001 2026-12-31 a\nGO-2026-0001 2027-12-31 b",
			fails:      "line 2: GO-2026-0001 is there twice",
		},
		"report that is cut off": {
			report: beginning + called[:40],
			fails:  "invalid report of govulncheck",
		},
		"empty report": {
			fails: "it does not say what was looked at",
		},
		"report without what was looked at": {
			report: `{"config":{"protocol_version":"v1.0.0"}}`,
			fails:  "it does not say what was looked at",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			err := run(strings.NewReader(c.report), &out, c.exceptions, now)
			switch {
			case c.fails == "" && err != nil:
				t.Errorf("fails: %v", err)
			case c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)):
				t.Errorf("error %v, want %q", err, c.fails)
			}
			if !strings.Contains(out.String(), c.prints) {
				t.Errorf("printed %q, want %q in it", out.String(), c.prints)
			}
		})
	}
}
