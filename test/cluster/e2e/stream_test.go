package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
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
	if int64(got.Requests) != asked.Load() || int64(got.Failed) != dropped.Load() || got.Failed == 0 {
		t.Errorf("%s; the server was asked %d times and dropped %d", got, asked.Load(), dropped.Load())
	}
	if got.Connections >= got.Requests {
		t.Errorf("%d requests took %d connections: none was kept", got.Requests, got.Connections)
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
