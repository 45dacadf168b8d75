package disk

import (
	"slices"
	"strings"
)

// optionSet is what may be asked of an mkfs program: its options by name ("-b", "--label"). Everything else is refused:
// options that overwrite what is there, try only, use another device or a file of the node, leave a part of the disk out,
// or make another type of filesystem. It comes from an administrator's StorageClass, but is the same for every volume.
type optionSet map[string]option

type option struct {
	flag bool // has no value
	// deny are settings within the value (a list of name=value) that are refused.
	deny []string
	// allow, if not nil, are the only settings that the value may have.
	allow []string
}

var value = option{}

// mkfs.ext4(8). Not -c, -D, -F, -l, -n, -S, -t, -d, -o, -q, -v, and no external or moved journal.
var extOptions = optionSet{
	"-b": value, "-C": value, "-g": value, "-G": value, "-i": value, "-I": value, "-L": value, "-m": value, "-N": value,
	"-T": value, "-U": value, "-e": value,
	"-E": {deny: []string{"offset", "discard", "root_selinux", "android_sparse"}},
	"-J": {allow: []string{"size", "fast_commit_size"}},
	"-O": {deny: []string{"journal_dev"}},
}

// mkfs.xfs(8). Not -f, -N, -p, -c, -r, and no file, other device or size.
var xfsOptions = optionSet{
	"-b": value, "-m": value, "-i": value, "-n": value, "-s": value, "-L": value,
	"-d": {allow: []string{"agcount", "agsize", "su", "sw", "sunit", "swidth", "noalign", "concurrency", "rtinherit",
		"extszinherit", "cowextsize", "daxinherit"}},
	"-l": {allow: []string{"size", "version", "sunit", "su", "sectsize", "lazy-count", "concurrency"}},
	"-q": {flag: true},
}

// mkfs.btrfs(8). Not -f, -b, -r and no second device.
var btrfsOptions = optionSet{
	"-d": value, "--data": value, "-m": value, "--metadata": value, "-n": value, "--nodesize": value,
	"-s": value, "--sectorsize": value, "-L": value, "--label": value, "-O": value, "--features": value,
	"-R": value, "--runtime-features": value, "-U": value, "--uuid": value, "--csum": value, "--checksum": value,
	"-M": {flag: true}, "--mixed": {flag: true}, "-q": {flag: true}, "--quiet": {flag: true},
}

// ValidateMkfsOptions tells whether volumes of a type of filesystem ("" is the default one) can be formatted with further
// options, given as a command line has them: each option and each value an element, or both in one ("-b4096",
// "--label=x").
func ValidateMkfsOptions(filesystem string, options []string) error {
	filesystem = orDefault(filesystem, DefaultFilesystem)
	if err := ValidateFilesystem(filesystem); err != nil {
		return err
	}
	known := filesystemTypes[filesystem].options
	for len(options) > 0 {
		name, text, joined := splitOption(options[0])
		option, ok := known[name]
		if !ok {
			return fail(ErrInvalid, "mkfs option %q is not allowed for %s: use %s", options[0], filesystem, strings.Join(known.names(), ", "))
		}
		options = options[1:]
		if option.flag {
			if joined {
				return fail(ErrInvalid, "mkfs option %s takes no value, and %q was given", name, text)
			}
			continue
		}
		if !joined {
			if len(options) == 0 {
				return fail(ErrInvalid, "mkfs option %s needs a value", name)
			}
			text, options = options[0], options[1:]
		}
		if err := option.check(name, text); err != nil {
			return err
		}
	}
	return nil
}

func splitOption(argument string) (name, value string, joined bool) {
	if strings.HasPrefix(argument, "--") {
		return strings.Cut(argument, "=")
	}
	if strings.HasPrefix(argument, "-") && len(argument) > 2 {
		return argument[:2], argument[2:], true
	}
	return argument, "", false
}

func (o option) check(name, text string) error {
	if text == "" || strings.HasPrefix(text, "-") || strings.ContainsAny(text, "/\x00") {
		return fail(ErrInvalid, "mkfs option %s has the value %q, which is empty, an option itself or a path", name, text)
	}
	for setting := range strings.SplitSeq(text, ",") {
		key, _, _ := strings.Cut(strings.TrimSpace(setting), "=")
		if slices.Contains(o.deny, key) || o.allow != nil && !slices.Contains(o.allow, key) {
			return fail(ErrInvalid, "mkfs option %s has the setting %q, which is not allowed: leave it out", name, key)
		}
	}
	return nil
}

func (s optionSet) names() []string {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
