package suite

import (
	"encoding/xml"
	"fmt"
	"os"
	"strings"
)

// The states of specs, as ginkgo names them.
const (
	statusPassed  = "passed"
	statusSkipped = "skipped"
)

// specsOf begins the names of the specs that are looked at.
const specsOf = "[sig-network] LoadBalancers"

// itPrefix is ginkgo's mark of a spec, beside those of what is done before and after all specs.
const itPrefix = "[It] "

// report is a JUnit file, as ginkgo writes it.
type report struct {
	XMLName  xml.Name    `xml:"testsuites"`
	Tests    int         `xml:"tests,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Errors   int         `xml:"errors,attr"`
	Failures int         `xml:"failures,attr"`
	Time     float64     `xml:"time,attr"`
	Suites   []testSuite `xml:"testsuite"`
}

type testSuite struct {
	Name      string     `xml:"name,attr"`
	Package   string     `xml:"package,attr"`
	Tests     int        `xml:"tests,attr"`
	Skipped   int        `xml:"skipped,attr"`
	Errors    int        `xml:"errors,attr"`
	Failures  int        `xml:"failures,attr"`
	Time      float64    `xml:"time,attr"`
	Timestamp string     `xml:"timestamp,attr,omitempty"`
	Cases     []testCase `xml:"testcase"`
}

type testCase struct {
	Name      string   `xml:"name,attr"`
	Class     string   `xml:"classname,attr"`
	Status    string   `xml:"status,attr"`
	Time      float64  `xml:"time,attr"` // seconds
	Skipped   *message `xml:"skipped"`
	Error     *message `xml:"error"`
	Failure   *message `xml:"failure"`
	SystemErr string   `xml:"system-err,omitempty"`
}

type message struct {
	Message string `xml:"message,attr,omitempty"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// spec is the name that the suite gives it.
func (c testCase) spec() string { return strings.TrimPrefix(c.Name, itPrefix) }

// said is what there is to read of a spec that did not pass.
func (c testCase) said() string {
	for _, m := range []*message{c.Failure, c.Error, c.Skipped} {
		if m != nil {
			return strings.TrimSpace(m.Message + " " + m.Text)
		}
	}
	return "nothing is said of it"
}

// readReport reads the cases of the load balancers' specs, and those of what is done before and after all specs if they failed.
func readReport(path string) (specs, around []testCase, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	var r report
	if err := xml.Unmarshal(text, &r); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, suite := range r.Suites {
		for _, c := range suite.Cases {
			switch {
			case strings.HasPrefix(c.Name, itPrefix+specsOf):
				specs = append(specs, c)
			case c.Failure != nil || c.Error != nil:
				around = append(around, c)
			}
		}
	}
	return specs, around, nil
}

// writeReport writes the outcomes as a JUnit file: a spec that was left out says why, and one that fails by the list alone
// says that.
func writeReport(path string, outcomes []outcome) error {
	suite := testSuite{Name: "Kubernetes e2e suite: " + specsOf, Package: "test/cluster/suite"}
	for _, o := range outcomes {
		c := o.spec
		switch {
		case o.err != nil && c.Failure == nil && c.Error == nil:
			c.Skipped, c.Failure, c.Status = nil, &message{Text: o.err.Error()}, "failed"
		case o.err == nil && o.reason != "":
			c.Skipped = &message{Message: o.reason}
		}
		suite.Tests++
		suite.Time += c.Time
		switch {
		case c.Failure != nil:
			suite.Failures++
		case c.Error != nil:
			suite.Errors++
		case c.Skipped != nil:
			suite.Skipped++
		}
		suite.Cases = append(suite.Cases, c)
	}
	text, err := xml.MarshalIndent(report{Tests: suite.Tests, Skipped: suite.Skipped, Errors: suite.Errors, Failures: suite.Failures,
		Time: suite.Time, Suites: []testSuite{suite}}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append([]byte(xml.Header), text...), 0o644)
}
