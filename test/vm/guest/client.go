package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

// Client has programs executed in the guest.
type Client struct {
	// Address of the agent, as this side reaches it: 127.0.0.1:PORT.
	Address string
	HTTP    http.Client
}

// Run executes a program and returns its output, which out, if not nil, gets as it comes. The error holds the output, too,
// if the exit status is not 0.
func (c *Client) Run(ctx context.Context, out io.Writer, env []string, args ...string) (string, error) {
	resp, err := c.post(ctx, "/exec", command{Args: args, Env: env})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	var to io.Writer = &text
	if out != nil {
		to = io.MultiWriter(&text, out)
	}
	if _, err := io.Copy(to, resp.Body); err != nil {
		return text.String(), fmt.Errorf("%s: %w after %q", strings.Join(args, " "), err, text.String())
	}
	if status, err := strconv.Atoi(resp.Trailer.Get(statusTrailer)); err != nil || status != 0 {
		return text.String(), fmt.Errorf("%s: exit status %s: %s", strings.Join(args, " "), resp.Trailer.Get(statusTrailer), text.String())
	}
	return text.String(), nil
}

// Start begins a program that runs until Kill; its output goes to the file of its name in LogDir.
func (c *Client) Start(ctx context.Context, name string, args ...string) error {
	resp, err := c.post(ctx, "/start", command{Args: args, Name: name})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Kill ends a program that was started with SIGKILL, and returns when it is gone.
func (c *Client) Kill(ctx context.Context, name string) error {
	resp, err := c.post(ctx, "/kill", command{Name: name})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (c *Client) post(ctx context.Context, path string, body command) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.Address+path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return nil, fmt.Errorf("the guest's agent: %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return resp, nil
}
