// Package cloud is the UpCloud account as the programs of this project need it: volumes, their attachments, servers,
// zones and load balancers, in those words.
//
// It is the only package that calls upcloud-go-api; none of that library's types cross its surface. It knows the
// API: which call is needed, which answer means what, what may be repeated, and how to find again what an interrupted
// call left behind. It keeps no state that outlives the process: the API is the only database. It must not know
// Kubernetes, CSI or gRPC.
package cloud

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
)

// Cloud talks to one UpCloud account. It is safe for concurrent use. Make it with New, end it with Close.
type Cloud struct {
	config      Config
	client      *client.Client
	http        *http.Client
	credentials *credentialSource
	metrics     *metrics

	queues      *queues
	creations   *flights[*Volume]
	attachments *flights[struct{}]
	snapshots   *snapshotting
	changes     *flights[*Volume] // expansions and modifications, by volume
	attached    *attachmentCache
	surveys     *surveys
	own         ownVolumes
	zones       zoneCache

	clusterUID atomic.Pointer[string] // see SetClusterUID

	life  context.Context
	close context.CancelFunc
	work  workers

	shared sharedReads
}

// New makes a Cloud from a Config. It checks everything that can be checked without asking the API, and reads the
// mounted credentials; Check asks the API.
func New(config Config) (*Cloud, error) {
	config = config.withDefaults()
	if err := config.validate(); err != nil {
		return nil, err
	}
	credentials, err := newCredentialSource(config)
	if err != nil {
		return nil, err
	}
	metrics, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of the UpCloud client: %w", err)
	}

	c := &Cloud{config: config, credentials: credentials, metrics: metrics, queues: newQueues(metrics)}
	c.life, c.close = context.WithCancel(context.Background())
	c.creations = newFlights[*Volume](c.life, &c.work)
	c.attachments = newFlights[struct{}](c.life, &c.work)
	c.changes = newFlights[*Volume](c.life, &c.work)
	c.snapshots = newSnapshotting(c)
	c.creations.looksAgain, c.attachments.looksAgain, c.changes.looksAgain, c.snapshots.flights.looksAgain = true, true, true, true
	c.attached = newAttachmentCache(c.now)
	c.surveys = newSurveys(c)
	c.http = &http.Client{
		Transport: newTransport(config, credentials, metrics),
		// A redirect would carry the credentials to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.client = client.New("", "", client.WithBaseURL(config.BaseURL), client.WithHTTPClient(c.http))
	c.client.UserAgent = config.UserAgent
	return c, nil
}

// now is the time by which the age of answers is counted.
func (c *Cloud) now() time.Time { return c.config.Now() }

// Close ends the work that outlived its callers, waits for it, and closes idle connections. Calls that come later or at the
// same time end with context.Canceled.
func (c *Cloud) Close() {
	c.close()
	c.work.end()
	c.http.CloseIdleConnections()
}

// call sends one request to a path below /1.3 and decodes the answer into out. in is marshalled as JSON, nil means no
// body; out nil means that the answer's body does not matter.
//
// Retries happen below (see transport). An error is always an *Error, its Op the operation, such as
// "GET /storage/{uuid}"; when a method that must not be repeated blindly failed in a way that leaves its effect
// unknown, uncertain(err) is true, and the caller looks before it repeats.
func (c *Cloud) call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return &Error{Kind: ErrInvalid, Op: operation(method, path), Message: "the request cannot be encoded", Err: err}
		}
	}
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return c.callError(ctx, method, path, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return &Error{
			Kind: ErrUnavailable, Op: operation(method, path), Err: err, uncertain: !idempotent(method) || namesPlace(ctx),
			Message: "the answer is not what the UpCloud API answers",
			Remedy:  "check " + client.EnvDebugAPIBaseURL + " and what stands between here and the API",
		}
	}
	return nil
}

