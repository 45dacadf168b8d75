package simulator

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strconv"
	"sync"
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
}

func (f *Fault) validate() error {
	switch {
	case f.Rate < 0 || f.Rate > 1:
		return fmt.Errorf("fault: rate %v is not between 0 and 1", f.Rate)
	case f.Count < 0 || f.Skip < 0 || f.Latency < 0 || f.RetryAfter < 0:
		return fmt.Errorf("fault: count, skip, latency and retry_after must not be negative")
	case f.Status != 0 && (f.Status < 300 || f.Status > 599):
		return fmt.Errorf("fault: status %d is not an error status: choose one from 300 to 599", f.Status)
	case f.Status == 0 && !f.Drop && f.Latency == 0:
		return fmt.Errorf("fault: nothing goes wrong: set one of latency, status, drop")
	}
	if _, err := path.Match(f.Operation, ""); err != nil {
		return fmt.Errorf("fault: operation %q: %w", f.Operation, err)
	}
	return nil
}

func (f *Fault) befalls(operation string) bool {
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
}

func (f Fault) json(id int) faultJSON {
	j := faultJSON{ID: id, Operation: f.Operation, Skip: f.Skip, Count: f.Count, Rate: f.Rate, Status: f.Status,
		Code: f.Code, Message: f.Message, Drop: f.Drop, AfterEffect: f.AfterEffect}
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
	if err := json.Unmarshal(b, &j); err != nil {
		return Fault{}, fmt.Errorf("fault: %w", err)
	}
	f := Fault{Operation: j.Operation, Skip: j.Skip, Count: j.Count, Rate: j.Rate, Status: j.Status,
		Code: j.Code, Message: j.Message, Drop: j.Drop, AfterEffect: j.AfterEffect}
	for name, field := range map[string]struct {
		text string
		to   *time.Duration
	}{"latency": {j.Latency, &f.Latency}, "retry_after": {j.RetryAfter, &f.RetryAfter}} {
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

type injected struct {
	id    int
	fault Fault
}

type faults struct {
	mu     sync.Mutex
	nextID int
	list   []*injected
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
	return l.nextID
}

func (l *faults) remove(id int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.list)
	l.list = slices.DeleteFunc(l.list, func(i *injected) bool { return i.id == id })
	return len(l.list) < before
}

func (l *faults) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = nil
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
			}
		}
		return &fault
	}
	return nil
}
