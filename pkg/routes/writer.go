package routes

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

const (
	// batchWindow is how long the first change of a batch waits for others: the route controller asks for those of up to 200
	// nodes at once, each from a goroutine of its own.
	batchWindow = 200 * time.Millisecond
	// fullFor is for how long the API's word that a router is full is not put to the test again. Routes that go make room at once.
	fullFor = 5 * time.Minute
	// batchTimeout bounds the writing of one batch, with everything that is tried again.
	batchTimeout = 2 * time.Minute
)

// errOverwritten says that changes do not stay.
var errOverwritten = errors.New("another program keeps changing the router's static routes at the same time, and its changes undo " +
	"this one: look who else writes them (Terraform needs ignore_changes for static_route); it is tried again by itself")

// FullError says that the API allows a router no more static routes.
type FullError struct {
	Router string
	Routes int // that it has
}

func (e *FullError) Error() string {
	return fmt.Sprintf("router %s has %d static routes, and UpCloud allows it no more: remove routes that nobody needs, ask UpCloud to "+
		"raise the limit, or use a CNI with an overlay network in place of --configure-cloud-routes", e.Router, e.Routes)
}

// writer is the only one in this process that changes one router's static routes. The API has no other change than to
// replace all of them, and no condition on it: so changes are collected for a moment, and written as one, each time on top of
// what the router has just then, and read back.
type writer struct {
	cloud   *cloud.Cloud
	router  string
	owner   Owner
	pods    []netip.Prefix
	judge   judge
	metrics *metrics
	life    context.Context // ends the goroutine
	running *sync.WaitGroup // counts it
	window  time.Duration
	pace    wait.Backoff

	mu      sync.Mutex
	pending []*change
	active  bool // there is a goroutine

	// The goroutine's own.
	full      int // as many routes are the most, as the API said; unbounded: it has not
	fullUntil time.Time
}

// judge says which of the routes of a router, joined to these networks, are the cluster's to change.
type judge func(ctx context.Context, networks []string, routes []cloud.StaticRoute) map[routeKey]bool

func (r *Routes) newWriter(router string, owner Owner) *writer {
	return &writer{
		cloud: r.config.Cloud, router: router, owner: owner, pods: r.config.ClusterCIDRs, metrics: r.metrics, life: r.life, running: &r.running,
		judge: func(ctx context.Context, networks []string, routes []cloud.StaticRoute) map[routeKey]bool {
			return r.mine(ctx, owner, r.networksOf(ctx, networks), routes)
		},
		window: batchWindow, full: unbounded,
		pace: wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 7, Cap: 5 * time.Second},
	}
}

// do writes changes, and returns when they are read back. When ctx ends first they are written all the same.
func (w *writer) do(ctx context.Context, changes ...*change) error {
	w.mu.Lock()
	w.pending = append(w.pending, changes...)
	if !w.active {
		w.active = true
		w.running.Go(w.work)
	}
	w.mu.Unlock()
	var failed []error
	for _, c := range changes {
		select {
		case <-c.done:
			failed = append(failed, c.err)
		case <-ctx.Done():
			return fmt.Errorf("the route is still being written: %w", ctx.Err())
		}
	}
	return errors.Join(failed...)
}

// work writes batches until none is left.
func (w *writer) work() {
	for {
		timer := time.NewTimer(w.window)
		select {
		case <-timer.C:
		case <-w.life.Done():
			timer.Stop()
		}
		w.mu.Lock()
		batch := w.pending
		w.pending = nil
		w.active = len(batch) > 0
		w.mu.Unlock()
		if len(batch) == 0 {
			return
		}
		w.write(batch)
	}
}

// write settles each change of a batch.
func (w *writer) write(batch []*change) {
	ctx, cancel := context.WithTimeout(w.life, batchTimeout)
	defer cancel()
	b := &batchWriting{writer: w, open: batch}
	defer func() {
		if panicked := recover(); panicked != nil { // an answer of the API that nobody thought of must not end the process
			klog.ErrorS(nil, "Panic", "router", w.router, "panic", panicked, "stack", string(debug.Stack()))
			b.settleAll(fmt.Errorf("internal error (this is a bug): %v", panicked))
		}
	}()
	pace := w.pace
	for len(b.open) > 0 {
		again, err := b.round(ctx)
		if len(b.open) == 0 {
			return
		}
		switch {
		case !again, pace.Steps <= 0:
			b.settleAll(err)
			return
		case err == nil: // a part was written, the rest follows
			continue
		}
		klog.FromContext(ctx).V(2).Info("Static routes are written once more", "router", w.router, "changes", len(b.open), "reason", err)
		w.metrics.retries.Inc()
		if sleep(ctx, pace.Step()) != nil {
			b.settleAll(err)
			return
		}
	}
}

