package debian

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Sources are the entries of this machine's apt sources that are of a suite of Debian, with its updates and security updates: what
// else the machine installs from is not what an image is made of. A file named by the caller is taken as it is.
func Sources(named, suite string) (string, error) {
	if named != "" {
		content, err := os.ReadFile(named)
		return string(content), err
	}
	return sourcesIn("/etc/apt", suite)
}

func sourcesIn(dir, suite string) (string, error) {
	var found []string
	for _, pattern := range []string{"sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			content, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			if strings.HasSuffix(file, ".sources") {
				found = append(found, stanzas(string(content), suite)...)
			} else {
				found = append(found, lines(string(content), suite)...)
			}
		}
	}
	if len(found) == 0 {
		return "", fmt.Errorf("this machine's apt sources have nothing of Debian's suite %s, which the images are made of: "+
			"set APT_SOURCES to a file that has, in the form of sources.list(5), deb822", suite)
	}
	return strings.Join(found, "\n"), nil
}

// stanzas are those of a file in the form deb822 that are of the suite.
func stanzas(content, suite string) (found []string) {
	for _, stanza := range strings.Split(content, "\n\n") {
		var kept []string
		var types, suites []string
		enabled := true
		for _, line := range strings.Split(stanza, "\n") {
			if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
				continue
			}
			key, value, _ := strings.Cut(line, ":")
			switch strings.ToLower(key) {
			case "types":
				types = strings.Fields(value)
			case "suites":
				suites = strings.Fields(value)
			case "enabled":
				enabled = strings.TrimSpace(value) != "no"
			case "architectures": // the images' architectures are not the machine's
				continue
			}
			kept = append(kept, line)
		}
		if enabled && slices.Contains(types, "deb") && slices.ContainsFunc(suites, func(s string) bool { return isOf(s, suite) }) {
			found = append(found, strings.Join(kept, "\n")+"\n")
		}
	}
	return found
}

// lines turns those of a file in the form of one line an entry that are of the suite into stanzas.
func lines(content, suite string) (found []string) {
	for _, line := range strings.Split(content, "\n") {
		line, isDeb := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !isDeb {
			continue
		}
		signed := ""
		if options, rest, ok := strings.Cut(line, "]"); ok {
			for _, option := range strings.Fields(strings.Trim(options, "[ ")) {
				if key, hasKey := strings.CutPrefix(option, "signed-by="); hasKey {
					signed = "Signed-By: " + key + "\n"
				}
			}
			line = rest
		}
		fields := strings.Fields(line)
		if len(fields) < 3 || !isOf(fields[1], suite) {
			continue
		}
		found = append(found, fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n%s", fields[0], fields[1],
			strings.Join(fields[2:], " "), signed))
	}
	return found
}

// isOf says whether a suite of sources is the one wanted or belongs to it, as bookworm-updates and bookworm-security do.
func isOf(name, suite string) bool {
	name, _, _ = strings.Cut(name, "/") // bullseye/updates, of old
	return name == suite || slices.Contains([]string{suite + "-updates", suite + "-security"}, name)
}
