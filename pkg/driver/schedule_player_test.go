package driver_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// exchange is a request and its answer.
type exchange struct {
	request *http.Request
	body    []byte
	verdict chan stepKind
	answer  chan struct{} // lets the answer to a change arrive
	waiting atomic.Bool   // for its effect, else for its answer
}

func (e *exchange) write() bool { return e.request.Method != http.MethodGet }

// player is a copy of the controller, and who calls it.
type player struct {
	*stage
	*replica
	mu       sync.Mutex
	history  strings.Builder // what it sent and what was answered
	pending  []*exchange
	calls    []call
	returned atomic.Int32 // how many of the calls are done
	finished bool         // it does nothing any more
	err      error
}

// call is a call of the CSI that a sidecar makes until it succeeds.
type call func(context.Context, csi.ControllerClient) error

// RoundTrip stops a request of a copy until the schedule lets it go on.
func (p *player) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.open.Load() {
		return p.sim.Transport().RoundTrip(r)
	}
	e := &exchange{request: r, verdict: make(chan stepKind), answer: make(chan struct{})}
	e.waiting.Store(true)
	if r.Body != nil {
		e.body, _ = io.ReadAll(r.Body)
	}
	p.mu.Lock()
	p.pending = append(p.pending, e)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.pending = slices.DeleteFunc(p.pending, func(o *exchange) bool { return o == e })
	}()
	var fate stepKind
	select {
	case fate = <-e.verdict:
	case <-r.Context().Done(): // a question only: changes are let through first
		return nil, r.Context().Err()
	}
	e.waiting.Store(false)
	response, err := p.answer(e, fate)
	if e.write() && p == p.players[0] { // the second copy's next request is as late as its answer could be
		select {
		case <-e.answer:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	return response, err
}

func (p *player) answer(e *exchange, fate stepKind) (response *http.Response, err error) {
	again := e.request.Clone(context.WithoutCancel(e.request.Context()))
	again.Body = io.NopCloser(bytes.NewReader(e.body))
	code, header := 0, http.Header{"Content-Type": {"application/json"}}
	switch fate {
	case stepThrottle:
		code, header = http.StatusTooManyRequests, http.Header{"Retry-After": {"2"}}
	case stepRefuse:
		code = http.StatusInternalServerError
	}
	text := []byte(`{"error":{"error_code":"INJECTED","error_message":"injected"}}`)
	if code == 0 {
		if response, err = p.sim.Transport().RoundTrip(again); err != nil {
			return nil, err
		}
		text, _ = io.ReadAll(response.Body)
		code, header = response.StatusCode, response.Header
	}
	if fate == stepLose {
		p.learned(e, "nothing")
		return nil, io.ErrUnexpectedEOF
	}
	p.learned(e, fmt.Sprint(code, " ", string(text)))
	return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(bytes.NewReader(text)), Request: e.request}, nil
}

func (p *player) learned(e *exchange, what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(&p.history, "%s %s %s: %s\n", e.request.Method, e.request.URL.RequestURI(), e.body, what)
}

// stopped are the requests that wait, in the order in which they were made.
func (p *player) stopped() []*exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.pending)
}

// learnt is the history as text.
func (p *player) learnt() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.history.String()
}

// next is the first request that waits for its effect, or for its answer.
func (p *player) next(effect bool) *exchange {
	for _, e := range p.stopped() {
		if e.waiting.Load() == effect {
			return e
		}
	}
	return nil
}

// wake lets time pass until the copy has something to do, or never will have.
func (p *player) wake() {
	returned := p.returned.Load()
	pause := time.Millisecond
	for passed := time.Duration(0); passed < quiet; passed += pause {
		time.Sleep(pause)
		synctest.Wait()
		if len(p.stopped()) > 0 || p.returned.Load() != returned {
			return
		}
		pause = min(2*pause, 10*time.Second)
	}
	p.finished = true
}

// run makes the calls, each until it succeeds, or its caller leaves.
func (p *player) run(ctx context.Context) {
	for _, do := range p.calls {
		for try := 0; ; try++ {
			if p.err = do(ctx, p.controller); p.err == nil || ctx.Err() != nil || try == 20 {
				break
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
			}
		}
		p.returned.Add(1)
	}
}
