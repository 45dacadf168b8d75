package doctor_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/propertytest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// things is how many disks and backups the account holds at most.
const things = 50

// thing is a disk or a backup, as the model has it.
type thing struct {
	id, name string
	maker    *member // nil: not a cluster of the test
	backup   bool
	// kept says why a person or a program wants it, whatever the clusters know: empty for no reason.
	kept string
	// silent: nothing on it shows that it is kept. Whoever keeps it sees a quarantine and ends it.
	silent      bool
	quarantined bool // when it was looked at last
}

// member is a cluster on the account.
type member struct {
	*rig
	name string
	uid  string
	node string // a server
	// handles are the storages that a PersistentVolume of the cluster names, by its name; false where it was released to be deleted.
	handles map[string]string
	wanted  map[string]bool
	saved   *savedMember
	// Of a copy: whose it is, and the PersistentVolume that shows it that the original runs.
	original       *member
	lifeOfOriginal string
}

type savedMember struct {
	etcd    *etcd
	handles map[string]string
	wanted  map[string]bool
}

// accountWorld is an account with several clusters, people and programs on it.
type accountWorld struct {
	t        *testing.T
	rand     *propertytest.Sequence
	sim      *simulatortest.Server
	clock    *simulator.ManualClock
	clusters []*member
	all      map[string]*thing // by ID
	nomad    *cloud.Cloud
	namesake *cloud.Cloud // a cluster that has the ID of another
	log      []string
	removed  int
	runs     int
	stopped  int // runs that found signs of a copy
}

// TestNothingWantedIsEverRemoved lets clusters live and die, people and programs keep things in all the ways there are, etcds be set back
// and copied, and requests fail, while the doctor of each cluster runs with --fix at any moment, with the wrong settings too. Nothing that
// anybody wants may be removed, and nothing that shows it may be touched. In the end every leftover is found.
func TestNothingWantedIsEverRemoved(t *testing.T) {
	propertytest.Run(t, 600, func(t *testing.T, s *propertytest.Sequence) { takeStorages(t, s) })
}

// takeStorages takes one sequence, and says what happened in it.
func takeStorages(t *testing.T, s *propertytest.Sequence) (log []string) {
	clock := simulator.NewManualClockAt(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	w := &accountWorld{t: t, rand: s, clock: clock,
		sim: simulatortest.StartInMemory(t, simulator.Config{Clock: clock, Seed: s.Seed}), all: map[string]*thing{}}
	w.addCluster("with-id", clusterUID, "production")
	w.addCluster("without-id", otherUID, "")
	w.addCluster("legacy", "5e0b0000-0000-4000-8000-000000000003", "legacy")
	w.clusters[2].cloud = newCloud(t, w.sim, "legacy")                   // its driver does not know the UID
	w.addCluster("calm", "5e0b0000-0000-4000-8000-000000000004", "calm") // neither set back nor copied
	w.addCluster("calm-too", "5e0b0000-0000-4000-8000-000000000005", "")
	w.nomad, w.namesake = newCloud(t, w.sim, "nomad"), newCloud(t, w.sim, "production")
	actions := w.actions()
	for step := range s.Steps {
		actions[w.rand.IntN(len(actions))]()
		w.check()
		if t.Failed() {
			t.Fatalf("after step %d of %s; the last were:\n%s", step, s, strings.Join(w.log[max(0, len(w.log)-40):], "\n"))
		}
	}
	w.everyLeftoverIsFound()
	if s.Steps >= 2000 && w.removed == 0 {
		t.Error("no leftover was ever removed: the test shows nothing")
	}
	t.Logf("%d leftovers were removed, in %d runs of which %d were stopped", w.removed, w.runs, w.stopped)
	return w.log
}

func (w *accountWorld) addCluster(name, uid, id string) *member {
	m := &member{rig: newCluster(w.t, w.sim, w.clock, uid, id), name: name, uid: uid, handles: map[string]string{}, wanted: map[string]bool{}}
	m.node = m.rig.node(w.t, fmt.Sprint("node-", len(w.clusters)))
	w.clusters = append(w.clusters, m)
	return m
}

func (w *accountWorld) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *accountWorld) add(id, name string, maker *member, kept string) *thing {
	made := &thing{id: id, name: name, maker: maker, kept: kept}
	w.all[id] = made
	return made
}

