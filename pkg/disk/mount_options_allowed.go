package disk

import "strings"

// What mount options that are refused would do.
const (
	changesOthers  = "changes another mount, or how mounts are shared; the driver does that itself"
	between        = "puts something between the disk and the filesystem; the driver mounts the disk itself"
	anotherDevice  = "uses another device or superblock of the node; the driver mounts the volume's disk only"
	withoutJournal = "shows a filesystem without what is in its journal; mount the disk by hand to rescue data"
	changesTarget  = "changes what mount(8) does to the path; the driver does that itself"
	damages        = "takes the filesystem out of use"
	stopsNode      = "stops the whole node when the filesystem has an error; use errors=remount-ro, or nothing"
)

// refusedMountOptions are options, by name, that may not be asked for: they undo what the driver needs, and would do so for every
// volume of a StorageClass. A name that ends in "." is the beginning of names; one with "=" is refused with that value only.
var refusedMountOptions = map[string]string{
	"bind": changesOthers, "rbind": changesOthers, "move": changesOthers, "remount": changesOthers,
	"shared": changesOthers, "slave": changesOthers, "private": changesOthers, "unbindable": changesOthers,
	"rshared": changesOthers, "rslave": changesOthers, "rprivate": changesOthers, "runbindable": changesOthers,
	"make-shared": changesOthers, "make-slave": changesOthers, "make-private": changesOthers, "make-unbindable": changesOthers,
	"loop": between, "offset": between, "sizelimit": between, "encryption": between, "verity.": between,
	"sb": anotherDevice, "journal_dev": anotherDevice, "journal_path": anotherDevice, "logdev": anotherDevice,
	"rtdev": anotherDevice, "device": anotherDevice,
	"noload": withoutJournal, "norecovery": withoutJournal, "nologreplay": withoutJournal, "rescue": withoutJournal,
	"helper": changesTarget, "uhelper": changesTarget, "x-mount.": changesTarget,
	"abort":        damages,
	"errors=panic": stopsNode, "fatal_errors=panic": stopsNode,
}

// ValidateMountOptions tells whether volumes can be mounted with further options, each element one option or several that are
// separated by commas. readOnly says that the volume is for reading only.
func ValidateMountOptions(options []string, readOnly bool) error {
	asked := make(map[string]bool)
	for _, element := range options {
		// mount(8) takes a comma after a backslash, or within quotes, for a part of the option: it would swallow the driver's.
		if strings.ContainsAny(element, "\\\n\x00") || strings.Count(element, `"`)%2 != 0 {
			return fail(ErrInvalid, "invalid mount option %q: must not have a backslash, a line break or a quote without its other", element)
		}
		for _, option := range splitOptions([]string{element}) {
			name, _, _ := strings.Cut(strings.TrimSpace(option), "=")
			asked[name] = true
			beginning, _, _ := strings.Cut(name, ".")
			for _, key := range []string{name, strings.ToLower(beginning) + ".", strings.ReplaceAll(strings.TrimSpace(option), `"`, "")} {
				if why, refused := refusedMountOptions[key]; refused {
					return fail(ErrInvalid, "mount option %q is not allowed, as it %s", option, why)
				}
			}
		}
	}
	switch {
	case asked["ro"] && asked["rw"]:
		return fail(ErrInvalid, "mount options ro and rw contradict each other; remove one")
	case readOnly && asked["rw"]:
		return fail(ErrInvalid, "mount option rw contradicts an access mode for reading only; remove one")
	}
	return nil
}
