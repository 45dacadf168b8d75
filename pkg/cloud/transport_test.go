package cloud

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// wire is what the transport stands on, with a script: each function answers one attempt, the last one all that follow.
type wire struct {
	script []func(*http.Request) (*http.Response, error)

	mu       sync.Mutex
	attempts []time.Time
	headers  []http.Header
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	n := min(len(w.attempts), len(w.script)-1)
	w.attempts = append(w.attempts, time.Now())
	w.headers = append(w.headers, r.Header)
	w.mu.Unlock()
	return w.script[n](r)
}

func status(code int, header ...string) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		sentTo(r)
		answer := &http.Response{StatusCode: code, Header: http.Header{}, Body: newBody([]byte("{}")), Request: r}
		for i := 0; i+1 < len(header); i += 2 {
			answer.Header.Set(header[i], header[i+1])
		}
		return answer, nil
	}
}

// sentTo tells whoever traces the request that it went out, as net/http does.
func sentTo(r *http.Request) {
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.WroteHeaders != nil {
		trace.WroteHeaders()
	}
}

var errWire = errors.New("the wire broke")

func brokenBeforeSending(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: errWire}
}

func brokenAfterSending(r *http.Request) (*http.Response, error) {
	sentTo(r)
	return nil, errWire
}

func brokenInTheBody(r *http.Request) (*http.Response, error) {
	sentTo(r)
	body := io.MultiReader(strings.NewReader(`{"storage":`), &failingReader{})
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(body), Request: r}, nil
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, errWire }

func silent(r *http.Request) (*http.Response, error) {
	sentTo(r)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func newTestTransport(t *testing.T, script ...func(*http.Request) (*http.Response, error)) (*transport, *wire) {
	t.Helper()
	config := Config{Token: "t", BaseURL: "http://api.example"}.withDefaults()
	source, err := newCredentialSource(config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport, w := newTransport(config, source, m), &wire{script: script}
	transport.base = w
	return transport, w
}

func roundTrip(t *testing.T, rt http.RoundTripper, ctx context.Context, method string) (int, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, "http://api.example/1.3/storage", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := rt.RoundTrip(request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}

func TestTransportRepeatsWhatMayBeRepeated(t *testing.T) {
	type attempts map[string]int // by method
	once := attempts{"GET": 1, "PUT": 1, "DELETE": 1, "POST": 1, "PATCH": 1}
	always := attempts{"GET": 2, "PUT": 2, "DELETE": 2, "POST": 2, "PATCH": 2}
	ifIdempotent := attempts{"GET": 2, "PUT": 2, "DELETE": 2, "POST": 1, "PATCH": 1}

	for name, test := range map[string]struct {
		first func(*http.Request) (*http.Response, error)
		want  attempts
	}{
		"success":                     {status(201), once},
		"refusal":                     {status(409), once},
		"not found":                   {status(404), once},
		"refused with no other token": {status(401), once},
		"throttled":                   {status(429), always},
		"no connection":               {brokenBeforeSending, always},
		"broken connection":           {brokenAfterSending, ifIdempotent},
		"broken answer":               {brokenInTheBody, ifIdempotent},
		"no answer in time":           {silent, ifIdempotent},
		"internal error":              {status(500), ifIdempotent},
		"bad gateway":                 {status(502), ifIdempotent},
		"unavailable":                 {status(503), ifIdempotent},
		"gateway timeout":             {status(504), ifIdempotent},
		"not implemented":             {status(501), once},
	} {
		for method, want := range test.want {
			t.Run(name+" "+method, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					transport, wire := newTestTransport(t, test.first, status(200))
					_, err := roundTrip(t, transport, t.Context(), method)
					if got := len(wire.attempts); got != want {
						t.Errorf("%d attempts, want %d", got, want)
					}
					if want > 1 && err != nil {
						t.Errorf("got %v after a good second attempt", err)
					}
				})
			})
		}
	}
}

func TestTransportGivesUpAfterSomeAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, wire := newTestTransport(t, status(503))
		code, err := roundTrip(t, transport, t.Context(), "GET")
		if code != 503 || err != nil || len(wire.attempts) != maxAttempts {
			t.Errorf("got %d, %v after %d attempts, want the answer after %d", code, err, len(wire.attempts), maxAttempts)
		}
	})
}

func TestTransportHonoursRetryAfter(t *testing.T) {
	for name, header := range map[string]func() string{
		"seconds": func() string { return "30" },
		"date":    func() string { return time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				transport, wire := newTestTransport(t, status(429, "Retry-After", header()), status(200))
				began := time.Now()
				if code, err := roundTrip(t, transport, t.Context(), "POST"); code != 200 || err != nil {
					t.Errorf("got %d, %v", code, err)
				}
				if waited := wire.attempts[1].Sub(began); waited < 30*time.Second {
					t.Errorf("came back after %s, asked to wait 30 s", waited)
				}
			})
		})
	}
}

