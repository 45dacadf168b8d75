package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is something that goes wrong with requests. Operation, Skip, Count and Rate say with which; the rest says what.
type Fault struct {
	// Operation is the operation it befalls, as Counts names it: "POST /storage/{uuid}/clone". With * it is a pattern
	// in which * stands for anything but a slash; empty befalls every operation.
	Operation string
	Skip      int     // so many requests pass unharmed first
	Count     int     // so many requests are befallen, then the fault is gone; 0: all until it is removed
	Rate      float64 // share of requests befallen, 0 < Rate <= 1; 0: each

	Latency     time.Duration // time that passes before the request takes effect
	Status      int           // answered in place of the real answer; 0: the real answer
	Code        string        // error code that goes with Status; empty: one that fits Status
	Message     string        // error message that goes with Status
	RetryAfter  time.Duration // Retry-After header that goes with Status, whole seconds
	Drop        bool          // the connection breaks off, with no answer
	AfterEffect bool          // Status or Drop comes after the request took effect, which the client cannot know

	// Stale makes GET requests, and only these, be answered from the state as it was so long ago, or when the fault was
	// set if that was later: what a client sees that asks a copy of the database.
	Stale time.Duration
	// EndsInError lets the request take effect and be answered as ever, but the storage or server that it makes or changes
	// ends in the state `error`, and the load balancer in `failing`.
	EndsInError bool
}

func (f *Fault) validate() error {
	switch {
	case f.Rate < 0 || f.Rate > 1:
		return fmt.Errorf("fault: rate %v is not between 0 and 1", f.Rate)
	case f.Count < 0 || f.Skip < 0 || f.Latency < 0 || f.RetryAfter < 0:
		return fmt.Errorf("fault: count, skip, latency and retry_after must not be negative")
	case f.Status != 0 && (f.Status < 300 || f.Status > 599):
		return fmt.Errorf("fault: status %d is not an error status: choose one from 300 to 599", f.Status)
	case f.Stale < 0:
		return fmt.Errorf("fault: stale %s: give the age of the answer, such as 30s", f.Stale)
	case f.EndsInError && (f.Stale > 0 || (f.Status != 0 || f.Drop) && !f.AfterEffect):
		return fmt.Errorf("fault: ends_in_error needs the request's effect: add after_effect, and leave stale out")
	case f.Status == 0 && !f.Drop && f.Latency == 0 && f.Stale == 0 && !f.EndsInError:
		return fmt.Errorf("fault: nothing goes wrong: set one of latency, status, drop, stale, ends_in_error")
	}
	if _, err := path.Match(f.Operation, ""); err != nil {
		return fmt.Errorf("fault: operation %q: %w", f.Operation, err)
	}
	return nil
}

func (f *Fault) befalls(operation string) bool {
	if f.Stale > 0 && !strings.HasPrefix(operation, "GET ") {
		return false
	}
	if f.Operation == "" || f.Operation == operation {
		return true
	}
	matched, _ := path.Match(f.Operation, operation)
	return matched
}

var faultCodes = map[int]string{
	http.StatusUnauthorized:        "AUTHENTICATION_FAILED",
	http.StatusForbidden:           "ACTION_FORBIDDEN",
	http.StatusTooManyRequests:     "TOO_MANY_REQUESTS",
	http.StatusServiceUnavailable:  "SERVICE_UNAVAILABLE",
	http.StatusInternalServerError: "INTERNAL_ERROR",
}

func (f *Fault) answer(rt route, now time.Time) answer {
	if f.Drop {
		return answer{}
	}
	code, message := f.Code, f.Message
	if code == "" {
		code = faultCodes[f.Status]
	}
	if code == "" {
		code = "INJECTED_FAULT"
	}
	if message == "" {
		message = "Injected fault: " + http.StatusText(f.Status) + "."
	}
	return errorAnswer(refuse(f.Status, code, "%s", message), rt.problems, now)
}

func (f *Fault) setHeaders(h http.Header, status int) {
	if f == nil || f.RetryAfter == 0 || f.Status != status {
		return
	}
	h.Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
}

// faultJSON is a fault as the control endpoint writes it.
type faultJSON struct {
	ID          int     `json:"id,omitempty"`
	Operation   string  `json:"operation,omitempty"`
	Skip        int     `json:"skip,omitempty"`
	Count       int     `json:"count,omitempty"`
	Rate        float64 `json:"rate,omitempty"`
	Latency     string  `json:"latency,omitempty"`
	Status      int     `json:"status,omitempty"`
	Code        string  `json:"code,omitempty"`
	Message     string  `json:"message,omitempty"`
	RetryAfter  string  `json:"retry_after,omitempty"`
	Drop        bool    `json:"drop,omitempty"`
	AfterEffect bool    `json:"after_effect,omitempty"`
	Stale       string  `json:"stale,omitempty"`
	EndsInError bool    `json:"ends_in_error,omitempty"`
}

