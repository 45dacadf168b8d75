package driver

import (
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// maxText is how many characters a title or the value of a label can have.
const maxText = 255

// checkName tells whether a name, or a text that comes with a request, can become a title and the value of a label.
func checkName(field, name string) error {
	if name == "" {
		return missing(field)
	}
	return checkText(field, name)
}

func checkText(field, text string) error {
	if n := utf8.RuneCountInString(text); n > maxText {
		return invalid(field, "invalid text of %d characters: must have at most %d", n, maxText)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return invalid(field, "invalid text %q: must have printable characters only", text)
	}
	return nil
}

// checkPath tells whether a path can be mounted at. The root folder is none: taking down a volume there would take down
// the node.
func checkPath(field, path string) error {
	switch {
	case path == "":
		return missing(field)
	case !filepath.IsAbs(path) || filepath.Clean(path) == "/" || strings.ContainsRune(path, 0):
		return invalid(field, "invalid path %q: must be an absolute path below /", path)
	case slices.Contains(strings.Split(path, "/"), ".."):
		return invalid(field, "invalid path %q: must not contain ..; give the path that it leads to", path)
	}
	return nil
}

// checkVolumeID tells whether the ID can be that of a disk on the node.
func checkVolumeID(id string) error {
	if id == "" {
		return missing("volume_id")
	}
	if _, err := disk.Serial(id); err != nil {
		return invalid("volume_id", "%v", err)
	}
	return nil
}
