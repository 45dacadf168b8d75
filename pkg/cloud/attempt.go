package cloud

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

var errAnswerTooLong = fmt.Errorf("the answer is longer than %d MiB", maxAnswer>>20)

// attempt is one sending of a request: an answer, or why there is none.
type attempt struct {
	response *http.Response
	err      error
	used     credentials
	status   string // for logs and metrics
	took     time.Duration
}

// sendError is why an attempt got no answer.
type sendError struct {
	err   error
	sent  bool // the request may have reached the API
	final bool // repeating cannot help
}

func (e *sendError) Error() string { return e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }

// notPermittedError is Config.BeforeChange's.
type notPermittedError struct{ error }

func (e *notPermittedError) Unwrap() error { return e.error }

// sendError tells the attempt's own time limit from the caller's: only the latter may look like a context's error.
func (t *transport) sendError(caller, bounded context.Context, err error, sent bool) error {
	if caller.Err() == nil && bounded.Err() != nil {
		err = fmt.Errorf("no answer within %s", t.timeout)
	}
	var certificate *tls.CertificateVerificationError
	final := errors.As(err, &certificate) || errors.Is(err, errAnswerTooLong)
	return &sendError{err: err, sent: sent, final: final}
}

// neverSent reports whether a request certainly did not reach the API, so that repeating it is safe for any method.
func neverSent(err error) bool {
	var failed *sendError
	return errors.As(err, &failed) && !failed.sent
}

// mayPass reports whether a request certainly did not reach the API, for a reason that may have passed.
func mayPass(err error) bool {
	var failed *sendError
	return errors.As(err, &failed) && !failed.sent && !failed.final
}

// rootCause is the text below the wrappers, which repeat the method and the URL.
func rootCause(err error) string {
	var failed *sendError
	if errors.As(err, &failed) {
		return failed.err.Error()
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err.Error()
	}
	return err.Error()
}

// trackSending reports through sent whether the headers of a request were written to a connection. Before that moment
// the API cannot have seen it.
func trackSending(ctx context.Context) (tracked context.Context, sent *atomic.Bool) {
	sent = new(atomic.Bool)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}), sent
}

func (a *attempt) unauthorized() bool {
	return a.response != nil && a.response.StatusCode == http.StatusUnauthorized
}

func (a *attempt) throttled() bool {
	return a.response != nil && a.response.StatusCode == http.StatusTooManyRequests
}

// repeatable reports whether the same request may be sent again without a look at what became of it.
func (a *attempt) repeatable(method string) bool {
	if a.err != nil {
		var failed *sendError
		return errors.As(a.err, &failed) && !failed.final && (!failed.sent || idempotent(method))
	}
	switch a.response.StatusCode {
	case http.StatusTooManyRequests:
		return true
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return idempotent(method)
	}
	return false
}

// maxRetryAfter bounds what one answer can ask for, as it holds for all requests: a mistaken one would keep the program
// silent until it is restarted.
const maxRetryAfter = 5 * time.Minute

// retryAfter is what the answer asks for, in seconds or as a date; zero where it asks nothing.
func (a *attempt) retryAfter() time.Duration {
	if a.response == nil {
		return 0
	}
	asked := a.response.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(asked); err == nil {
		return time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	}
	if date, err := http.ParseTime(asked); err == nil {
		now := time.Now()
		if theirs, err := http.ParseTime(a.response.Header.Get("Date")); err == nil {
			now = theirs // this machine's clock may be wrong
		}
		return min(max(date.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

func (a *attempt) describe(caller, bounded context.Context) string {
	switch {
	case a.response != nil:
		return strconv.Itoa(a.response.StatusCode)
	case caller.Err() != nil:
		return "canceled"
	case bounded.Err() != nil:
		return "timeout"
	}
	return "failed"
}

func newBody(content []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(content)) }