func (c *Cloud) send(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	switch method {
	case http.MethodGet:
		return c.client.Get(ctx, path)
	case http.MethodPost:
		return c.client.Post(ctx, path, body)
	case http.MethodPut:
		return c.client.Put(ctx, path, body)
	case http.MethodPatch:
		return c.client.Patch(ctx, path, body)
	case http.MethodDelete:
		return c.client.Delete(ctx, path)
	}
	return nil, fmt.Errorf("method %s is not one that the API has", method)
}

// callError turns what the SDK's client returned into an *Error.
func (c *Cloud) callError(ctx context.Context, method, path string, err error) error {
	op, repeatable := operation(method, path), idempotent(method) && !namesPlace(ctx)
	var answered *client.Error
	if errors.As(err, &answered) {
		return answerError(op, repeatable, answered)
	}

	failed := &Error{Kind: ErrUnavailable, Op: op, Err: err, uncertain: !repeatable && !neverSent(err), ineffective: mayPass(err)}
	if ended := ctx.Err(); ended != nil {
		failed.Kind = ended
		failed.Message = "the caller's time ended before the API answered"
		return failed
	}
	if errors.Is(err, errUnattended) {
		failed.Kind, failed.Err, failed.Message = context.Canceled, nil, errUnattended.Error()
		return failed
	}
	failed.Err = nil // its text is in the message, without the URL that the library repeats
	failed.Message = "the UpCloud API at " + c.config.BaseURL + " did not answer: " + rootCause(err)
	failed.Remedy = "check the network from here to the API"
	var certificate *tls.CertificateVerificationError
	var refused *notPermittedError
	switch {
	case errors.As(err, &refused):
		failed.Message, failed.Remedy, failed.NotPermitted = refused.Error(), "", true
	case errors.Is(err, errThrottled):
		failed.Message, failed.Remedy = errThrottled.Error(), remedyWait
	case errors.Is(err, errOldLook):
		failed.Message, failed.Remedy = errOldLook.Error(), remedyWait
	case errors.As(err, &certificate):
		failed.Remedy = "check " + client.EnvDebugAPIBaseURL + " and the certificate authorities that this machine trusts; " +
			"for a test endpoint set " + client.EnvDebugSkipCertificateVerify + "=1"
	}
	return failed
}

// Check asks for the account once, so that wrong credentials, an unreachable API or a wrong base URL are told at
// start-up, in one sentence that names the setting and the remedy.
func (c *Cloud) Check(ctx context.Context) error {
	var account upcloud.Account
	err := c.call(ctx, http.MethodGet, "/account", nil, &account)
	if err == nil && account.UserName == "" {
		err = &Error{Kind: ErrUnavailable, Message: "the answer is not that of the UpCloud API"}
	}
	if err == nil {
		return nil
	}

	var failed *Error
	if !errors.As(err, &failed) {
		return err
	}
	problem := *failed
	problem.Op, problem.Resource, problem.ID = "check", "the UpCloud account", ""
	baseURL := client.EnvDebugAPIBaseURL
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		problem.Kind, problem.Err = ErrUnavailable, nil
		problem.Message = "the UpCloud API at " + c.config.BaseURL + " did not answer in time"
		problem.Remedy = "check the network from here, and " + baseURL + " if it is set"
	case errors.Is(err, ErrUnauthorized):
		problem.Message = "the API refused the credentials from " + c.credentials.setting
		problem.Remedy = "set " + c.credentials.setting + " to those of an API user or to a valid token"
	case errors.Is(err, ErrForbidden):
		problem.Message = "the API does not let the user of " + c.credentials.setting + " in from this address"
		problem.Remedy = "allow API access and this machine's address for that user in the UpCloud control panel"
	case errors.Is(err, ErrUnavailable) && failed.Status == 0:
		if !strings.Contains(failed.Remedy, baseURL) {
			problem.Remedy = "check the network from here, and " + baseURL + " if it is set"
		}
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrUnavailable) && failed.Status < http.StatusInternalServerError:
		problem.Message = "what answers at " + c.config.BaseURL + " is not the UpCloud API"
		problem.Remedy = "unset " + baseURL + ", or set it to the API's address without /1.3"
	}
	return &problem
}
