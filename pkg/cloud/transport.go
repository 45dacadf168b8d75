package cloud

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/klog/v2"
)

const (
	maxAttempts = 5
	// maxAnswer bounds what one answer may take of memory; a list of 10,000 servers has a few MiB.
	maxAnswer = 64 << 20
)

// transport carries every request of the package. It adds the credentials in force, keeps to the client-side limits,
// repeats what may be repeated, and counts.
//
// Repeated are: any request that certainly had no effect (429, 401 with other credentials at hand, a connection that
// was never made), and idempotent ones after 5xx, a broken connection or no answer in time. A request that may have had
// its effect and is not idempotent goes back to the caller, who looks first.
type transport struct {
	base        http.RoundTripper
	basePath    string // what the base URL puts before the API's own paths
	credentials *credentialSource
	throttle    *throttle
	timeout     time.Duration // of one attempt
	backoff     func() *backoff
	permitted   func(context.Context) error // Config.BeforeChange
	metrics     *metrics
}

func newTransport(config Config, source *credentialSource, m *metrics) *transport {
	basePath := ""
	if _, rest, found := strings.Cut(config.BaseURL, "://"); found {
		if slash := strings.Index(rest, "/"); slash >= 0 {
			basePath = rest[slash:]
		}
	}
	return &transport{
		base: &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS13,
				InsecureSkipVerify: config.SkipCertificateVerify, // asked for by name, for test endpoints
			},
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: config.Concurrency,
			IdleConnTimeout:     90 * time.Second,
		},
		basePath:    basePath + "/1.3",
		credentials: source,
		throttle:    newThrottle(rate.Limit(config.RequestsPerSecond), config.Burst, config.Concurrency, m),
		timeout:     config.AttemptTimeout,
		backoff:     func() *backoff { return &backoff{first: 200 * time.Millisecond, most: 10 * time.Second} },
		permitted:   config.BeforeChange,
		metrics:     m,
	}
}

// RoundTrip makes attempts until one is final, or the next would not begin within the caller's deadline.
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	op := operation(request.Method, strings.TrimPrefix(request.URL.Path, t.basePath))
	logger := klog.FromContext(ctx)
	pace := t.backoff()
	reauthenticated := false

	for n := 1; ; n++ {
		a := t.attempt(ctx, request, op)
		logger.V(5).Info("UpCloud API", "operation", op, "status", a.status, "took", a.took)
		if a.unauthorized() && !reauthenticated && t.credentials.refused(a.used) {
			reauthenticated = true
			t.metrics.retries.WithLabelValues(op, a.status).Inc()
			continue
		}
		if n >= maxAttempts || !a.repeatable(request.Method, once(ctx)) || ctx.Err() != nil {
			return a.response, a.err
		}
		pause := max(pace.next(), a.retryAfter())
		if a.throttled() {
			t.throttle.pauseFor(pause)
		}
		if !fits(ctx, pause) {
			return a.response, a.err
		}
		logger.V(3).Info("Repeating a request to the UpCloud API", "operation", op, "status", a.status, "in", pause)
		t.metrics.retries.WithLabelValues(op, a.status).Inc()
		if sleep(ctx, pause) != nil {
			return a.response, a.err
		}
	}
}

// attempt sends the request once and reads the whole answer, so that a connection that breaks in the middle of a body
// is a failure of the attempt, not of whoever reads later.
func (t *transport) attempt(ctx context.Context, request *http.Request, op string) *attempt {
	leave, err := t.throttle.enter(ctx)
	if err != nil {
		return &attempt{status: "throttled", err: &sendError{err: err, final: true}}
	}
	defer leave()
	if t.permitted != nil && request.Method != http.MethodGet {
		if err := t.permitted(ctx); err != nil {
			return &attempt{status: "forbidden here", err: &sendError{err: &notPermittedError{err}, final: true}}
		}
	}

	tracked, sent := trackSending(ctx)
	bounded, cancel := context.WithTimeout(tracked, t.timeout)
	defer cancel()

	a := &attempt{used: t.credentials.get()}
	began := time.Now()
	if a.response, err = t.send(bounded, request, a.used); err != nil {
		a.err = t.sendError(ctx, bounded, err, sent.Load())
	}
	a.took = time.Since(began)
	a.status = a.describe(ctx, bounded)
	t.metrics.observe(op, a.status, a.took)
	return a
}

func (t *transport) send(ctx context.Context, request *http.Request, with credentials) (*http.Response, error) {
	again := request.Clone(ctx)
	if request.GetBody != nil {
		body, err := request.GetBody()
		if err != nil {
			return nil, err
		}
		again.Body = body
	}
	with.apply(again.Header)
	response, err := t.base.RoundTrip(again)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	content, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxAnswer {
		return nil, errAnswerTooLong
	}
	response.Body = newBody(content)
	return response, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections reach the connections.
func (t *transport) CloseIdleConnections() {
	if idle, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		idle.CloseIdleConnections()
	}
}
