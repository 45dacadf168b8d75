// Command vulncheck decides what a report of govulncheck means for the project: it fails on every known vulnerability that the
// programs call and that has a fix upstream, unless a reviewed exception covers it. The report is read from standard input, as
// govulncheck -format json writes it (golang.org/x/vuln/internal/govulncheck, protocol version v1.0.0).
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: vulncheck EXCEPTIONS <REPORT")
		os.Exit(2)
	}
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = run(os.Stdin, os.Stdout, string(text), time.Now())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vulncheck:", err)
		os.Exit(1)
	}
}

// run writes what it found to out. The error says why the check fails.
func run(report io.Reader, out io.Writer, exceptions string, now time.Time) error {
	allowed, err := parseExceptions(exceptions)
	if err != nil {
		return err
	}
	found, err := parseReport(report)
	if err != nil {
		return err
	}
	var faults []string
	for _, each := range found {
		switch exception, ok := allowed[each.id]; {
		case !each.called:
			fmt.Fprintf(out, "not called: %s\n", each)
		case each.fixed == "":
			fmt.Fprintf(out, "called, without a fix upstream: %s\n", each)
		case !ok:
			faults = append(faults, "called, and fixed upstream: "+each.String())
		case now.After(exception.until):
			faults = append(faults, fmt.Sprintf("the exception for %s ended on %s", each, exception.until.Format(time.DateOnly)))
		default:
			fmt.Fprintf(out, "excepted until %s: %s: %s\n", exception.until.Format(time.DateOnly), each, exception.why)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(allowed)) {
		if !slices.ContainsFunc(found, func(v vulnerability) bool { return v.id == id && v.called && v.fixed != "" }) {
			faults = append(faults, "the exception for "+id+" is not needed any more; remove it")
		}
	}
	if len(faults) > 0 {
		return errors.New(strings.Join(faults, "\n"))
	}
	fmt.Fprintf(out, "vulncheck: no known vulnerability is called that is fixed upstream (%d are in what the programs are built of)\n", len(found))
	return nil
}

// vulnerability is one entry of the database (GO-2026-6094) that concerns one module of the programs.
type vulnerability struct {
	id, module, version, fixed string
	called                     bool // a function of it can be reached from the programs
	function                   string
}

func (v vulnerability) String() string {
	text := fmt.Sprintf("%s in %s %s", v.id, v.module, v.version)
	if v.function != "" {
		text += ", function " + v.function
	}
	if v.fixed != "" {
		text += ", fixed in " + v.fixed
	}
	return text
}

// message is one value of govulncheck's stream. Kinds that do not matter here are left out.
type message struct {
	Config  *struct{} `json:"config"`
	SBOM    *struct{} `json:"SBOM"`
	Finding *struct {
		OSV          string `json:"osv"`
		FixedVersion string `json:"fixed_version"`
		Trace        []struct {
			Module, Version, Package, Function string
		} `json:"trace"`
	} `json:"finding"`
}

// parseReport returns the vulnerabilities of a report, one for each ID and module, sorted by ID. A report without its beginning or
// without a list of what was looked at is an error: it says nothing about the programs.
func parseReport(report io.Reader) ([]vulnerability, error) {
	var found []vulnerability
	var config, looked bool
	for decoder := json.NewDecoder(report); ; {
		var m message
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("invalid report of govulncheck: %w", err)
		}
		config = config || m.Config != nil
		looked = looked || m.SBOM != nil
		if m.Finding == nil || len(m.Finding.Trace) == 0 {
			continue
		}
		at := m.Finding.Trace[0]
		i := slices.IndexFunc(found, func(v vulnerability) bool { return v.id == m.Finding.OSV && v.module == at.Module })
		if i < 0 {
			i = len(found)
			found = append(found, vulnerability{id: m.Finding.OSV, module: at.Module, version: at.Version, fixed: m.Finding.FixedVersion})
		}
		if at.Function != "" {
			found[i].called, found[i].function = true, at.Package+"."+at.Function
		}
	}
	if !config || !looked {
		return nil, errors.New("invalid report of govulncheck: it does not say what was looked at; see what govulncheck printed before")
	}
	slices.SortFunc(found, func(a, b vulnerability) int { return strings.Compare(a.id+a.module, b.id+b.module) })
	return found, nil
}

// exception is a line of the exceptions' file: ID UNTIL WHY.
type exception struct {
	until time.Time
	why   string
}

func parseExceptions(text string) (map[string]exception, error) {
	allowed := map[string]exception{}
	for i, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, " ", 3)
		if len(fields) < 3 || !strings.HasPrefix(fields[0], "GO-") {
			return nil, fmt.Errorf("invalid exception in line %d: must be ID UNTIL WHY, as in GO-2026-1234 2027-01-31 not reachable, as ...", i+1)
		}
		until, err := time.Parse(time.DateOnly, fields[1])
		if err != nil {
			return nil, fmt.Errorf("invalid exception in line %d: invalid date %q: must be like 2027-01-31", i+1, fields[1])
		}
		if _, ok := allowed[fields[0]]; ok {
			return nil, fmt.Errorf("invalid exception in line %d: %s is there twice; remove one", i+1, fields[0])
		}
		allowed[fields[0]] = exception{until: until, why: fields[2]}
	}
	return allowed, nil
}