func TestRetryAfterCannotSilenceTheClientForGood(t *testing.T) {
	for _, header := range []string{"864000", "99999999999", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		synctest.Test(t, func(t *testing.T) {
			transport, _ := newTestTransport(t, status(429, "Retry-After", header), status(200))
			began := time.Now()
			if code, err := roundTrip(t, transport, t.Context(), "GET"); code != 200 || err != nil {
				t.Errorf("got %d, %v", code, err)
			}
			if waited := time.Since(began); waited < time.Minute || waited > 2*maxRetryAfter {
				t.Errorf("asked to wait %s, came back after %s", header, waited)
			}
		})
	}
}

func TestThrottledOnceKeepsAllRequestsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, wire := newTestTransport(t, status(429, "Retry-After", "10"), status(200))
		began := time.Now()
		first := make(chan error)
		go func() {
			_, err := roundTrip(t, transport, t.Context(), "GET")
			first <- err
		}()
		synctest.Wait()
		if _, err := roundTrip(t, transport, t.Context(), "GET"); err != nil {
			t.Error(err)
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		for i, at := range wire.attempts[1:] {
			if at.Sub(began) < 10*time.Second {
				t.Errorf("attempt %d came %s after the API asked for 10 s of quiet", i+2, at.Sub(began))
			}
		}
	})
}

func TestTransportDoesNotWaitBeyondTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, _ := newTestTransport(t, status(429, "Retry-After", "30"))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		code, err := roundTrip(t, transport, ctx, "GET")
		if code != 429 || err != nil {
			t.Errorf("got %d, %v, want the API's own answer", code, err)
		}
		if time.Since(began) > 0 {
			t.Errorf("waited %s for what cannot come in time", time.Since(began))
		}
		// The API's wish holds for the next request as well, which cannot be sent in time.
		if _, err := roundTrip(t, transport, ctx, "POST"); !errors.Is(err, errThrottled) || !neverSent(err) {
			t.Errorf("the next request got %v", err)
		}
	})
}

func TestAttemptTimeoutIsNotTheCallersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, _ := newTestTransport(t, silent)
		began := time.Now()
		_, err := roundTrip(t, transport, t.Context(), "POST")
		if err == nil || errors.Is(err, context.DeadlineExceeded) || neverSent(err) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took != transport.timeout {
			t.Errorf("took %s, want %s", took, transport.timeout)
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began = time.Now()
		_, err = roundTrip(t, transport, ctx, "GET")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("the caller's deadline reads as %v after %s", err, time.Since(began))
		}
	})
}

func TestTransportKeepsToItsOwnLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, wire := newTestTransport(t, status(200))
		transport.throttle = newThrottle(rate.Limit(2), 1, 1, transport.metrics)
		began := time.Now()
		for range 5 {
			if _, err := roundTrip(t, transport, t.Context(), "GET"); err != nil {
				t.Error(err)
			}
		}
		if took := wire.attempts[4].Sub(began); took != 2*time.Second {
			t.Errorf("5 requests at 2 a second took %s, want 2 s", took)
		}
	})
}

func TestTransportBoundsConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, wire := newTestTransport(t, silent)
		transport.throttle = newThrottle(rate.Inf, 1, 3, transport.metrics)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		for range 10 {
			go func() {
				_, err := roundTrip(t, transport, ctx, "POST")
				done <- err
			}()
		}
		synctest.Wait()
		if got := len(wire.attempts); got != 3 {
			t.Errorf("%d requests at one time, want 3", got)
		}
		cancel()
		for range 10 {
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		}
	})
}

func TestTransportTriesOtherCredentialsOnce(t *testing.T) {
	dir := t.TempDir()
	writeSecret(t, dir, map[string]string{"token": "old"})
	source, err := newCredentialSource(Config{CredentialsDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	transport, wire := newTestTransport(t, status(401))
	transport.credentials = source
	writeSecret(t, dir, map[string]string{"token": "new"})

	code, err := roundTrip(t, transport, t.Context(), "POST")
	if code != 401 || err != nil {
		t.Errorf("got %d, %v", code, err)
	}
	if len(wire.headers) != 2 || wire.headers[0].Get("Authorization") != "Bearer old" ||
		wire.headers[1].Get("Authorization") != "Bearer new" {
		t.Errorf("%d attempts, want one with the old token and one with the new", len(wire.headers))
	}
}

// Who may not change anything any more still reads, and what it would change is untouched.
func TestChangesNeedPermission(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	c, err := New(Config{Token: sim.Token, BaseURL: sim.URL, BeforeChange: func(context.Context) error { return errors.New("not the leader") }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.Servers(t.Context()); err != nil {
		t.Error(err)
	}
	sim.ResetRequests()
	err = c.call(t.Context(), http.MethodPost, "/storage", map[string]any{"storage": map[string]any{"size": "10", "title": "x", "zone": "fi-hel1"}}, nil)
	if err == nil || !strings.Contains(err.Error(), "not the leader") || uncertain(err) || sim.Requests().Total() != 0 {
		t.Errorf("error %v after %v", err, sim.Requests())
	}
}
