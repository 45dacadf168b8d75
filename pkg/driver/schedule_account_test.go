package driver_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// resource is a storage as the account has it.
type resource struct {
	storage
	Type, State, Origin string
}

// resources lists the storages of the account but system disks.
func (w *stage) resources() (all []resource) {
	var list struct{ Storages struct{ Storage []resource } }
	w.sim.Do(w.t, "GET", "/storage/private", "", &list)
	for _, listed := range list.Storages.Storage {
		if strings.HasSuffix(listed.Title, " system") {
			continue
		}
		var one struct{ Storage resource }
		w.sim.Do(w.t, "GET", "/storage/"+listed.UUID, "", &one)
		all = append(all, one.Storage)
	}
	return all
}

// lines describe resources, in order.
func (w *stage) lines(all []resource) []string {
	var lines []string
	for _, r := range all {
		kind := "disk"
		if r.Type == "backup" {
			kind = "backup of " + w.named(r.Origin)
		}
		var labels []string
		for _, label := range r.Labels {
			labels = append(labels, label.Key+"="+label.Value)
		}
		slices.Sort(labels)
		at := w.named(strings.Join(r.Servers.Server, ","))
		lines = append(lines, fmt.Sprintf("%s %s %s %d GiB at %q %s %v", w.named(r.UUID), kind, r.Title, r.Size, at, r.State, labels))
	}
	slices.Sort(lines)
	return lines
}

// account is the whole account, for comparison.
func (w *stage) account() string { return strings.Join(w.lines(w.resources()), "\n") }

// foreign is what must stay as it is: resources whose name begins with their.
func (w *stage) foreign() string {
	return strings.Join(slices.DeleteFunc(w.lines(w.resources()), func(line string) bool {
		return !strings.HasPrefix(line, "their-")
	}), "\n")
}

// know gives a resource a name.
func (w *stage) know(name, id string) string {
	w.names[id], w.ids[name] = name, id
	return id
}

var (
	anID     = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	someTime = regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]*Z`)
)

// named is a text with names for IDs, and without times.
func (w *stage) named(text string) string {
	return someTime.ReplaceAllString(anID.ReplaceAllStringFunc(text, func(id string) string {
		if w.names[id] == "" {
			w.know(fmt.Sprint("#", len(w.names)), id)
		}
		return w.names[id]
	}), "")
}

// judge tells what is wrong in the end: calls that do not succeed, and what is in the account that should not be, or not.
func (w *stage) judge() string {
	for _, p := range w.players {
		if p.err != nil && (p != w.players[0] || !w.left) {
			return fmt.Sprintf("%s does not get done: %s", p.name, w.named(p.err.Error()))
		}
	}
	if wrong := w.answers(); wrong != "" {
		return wrong
	}
	var got []string
	for _, r := range w.resources() {
		name, at := r.Title, ""
		if known := w.names[r.UUID]; known != "" && !strings.HasPrefix(known, "#") {
			name = known
		}
		if len(r.Servers.Server) > 0 {
			at = " at " + w.named(strings.Join(r.Servers.Server, ","))
		}
		if team := r.labels()["team"]; team != "" {
			at += " of " + team
		}
		got = append(got, r.Type+" "+name+at)
	}
	slices.Sort(got)
	want := slices.Clone(w.s.want)
	for i := range want {
		if !w.acted { // there was no moment for it
			want[i] = strings.TrimSuffix(want[i], byThePerson)
		}
		want[i] = strings.TrimSuffix(want[i], " by hand")
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Sprintf("in the end there are %q, want %q", got, want)
	}
	return ""
}

// answers tells whether a call of the second copy was answered with an ID that is not there, though nothing deletes it.
func (w *stage) answers() string {
	var there []string
	for _, r := range w.resources() {
		there = append(there, r.UUID)
	}
	for what, id := range w.answered {
		if !slices.Contains(there, id) {
			return "the ID that was answered for " + what + " is that of nothing"
		}
	}
	return ""
}
