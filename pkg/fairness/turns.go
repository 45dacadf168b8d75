package fairness

import (
	"slices"
	"sync"
	"time"
)

const (
	// comeBack is when an object comes back that has to wait for its turn, and mostComeBack the same of one with many before it.
	comeBack     = 500 * time.Millisecond
	mostComeBack = 15 * time.Second
	// placeKept is for how long after the moment at which it should have come back an object keeps its place: its worker may be late.
	placeKept = 30 * time.Second
	// beginsWithin is for how long an object holds a turn without any work on it having begun: its worker found that there is none.
	beginsWithin = 10 * time.Second
)

// Turns says which objects may be worked on now, so that the objects of one namespace never take all workers. Nothing waits in it: an
// object whose turn it is not comes back. It is safe for concurrent use.
type Turns struct {
	workers int
	now     func() time.Time

	mu         sync.Mutex
	namespaces map[string]*namespace
}

// namespace is one that has objects worked on, or waiting.
type namespace struct {
	turns   map[string]turn // by object
	waiting []place         // in the order in which they first came
}

// turn is held by an object that is worked on, or is about to be.
type turn struct {
	begun bool
	until time.Time // if it has not begun by then, it has ended
}

// place is kept by an object that has to come back.
type place struct {
	object string
	until  time.Time
}

// NewTurns shares out so many workers.
func NewTurns(workers int) *Turns {
	return &Turns{workers: max(workers, 1), now: time.Now, namespaces: map[string]*namespace{}}
}

// setWorkers says how many workers there are.
func (t *Turns) setWorkers(workers int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.workers = max(workers, 1)
}

// Take gives an object its turn; or says when it is to come back, if the namespace has its share of workers already or others came before.
// A turn ends with End; one for which Begin is not called within seconds ends by itself.
func (t *Turns) Take(of, object string) (again time.Duration, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.tidy(now)
	own := t.of(of)
	if _, held := own.turns[object]; held {
		own.turns[object] = turn{until: now.Add(beginsWithin)}
		return 0, true
	}
	at := slices.IndexFunc(own.waiting, func(p place) bool { return p.object == object })
	before := at
	if at < 0 {
		before = len(own.waiting)
	}
	free := t.share() - len(own.turns)
	if before < free {
		if at >= 0 {
			own.waiting = slices.Delete(own.waiting, at, at+1)
		}
		own.turns[object] = turn{until: now.Add(beginsWithin)}
		return 0, true
	}
	again = min(comeBack*time.Duration(1+before/max(t.share(), 1)), mostComeBack)
	kept := place{object: object, until: now.Add(again + placeKept)}
	if at < 0 {
		own.waiting = append(own.waiting, kept)
	} else {
		own.waiting[at] = kept
	}
	return again, false
}

// share is how many workers a namespace may have: so many that another one that comes finds some free. The caller holds mu.
func (t *Turns) share() int { return max(t.workers/(len(t.namespaces)+1), 1) }

// Begin says that an object is being worked on, with or without a turn.
func (t *Turns) Begin(of, object string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.of(of).turns[object] = turn{begun: true}
}

// Pause says that no work is under way on an object, but more may follow at once.
func (t *Turns) Pause(of, object string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own, known := t.namespaces[of]; known {
		own.turns[object] = turn{until: t.now().Add(beginsWithin)}
	}
}

// End ends the turn of an object.
func (t *Turns) End(of, object string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if own, known := t.namespaces[of]; known {
		delete(own.turns, object)
	}
	t.tidy(t.now())
}

// of is the namespace of that name. The caller holds mu.
func (t *Turns) of(name string) *namespace {
	own, known := t.namespaces[name]
	if !known {
		own = &namespace{turns: map[string]turn{}}
		t.namespaces[name] = own
	}
	return own
}

// tidy forgets what is over by that moment. The caller holds mu.
func (t *Turns) tidy(now time.Time) {
	for name, own := range t.namespaces {
		for object, held := range own.turns {
			if !held.begun && now.After(held.until) {
				delete(own.turns, object)
			}
		}
		own.waiting = slices.DeleteFunc(own.waiting, func(p place) bool { return now.After(p.until) })
		if len(own.turns) == 0 && len(own.waiting) == 0 {
			delete(t.namespaces, name)
		}
	}
}
