#!/bin/bash
# github.com/UpCloudLtd/upcloud-go-api/v8 8.35.0: UPCLOUD_DEBUG_API_BASE_URL is meant to point a program at a test endpoint. A value
# without a scheme (127.0.0.1:8080) is dropped without an error, and the program sends its requests, credentials included, to
# https://api.upcloud.com. The same value given by client.WithBaseURL is an error at the first request. So a program that takes the
# variable has to check the value itself. Nothing is sent here: the transport is one that only notes where a request would go.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

cat >go.mod <<'MOD'
module example.com/finding

go 1.26

require github.com/UpCloudLtd/upcloud-go-api/v8 v8.35.0
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/service"
)

// noted sends nothing.
type noted struct{ destination string }

func (n *noted) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _, hasCredentials := r.BasicAuth()
	n.destination = fmt.Sprintf("%s://%s, with credentials: %t", r.URL.Scheme, r.URL.Host, hasCredentials)
	return nil, errors.New("not sent")
}

func destination(options ...client.ConfigFn) string {
	n := &noted{destination: "nowhere"}
	options = append(options, client.WithHTTPClient(&http.Client{Transport: n}))
	_, _ = service.New(client.New("user", "password", options...)).GetAccount(context.Background())
	return n.destination
}

func main() {
	failed := false
	expect := func(what, got, expected string) {
		fmt.Printf("%s: %s\n", what, got)
		failed = failed || got != expected
	}
	os.Setenv(client.EnvDebugAPIBaseURL, "http://127.0.0.1:8080")
	expect("variable http://127.0.0.1:8080", destination(), "http://127.0.0.1:8080, with credentials: true")
	os.Setenv(client.EnvDebugAPIBaseURL, "127.0.0.1:8080")
	expect("variable 127.0.0.1:8080", destination(), "https://api.upcloud.com, with credentials: true")
	expect("WithBaseURL 127.0.0.1:8080", destination(client.WithBaseURL("127.0.0.1:8080")), "nowhere")
	if failed {
		os.Exit(1)
	}
}
GO
GOFLAGS=-mod=mod go run . || { echo "the behaviour has changed"; exit 1; }
echo "seen with upcloud-go-api $(go list -m -f '{{.Version}}' github.com/UpCloudLtd/upcloud-go-api/v8)"