// batchWriting is the writing of one batch.
type batchWriting struct {
	*writer
	open []*change // not settled yet
	step int       // how many routes are added at once, after the API refused more; 0: as many as are asked for
	only int       // how many changes are tried at once, after the API refused more together; 0: all

	clashed bool // the API said once that a route is there already
}

// round looks, writes and looks again. It says whether another round can help; with an error: after a pause.
func (b *batchWriting) round(ctx context.Context) (again bool, err error) {
	router, err := b.cloud.Router(ctx, b.router)
	if err != nil {
		return mayPass(err), err
	}
	tried := slices.Clone(b.open) // which settling changes
	if b.only > 0 && b.only < len(tried) {
		tried = tried[:b.only]
	}
	by := b.rulesFor(ctx, router, tried)
	p := newPlan(by, router.Routes, tried, b.roomFor(len(router.Routes)))
	b.settleRefused(p)
	tried = slices.DeleteFunc(tried, func(c *change) bool { return p.over[c] || p.refused[c] != nil })
	if p.changed {
		err := b.cloud.ReplaceStaticRoutes(ctx, b.router, p.routes())
		b.metrics.written(err)
		if err != nil {
			return b.failed(err, len(router.Routes), p, tried)
		}
		if router, err = b.cloud.Router(ctx, b.router); err != nil {
			return mayPass(err), err
		}
		if after := newPlan(by, router.Routes, tried, unbounded); after.changed || len(after.refused) > 0 {
			b.metrics.overwritten.Inc()
			return true, errOverwritten
		}
	}
	for c, effect := range p.effects {
		c.effect = max(c.effect, effect)
	}
	b.metrics.observe(b.owner, router.Routes)
	b.settle(tried, nil)
	b.settleFull(p, len(router.Routes))
	return true, nil
}

// rulesFor finds out which of the routes that stand in the way of changes may be changed.
func (b *batchWriting) rulesFor(ctx context.Context, router *cloud.Router, changes []*change) rules {
	by := rules{owner: b.owner, pods: b.pods}
	var concerned []cloud.StaticRoute
	for _, e := range entriesOf(router.Routes) {
		if !b.owner.owns(e.key.name) && !isRouteName(e.key.name) {
			continue // never to be changed
		}
		if slices.ContainsFunc(changes, func(c *change) bool { return e.key != c.key() && by.obstacle(e.key, c) }) {
			concerned = append(concerned, e.route)
		}
	}
	by.mine = b.judge(ctx, router.NetworkIDs, concerned)
	return by
}

// roomFor is how many routes there may be, the router having so many now.
func (b *batchWriting) roomFor(now int) int {
	if time.Now().After(b.fullUntil) {
		b.full = unbounded
	}
	room := b.full
	if b.step > 0 && (room == unbounded || now+b.step < room) {
		room = now + b.step
	}
	return room
}

// failed decides what a refusal means for the changes that were tried, of which there were so many routes before.
func (b *batchWriting) failed(err error, before int, p plan, tried []*change) (again bool, _ error) {
	switch {
	case errors.Is(err, cloud.ErrExhausted) && p.grown > 1:
		b.step = p.grown / 2
		return true, nil
	case errors.Is(err, cloud.ErrExhausted) && p.grown == 1:
		b.full, b.fullUntil, b.step = before, time.Now().Add(fullFor), 0
		return true, nil // the next look sorts out what there is room for
	case errors.Is(err, cloud.ErrAlreadyExists) && !b.clashed:
		b.clashed = true
		return true, err // the next look tells which route it was
	case mayPass(err):
		return true, err // … or that it took effect
	case (errors.Is(err, cloud.ErrInvalid) || errors.Is(err, cloud.ErrAlreadyExists)) && len(tried) > 1:
		b.only = len(tried) / 2 // one of them is at fault: the others must not suffer
		return true, nil
	case len(tried) == 1:
		b.settle(tried, err)
		return true, nil
	}
	return false, err
}

// mayPass says that the same request may succeed in a moment, or has taken effect although nobody heard so.
func mayPass(err error) bool {
	return errors.Is(err, cloud.ErrUnavailable) || errors.Is(err, cloud.ErrBusy)
}

func (b *batchWriting) settleRefused(p plan) {
	for c, err := range p.refused {
		b.settle([]*change{c}, err)
	}
}

// settleFull ends the changes for which there is no room, unless it is only the step that was too small.
func (b *batchWriting) settleFull(p plan, routes int) {
	if b.full == unbounded || routes < b.full {
		return
	}
	for c := range p.over {
		b.settle([]*change{c}, &FullError{b.router, routes})
	}
}

func (b *batchWriting) settle(changes []*change, err error) {
	for _, c := range changes {
		c.settle(err)
		b.open = slices.DeleteFunc(b.open, func(o *change) bool { return o == c })
	}
}

func (b *batchWriting) settleAll(err error) { b.settle(slices.Clone(b.open), err) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
