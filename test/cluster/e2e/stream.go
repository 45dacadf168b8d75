package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// stream is a steady stream of requests to one address: clients that make a new connection for each request, and clients that
// keep theirs. What it counts as failed has failed for good: nobody asks a second time. A request that fails while the clients
// themselves stand still, as on a machine that is paused, says nothing of who is asked: it is counted by itself.
type stream struct {
	url  string
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	begin   time.Time
	end     context.CancelFunc
	clients sync.WaitGroup

	mu       sync.Mutex // guards the rest
	phase    string     // what happens meanwhile
	counts   counts
	failures []failure
	stalls   []span
}

// span is some time.
type span struct{ from, to time.Time }

// failure is a request that failed.
type failure struct {
	span
	told string
}

// counts are what a stream has come to.
type counts struct {
	Requests, Failed int
	Stalled          int // requests that failed while the clients stood still: not among the others
	Connections      int
	slowest          time.Duration
	failures         []string // the first ones
}

const (
	clientsOfAKind = 4
	freshPause     = 40 * time.Millisecond // between two requests of a client that makes connections
	keptPause      = 15 * time.Millisecond // and of one that keeps its own
	// answerLimit is when no answer is none. It is less than the 10 s for which a load balancer tries a member in vain.
	answerLimit  = 9 * time.Second
	mostRequests = 1_000_000 // of one stream
	mostFailures = 10        // that are told one by one

	// A client that is this late has stood still. Others may close the connections that it keeps meanwhile, of which it learns
	// by its next request.
	stallLimit = 2 * time.Second
	stallTick  = 100 * time.Millisecond
	afterwards = time.Second
)

// start starts the clients. They ask until stop is called, or mostRequests are made.
func (s *stream) start(ctx context.Context) {
	ctx, s.end = context.WithCancel(ctx)
	s.begin = time.Now()
	s.clients.Go(func() { s.watch(ctx) })
	for range clientsOfAKind {
		s.clients.Go(func() {
			s.ask(ctx, "new connection", freshPause, &http.Transport{DialContext: s.connect, DisableKeepAlives: true})
		})
		s.clients.Go(func() {
			s.ask(ctx, "kept connection", keptPause, &http.Transport{DialContext: s.connect, MaxConnsPerHost: 1})
		})
	}
}

// stop ends the clients, each when it has got its last answer, and returns what there was.
func (s *stream) stop() counts {
	s.end()
	s.clients.Wait()
	return s.soFar()
}

func (s *stream) soFar() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.counts
	for _, failed := range s.failures {
		switch {
		case stoodStill(failed.span, s.stalls):
			got.Stalled++
			got.Requests--
			continue
		case len(got.failures) < mostFailures:
			got.failures = append(got.failures, failed.told)
		}
		got.Failed++
	}
	return got
}

// stoodStill tells whether a request was under way, or made right after, when the clients stood still.
func stoodStill(request span, stalls []span) bool {
	return slices.ContainsFunc(stalls, func(stall span) bool {
		return request.from.Before(stall.to.Add(afterwards)) && request.to.After(stall.from)
	})
}

// watch notes when this process stands still.
func (s *stream) watch(ctx context.Context) {
	tick := time.NewTicker(stallTick)
	defer tick.Stop()
	for last := s.begin; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Sub(last) >= stallLimit {
			s.mu.Lock()
			s.stalls = append(s.stalls, span{last, now})
			s.mu.Unlock()
		}
		last = now
	}
}

// during says what is being done from now on, for those who read of failures.
func (s *stream) during(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
}

func (s *stream) connect(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := s.dial(ctx, network, address)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Connections++
	return conn, err
}

// ask is one client.
func (s *stream) ask(ctx context.Context, kind string, pause time.Duration, transport *http.Transport) {
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: answerLimit}
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		begin := time.Now()
		s.mu.Lock()
		phase, enough := s.phase, s.counts.Requests >= mostRequests
		s.mu.Unlock()
		if enough {
			return
		}
		err := s.once(context.WithoutCancel(ctx), client) // a request that has begun is waited for
		s.count(kind, phase, begin, err)
	}
}

// once makes one request, and never a second one. It is a POST whose body cannot be had twice: net/http silently repeats others
// when the server has closed a connection that was kept.
func (s *stream) once(ctx context.Context, client *http.Client) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, io.NopCloser(strings.NewReader("?")))
	if err != nil {
		return err
	}
	request.ContentLength = 1
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return fmt.Errorf("the answer breaks off: %w", err)
	case answer.StatusCode != http.StatusOK:
		return errors.New("the answer is " + answer.Status)
	case len(body) == 0:
		return errors.New("the answer is empty")
	}
	return nil
}

func (s *stream) count(kind, phase string, begin time.Time, err error) {
	end := time.Now()
	took := end.Sub(begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Requests++
	s.counts.slowest = max(s.counts.slowest, took)
	if err == nil {
		return
	}
	s.failures = append(s.failures, failure{span{begin, end}, fmt.Sprintf("at %.2f s, %s, over a %s, after %.3f s: %v",
		begin.Sub(s.begin).Seconds(), phase, kind, took.Seconds(), err)})
}

// per10000 is how many of 10,000 requests failed.
func (c counts) per10000() float64 { return float64(c.Failed) * 10_000 / float64(max(c.Requests, 1)) }

func (c counts) String() string {
	told := fmt.Sprintf("%d of %d requests failed (%.1f of 10,000), over %d connections; the slowest answer took %d ms",
		c.Failed, c.Requests, c.per10000(), c.Connections, c.slowest.Milliseconds())
	if c.Stalled > 0 {
		told += fmt.Sprintf("; %d others failed while this machine stood still", c.Stalled)
	}
	return told
}
