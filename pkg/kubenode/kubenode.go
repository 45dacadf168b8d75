package kubenode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
)

// maxAnswer bounds what is read of an answer. A Node with its images has some tens of KiB.
const maxAnswer = 8 << 20

// Errors that callers can act on.
var (
	// ErrNotFound: there is no such object (yet).
	ErrNotFound = errors.New("not found")
	// ErrForbidden: the service account may not do this.
	ErrForbidden = errors.New("not allowed")
	// ErrConflict: the object changed between the look and the change. Look again.
	ErrConflict = errors.New("changed meanwhile")
)

// Client asks the API server about one Node.
type Client struct {
	name   string
	rights string // the manifests that allow what is asked
	server *url.URL
	http   *http.Client
}

// InCluster makes a client for the Node of that name with the service account of the Pod that the process runs in. The
// token is read again when it changes.
func InCluster(name string) (*Client, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("no service account of Kubernetes here: %w", err)
	}
	return New(config, name)
}

// New makes a client for the Node of that name.
func New(config *rest.Config, name string) (*Client, error) {
	if name == "" || strings.ContainsAny(name, "/?#%") {
		return nil, fmt.Errorf("%q is not the name of a Node", name)
	}
	client, err := newClient(config, "upcloud-csi-node", "the ClusterRole and the ValidatingAdmissionPolicy upcloud-csi-node")
	if err != nil {
		return nil, err
	}
	client.name = name
	return client, nil
}

func newClient(config *rest.Config, userAgent, rights string) (*Client, error) {
	config = rest.CopyConfig(config)
	config.UserAgent = userAgent
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	return &Client{rights: rights, server: server, http: client}, nil
}

// Name is the name of the Node.
func (c *Client) Name() string { return c.name }

func (c *Client) nodePath() string { return "/api/v1/nodes/" + c.name }

// Node reads the Node.
func (c *Client) Node(ctx context.Context) (*Node, error) {
	var node Node
	if err := c.do(ctx, http.MethodGet, c.nodePath(), "", nil, &node); err != nil {
		return nil, err
	}
	return &node, nil
}

// do makes one request. Its errors name what was asked for, and what to do if it is not allowed.
func (c *Client) do(ctx context.Context, method, path, contentType string, body []byte, answer any) error {
	path, query, _ := strings.Cut(path, "?")
	address := c.server.JoinPath(path)
	address.RawQuery = query
	request, err := http.NewRequestWithContext(ctx, method, address.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode != http.StatusOK {
		return refusal(method, path, c.rights, response.StatusCode, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s %s: the answer is not what an API server has: %w", method, path, err)
	}
	return nil
}

func refusal(method, path, rights string, code int, text []byte) error {
	var status struct {
		Message string `json:"message"`
	}
	if err := json.Unmarshal(text, &status); err != nil || status.Message == "" {
		status.Message = http.StatusText(code)
	}
	err := &requestError{text: fmt.Sprintf("%s %s: %d %s", method, path, code, status.Message)}
	switch code {
	case http.StatusNotFound:
		err.kind = ErrNotFound
	case http.StatusConflict, http.StatusUnprocessableEntity: // the latter: a test of a JSON patch did not hold
		err.kind = ErrConflict
	case http.StatusForbidden:
		err.kind = ErrForbidden
		err.text += "; apply " + rights + " of deploy/kubernetes/base/csi-driver"
	case http.StatusUnauthorized:
		err.text += "; apply " + rights + " of deploy/kubernetes/base/csi-driver"
	}
	return err
}

// requestError is an answer that is none: its text is complete in itself.
type requestError struct {
	kind error // nil, or one of the above
	text string
}

func (e *requestError) Error() string { return e.text }
func (e *requestError) Unwrap() error { return e.kind }
