package doctor_test

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
)

// review is a person who makes a plan and knows what is wanted.
func (w *accountWorld) review(m *member) {
	report, err := m.doctor(w.t).Examine(testContext(w.t))
	if err != nil || w.rand.IntN(2) == 0 {
		return
	}
	plan := planOf(w.t, report)
	for _, list := range [][]doctor.PlanEntry{plan.Findings, plan.Kept} {
		for i := range list {
			one := w.all[list[i].StorageID]
			if one == nil || w.wantedBy(one) != "" {
				list[i].Action = doctor.ActionKeep
				if one != nil && one.silent && strings.Contains(report.Stopped, one.id) {
					m.relabel(w.t, one.id, "", "keep", "yes") // as the report asks for
					one.silent = false
				}
			} else if list[i].Fingerprint != "" {
				list[i].Action = []doctor.Action{doctor.ActionQuarantine, doctor.ActionRemove}[w.rand.IntN(2)]
			}
		}
	}
	w.clock.Advance(2 * time.Hour)
	fresh, err := m.doctor(w.t).Examine(testContext(w.t))
	if err != nil {
		return
	}
	if _, err := fresh.Apply(testContext(w.t), plan); err != nil {
		w.note("  %v", err)
	}
	w.note("a person reviews %s", m.name)
}

// others are programs and people who use the account beside the clusters.
func (w *accountWorld) others() {
	if w.full() {
		return
	}
	switch w.rand.IntN(5) {
	case 0:
		w.add(w.clusters[0].volume(w.t, w.nomad, "db["+w.rand.NewUUID()[:4]+"]"), "a volume of Nomad's", nil, "Nomad")
	case 1:
		w.add(w.clusters[0].volume(w.t, w.namesake, pvcName(w.rand.NewUUID())), "a volume of a cluster of the same ID", nil, "that cluster")
	case 2:
		w.add(w.clusters[0].plain(w.t, pvcName(w.rand.NewUUID())), "a volume of UpCloud's own driver", nil, "its cluster")
	case 3:
		id := w.clusters[0].plain(w.t, "database of "+w.rand.NewUUID()[:4])
		w.clusters[0].relabel(w.t, id, "", "managed-by", "terraform")
		w.add(id, "a disk of Terraform's", nil, "Terraform")
	case 4:
		w.add(w.clusters[0].plain(w.t, "my disk"), "a person's disk", nil, "a person")
	}
	w.note("others make something")
}

// personKeeps shows in one of the ways there are that something is to stay.
func (w *accountWorld) personKeeps() {
	ids := slices.Sorted(maps.Keys(w.all))
	if len(ids) == 0 {
		return
	}
	one := w.all[ids[w.rand.IntN(len(ids))]]
	if one.maker == nil || w.wantedBy(one) != "" || one.backup || w.rand.IntN(4) > 0 {
		return
	}
	r := w.clusters[0].rig
	title, _ := r.state(w.t, one.id)
	switch ways := w.rand.IntN(4); {
	case ways == 0:
		w.sim.Do(w.t, "POST", "/storage/"+one.id+"/favorite", "", nil)
	case ways == 1:
		r.relabel(w.t, one.id, "", "keep", "yes")
	case ways == 2 && !strings.Contains(title, "to be removed"):
		r.relabel(w.t, one.id, "customers of 2025")
	default:
		r.relabel(w.t, one.id, "", "managed-by", "terraform")
	}
	one.kept = "a person who shows it"
	w.note("a person keeps %s", one.name)
}

// personLooks restores what is in quarantine and kept by a person who does not show it.
func (w *accountWorld) personLooks() {
	for id, title := range w.storagesNow() {
		one := w.all[id]
		if one == nil || !strings.Contains(title, "to be removed") || w.wantedBy(one) == "" {
			continue
		}
		for _, m := range w.clusters {
			if _, err := m.doctor(w.t).Restore(testContext(w.t), []string{id}); err == nil {
				w.note("a person restores %s", one.name)
				break
			}
		}
	}
}

// cleanUp lets whoever keeps things have enough of some: the account would be full of them soon.
func (w *accountWorld) cleanUp() {
	for _, id := range slices.Sorted(maps.Keys(w.all)) {
		one := w.all[id]
		if one.kept == "" || w.rand.IntN(things) > len(w.all) || strings.HasPrefix(w.wantedBy(one), "PersistentVolume") || w.named(id) {
			continue
		}
		w.throwAway(one)
	}
}

func (w *accountWorld) named(id string) bool { return w.namedElsewhere(nil, id) }

// throwAway deletes a thing as a person does.
func (w *accountWorld) throwAway(one *thing) {
	if status, _ := w.sim.Raw(w.t, "DELETE", "/storage/"+one.id+"?backups=keep", ""); status == 204 {
		delete(w.all, one.id)
		w.note("%s is thrown away", one.name)
	}
}
