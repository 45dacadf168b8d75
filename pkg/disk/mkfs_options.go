package disk

import (
	"maps"
	"slices"
	"strings"
	"unicode"
)

// optionSet is what may be asked of an mkfs program: its options by name ("-b", "--label"). Everything else is refused:
// options that overwrite what is there, try only, use another device or a file of the node, leave a part of the disk out,
// make another type of filesystem, or undo an option of the driver's (see mkfs.go). They come from an administrator's
// StorageClass, and are the same for every volume.
type optionSet map[string]option

type option struct {
	flag bool // has no value
	// deny are settings within the value (a list of name=value) that are refused.
	deny []string
	// allow, if not nil, are the only settings that the value may have.
	allow []string
	// features says that the value is a list of features, which can be turned off with a sign before the name.
	features bool
}

// mkfsOption is an option of mkfs as it was asked for.
type mkfsOption struct {
	name, value string // value "" is for flags only
}

func (o mkfsOption) arguments() []string {
	if o.value == "" {
		return []string{o.name}
	}
	return []string{o.name, o.value}
}

var value = option{}

// mkfs.ext4(8). Not -c, -D, -F, -l, -n, -S, -t, -d, -o, -q, -v, -U, and no external or moved journal. Of -E not offset and
// discard, which take the marker of the format away, and not assume_storage_prezeroed: an interrupted format may have written
// to the disk. mke2fs also knows features by number and in capitals: a list of those that may be has no such gaps.
var extOptions = optionSet{
	"-b": value, "-C": value, "-g": value, "-G": value, "-i": value, "-I": value, "-L": value, "-m": value, "-N": value,
	"-T": value, "-e": {allow: []string{"continue", "remount-ro"}}, // not panic: an error would stop the node
	"-E": {allow: []string{"nodiscard", "stride", "stripe-width", "stripe_width", "resize", "lazy_itable_init", "lazy_journal_init",
		"num_backup_sb", "packed_meta_blocks", "root_owner", "root_perms", "mmp_update_interval", "desc_size", "desc-size", "hash_seed",
		"revision", "quotatype", "encoding", "encoding_flags", "orphan_file_size", "test_fs"}},
	"-J": {allow: []string{"size", "fast_commit_size"}},
	"-O": {features: true, allow: []string{"none", "64bit", "bigalloc", "casefold", "dir_index", "dir_nlink", "dir_prealloc", "ea_inode",
		"encrypt", "ext_attr", "extent", "extents", "extra_isize", "fast_commit", "filetype", "flex_bg", "has_journal", "huge_file",
		"inline_data", "large_dir", "large_file", "meta_bg", "metadata_csum", "metadata_csum_seed", "mmp", "orphan_file", "project", "quota",
		"resize_inode", "sparse_super", "sparse_super2", "stable_inodes", "uninit_bg", "verity"}},
}

// mkfs.xfs(8). Not -f, -N, -p, -c, -r, and no file, other device, size or UUID.
var xfsOptions = optionSet{
	"-b": value, "-m": {deny: []string{"uuid"}}, "-i": value, "-n": value, "-s": value, "-L": value,
	"-d": {allow: []string{"agcount", "agsize", "su", "sw", "sunit", "swidth", "noalign", "concurrency", "rtinherit",
		"extszinherit", "cowextsize", "daxinherit"}},
	"-l": {allow: []string{"size", "version", "sunit", "su", "sectsize", "lazy-count", "concurrency"}},
	"-q": {flag: true},
}

// btrfsFeatures are those of mkfs.btrfs for a disk of its own. Not zoned, which resets the disk's zones first, and not list-all.
var btrfsFeatures = option{features: true, allow: []string{"mixed-bg", "quota", "extref", "raid56", "skinny-metadata", "no-holes",
	"fst", "free-space-tree", "bgt", "block-group-tree", "squota"}}

// mkfs.btrfs(8). Not -f, -b, -r, -U and no second device.
var btrfsOptions = optionSet{
	"-d": value, "--data": value, "-m": value, "--metadata": value, "-n": value, "--nodesize": value,
	"-s": value, "--sectorsize": value, "-L": value, "--label": value, "-O": btrfsFeatures, "--features": btrfsFeatures,
	"-R": btrfsFeatures, "--runtime-features": btrfsFeatures, "--csum": value, "--checksum": value,
	"-M": {flag: true}, "--mixed": {flag: true}, "-q": {flag: true}, "--quiet": {flag: true},
}

// ValidateMkfsOptions tells whether volumes of a type of filesystem ("" is the default one) can be formatted with further
// options, given as a command line has them: each option and each value an element, or both in one ("-b4096",
// "--label=x").
func ValidateMkfsOptions(filesystem string, options []string) error {
	_, err := parseMkfsOptions(filesystem, options)
	return err
}

func parseMkfsOptions(filesystem string, options []string) (parsed []mkfsOption, err error) {
	filesystem = orDefault(filesystem, DefaultFilesystem)
	if err := ValidateFilesystem(filesystem); err != nil {
		return nil, err
	}
	known := filesystemTypes[filesystem].options
	for len(options) > 0 {
		name, text, joined := splitOption(options[0])
		option, ok := known[name]
		if !ok {
			return nil, fail(ErrInvalid, "mkfs option %q is not allowed for %s: use %s", options[0], filesystem,
				strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		options = options[1:]
		if option.flag {
			if joined {
				return nil, fail(ErrInvalid, "mkfs option %s takes no value, and %q was given", name, text)
			}
			parsed = append(parsed, mkfsOption{name: name})
			continue
		}
		if !joined {
			if len(options) == 0 {
				return nil, fail(ErrInvalid, "mkfs option %s needs a value", name)
			}
			text, options = options[0], options[1:]
		}
		if err := option.check(name, text); err != nil {
			return nil, err
		}
		parsed = append(parsed, mkfsOption{name: name, value: text})
	}
	return parsed, nil
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
		return fail(ErrInvalid, "invalid value %q of mkfs option %s: must not be empty, an option itself or a path", text, name)
	}
	for _, setting := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }) {
		key, _, _ := strings.Cut(setting, "=")
		if o.features {
			key = strings.ToLower(strings.TrimLeft(key, "^-+"))
		}
		if slices.Contains(o.deny, key) || o.allow != nil && !slices.Contains(o.allow, key) {
			remedy := "remove it"
			if o.allow != nil {
				remedy = "use " + strings.Join(o.allow, ", ")
			}
			return fail(ErrInvalid, "setting %q of mkfs option %s is not allowed; %s", setting, name, remedy)
		}
	}
	return nil
}
