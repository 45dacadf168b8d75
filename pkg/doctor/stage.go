package doctor

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Labels that the doctor puts on what it takes for left behind. Each holds the time by the account's clock, the name of the look that
// put it there, and the word reviewed where a person's plan asked for it: "2026-11-30T20:00:00Z 5f0c2a91 reviewed".
const (
	// LabelLeft marks the first look at which nothing wanted the thing.
	LabelLeft = "upcloud-doctor-left"
	// LabelQuarantine says that the thing is to be removed. Its title says so, too.
	LabelQuarantine = "upcloud-doctor-quarantine"
)

// Stage is how far something is on its way out.
type Stage string

// The stages. Each is left by going on or by restoring; only what is in quarantine is removed.
const (
	StageNone       Stage = ""
	StageMarked     Stage = "marked"
	StageQuarantine Stage = "quarantine"
)

// stage is what the labels of a thing say.
type stage struct {
	Stage
	since    time.Time
	look     string // which look put the label there; the cluster's record has it, too
	reviewed bool
}

var wayOut = regexp.MustCompile(`^(\S+) ([0-9a-f]{8})( reviewed)?$`)

// stageOf reads the labels. What was written otherwise than the doctor writes it says nothing.
func stageOf(labels map[string]string) stage {
	for _, known := range []struct {
		label string
		stage Stage
	}{{LabelQuarantine, StageQuarantine}, {LabelLeft, StageMarked}} {
		found := wayOut.FindStringSubmatch(labels[known.label])
		if found == nil {
			continue
		}
		if since, err := time.Parse(time.RFC3339, found[1]); err == nil {
			return stage{known.stage, since, found[2], found[3] != ""}
		}
	}
	return stage{}
}

func (s stage) value() string {
	text := s.since.UTC().Format(time.RFC3339) + " " + s.look
	if s.reviewed {
		text += " reviewed"
	}
	return text
}

// carriesStage reports whether a thing has a label of the doctor, readable or not.
func carriesStage(labels map[string]string) bool {
	_, renamed := labels[labelNameBefore]
	return renamed || slices.ContainsFunc(slices.Collect(maps.Keys(labels)), isStage)
}

// isStage reports whether the label of that key is a stage.
func isStage(key string) bool { return key == LabelLeft || key == LabelQuarantine }

// put writes the stage into labels, in place of the one that they have.
func (s stage) put(labels map[string]string) {
	delete(labels, LabelLeft)
	delete(labels, LabelQuarantine)
	switch s.Stage {
	case StageMarked:
		labels[LabelLeft] = s.value()
	case StageQuarantine:
		labels[LabelQuarantine] = s.value()
	}
}

// maxStorageTitle is how long the title of a storage may be, in characters.
const maxStorageTitle = 255

var quarantinePrefix = regexp.MustCompile(`^\[to be removed after \d{4}-\d{2}-\d{2}\] `)

// quarantineTitle is what a person sees in the control panel. A title that has no room for it stays as it is.
func quarantineTitle(title string, after time.Time) string {
	prefixed := fmt.Sprintf("[to be removed after %s] %s", after.UTC().Format(time.DateOnly), plainTitle(title))
	if utf8.RuneCountInString(prefixed) > maxStorageTitle {
		return title
	}
	return prefixed
}

// plainTitle is the title without what a quarantine puts before it.
func plainTitle(title string) string {
	return strings.TrimPrefix(title, quarantinePrefix.FindString(title))
}
