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

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/fence"
)

const (
	maxAttempts = 5
	// maxAnswer bounds what one answer may take of memory; a list of 10,000 servers has a few MiB.
	maxAnswer = 64 << 20
	// deliveryTime is for how long the kernel tries to deliver a request. A leader that has lost the network gives up that long
	// before another can become the leader (fence.Delivery).
	deliveryTime = fence.Delivery
)

// transport carries every request of the package. It adds the credentials in force, keeps to the client-side limits,
// repeats what may be repeated, and counts.
//
// Repeated are: any request that certainly had no effect (429, 401 with other credentials at hand, a connection that
// was never made), and idempotent ones after 5xx, a broken connection or no answer in time. A request that may have had
// its effect and is not idempotent goes back to the caller, who looks first. So does every request that names a place
// (see withLook).
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
	base := config.Transport
	if base == nil {
		base = overTCP(config)
	}
	throttle := newThrottle(rate.Limit(config.RequestsPerSecond), config.Burst, config.Concurrency, m)
	throttle.shares.limits = shareLimits{group: config.GroupConcurrency, tenant: config.TenantConcurrency}
	return &transport{
		base:        base,
		basePath:    basePath + "/1.3",
		credentials: source,
		throttle:    throttle,
		timeout:     config.AttemptTimeout,
		backoff:     func() *backoff { return &backoff{first: 200 * time.Millisecond, most: 10 * time.Second} },
		permitted:   config.BeforeChange,
		metrics:     m,
	}
}

// RoundTrip makes attempts until one is final, or the next would not begin within the caller's deadline. A change that the
// last caller has left is not sent, and not sent again (see work).
func (t *transport) RoundTrip(request *http.Request) (*http.Response, error) {
	ctx := request.Context()
	waits := ctx // what a pause ends with
	if request.Method != http.MethodGet {
		waits = attended(ctx)
	}
	op := operation(request.Method, strings.TrimPrefix(request.URL.Path, t.basePath))
	logger := klog.FromContext(ctx)
	pace := t.backoff()
	reauthenticated := false

	for n := 1; ; n++ {
		a := t.attempt(ctx, waits, request, op)
		logger.V(5).Info("UpCloud API", "operation", op, "status", a.status, "took", a.took)
		if a.unauthorized() && !reauthenticated && t.credentials.refused(a.used) {
			reauthenticated = true
			if namesPlace(ctx) {
				return a.response, a.err
			}
			t.metrics.retries.WithLabelValues(op, a.status).Inc()
			continue
		}
		pause := max(pace.next(), a.retryAfter())
		if a.throttled() {
			t.throttle.pauseFor(pause)
		}
		if n >= maxAttempts || !a.repeatable(request.Method) || namesPlace(ctx) || waits.Err() != nil || !fits(ctx, pause) {
			return a.response, a.err
		}
		logger.V(3).Info("Repeating a request to the UpCloud API", "operation", op, "status", a.status, "in", pause)
		t.metrics.retries.WithLabelValues(op, a.status).Inc()
		if sleep(waits, pause) != nil {
			return a.response, a.err
		}
	}
}

// attempt sends the request once, when its turn comes before waits ends, and reads the whole answer, so that a connection
// that breaks in the middle of a body is a failure of the attempt, not of whoever reads later.
func (t *transport) attempt(ctx, waits context.Context, request *http.Request, op string) *attempt {
	leave, err := t.throttle.enter(waits, namesPlace(ctx))
	if err != nil {
		if ctx.Err() == nil && waits.Err() != nil {
			err = errUnattended
		}
		return &attempt{status: "throttled", err: &sendError{err: err, final: true}}
	}
	defer leave()
	if kept := t.keptBack(ctx, waits, request.Method); kept != nil {
		return kept
	}

	tracked, sent := trackSending(ctx)
	bounded, cancel := context.WithTimeout(tracked, t.timeout)
	defer cancel()

	a := &attempt{used: t.credentials.get()}
	began := time.Now()
	noteSending(ctx, began)
	if a.response, err = t.send(bounded, request, a.used); err != nil {
		a.err = t.sendError(ctx, bounded, err, sent.Load())
	}
	a.took = time.Since(began)
	a.status = a.describe(ctx, bounded)
	t.metrics.observe(op, a.status, a.took)
	return a
}

// keptBack is the outcome of a request that must not be sent now, nil if it may be. It is asked last before the sending, as
// everything before takes time.
func (t *transport) keptBack(ctx, waits context.Context, method string) *attempt {
	if t.permitted != nil && method != http.MethodGet {
		if err := t.permitted(waits); err != nil {
			return &attempt{status: "forbidden here", err: &sendError{err: &notPermittedError{err}, final: true}}
		}
	}
	switch {
	case ctx.Err() == nil && waits.Err() != nil:
		return &attempt{status: "unattended", err: &sendError{err: errUnattended, final: true}}
	case lookIsOld(ctx):
		return &attempt{status: "look is old", err: &sendError{err: errOldLook}}
	}
	return nil
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
	if namesPlace(ctx) {
		again.GetBody = nil // without it net/http repeats no request by itself
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
	noteDate(ctx, response.Header.Get("Date"))
	return response, nil
}

// CloseIdleConnections lets http.Client.CloseIdleConnections reach the connections.
func (t *transport) CloseIdleConnections() {
	if idle, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		idle.CloseIdleConnections()
	}
}

// overTCP is what carries requests to the API.
func overTCP(config Config) http.RoundTripper {
	return &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Control: takeBack}).DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: config.SkipCertificateVerify, // asked for by name, for test endpoints
		},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: config.Concurrency,
		IdleConnTimeout:     90 * time.Second,
	}
}