func (f Fault) json(id int) faultJSON {
	j := faultJSON{ID: id, Operation: f.Operation, Skip: f.Skip, Count: f.Count, Rate: f.Rate, Status: f.Status,
		Code: f.Code, Message: f.Message, Drop: f.Drop, AfterEffect: f.AfterEffect, EndsInError: f.EndsInError}
	if f.Stale > 0 {
		j.Stale = f.Stale.String()
	}
	if f.Latency > 0 {
		j.Latency = f.Latency.String()
	}
	if f.RetryAfter > 0 {
		j.RetryAfter = f.RetryAfter.String()
	}
	return j
}

func parseFault(b []byte) (Fault, error) {
	var j faultJSON
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields() // a fault that is misspelt would not happen, and its test would pass
	if err := decoder.Decode(&j); err != nil {
		return Fault{}, fmt.Errorf("fault: %w", err)
	}
	f := Fault{Operation: j.Operation, Skip: j.Skip, Count: j.Count, Rate: j.Rate, Status: j.Status,
		Code: j.Code, Message: j.Message, Drop: j.Drop, AfterEffect: j.AfterEffect, EndsInError: j.EndsInError}
	for name, field := range map[string]struct {
		text string
		to   *time.Duration
	}{"latency": {j.Latency, &f.Latency}, "retry_after": {j.RetryAfter, &f.RetryAfter}, "stale": {j.Stale, &f.Stale}} {
		if field.text == "" {
			continue
		}
		d, err := time.ParseDuration(field.text)
		if err != nil {
			return Fault{}, fmt.Errorf("fault: %s %q is not a duration such as 500ms or 2s", name, field.text)
		}
		*field.to = d
	}
	return f, f.validate()
}

// ParseFault reads a fault as the control endpoint takes it, an object in JSON, or in the short form of a command line:
// operation=GET /storage,stale=30s,count=2. A field alone, such as drop, is true.
func ParseFault(text string) (Fault, error) {
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		return parseFault([]byte(text))
	}
	fields := map[string]any{}
	for _, part := range strings.Split(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
		switch name {
		case "skip", "count", "status", "rate":
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return Fault{}, fmt.Errorf("fault: %s %q is not a number", name, value)
			}
			fields[name] = n
		case "drop", "after_effect", "ends_in_error":
			yes, err := strconv.ParseBool(or(value, "true"))
			if err != nil {
				return Fault{}, fmt.Errorf("fault: %s %q is neither true nor false", name, value)
			}
			fields[name] = yes
		}
	}
	object, err := json.Marshal(fields)
	if err != nil {
		return Fault{}, fmt.Errorf("fault: %w", err)
	}
	return parseFault(object)
}

type injected struct {
	id    int
	fault Fault
}

type faults struct {
	mu     sync.Mutex
	nextID int
	list   []*injected
	oldest atomic.Int64 // greatest age that a fault asks for, as time.Duration
}

// greatestAge is how old the answers are, at most, that faults ask for; 0: none does.
func (l *faults) greatestAge() time.Duration { return time.Duration(l.oldest.Load()) }

// changed is called, with the lock held, after each change of the list.
func (l *faults) changed() {
	var oldest time.Duration
	for _, i := range l.list {
		oldest = max(oldest, i.fault.Stale)
	}
	l.oldest.Store(int64(oldest))
}

// Inject makes requests fail. It panics when the fault is not valid, which is a fault of the test's. The function it
// returns takes the fault back; calling it twice is no error.
func (s *Simulator) Inject(f Fault) (remove func()) {
	if err := f.validate(); err != nil {
		panic("simulator: " + err.Error())
	}
	id := s.faults.add(f)
	return func() { s.faults.remove(id) }
}

func (l *faults) add(f Fault) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nextID++
	l.list = append(l.list, &injected{id: l.nextID, fault: f})
	l.changed()
	return l.nextID
}

func (l *faults) remove(id int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.list)
	l.list = slices.DeleteFunc(l.list, func(i *injected) bool { return i.id == id })
	l.changed()
	return len(l.list) < before
}

func (l *faults) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
	l.changed()
}

func (l *faults) all() []faultJSON {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]faultJSON, 0, len(l.list))
	for _, i := range l.list {
		out = append(out, i.fault.json(i.id))
	}
	return out
}

// take returns the first fault that befalls a request of the operation, and counts it; nil when there is none.
func (l *faults) take(operation string) *Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n, i := range l.list {
		if !i.fault.befalls(operation) {
			continue
		}
		if i.fault.Skip > 0 {
			i.fault.Skip--
			continue
		}
		if i.fault.Rate > 0 && rand.Float64() >= i.fault.Rate {
			continue
		}
		fault := i.fault
		if i.fault.Count > 0 {
			if i.fault.Count--; i.fault.Count == 0 {
				l.list = slices.Delete(l.list, n, n+1)
				l.changed()
			}
		}
		return &fault
	}
	return nil
}
