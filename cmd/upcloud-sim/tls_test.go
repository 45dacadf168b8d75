package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestServesOverTLSAtAnotherTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	found := make(chan string, 1)
	out := &watcher{pattern: regexp.MustCompile(`https://127\.0\.0\.1:\d+`), found: found}
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"--listen", "127.0.0.1:0", "--tls", "--start-time", "2025-02-06T15:33:07Z"}, out, io.Discard)
	}()
	url := <-found
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	body := `{"storage":{"size":10,"tier":"maxiops","title":"disk","zone":"fi-hel1"}}`
	req, err := http.NewRequest("POST", url+"/1.3/storage", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("simulator", "simulator")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Storage struct{ Created string } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(answer.Storage.Created, "2025-02-06T15:") {
		t.Errorf("status %d, created %q", resp.StatusCode, answer.Storage.Created)
	}
	client.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after the stop: %v", err)
	}
}

func TestBadTLSAndTimeNameTheFlagAndTheRemedy(t *testing.T) {
	for args, contains := range map[string][]string{
		"--tls-cert cert.pem":                     {"--tls-cert", "--tls-key", "both"},
		"--tls-cert /nowhere --tls-key /nowhere":  {"--tls-cert", "/nowhere", "PEM"},
		"--start-time yesterday":                  {"--start-time", `"yesterday"`, "2026-01-05T09:00:00Z"},
		"--start-time 2026-01-05 --profile fast":  {"--start-time", `"2026-01-05"`},
		"--listen 127.0.0.1:0 --tls --tls-key /k": {"--tls-cert", "--tls-key", "both"},
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard, io.Discard)
		if err == nil {
			t.Errorf("%s: no error", args)
			continue
		}
		for _, want := range contains {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q lacks %q", args, err, want)
			}
		}
	}
}
