package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// LabelBundles holds digests of the names of the certificate bundles that were made for the Service, so that one which no
// port uses any more is found also after a crash.
const LabelBundles = "ccm_bundles"

// notes are digests of what was made for the Service: names of components, and settings that were asked for. The API cannot
// say who made a component or set a property, as neither carries labels, so the load balancer's own labels do.
//
// A frontend and the backend of the same name are noted by that name. Everything else has a path: see the functions below.
type notes map[string]bool

// notesPerLabel keeps a label's value within 255 characters.
const notesPerLabel = 28

func noteLoneFrontend(name string) string        { return "frontend/" + name }
func noteLoneBackend(name string) string         { return "backend/" + name }
func noteRule(frontend, rule string) string      { return "f/" + frontend + "/rule/" + rule }
func noteFrontend(frontend, field string) string { return "f/" + frontend + "/" + field }

// NoteBackend is the note of a field of a backend.
func NoteBackend(backend, field string) string { return "b/" + backend + "/" + field }

// NotePods is the note that Pods are members of a backend.
func NotePods(backend string) string { return NoteBackend(backend, "members/pods") }
func noteLabel(key string) string    { return "label/" + key }

// NoteLoad is the note of a field of the load balancer.
func NoteLoad(field string) string      { return "lb/" + field }
func noteAddress(address string) string { return "ip/" + address }
func noteResolver(name string) string   { return "resolver/" + name }

// NoteTLS is the note of a TLS configuration.
func NoteTLS(owner cloud.TLSOwner, name string) string {
	if owner.Frontend != "" {
		return noteFrontend(owner.Frontend, "tls/"+name)
	}
	return NoteBackend(owner.Backend, "tls/"+name)
}

// content is a note of what something was last asked to be, so that a later wish to leave a part of it out is noticed, though
// the API has filled that part in.
func content(note string, value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return note
	}
	return note + "=" + settings.ShortDigest(string(text))
}

// notes are those of everything that is desired.
func (d Desired) notes() []string {
	var all []string
	for _, backend := range d.Backends {
		if _, pair := d.frontend(backend.Name); pair {
			all = append(all, backend.Name)
		} else {
			all = append(all, noteLoneBackend(backend.Name))
		}
		for property := range backend.Asked {
			all = append(all, NoteBackend(backend.Name, property))
		}
		if backend.MaxSessions != nil {
			all = append(all, NoteBackend(backend.Name, "max_sessions"))
		}
		if backend.Resolver != "" {
			all = append(all, NoteBackend(backend.Name, "resolver"))
		}
		if backend.Pods && backend.Members == nil {
			all = append(all, NotePods(backend.Name))
		}
		for _, config := range backend.TLS {
			all = append(all, NoteTLS(cloud.TLSOwner{Backend: backend.Name}, config.Name))
		}
	}
	for _, frontend := range d.Frontends {
		if !d.hasBackend(frontend.Name) {
			all = append(all, noteLoneFrontend(frontend.Name))
		}
		all = append(all, frontend.notes()...)
	}
	for key := range d.MoreLabels {
		all = append(all, noteLabel(key))
	}
	for _, field := range loadFields(d.Load) {
		all = append(all, NoteLoad(field))
	}
	for _, address := range d.Addresses {
		all = append(all, noteAddress(address.Address))
	}
	for _, resolver := range d.Resolvers {
		all = append(all, noteResolver(resolver.Name))
	}
	return all
}

// contents are the notes of what rules and resolvers are. They are written once that is so, and not before.
func (d Desired) contents() []string {
	var all []string
	for _, frontend := range d.Frontends {
		for _, rule := range frontend.Rules {
			all = append(all, content(noteRule(frontend.Name, rule.Name), rule))
		}
	}
	for _, resolver := range d.Resolvers {
		all = append(all, content(noteResolver(resolver.Name), resolver))
	}
	return all
}

func (f Frontend) notes() []string {
	var all []string
	if f.Mode != "" {
		all = append(all, noteFrontend(f.Name, "mode"))
	}
	if len(f.Networks) > 0 {
		all = append(all, noteFrontend(f.Name, "networks"))
	}
	for property := range f.Asked {
		all = append(all, noteFrontend(f.Name, property))
	}
	for _, rule := range f.Rules {
		all = append(all, noteRule(f.Name, rule.Name))
	}
	for _, config := range f.TLS {
		all = append(all, NoteTLS(cloud.TLSOwner{Frontend: f.Name}, config.Name))
	}
	return all
}

// loadFields names the fields of a patch that are set.
func loadFields(patch cloud.LoadBalancerPatch) []string {
	var all []string
	for field, value := range map[string]string{
		"name": patch.Name, "plan": patch.Plan, "configured_status": patch.ConfiguredStatus, "maintenance_dow": patch.MaintenanceDay,
		"maintenance_time": patch.MaintenanceTime,
	} {
		if value != "" {
			all = append(all, field)
		}
	}
	return all
}

// NotesOf reads notes from a load balancer's labels.
func NotesOf(labels cloud.Labels, label string) notes {
	set := notes{}
	for key, value := range labels {
		if key != label && !strings.HasPrefix(key, label+"_") {
			continue
		}
		for digest := range strings.SplitSeq(value, ".") {
			if digest != "" {
				set[digest] = true
			}
		}
	}
	return set
}

func (n notes) Has(note string) bool { return n[settings.ShortDigest(note)] }

func (n notes) hasFrontend(name string) bool { return n.Has(name) || n.Has(noteLoneFrontend(name)) }
func (n notes) HasBackend(name string) bool  { return n.Has(name) || n.Has(noteLoneBackend(name)) }

// with returns the notes with these added.
func (n notes) with(more []string) notes {
	all := notes{}
	maps.Copy(all, n)
	for _, note := range more {
		all[settings.ShortDigest(note)] = true
	}
	return all
}

// labels writes the notes: over one label, or as many as it takes.
func (n notes) labels(label string) cloud.Labels {
	labels := cloud.Labels{}
	if label == settings.LabelComponents {
		labels[label] = "" // its being there says that there are notes
	}
	number := 1
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(n)), notesPerLabel) {
		key := label
		if number > 1 {
			key = fmt.Sprintf("%s_%d", label, number)
		}
		labels[key] = strings.Join(chunk, ".")
		number++
	}
	return labels
}

// changes writes the notes into labels that may hold others, and empties those that they no longer take.
func (n notes) changes(label string, have cloud.Labels) []Change {
	want := n.labels(label)
	for key := range have {
		if _, ok := want[key]; !ok && (key == label || strings.HasPrefix(key, label+"_")) {
			want[key] = ""
		}
	}
	return labelChanges(want, have)
}

func bundleNotes(d Desired) notes { return (notes{}).with(d.Bundles) }
