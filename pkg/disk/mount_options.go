package disk

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"k8s.io/mount-utils"
)

// mountFlags are the flags of a mount, which the kernel shows whenever they are set. The opposite of each is the default.
var mountFlags = map[string]string{
	"nosuid": "suid", "nodev": "dev", "noexec": "exec", "nodiratime": "diratime", "nosymfollow": "symfollow",
}

// impliedFlags are options of mount(8) that set flags.
var impliedFlags = map[string][]string{
	"user": {"nosuid", "nodev", "noexec"}, "users": {"nosuid", "nodev", "noexec"}, "owner": {"nosuid", "nodev"}, "group": {"nosuid", "nodev"},
}

// shownOptions are the options of a filesystem that the kernel shows whenever they are set, and that it does not set by itself. Others
// are hidden, shown in another form, or dropped where the disk does not support them (discard, by XFS): they prove nothing.
var shownOptions = map[string][]string{
	"ext":   {"sync", "dirsync", "lazytime", "discard", "nodelalloc", "nobarrier", "noauto_da_alloc"},
	"xfs":   {"sync", "dirsync", "lazytime", "inode32", "largeio", "swalloc", "wsync", "noalign"},
	"btrfs": {"sync", "dirsync", "lazytime", "nodatacow", "autodefrag", "flushoncommit", "nobarrier"},
}

// hiddenValues are the values of options that the kernel does not show, as they are the default: any other value is shown.
var hiddenValues = map[string]map[string][]string{
	"ext":   {"commit": {"0", "5"}, "data": {"ordered"}},
	"btrfs": {"commit": {"0", "30"}, "compress": {"no", "none"}, "compress-force": {"no", "none"}},
}

// impliedOptions are options by what else the kernel shows them for: an older name, or an option that has them as a consequence.
var impliedOptions = map[string]map[string]string{
	"ext": {"barrier=0": "nobarrier", "data=journal": "nodelalloc"},
	"xfs": {"sync": "wsync"},
}

// splitOptions splits mount options at commas, but not within quotes: an SELinux context has some.
func splitOptions(options []string) []string {
	quoted := false
	return strings.FieldsFunc(strings.Join(options, ","), func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ',' && !quoted
	})
}

// optionConflict says in what a mount differs from one with the options asked for, "" if in nothing that the kernel shows. Whether
// it is read-only is left out.
func optionConflict(m mount.MountInfo, asked []string) string {
	options := splitOptions(asked)
	if difference := flagConflict(m.MountOptions, options); difference != "" {
		return difference
	}
	kind := m.FsType
	if isExt(kind) {
		kind = "ext"
	}
	shown := optionValues(m.SuperOptions)
	wanted := optionValues(options)
	for _, name := range shownOptions[kind] {
		_, want := wanted[name]
		_, has := shown[name]
		implied := slices.ContainsFunc(options, func(option string) bool { return impliedOptions[kind][option] == name })
		if has != want && !(has && implied) {
			return presence(name, want)
		}
	}
	for name, want := range wanted {
		has, visible := shown[name]
		opposite, negated := strings.CutPrefix(name, "no")
		if _, set := shown[opposite]; negated && set {
			return presence(opposite, false)
		}
		hidden, known := hiddenValues[kind][name]
		switch {
		case want == "":
		case visible && !sameValue(name, has, want):
			return name + "=" + want + " was asked for, it has " + name + "=" + has
		case !visible && known && !slices.Contains(hidden, want):
			return presence(name+"="+want, true)
		}
	}
	for name, hidden := range hiddenValues[kind] {
		has, visible := shown[name]
		if _, asked := wanted[name]; visible && !asked && !slices.Contains(hidden, has) {
			return presence(name+"="+has, false)
		}
	}
	return contextConflict(shown, wanted)
}

// contextConflict compares what all files are labelled with for SELinux. Where the kernel has no SELinux, the option is dropped.
func contextConflict(shown, wanted map[string]string) string {
	_, labelled := shown["seclabel"]
	want, asked := wanted["context"]
	has, set := shown["context"]
	switch {
	case asked && !set && labelled:
		return presence("context="+want, true)
	case set && !asked:
		return presence("context="+has, false)
	}
	return ""
}

func presence(option string, asked bool) string {
	if asked {
		return option + " was asked for, it is mounted without"
	}
	return "it is mounted with " + option + ", which was not asked for"
}

// flagConflict compares the flags of a mount with those that the options set.
func flagConflict(shown, options []string) string {
	wanted, access, mixed := map[string]bool{}, "", false
	for _, option := range options {
		for _, flag := range impliedFlags[option] {
			wanted[flag] = true
		}
		switch option {
		case "noatime", "relatime", "strictatime":
			access, mixed = option, mixed || access != ""
		case "atime", "nostrictatime", "norelatime":
			access, mixed = "relatime", mixed || access != ""
		}
		for flag, opposite := range mountFlags {
			if option == flag || option == opposite {
				wanted[flag] = option == flag
			}
		}
	}
	for flag := range mountFlags {
		if slices.Contains(shown, flag) != wanted[flag] {
			return presence(flag, wanted[flag])
		}
	}
	has := "strictatime" // is not shown
	for _, option := range []string{"noatime", "relatime"} {
		if slices.Contains(shown, option) {
			has = option
		}
	}
	if access = orDefault(access, "relatime"); has != access && !mixed { // which of several counts is mount(8)'s to say
		return access + " was asked for, it has " + has
	}
	return ""
}

// optionValues are options by name; the last one of a name counts.
func optionValues(options []string) map[string]string {
	values := make(map[string]string, len(options))
	for _, option := range options {
		name, value, _ := strings.Cut(option, "=")
		values[name] = strings.Trim(value, `"`)
	}
	return values
}

// sameValue tells whether the kernel shows a value in another form: 32768 as 32k, zstd as zstd:3.
func sameValue(name, shown, wanted string) bool {
	switch name {
	case "context", "fscontext", "defcontext", "rootcontext":
		return sortCategories(shown) == sortCategories(wanted)
	case "subvol":
		return path.Clean("/"+shown) == path.Clean("/"+wanted)
	case "subvolid": // 0 stands for the top level
		return shown == wanted || wanted == "0" && shown == "5"
	case "discard": // of btrfs
		return shown == wanted || wanted == "sync" && shown == ""
	case "compress", "compress-force": // level 0 stands for the default one
		wanted = strings.TrimSuffix(wanted, ":0")
	}
	return shown == wanted || strings.HasPrefix(shown, wanted+":") || bytesOf(shown) >= 0 && bytesOf(shown) == bytesOf(wanted)
}

// sortCategories sorts the categories of an SELinux context, which the kernel does, and those who write labels need not
// (OpenShift: "s0:c26,c5").
func sortCategories(context string) string {
	at := strings.LastIndex(context, ":") + 1
	categories := strings.Split(context[at:], ",")
	slices.Sort(categories)
	return context[:at] + strings.Join(categories, ",")
}

// bytesOf reads a number with a suffix for its unit, and returns -1 for anything else.
func bytesOf(text string) int64 {
	shift := strings.Index("kmg", strings.ToLower(text[max(0, len(text)-1):]))
	if text != "" && shift >= 0 {
		text = text[:len(text)-1]
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number < 0 {
		return -1
	}
	return number << (10 * (shift + 1))
}
