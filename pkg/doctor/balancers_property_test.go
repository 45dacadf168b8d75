package doctor_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/propertytest"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/doctor"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// balancedThing is a load balancer of one Service, or a certificate bundle, as the model has it.
type balancedThing struct {
	id, name, uid string // uid is the Service's
	bundle        bool
	hostname      string // of a bundle
	maker         *balancerMember
	kept          string // as in thing
	silent        bool
	since         time.Time // when its quarantine was first seen; zero for none
}

// balancerMember is a cluster on the account.
type balancerMember struct {
	*balancerRig
	name, id, uid string
	services      map[string]*corev1.Service // by name, as they are in Kubernetes
	saved         *savedBalancers
}

type savedBalancers struct {
	etcd     *etcd
	services map[string]*corev1.Service
}

// balancerWorld is an account with the load balancers of several clusters, people and programs.
type balancerWorld struct {
	t        *testing.T
	rand     *propertytest.Sequence
	sim      *simulatortest.Server
	clock    *simulator.ManualClock
	clusters []*balancerMember
	all      map[string]*balancedThing // by ID
	shared   map[string][]*balancerMember
	network  string
	seen     seen
	seenAt   moment
	log      []string
	skips    bool // the run at hand does not wait
	made     int  // by others
	removed  int
	runs     int
	stopped  int
}

// TestNoWantedLoadBalancerIsEverRemoved is TestNothingWantedIsEverRemoved for load balancers and certificate bundles: Services come and go
// with and without their controllers, share, are retained, change their classes, types and certificates, etcds are set back and copied, and
// requests fail, while the doctor of each cluster runs with --fix at any moment. Nothing that anybody wants may be removed, nothing of
// others may be changed, and nothing may go without a quarantine that can be seen and ended. In the end every leftover is found.
func TestNoWantedLoadBalancerIsEverRemoved(t *testing.T) {
	propertytest.Run(t, 300, func(t *testing.T, s *propertytest.Sequence) { takeBalancers(t, s) })
}

// takeBalancers takes one sequence, and says what happened in it.
func takeBalancers(t *testing.T, s *propertytest.Sequence) (log []string) {
	w := newBalancerWorld(t, s)
	actions := w.actions()
	for step := range s.Steps {
		actions[w.rand.IntN(len(actions))]()
		w.check()
		if t.Failed() {
			t.Fatalf("after step %d of %s; the last were:\n%s", step, s, strings.Join(w.log[max(0, len(w.log)-40):], "\n"))
		}
	}
	w.everyLeftoverIsFound()
	w.everyQuarantineCanBeEnded()
	if s.Steps >= 1000 && w.removed == 0 {
		t.Error("no leftover was ever removed: the test shows nothing")
	}
	t.Logf("%d leftovers were removed, in %d runs of which %d were stopped", w.removed, w.runs, w.stopped)
	return w.log
}

func newBalancerWorld(t *testing.T, s *propertytest.Sequence) *balancerWorld {
	clock := simulator.NewManualClockAt(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC))
	w := &balancerWorld{t: t, rand: s, clock: clock, sim: simulatortest.StartInMemory(t, simulator.Config{Clock: clock, Seed: s.Seed}),
		all: map[string]*balancedThing{}, shared: map[string][]*balancerMember{}}
	w.addCluster("with-id", clusterUID, "production")
	w.addCluster("without-id", otherUID, "")
	w.addCluster("calm", "5e0b0000-0000-4000-8000-000000000004", "calm") // neither set back nor copied
	// A first load balancer shows which network the nodes are in.
	w.clusters[0].foreignGroup(t, s.NewUUID())
	for _, lb := range w.clusters[0].balancers(t) {
		for _, network := range lb.Networks {
			w.network = max(w.network, network.ID) // the public one has none
		}
	}
	w.addForeign("terraform", cloud.Labels{"made-by": "terraform"})
	return w
}

// foreignGroup is a load balancer of a group that another cluster's Service made.
func (r *balancerRig) foreignGroup(t *testing.T, cluster string) {
	s := balanced("first", "shared", "create/group", "routes", "[{host: first.example, path: /}]")
	r.serveAs(t, "elsewhere", cluster, s)
}

func (w *balancerWorld) addCluster(name, uid, id string) *balancerMember {
	m := &balancerMember{balancerRig: newBalancerRigOf(w.t, newCluster(w.t, w.sim, w.clock, uid, id)), name: name, id: id, uid: uid,
		services: map[string]*corev1.Service{}}
	m.config.Cluster.ID = id
	m.balancerRig.shared = []settings.SharedAccess{{LoadBalancer: "terraform"}}
	w.clusters = append(w.clusters, m)
	return m
}

