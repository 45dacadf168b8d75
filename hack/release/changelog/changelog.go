// Package changelog reads a file in the form of Keep a Changelog (keepachangelog.com).
package changelog

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// Unreleased is the name of the section for what no release has yet.
const Unreleased = "Unreleased"

// Section is what the file says of a version.
type Section struct {
	// Version is as the heading has it, without a v, or Unreleased.
	Version string
	// Date is the heading's, "" for Unreleased.
	Date string
	// Text is what stands below the heading.
	Text string
	// Line is the heading's.
	Line int
}

// Empty says whether the section tells of no change.
func (s Section) Empty() bool {
	for _, line := range strings.Split(s.Text, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// heading is that of a section: ## [1.2.3] - 2026-05-01
var heading = regexp.MustCompile(`^## \[([^\]]+)\](?: - (\S+))?( \[YANKED\])?\s*$`)

// date is one as the headings have it.
var date = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`)

// Parse reads the sections, which are in the order of the file. The error has a line for each that is not of the form.
func Parse(content string) (sections []Section, err error) {
	var problems []error
	for n, line := range strings.Split(strings.ReplaceAll(content, "\r\n", "\n"), "\n") {
		if !strings.HasPrefix(line, "## ") {
			if len(sections) > 0 {
				sections[len(sections)-1].Text += line + "\n"
			}
			continue
		}
		match := heading.FindStringSubmatch(line)
		section := Section{Line: n + 1}
		switch {
		case match == nil:
			problems = append(problems, fmt.Errorf("line %d: %q is no heading of a version: write ## [1.2.3] - 2026-05-01", n+1, line))
		case match[1] == Unreleased && match[2] != "":
			problems = append(problems, fmt.Errorf("line %d: what is not released has no date", n+1))
		case match[1] != Unreleased && !date.MatchString(match[2]):
			problems = append(problems, fmt.Errorf("line %d: %q has no date: write ## [%s] - 2026-05-01", n+1, line, match[1]))
		default:
			section.Version, section.Date = match[1], match[2]
		}
		for _, each := range sections {
			if each.Version != "" && each.Version == section.Version {
				problems = append(problems, fmt.Errorf("line %d: %s has a section at line %d, too", n+1, section.Version, each.Line))
			}
		}
		sections = append(sections, section)
	}
	for i := range sections {
		sections[i].Text = strings.Trim(sections[i].Text, "\n")
	}
	return sections, errors.Join(problems...)
}

// Find is the section of a version.
func Find(sections []Section, version string) (Section, bool) {
	for _, each := range sections {
		if each.Version == version {
			return each, true
		}
	}
	return Section{}, false
}

// Release turns what is not released into the section of a version, below a new and empty one.
func Release(content, version, date string) (string, error) {
	sections, err := Parse(content)
	if err != nil {
		return "", err
	}
	if _, found := Find(sections, version); found {
		return content, nil
	}
	unreleased, found := Find(sections, Unreleased)
	if !found || unreleased.Empty() {
		return "", fmt.Errorf("it has nothing below ## [%s] that version %s could bring", Unreleased, version)
	}
	before := "## [" + Unreleased + "]"
	return strings.Replace(content, before, fmt.Sprintf("%s\n\n## [%s] - %s", before, version, date), 1), nil
}