// wantedBy says who wants a thing: a cluster whose PersistentVolume names it and is not to be deleted, or whoever keeps it.
func (w *accountWorld) wantedBy(one *thing) string {
	for _, m := range w.clusters {
		for pv, handle := range m.handles {
			if handle == one.id && m.wanted[pv] {
				return "PersistentVolume " + pv + " of " + m.name
			}
		}
	}
	return one.kept
}

// check finds out what has gone, and what has come into quarantine, since the last step, and whether it was wanted.
func (w *accountWorld) check() {
	there := w.storagesNow()
	for id, one := range w.all {
		title, exists := there[id]
		wanted, before := w.wantedBy(one), one.quarantined
		one.quarantined = strings.Contains(title, "to be removed")
		switch {
		case !exists && wanted != "":
			w.t.Errorf("%s (%s) is gone, and %s wants it", one.name, id, wanted)
		case !exists:
			delete(w.all, id)
		case one.quarantined && !before && wanted != "" && !(wanted == one.kept && one.silent):
			w.t.Errorf("%s (%s) was put into quarantine, though it shows that %s wants it", one.name, id, wanted)
		}
	}
}

func (w *accountWorld) storagesNow() map[string]string {
	var answer struct {
		Storages struct {
			Storage []struct{ UUID, Title string }
		}
	}
	w.sim.Do(w.t, "GET", "/storage/private", "", &answer)
	there := make(map[string]string, len(answer.Storages.Storage))
	for _, s := range answer.Storages.Storage {
		there[s.UUID] = s.Title
	}
	return there
}

// doctorRuns is one run of a cluster's doctor, as an hourly Job or a person starts it: now and then with the settings of another cluster,
// with --now, into failing requests, or ended in the middle.
func (w *accountWorld) doctorRuns(m *member) { w.runDoctor(m, w.rand.IntN(8) == 0) }

func (w *accountWorld) runDoctor(m *member, now bool) {
	config, how := m.config, ""
	config.Now = now
	if w.rand.IntN(6) == 0 {
		config.ClusterID = w.clusters[w.rand.IntN(len(w.clusters))].config.ClusterID
		how += " with ID " + strconv.Quote(config.ClusterID)
	}
	left := -1
	if w.rand.IntN(6) == 0 {
		left = w.rand.IntN(6)
		how += fmt.Sprint(" ended after ", left, " changes")
	}
	if w.rand.IntN(5) == 0 {
		operations := []string{"PUT /storage/{uuid}", "DELETE /storage/{uuid}", "GET /storage/{uuid}", "GET /storage/private", "GET /account"}
		fault := simulator.Fault{Operation: operations[w.rand.IntN(len(operations))], Status: 403, AfterEffect: w.rand.IntN(2) == 0, Count: 1 + w.rand.IntN(3)}
		how += fmt.Sprintf(" while %s fails %d times", fault.Operation, fault.Count)
		defer w.sim.Inject(fault)()
	}
	w.note("doctor of %s, now %t%s", m.name, config.Now, how)
	ended := errors.New("killed")
	config.Journal = func(e doctor.Entry) error {
		if left == 0 {
			return ended
		}
		left--
		w.note("  %s %s %s (%s)", e.Outcome, e.Action, e.Title, e.ID)
		if e.Action == doctor.ActionRemove && e.Outcome == doctor.EntryDone {
			w.removed++
		}
		return nil
	}
	config.Cloud = m.freshCloud(w.t, config.ClusterID)
	d, err := doctor.New(config)
	if err != nil {
		w.t.Fatal(err)
	}
	report, err := d.Examine(testContext(w.t))
	w.runs++
	if err == nil {
		if report.Stopped != "" {
			w.stopped++
			w.note("  stopped: %s", report.Stopped)
		}
		err = report.Fix(testContext(w.t), nil)
	}
	if err != nil {
		w.note("  %v", err)
	}
}

// everyLeftoverIsFound lets all run as it should for some time: what is not wanted is then gone, or in a report of its cluster.
func (w *accountWorld) everyLeftoverIsFound() {
	w.clock.Advance(48 * time.Hour)
	listed := map[string]bool{}
	for _, m := range w.clusters {
		report := m.rig.examine(w.t)
		for _, f := range slices.Concat(report.Findings, report.Kept, report.Undecided) {
			listed[f.StorageID] = true
		}
		for _, handle := range m.handles {
			listed[handle] = true // it is known
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.all)) {
		if one := w.all[id]; one.maker != nil && w.wantedBy(one) == "" && !listed[id] {
			w.t.Errorf("%s (%s), made by %s, is not found", one.name, id, one.maker.name)
		}
	}
}