func (w *balancerWorld) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

// seen is the account as it is.
type seen struct {
	balancers map[string]cloud.LoadBalancer // by ID
	bundles   map[string]cloud.CertificateBundle
	used      map[string]bool // bundles
}

// look reads the account, unless nothing has changed there since the last look. What it returns must not be changed.
func (w *balancerWorld) look() seen {
	at := w.moment()
	if w.seenAt != at {
		w.seen, w.seenAt = w.lookAgain(), at
	}
	return w.seen
}

// moment is another after each request that may change the account, and after each step of its clock.
func (w *balancerWorld) moment() (m moment) {
	for operation, n := range w.sim.Requests() {
		if !strings.HasPrefix(operation, "GET ") {
			m.changes += n.Requests
		}
	}
	m.time = w.clock.Now()
	return m
}

type moment struct {
	changes int
	time    time.Time
}

func (w *balancerWorld) lookAgain() seen {
	s := seen{map[string]cloud.LoadBalancer{}, map[string]cloud.CertificateBundle{}, map[string]bool{}}
	for _, lb := range w.clusters[0].balancers(w.t) {
		if lb.State.Deleting() {
			continue
		}
		s.balancers[lb.ID] = lb
		for _, frontend := range lb.Frontends {
			for _, config := range frontend.TLSConfigs {
				s.used[config.BundleID] = true
			}
		}
	}
	for _, bundle := range w.clusters[0].bundles(w.t) {
		s.bundles[bundle.ID] = bundle
	}
	return s
}

// labels are those of a thing, and its name; false if it is gone.
func (s seen) labels(one *balancedThing) (labels cloud.Labels, name string, there bool) {
	if one.bundle {
		bundle, there := s.bundles[one.id]
		return bundle.Labels, bundle.Name, there
	}
	lb, there := s.balancers[one.id]
	return lb.Labels, lb.Name, there
}

// wantedBy says who wants a thing: the Service of a cluster, a load balancer that uses it, or whoever keeps it.
func (w *balancerWorld) wantedBy(one *balancedThing, now seen) string {
	for _, m := range w.clusters {
		for name, s := range m.services {
			if string(s.UID) != one.uid || s.DeletionTimestamp != nil || s.Spec.Type != corev1.ServiceTypeLoadBalancer {
				continue
			}
			if !one.bundle || s.Annotations[settings.AnnotationPrefix+"tls-hostnames"] == one.hostname {
				return "Service " + name + " of " + m.name
			}
		}
	}
	if one.bundle && now.used[one.id] {
		return "a load balancer"
	}
	return one.kept
}

// check finds out what has gone, and what has come into quarantine, since the last look, and whether that was right.
func (w *balancerWorld) check() {
	now := w.look()
	for id, one := range w.all {
		labels, name, there := now.labels(one)
		_, quarantined := labels[doctor.LabelQuarantine]
		wanted := w.wantedBy(one, now)
		switch {
		case !there && wanted != "":
			w.t.Errorf("%s (%s) is gone, and %s wants it", one.name, id, wanted)
		case !there && !w.skips && (one.since.IsZero() || w.clock.Now().Sub(one.since) < quarantine-time.Second):
			w.t.Errorf("%s (%s) is gone without its quarantine: it began at %v", one.name, id, one.since)
		case !there:
			delete(w.all, id)
		case quarantined && one.since.IsZero() && wanted != "" && !(wanted == one.kept && one.silent):
			w.t.Errorf("%s (%s) was put into quarantine, though it shows that %s wants it", one.name, id, wanted)
		case quarantined && !one.bundle && !strings.HasPrefix(name, "to-be-removed-"):
			w.t.Errorf("%s (%s) is in quarantine, and its name does not show it", one.name, id)
		}
		if !quarantined {
			one.since = time.Time{}
		} else if one.since.IsZero() {
			one.since = w.clock.Now()
		}
	}
	w.skips = false
}

// others is what is not the doctor's to touch, byte for byte.
func (w *balancerWorld) others() string {
	var all []string
	now := w.look()
	for id, lb := range now.balancers {
		if w.all[id] == nil {
			lb.State = ""
			all = append(all, fmt.Sprintf("%+v", lb))
		}
	}
	for id, bundle := range now.bundles {
		if w.all[id] == nil {
			all = append(all, fmt.Sprintf("%+v", bundle))
		}
	}
	slices.Sort(all)
	text, _ := json.MarshalIndent(all, "", " ")
	return string(text)
}

