package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A request that a server takes and does not answer is a failed one, over a kept connection, too: it is not made again behind the
// scenes.
func TestStreamDoesNotAskTwice(t *testing.T) {
	var asked, dropped atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%10 != 0 {
			_, _ = w.Write([]byte("here"))
			return
		}
		dropped.Add(1)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close()
	}))
	defer server.Close()
	s := &stream{url: server.URL, dial: (&net.Dialer{}).DialContext}
	s.start(t.Context())
	for s.soFar().Requests < 200 {
		time.Sleep(time.Millisecond)
	}
	got := s.stop()
	if int64(got.Requests+got.Stalled) != asked.Load() || int64(got.Failed+got.Stalled) != dropped.Load() || got.Failed == 0 {
		t.Errorf("%s; the server was asked %d times and dropped %d", got, asked.Load(), dropped.Load())
	}
	if got.Connections >= got.Requests {
		t.Errorf("%d requests took %d connections: none was kept", got.Requests, got.Connections)
	}
}

// Requests that fail while the clients stand still are no others' fault, and those before and after are.
func TestStreamTellsItsOwnStallsApart(t *testing.T) {
	begin := time.Now()
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	s := &stream{begin: begin, stalls: []span{{at(10), at(22)}}}
	s.counts.Requests = 100
	for told, of := range map[string]span{"before": {at(8), at(9)}, "long before": {at(1), at(9)}, "into": {at(9), at(23)},
		"in": {at(12), at(20)}, "right after": {at(22), at(23)}, "later": {at(25), at(26)}} {
		s.failures = append(s.failures, failure{of, told})
	}
	got := s.soFar()
	slices.Sort(got.failures)
	if want := []string{"before", "later", "long before"}; got.Failed != 3 || got.Stalled != 3 || got.Requests != 97 || !slices.Equal(got.failures, want) {
		t.Errorf("%s: %q, want %q", got, got.failures, want)
	}
	if !strings.Contains(got.String(), "3 others failed while this machine stood still") {
		t.Errorf("it is told as %q", got)
	}
}

// A process that is stopped for a while notices when that was.
func TestStreamNotesThatItStandsStill(t *testing.T) {
	begin := time.Now()
	s := &stream{begin: begin}
	ctx, end := context.WithCancel(t.Context())
	s.clients.Go(func() { s.watch(ctx) })
	defer s.clients.Wait()
	defer end()
	stop := exec.Command("sh", "-c", fmt.Sprintf("kill -STOP %[1]d; sleep 3; kill -CONT %[1]d", os.Getpid()))
	if err := stop.Run(); err != nil {
		t.Fatal(err)
	}
	stalls := func() []span {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Clone(s.stalls)
	}
	for len(stalls()) == 0 && time.Since(begin) < time.Minute {
		time.Sleep(time.Millisecond)
	}
	if !stoodStill(span{begin, time.Now()}, stalls()) {
		t.Errorf("it was stopped for 3 s from %s on, and notes %v", begin, stalls())
	}
}

func TestStreamCountsWrongAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer server.Close()
	s := &stream{url: server.URL, dial: (&net.Dialer{}).DialContext}
	s.during("in a test")
	s.start(t.Context())
	for s.soFar().Requests < 20 {
		time.Sleep(time.Millisecond)
	}
	got := s.stop()
	if got.Failed != got.Requests || got.per10000() != 10_000 || len(got.failures) != mostFailures {
		t.Errorf("%s: %q", got, got.failures)
	}
	if !strings.Contains(got.failures[0], "in a test") || !strings.Contains(got.failures[0], "503") {
		t.Errorf("a failure is told as %q", got.failures[0])
	}
}
