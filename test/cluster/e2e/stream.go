package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// stream is a steady stream of requests to one address: clients that make a new connection for each request, and clients that
// keep theirs. What it counts as failed has failed for good: nobody asks a second time.
type stream struct {
	url  string
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	begin   time.Time
	end     context.CancelFunc
	clients sync.WaitGroup

	mu     sync.Mutex // guards the rest
	phase  string     // what happens meanwhile
	counts counts
}

// counts are what a stream has come to.
type counts struct {
	Requests, Failed int
	Connections      int
	slowest          time.Duration
	failures         []string // the first ones
}

const (
	clientsOfAKind = 4
	freshPause     = 40 * time.Millisecond // between two requests of a client that makes connections
	keptPause      = 15 * time.Millisecond // and of one that keeps its own
	answerLimit    = 5 * time.Second       // no answer by then is none
	mostRequests   = 100_000               // of one stream
	mostFailures   = 10                    // that are told one by one
)

// start starts the clients. They ask until stop is called, or mostRequests are made.
func (s *stream) start(ctx context.Context) {
	ctx, s.end = context.WithCancel(ctx)
	s.begin = time.Now()
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
	return s.counts
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
	took := time.Since(begin)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts.Requests++
	s.counts.slowest = max(s.counts.slowest, took)
	if err == nil {
		return
	}
	s.counts.Failed++
	if len(s.counts.failures) < mostFailures {
		s.counts.failures = append(s.counts.failures, fmt.Sprintf("at %.2f s, %s, over a %s, after %.3f s: %v",
			begin.Sub(s.begin).Seconds(), phase, kind, took.Seconds(), err))
	}
}

// per10000 is how many of 10,000 requests failed.
func (c counts) per10000() float64 { return float64(c.Failed) * 10_000 / float64(max(c.Requests, 1)) }

func (c counts) String() string {
	return fmt.Sprintf("%d of %d requests failed (%.1f of 10,000), over %d connections; the slowest answer took %d ms",
		c.Failed, c.Requests, c.per10000(), c.Connections, c.slowest.Milliseconds())
}
