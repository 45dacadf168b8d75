package simulator

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

const (
	apiPrefix   = "/1.3"
	maxBodySize = 4 << 20
)

// route is one operation of the API.
type route struct {
	operation string // "POST /storage/{uuid}/clone", the pattern below /1.3
	status    int    // of the answer when nothing is refused
	serve     func(*call) (any, error)
	problems  bool // a newer resource: bare JSON, refusals as RFC 7807 problems
}

// call is one request on its way through its handler. Handlers run with the simulator's lock held.
type call struct {
	request *http.Request
	body    []byte
	status  int

	// A handler whose answer takes time sets both and returns: the answer is what then returns, called with the lock
	// held once done is closed.
	done <-chan struct{}
	then func() (any, error)
}

func (c *call) path(name string) string { return c.request.PathValue(name) }

func (c *call) query(name string) string { return c.request.URL.Query().Get(name) }

// decode reads the request's body into v. The older resources say INVALID_REQUEST about what they cannot read.
func (c *call) decode(v any) error {
	if len(bytes.TrimSpace(c.body)) == 0 {
		return badRequest("INVALID_REQUEST", "The request body is missing.")
	}
	if err := json.Unmarshal(c.body, v); err != nil {
		return badRequest("INVALID_REQUEST", "The request body is not valid: %v.", err)
	}
	return nil
}

// answer is what goes to the client.
type answer struct {
	status      int
	contentType string
	body        []byte
}

func encode(status int, contentType string, body any) answer {
	if body == nil {
		return answer{status: status}
	}
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(body); err != nil {
		return answer{http.StatusInternalServerError, "text/plain", []byte("simulator: " + err.Error())}
	}
	return answer{status, contentType, b.Bytes()}
}

// Handler returns the API under /1.3 and the control endpoints under /_simulator.
func (s *Simulator) Handler() http.Handler { return s.handler }

func (s *Simulator) newHandler() http.Handler {
	root := http.NewServeMux()
	root.Handle(apiPrefix+"/", http.StripPrefix(apiPrefix, s.dispatch()))
	root.Handle(controlPrefix+"/", s.controlHandler())
	root.HandleFunc("PUT "+uploadPrefix+"{session}", s.upload)
	root.HandleFunc("POST "+uploadPrefix+"{session}", s.upload)
	root.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "The API is under "+apiPrefix+", the simulator's control endpoints under "+controlPrefix+".",
			http.StatusNotFound)
	})
	return root
}

func (s *Simulator) unknownOperation(c *call) (any, error) {
	return nil, refuse(http.StatusNotImplemented, "NOT_IMPLEMENTED",
		"The simulator does not serve %s %s.", c.request.Method, c.request.URL.Path)
}

// operation serves one route: authentication, faults, the handler, the record.
func (s *Simulator) operation(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		started := time.Now()
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodySize))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		fault := s.faults.take(rt.operation)
		a, drop := s.answerWith(fault, rt, r, body)
		s.record(rt, r, len(body), a, drop, started)
		if drop {
			panic(http.ErrAbortHandler) // the documented way to break the connection off without an answer
		}
		w.Header().Set("Date", s.clock.Now().UTC().Format(http.TimeFormat)) // the account's clock, not this machine's
		fault.setHeaders(w.Header(), a.status)
		if len(a.body) > 0 {
			w.Header().Set("Content-Type", a.contentType)
		}
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body)
	})
}

// answerWith serves the request as the fault, if any, wants it. It says true when the client is to get no answer.
func (s *Simulator) answerWith(fault *Fault, rt route, r *http.Request, body []byte) (answer, bool) {
	if fault == nil {
		return s.execute(nil, rt, r, body)
	}
	if fault.Latency > 0 && !s.wait(r, fault.Latency) {
		return answer{}, true
	}
	failing := fault.Status != 0 || fault.Drop
	if failing && !fault.AfterEffect {
		return fault.answer(rt, s.clock.Now()), fault.Drop
	}
	a, drop := s.execute(fault, rt, r, body)
	if failing {
		return fault.answer(rt, s.clock.Now()), fault.Drop
	}
	return a, drop
}

// wait lets d pass. It says false when the client or the simulator went away meanwhile.
func (s *Simulator) wait(r *http.Request, d time.Duration) bool {
	passed := make(chan struct{})
	timer := s.clock.AfterFunc(d, func() { close(passed) })
	defer timer.Stop()
	select {
	case <-passed:
		return true
	case <-r.Context().Done():
	case <-s.ctx.Done():
	}
	return false
}

// execute runs the handler and encodes what it returns, with the lock held, so that an answer is a state that was. The
// fault, if any, may want a state that no longer is, or an operation that fails in the end.
func (s *Simulator) execute(fault *Fault, rt route, r *http.Request, body []byte) (a answer, gone bool) {
	c := &call{request: r, body: body, status: rt.status}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return answer{}, true
	}
	s.runDue()
	if fault != nil && fault.Stale > 0 {
		s.staleAnswer(fault.Stale, func() { a = s.serve(rt, c) })
		return a, false
	}
	if r.Method != http.MethodGet {
		s.changing()
	}
	result, err := s.authenticated(rt, c)
	if fault != nil && fault.EndsInError && err == nil {
		s.doom(c, result)
	}
	if c.done != nil && err == nil {
		s.runDue()
		if !s.await(r, c.done) {
			return answer{}, true
		}
		result, err = c.then()
	}
	a = s.encodeResult(rt, c, result, err)
	s.runDue()
	return a, false
}

// serve is what execute does for requests that change nothing.
func (s *Simulator) serve(rt route, c *call) answer {
	result, err := s.authenticated(rt, c)
	return s.encodeResult(rt, c, result, err)
}

func (s *Simulator) authenticated(rt route, c *call) (any, error) {
	if err := s.authenticate(c.request); err != nil {
		return nil, err
	}
	return rt.serve(c)
}

// await gives the lock up until done is closed.
func (s *Simulator) await(r *http.Request, done <-chan struct{}) bool {
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-done:
		return true
	default:
	}
	select {
	case <-done:
		return true
	case <-r.Context().Done():
	case <-s.ctx.Done():
	}
	return false
}

func (s *Simulator) encodeResult(rt route, c *call, result any, err error) answer {
	if err != nil {
		return errorAnswer(err, rt.problems, s.clock.Now())
	}
	contentType := olderType
	if rt.problems {
		contentType = newerType
	}
	return encode(c.status, contentType, result)
}
