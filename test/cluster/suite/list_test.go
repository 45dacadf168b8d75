package suite

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func shippedList(t *testing.T) []leftOut {
	t.Helper()
	list, err := parseLeftOut(leftOutYAML)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestListIsRefused(t *testing.T) {
	const why = `why: "because", `
	for name, text := range map[string]string{
		"unknown field":         `[{specs: [a], ` + why + `long: true, reason: x}]`,
		"no spec":               `[{` + why + `long: true}]`,
		"no why":                `[{specs: [a], long: true}]`,
		"no proof":              `[{specs: [a], ` + why + `}]`,
		"two proofs":            `[{specs: [a], ` + why + `long: true, skip: x}]`,
		"event without service": `[{specs: [a], ` + why + `event: x}]`,
		"service without event": `[{specs: [a], ` + why + `long: true, service: {ports: [{port: 80}]}}]`,
		"twice":                 `[{specs: [a], ` + why + `long: true}, {specs: [b, a], ` + why + `skip: x}]`,
	} {
		if _, err := parseLeftOut([]byte(text)); err == nil {
			t.Errorf("%s: the list is taken", name)
		}
	}
}

func spec(name, status string) testCase {
	c := testCase{Name: itPrefix + name, Status: status}
	switch status {
	case statusSkipped:
		c.Skipped = &message{Message: "skipped"}
	case statusPassed:
	default:
		c.Failure = &message{Text: "it broke"}
	}
	return c
}

func TestJudge(t *testing.T) {
	list := []leftOut{
		{Specs: []string{"udp"}, Why: "no UDP", Event: "UnsupportedProtocol"},
		{Specs: []string{"source"}, Why: "a proxy", Skip: "Proxy"},
		{Specs: []string{"long"}, Why: "too long", Long: true},
	}
	self := spec("source", statusSkipped)
	self.Skipped.Message = "skipped - LoadBalancer uses 'Proxy' IPMode"
	for name, test := range map[string]struct {
		change  func(map[string]testCase)
		short   bool
		failing string // the specs that fail
		misfit  bool
	}{
		"all is well":                    {},
		"all is well in a short run":     {short: true, change: func(c map[string]testCase) { c["long"] = spec("long", statusSkipped) }},
		"one fails":                      {change: func(c map[string]testCase) { c["tcp"] = spec("tcp", "failed") }, failing: "tcp"},
		"one times out":                  {change: func(c map[string]testCase) { c["tcp"] = spec("tcp", "timedout") }, failing: "tcp"},
		"one is skipped without reason":  {change: func(c map[string]testCase) { c["tcp"] = spec("tcp", statusSkipped) }, failing: "tcp"},
		"a long one fails":               {change: func(c map[string]testCase) { c["long"] = spec("long", "failed") }, failing: "long"},
		"a long one is skipped":          {change: func(c map[string]testCase) { c["long"] = spec("long", statusSkipped) }, failing: "long"},
		"one that is left out passes":    {change: func(c map[string]testCase) { c["udp"] = spec("udp", statusPassed) }, failing: "udp"},
		"one skips itself for another":   {change: func(c map[string]testCase) { c["source"] = spec("source", statusSkipped) }, failing: "source"},
		"one that skips itself passes":   {change: func(c map[string]testCase) { c["source"] = spec("source", statusPassed) }, failing: "source"},
		"one that skips itself fails":    {change: func(c map[string]testCase) { c["source"] = spec("source", "panicked") }, failing: "source"},
		"the list names what is no spec": {change: func(c map[string]testCase) { delete(c, "udp") }, misfit: true},
	} {
		cases := map[string]testCase{"tcp": spec("tcp", statusPassed), "udp": spec("udp", statusSkipped), "source": self, "long": spec("long", statusPassed)}
		if test.change != nil {
			test.change(cases)
		}
		var specs []testCase
		for _, c := range cases {
			specs = append(specs, c)
		}
		outcomes, err := judge(specs, list, test.short)
		if (err != nil) != test.misfit {
			t.Errorf("%s: the list's error is %v", name, err)
		}
		var failing []string
		for _, o := range outcomes {
			if o.err != nil {
				failing = append(failing, o.spec.spec())
			}
		}
		if strings.Join(failing, " ") != test.failing {
			t.Errorf("%s: %q fail, want %q", name, failing, test.failing)
		}
	}
	if _, err := judge(nil, nil, false); err == nil {
		t.Error("a suite without specs is well")
	}
}

func TestSkippedSpecs(t *testing.T) {
	list := shippedList(t)
	for _, short := range []bool{false, true} {
		expression := regexp.MustCompile(skipped(list, short))
		for _, entry := range list {
			for _, name := range entry.Specs {
				if expression.MatchString(name) == entry.runs(short) {
					t.Errorf("short %t: %q is skipped: %t", short, name, !entry.runs(short))
				}
			}
		}
		if expression.MatchString(specsOf + " [Feature:LoadBalancer] should be able to change the type and ports of a TCP service [Slow]") {
			t.Errorf("short %t: a spec that is not on the list is skipped", short)
		}
	}
}

func TestReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "junit.xml")
	const suites = `<testsuites><testsuite name="Kubernetes e2e suite">
  <testcase name="[SynchronizedBeforeSuite]" status="failed"><failure type="failed">no cluster</failure></testcase>
  <testcase name="[SynchronizedAfterSuite]" status="passed"/>
  <testcase name="[It] [sig-network] LoadBalancers a" classname="c" status="passed" time="2.5"/>
  <testcase name="[It] [sig-network] LoadBalancers b" status="failed"><failure type="failed">it &lt;broke&gt;</failure></testcase>
  <testcase name="[It] [sig-network] LoadBalancers c" status="skipped"><skipped message="skipped"/></testcase>
  <testcase name="[It] [sig-network] LoadBalancers d" status="passed" time="1"/>
  <testcase name="[It] [sig-network] Services e" status="skipped"><skipped message="skipped"/></testcase>
</testsuite></testsuites>`
	if err := os.WriteFile(path, []byte(suites), 0o600); err != nil {
		t.Fatal(err)
	}
	specs, around, err := readReport(path)
	if err != nil || len(specs) != 4 || len(around) != 1 || around[0].said() != "no cluster" {
		t.Fatalf("specs %v, around %v, error %v", specs, around, err)
	}
	list := []leftOut{{Specs: []string{specsOf + " c", specsOf + " d"}, Why: "no such thing", Event: "x"}}
	outcomes, err := judge(specs, list, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeReport(path, outcomes); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var written report
	if err := xml.Unmarshal(text, &written); err != nil {
		t.Fatal(err)
	}
	if written.Tests != 4 || written.Failures != 2 || written.Skipped != 1 {
		t.Errorf("%d tests, %d failures, %d skipped: want 4, 2, 1\n%s", written.Tests, written.Failures, written.Skipped, text)
	}
	for _, want := range []string{`<failure type="failed">it &lt;broke&gt;</failure>`, `<skipped message="no such thing">`, "it passes now"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report has no %s:\n%s", want, text)
		}
	}
}
