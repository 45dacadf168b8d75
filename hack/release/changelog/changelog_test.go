package changelog

import (
	"strings"
	"testing"
)

const sample = `# Changelog

## [Unreleased]

### Added

- a thing

## [0.2.0-rc.1] - 2026-05-01

### Fixed

- another

## [0.1.0] - 2026-01-02 [YANKED]
`

func TestParse(t *testing.T) {
	sections, err := Parse(sample)
	if err != nil || len(sections) != 3 {
		t.Fatalf("%d sections, %v", len(sections), err)
	}
	got, found := Find(sections, "0.2.0-rc.1")
	if !found || got.Date != "2026-05-01" || got.Text != "### Fixed\n\n- another" || got.Line != 9 || got.Empty() {
		t.Errorf("%+v, %v", got, found)
	}
	if old, _ := Find(sections, "0.1.0"); !old.Empty() {
		t.Errorf("a section without changes: %+v", old)
	}
	if _, found := Find(sections, "0.2.0"); found {
		t.Error("0.2.0 is not there")
	}
}

func TestParseSaysWhichLineIsWrong(t *testing.T) {
	for content, want := range map[string]string{
		"## 1.0.0":                     `line 1: "## 1.0.0" is no heading of a version`,
		"\n## [1.0.0]":                 "line 2: \"## [1.0.0]\" has no date",
		"## [1.0.0] - 1 May":           "line 1: \"## [1.0.0] - 1 May\" is no heading",
		"## [1.0.0] - 01-05-2026":      "has no date",
		"## [Unreleased] - 2026-01-01": "what is not released has no date",
		"## [1.0.0] - 2026-01-01\n## [1.0.0] - 2026-01-02": "line 2: 1.0.0 has a section at line 1, too",
	} {
		if _, err := Parse(content); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: want an error with %q, got %v", content, want, err)
		}
	}
}

func TestRelease(t *testing.T) {
	got, err := Release(sample, "0.3.0", "2026-06-01")
	if err != nil || !strings.Contains(got, "## [Unreleased]\n\n## [0.3.0] - 2026-06-01\n\n### Added\n\n- a thing\n\n## [0.2.0-rc.1]") {
		t.Errorf("%v\n%s", err, got)
	}
	if again, err := Release(got, "0.3.0", "2026-06-02"); err != nil || again != got {
		t.Errorf("a second time changes it: %v\n%s", err, again)
	}
	if _, err := Release(got, "0.4.0", "2026-06-01"); err == nil {
		t.Error("a version without changes is written")
	}
}
