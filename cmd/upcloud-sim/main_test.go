package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestBadInputNamesTheFlagAndTheRemedy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, test := range []struct {
		args     string
		contains []string
	}{
		{"--listen " + taken.Addr().String(), []string{"--listen", "in use", "choose another port"}},
		{"--listen 8100", []string{`--listen "8100"`, "127.0.0.1:8100"}},
		{"--listen 192.0.2.1:8100", []string{"--listen", "does not have that address"}},
		{"--profile slow", []string{"--profile", `"slow"`, "instant, fast, realistic"}},
		{"--disks qcow", []string{"--disks", `"qcow"`, "none, loop, qemu"}},
		{"--disks-dir /tmp/x", []string{"--disks-dir", "--disks loop", "--disks qemu"}},
		{"--load-balancer-interface eth0", []string{"--load-balancer-interface", "--load-balancers haproxy"}},
		{"--load-balancers haproxy --load-balancer-interface nowhere0 --listen 127.0.0.1:0", []string{"--load-balancers",
			"nowhere0"}},
		{"--load-balancer-rules last", []string{"--load-balancer-rules", `"last"`, "first, all"}},
		{"--public-network 198.18.0.0/28", []string{"--public-network", "/24"}},
		{"--username me", []string{"--username", "--password"}},
		{"--clock mine", []string{"--clock", "machine, manual"}},
		{"--fault latency=soon", []string{"--fault", "latency", "500ms"}},
		{"--nonsense", []string{"--nonsense", "--help"}},
		{"start", []string{`"start"`, "--help"}},
	} {
		err := run(t.Context(), strings.Fields(test.args), io.Discard, io.Discard)
		if err == nil {
			t.Errorf("%s: no error", test.args)
			continue
		}
		for _, want := range test.contains {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q lacks %q", test.args, err, want)
			}
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %q", test.args, err)
		}
	}
}

func TestHelpHasExamples(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), []string{"--help"}, &out, io.Discard)
	if !errors.Is(err, pflag.ErrHelp) || !strings.Contains(out.String(), "Examples:") || !strings.Contains(out.String(), "--metadata-listen") {
		t.Errorf("%v: %s", err, out.String())
	}
}

// watcher collects what is written, and tells the first match of a pattern.
type watcher struct {
	pattern *regexp.Regexp
	text    bytes.Buffer
	found   chan string
}

func (w *watcher) Write(b []byte) (int, error) {
	w.text.Write(b)
	if m := w.pattern.FindString(w.text.String()); m != "" && w.found != nil {
		w.found <- m
		w.found = nil
	}
	return len(b), nil
}

func TestServesUntilToldToStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	found := make(chan string, 1)
	out := &watcher{pattern: regexp.MustCompile(`http://127\.0\.0\.1:\d+`), found: found}
	var log bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, []string{"--listen", "127.0.0.1:0", "--metadata-listen", "127.0.0.1:0", "--log-requests"}, out, &log)
	}()
	url := <-found
	req, err := http.NewRequest("GET", url+"/1.3/account", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("simulator", "simulator")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after the stop: %v", err)
	}
	if !strings.Contains(log.String(), "GET    200  /account") {
		t.Errorf("request log: %q", log.String())
	}
}

func TestListeningOnAllAddressesIsWarnedOf(t *testing.T) {
	for address, warns := range map[string]bool{"127.0.0.1:0": false, "[::1]:0": false, ":0": true, "0.0.0.0:0": true} {
		ctx, cancel := context.WithCancel(t.Context())
		found := make(chan string, 1)
		out := &watcher{pattern: regexp.MustCompile(`a local UpCloud at`), found: found}
		var log bytes.Buffer
		done := make(chan error, 1)
		go func() { done <- run(ctx, []string{"--listen", address}, out, &log) }()
		select {
		case <-found:
			cancel()
			if err := <-done; err != nil {
				t.Errorf("%s: %v", address, err)
			}
		case err := <-done:
			cancel()
			if address == "[::1]:0" { // a machine without IPv6
				continue
			}
			t.Fatalf("%s: %v", address, err)
		}
		if warned := strings.Contains(log.String(), "listens on all addresses"); warned != warns {
			t.Errorf("--listen %s: warned is %t: %q", address, warned, log.String())
		}
	}
}
