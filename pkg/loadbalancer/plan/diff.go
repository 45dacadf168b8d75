package plan

import (
	"maps"
	"slices"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// Diff returns the calls that make a load balancer as desired, in an order that leaves it working after each of them:
// backends come before the frontends that point to them and go after them, a port is let go before another frontend takes it,
// and a certificate is there before HTTP/2 is. Nothing to do is no call.
func Diff(desired Desired, lb *cloud.LoadBalancer, sessions SessionLimits) []Change {
	desired = desired.answering(lb.Frontends).notingBundles(NotesOf(lb.Labels, LabelBundles))
	d := differ{desired: desired, lb: lb, sessions: sessions}
	d.ours, d.wanted = NotesOf(lb.Labels, settings.LabelComponents), (notes{}).with(desired.notes()).with(desired.contents())
	_, d.noted = lb.Labels[settings.LabelComponents]

	changes := slices.Concat(d.labels(), d.resolvers(), d.missingBackends(), d.backends(), d.frontends())
	gone, left := d.staleBackends()
	changes = slices.Concat(changes, gone, d.staleResolvers(left), d.addresses(), d.load())

	// What is about to be made is noted before, and what has gone is struck off after: a crash in between leaves
	// nothing that nobody owns. What a rule is made of is noted before only if it is that already.
	noted := d.ours.with(desired.notes()).with(d.settled(changes))
	noting := noted.changes(settings.LabelComponents, lb.Labels)
	slices.Reverse(noting) // over several labels, notes move on to later ones: those first, so that none is lost in between
	noting = slices.Concat(noting, NotesOf(lb.Labels, LabelBundles).with(desired.Bundles).changes(LabelBundles, lb.Labels))

	// Later changes of the same labels start from what the earlier ones have made of them.
	labels := applied(lb.Labels, noting)
	final := d.wanted.with(d.kept)
	for _, name := range left {
		final = final.with([]string{noteLoneBackend(name)})
	}
	return slices.Concat(labelChanges(desired.Labels, lb.Labels), noting, changes, d.staleBundles(labels),
		final.changes(settings.LabelComponents, labels))
}

// differ is the state of Diff. Its methods find the changes of one kind of component each.
type differ struct {
	desired      Desired
	lb           *cloud.LoadBalancer
	sessions     SessionLimits
	ours, wanted notes
	kept         []string // notes of what is stale and has to stay for a while
	noted        bool     // the load balancer has notes: it was not made by UpCloud's own CCM, or has been taken over
}

// settled are the notes of what rules and resolvers are made of, but for those that are about to be changed.
func (d *differ) settled(changes []Change) []string {
	changing := map[string]bool{}
	for _, change := range changes {
		for _, rule := range []*cloud.Rule{change.CreateRule, change.ReplaceRule} {
			if rule != nil {
				changing[content(noteRule(change.Owner.Frontend, rule.Name), *rule)] = true
			}
		}
		for _, resolver := range []*cloud.Resolver{change.CreateResolver, change.ReplaceResolver} {
			if resolver != nil {
				changing[content(noteResolver(resolver.Name), *resolver)] = true
			}
		}
	}
	return slices.DeleteFunc(d.desired.contents(), func(note string) bool { return changing[note] })
}

// stale says that something was made, or set, for the Service, and is no longer wanted.
func (d *differ) stale(note string) bool { return d.ours.Has(note) && !d.wanted.Has(note) }

func (d *differ) staleFrontend(name string) bool {
	_, wanted := d.desired.frontend(name)
	return d.ours.hasFrontend(name) && !wanted
}

func (d *differ) staleBackend(name string) bool {
	return d.ours.HasBackend(name) && !d.desired.hasBackend(name)
}

// labels sets the labels that the Service asks for, and removes those that it asked for once, and what told that the load balancer was free.
func (d *differ) labels() []Change {
	changes := labelChanges(d.desired.MoreLabels, d.lb.Labels)
	for _, key := range slices.Sorted(maps.Keys(d.lb.Labels)) {
		if d.stale(noteLabel(key)) || key == settings.LabelRetainedFor { // it is a Service's again
			changes = append(changes, Change{Name: key, DeleteLabel: true})
		}
	}
	return changes
}

// labelChanges sets labels, each by a call of its own. Labels of others are not looked at.
func labelChanges(want, have cloud.Labels) []Change {
	var changes []Change
	for _, key := range slices.Sorted(maps.Keys(want)) {
		value, ok := have[key]
		switch {
		case !ok:
			changes = append(changes, Change{Name: key, CreateLabel: new(want[key])})
		case key == settings.LabelGeneratedName:
			// As it was written first: UpCloud's own CCM finds the load balancer by it, should it ever come back.
		case value != want[key]:
			changes = append(changes, Change{Name: key, ModifyLabel: new(want[key])})
		}
	}
	return changes
}

// applied returns the labels as they are after the changes.
func applied(labels cloud.Labels, changes []Change) cloud.Labels {
	after := cloud.Labels{}
	maps.Copy(after, labels)
	for _, change := range changes {
		switch {
		case change.CreateLabel != nil:
			after[change.Name] = *change.CreateLabel
		case change.ModifyLabel != nil:
			after[change.Name] = *change.ModifyLabel
		}
	}
	return after
}

// load changes name, plan and the like. A plan comes after the members' session limits that go with it, because that it is
// still the old one tells that those may have to be changed.
func (d *differ) load() []Change {
	want, have := d.desired.Load, d.lb
	if want.Name == "" && d.stale(NoteLoad("name")) {
		want.Name = d.desired.Identity.Name
	}
	if want.Plan == "" && d.stale(NoteLoad("plan")) {
		want.Plan = d.desired.DefaultPlan
	}
	if want.ConfiguredStatus == "" && d.stale(NoteLoad("configured_status")) {
		want.ConfiguredStatus = "started"
	}
	differs := func(want, have string) string {
		if want == have {
			return ""
		}
		return want
	}
	patch := cloud.LoadBalancerPatch{
		Name: differs(want.Name, have.Name), Plan: differs(want.Plan, have.Plan),
		ConfiguredStatus: differs(want.ConfiguredStatus, have.ConfiguredStatus),
		MaintenanceDay:   differs(want.MaintenanceDay, have.MaintenanceDay),
		MaintenanceTime:  differs(want.MaintenanceTime, have.MaintenanceTime),
	}
	if patch == (cloud.LoadBalancerPatch{}) {
		return nil
	}
	return []Change{{Name: d.lb.Name, ModifyLoad: &patch}}
}

// addresses attaches floating IP addresses, and detaches those that the Service asked for once.
func (d *differ) addresses() []Change {
	var detached, attached []Change
	there := map[string]bool{}
	for _, address := range d.lb.Addresses {
		there[address.Address] = true
		if d.stale(noteAddress(address.Address)) {
			detached = append(detached, Change{Name: address.Address, DetachAddress: true})
		}
	}
	for _, address := range d.desired.Addresses {
		if !there[address.Address] {
			attached = append(attached, Change{Name: address.Address, AttachAddress: &address})
		}
	}
	return append(detached, attached...)
}

// resolvers makes those that are not there, and those that differ anew.
func (d *differ) resolvers() []Change {
	var changes []Change
	for _, want := range d.desired.Resolvers {
		i := slices.IndexFunc(d.lb.Resolvers, func(r cloud.Resolver) bool { return r.Name == want.Name })
		switch {
		case i < 0:
			changes = append(changes, Change{Name: want.Name, CreateResolver: &want})
		case !covered(asJSON(want), asJSON(d.lb.Resolvers[i])),
			d.noted && !d.ours.Has(content(noteResolver(want.Name), want)):
			changes = append(changes, Change{Name: want.Name, ReplaceResolver: &want})
		}
	}
	return changes
}

// staleResolvers deletes resolvers that the Service asked for once and that no backend which stays uses.
func (d *differ) staleResolvers(backendsLeft []string) []Change {
	var changes []Change
	for _, resolver := range d.lb.Resolvers {
		used := slices.ContainsFunc(d.lb.Backends, func(b cloud.Backend) bool {
			ours := d.ours.HasBackend(b.Name) && !slices.Contains(backendsLeft, b.Name)
			return b.Resolver == resolver.Name && !ours
		})
		if d.stale(noteResolver(resolver.Name)) && !used {
			changes = append(changes, Change{Name: resolver.Name, DeleteResolver: true})
		}
	}
	return changes
}

// staleBundles deletes certificate bundles that were made for the Service and that it no longer uses.
func (d *differ) staleBundles(labels cloud.Labels) []Change {
	want := bundleNotes(d.desired)
	if len(d.kept) > 0 {
		return nil // their bundles are in use
	}
	for digest := range NotesOf(labels, LabelBundles) {
		if !want[digest] {
			cleanup := &BundleCleanup{Identity: d.desired.Identity, Keep: d.desired.Bundles}
			return append([]Change{{DeleteBundles: cleanup}}, want.changes(LabelBundles, labels)...)
		}
	}
	return nil
}
