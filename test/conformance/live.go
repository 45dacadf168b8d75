package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// settings are upcloud-sim's flags for tests that need others than the rest.
var settings = map[string][]string{
	"TestToken":               {"--start-time", "2025-02-06T15:33:07Z"}, // its tokens expire on 2025-12-01
	"TestCreateRestartServer": {"--profile", "realistic"},               // it looks every 5 s for a state that soon passes
}

const (
	username = "simulator"
	password = "simulator"

	liveTimeout = 15 * time.Minute // of one test; the slowest waits for a minute
	downloads   = 3                // attempts
)

// runLiveTests builds the SDK's tests and upcloud-sim, and runs each test in a process of its own against a simulator
// of its own: the tests expect an account that nobody else uses.
func runLiveTests(ctx context.Context, o *options, s *sdk, known *known, out io.Writer) (summary, error) {
	dir, err := os.MkdirTemp("", "upcloud-conformance-")
	if err != nil {
		return summary{}, err
	}
	defer os.RemoveAll(dir)
	b, err := build(ctx, s, dir)
	if err != nil {
		return summary{}, err
	}
	results := make([]string, len(s.tests))
	slots := make(chan struct{}, o.parallel)
	var running sync.WaitGroup
	for i, test := range s.tests {
		if !o.only.MatchString(test.name) {
			continue
		}
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] = b.run(ctx, test.name)
		})
	}
	running.Wait()
	if err := ctx.Err(); err != nil {
		return summary{}, err
	}
	var sum summary
	fmt.Fprintln(out, "The SDK's live tests against upcloud-sim:")
	for i, test := range s.tests {
		if o.only.MatchString(test.name) {
			sum.report(out, test.name, results[i], known.test(test.name))
		}
	}
	return sum, nil
}

const stale = "is said to differ, and does not: take it out of known-differences.yaml"

// report counts one test and says how it went; problem is empty when it passed.
func (s *summary) report(out io.Writer, name, problem, known string) {
	switch {
	case problem == "":
		s.passed++
		fmt.Fprintf(out, "  pass   %s\n", name)
		if known != "" {
			fmt.Fprintln(out, "         "+stale)
		}
	case known != "":
		s.known++
		fmt.Fprintf(out, "  known  %s\n         %s\n", name, known)
	default:
		s.failed++
		fmt.Fprintf(out, "  FAIL   %s\n         %s\n", name, strings.ReplaceAll(problem, "\n", "\n         "))
	}
}

// binaries are what a live test needs.
type binaries struct {
	simulator, tests string
	dir              string // where the tests run
}

func build(ctx context.Context, s *sdk, dir string) (*binaries, error) {
	module := filepath.Join(dir, "sdk")
	b := &binaries{
		simulator: filepath.Join(dir, "upcloud-sim"),
		tests:     filepath.Join(dir, "service.test"),
		dir:       filepath.Join(module, "upcloud", "service"),
	}
	if err := s.copyTo(module); err != nil {
		return nil, err
	}
	if _, err := goTool(ctx, "", "build", "-o", b.simulator, "./cmd/upcloud-sim"); err != nil {
		return nil, err
	}
	_, err := goTool(ctx, module, "mod", "download")
	for attempt := 1; err != nil && attempt < downloads && ctx.Err() == nil; attempt++ { // proxies fail now and then
		_, err = goTool(ctx, module, "mod", "download")
	}
	if err != nil {
		return nil, err
	}
	_, err = goTool(ctx, module, "test", "-c", "-o", b.tests, "./upcloud/service")
	return b, err
}

// run runs one test against a new simulator, and returns what went wrong.
func (b *binaries) run(ctx context.Context, name string) (problem string) {
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	args := []string{"--listen", "127.0.0.1:0", "--tls", "--profile", "fast", "--username", username, "--password", password}
	args = append(args, settings[name]...)
	host, stop, err := startSimulator(ctx, b.simulator, args)
	if err != nil {
		return err.Error()
	}
	defer stop()
	cmd := exec.CommandContext(ctx, b.tests, "-test.run", "^"+name+"$", "-test.v", "-test.timeout", liveTimeout.String())
	cmd.Dir = b.dir
	cmd.Env = append(os.Environ(),
		"UPCLOUD_GO_SDK_API_HOST="+host,
		"UPCLOUD_DEBUG_API_BASE_URL=https://"+host, // for the tests that make their own client
		"UPCLOUD_DEBUG_SKIP_CERTIFICATE_VERIFY=1",
		"UPCLOUD_GO_SDK_TEST_USER="+username,
		"UPCLOUD_GO_SDK_TEST_PASSWORD="+password,
	)
	output, err := cmd.CombinedOutput()
	switch {
	case bytes.Contains(output, []byte("--- SKIP")):
		return "skipped itself:\n" + tail(output)
	case err != nil:
		return fmt.Sprintf("%v:\n%s", err, tail(output))
	case !bytes.Contains(output, []byte("--- PASS: "+name)):
		return "did not run:\n" + tail(output)
	}
	return ""
}

var served = regexp.MustCompile(`https://(127\.0\.0\.1:\d+)`)

// startSimulator starts upcloud-sim and returns where it serves.
func startSimulator(ctx context.Context, program string, args []string) (host string, stop func(), err error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	lines := bufio.NewScanner(stdout)
	for host == "" && lines.Scan() {
		if m := served.FindStringSubmatch(lines.Text()); m != nil {
			host = m[1]
		}
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait() // the test says what counts
	}
	if host == "" {
		stop()
		return "", nil, fmt.Errorf("%s did not say where it serves", program)
	}
	return host, stop, nil
}

const tailLines = 40

// tail returns the end of a test's output.
func tail(output []byte) string {
	lines := strings.Split(strings.TrimSpace(string(output)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