// faults of requests that a run may meet.
var balancerOperations = []string{
	"PATCH /load-balancer/{uuid}", "POST /load-balancer/{uuid}/labels", "PATCH /load-balancer/{uuid}/labels/{key}",
	"DELETE /load-balancer/{uuid}/labels/{key}", "DELETE /load-balancer/{uuid}", "GET /load-balancer", "GET /load-balancer/certificate-bundles",
	"PATCH /load-balancer/certificate-bundles/{bundle}", "DELETE /load-balancer/certificate-bundles/{bundle}", "GET /account",
}

// runDoctor is one run of a cluster's doctor: now and then with the settings of another cluster, without waiting, into failing requests, or
// ended in the middle.
func (w *balancerWorld) runDoctor(m *balancerMember, now bool) {
	w.check()
	w.skips = now
	config, how := m.config, ""
	config.Now = now
	if w.rand.IntN(8) == 0 {
		config.Cluster.ID = w.clusters[w.rand.IntN(len(w.clusters))].id
		how += " with ID " + strconv.Quote(config.Cluster.ID)
	}
	w.note("doctor of %s, now %t%s", m.name, now, how)
	config.Journal = w.journal()
	config.Cloud = m.freshCloud(w.t, config.Cluster.ID)
	before := w.others()
	d, err := doctor.NewBalancers(config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.runs++
	if err := w.fixAmidFaults(d); err != nil {
		w.note("  %v", err)
	}
	if after := w.others(); after != before {
		w.t.Errorf("what is of others was\n%s\nand is\n%s", before, after)
	}
	w.check()
}

// journal ends some runs after a few changes.
func (w *balancerWorld) journal() func(doctor.Entry) error {
	left := -1
	if w.rand.IntN(6) == 0 {
		left = w.rand.IntN(6)
		w.note("  ended after %d changes", left)
	}
	return func(e doctor.Entry) error {
		if left == 0 {
			return errors.New("killed")
		}
		left--
		w.note("  %s %s %s (%s) %s", e.Outcome, e.Action, e.Title, e.ID, e.Error)
		if e.Action == doctor.ActionRemove && e.Outcome == doctor.EntryDone {
			w.removed++
		}
		return nil
	}
}

func (w *balancerWorld) fixAmidFaults(d *doctor.Balancers) error {
	if w.rand.IntN(3) == 0 {
		fault := simulator.Fault{Operation: balancerOperations[w.rand.IntN(len(balancerOperations))], AfterEffect: w.rand.IntN(2) == 0,
			Skip: w.rand.IntN(2), Count: 1 + w.rand.IntN(2)}
		switch w.rand.IntN(3) {
		case 0:
			fault.Status = 403
		case 1:
			fault.Status, fault.AfterEffect = 429, false
		default:
			fault.Drop = true
		}
		w.note("  %+v", fault)
		defer w.sim.Inject(fault)()
	}
	report, err := d.Examine(testContext(w.t))
	if err != nil {
		return err
	}
	if report.Stopped != "" {
		w.stopped++
		w.note("  stopped: %s", report.Stopped)
	}
	return report.Fix(testContext(w.t), nil)
}

// everyLeftoverIsFound lets all run as it should for some time: what is not wanted is then gone, or in a report of its cluster.
func (w *balancerWorld) everyLeftoverIsFound() {
	w.clock.Advance(48 * time.Hour)
	listed := map[string]bool{}
	for _, m := range w.clusters {
		report := m.examine(w.t)
		for _, f := range slices.Concat(report.Findings, report.Kept, report.Undecided) {
			listed[f.LoadBalancerID], listed[f.CertificateID] = true, true
			listed[fmt.Sprint(f.Kind, f.LoadBalancerID, m.name)] = true
		}
	}
	now := w.look()
	for _, id := range slices.Sorted(maps.Keys(w.all)) {
		if one := w.all[id]; !listed[id] && one.kept == "" && w.wantedBy(one, now) == "" && !w.leaving(one) {
			w.t.Errorf("%s (%s), made by %s, is not found", one.name, id, one.maker.name)
		}
	}
	for id, members := range w.shared {
		for _, m := range members {
			if slices.Contains(w.clusters, m) && !listed[fmt.Sprint(doctor.OrphanComponents, id, m.name)] {
				w.t.Errorf("components of %s on load balancer %s are not found", m.name, id)
			}
		}
	}
}
