package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// recording is what the SDK's tests and the real API said to each other.
type recording struct {
	name         string
	Interactions []interaction
}

type interaction struct {
	Request struct {
		Method, URL, Body string
		Headers           http.Header
	}
	Response struct {
		Body    string
		Code    int
		Headers http.Header
	}
}

// line names a request: method and path below /1.3, or the whole path of another service.
func (i *interaction) line() string {
	_, path, _ := strings.Cut(i.Request.URL, ".upcloud.com")
	return i.Request.Method + " " + strings.TrimPrefix(path, apiPrefix)
}

// answer is the recorded answer's JSON; nil: it has no body.
func (i *interaction) answer() (any, error) {
	if i.Response.Body == "" {
		return nil, nil
	}
	var v any
	err := json.Unmarshal([]byte(i.Response.Body), &v)
	return v, err
}

// readRecordings reads the recordings of all areas.
func readRecordings(s *sdk) ([]*recording, error) {
	var out []*recording
	for _, test := range s.tests {
		if test.recording == "" {
			continue
		}
		b, err := os.ReadFile(s.recordingFile(test.recording))
		if err != nil {
			return nil, err
		}
		r := &recording{name: test.recording}
		if err := yaml.Unmarshal(b, r); err != nil {
			return nil, fmt.Errorf("%s: %w", r.name, err)
		}
		if len(r.Interactions) == 0 {
			return nil, fmt.Errorf("%s: the recording is empty", r.name)
		}
		out = append(out, r)
	}
	return out, nil
}

// start is when the recording was made: the simulator's clock starts then.
func (r *recording) start() (time.Time, error) {
	return http.ParseTime(r.Interactions[0].Response.Headers.Get("Date"))
}

// before are requests that bring the account to where the recording finds it, as its own answers show.
var before = map[string][]string{
	"gettags": {`POST /tag {"tag":{"name":"testTag"}}`},
	"tagging": {`POST /tag {"tag":{"name":"tag1"}}`, `POST /tag {"tag":{"name":"tag2_renamed"}}`},
}

func replayAll(o *options, s *sdk, known *known, out io.Writer) (summary, error) {
	recordings, err := readRecordings(s)
	if err != nil {
		return summary{}, err
	}
	shapes, err := shapesOf(recordings)
	if err != nil {
		return summary{}, err
	}
	var sum summary
	fmt.Fprintln(out, "The recordings of the real API, sent to a simulator:")
	for _, r := range recordings {
		if !o.only.MatchString(r.name) {
			continue
		}
		differences, err := replay(r, shapes)
		if err != nil {
			return sum, fmt.Errorf("%s: %w", r.name, err)
		}
		unknown, reasons := known.sort(r.name, differences)
		sum.report(out, r.name, strings.Join(unknown, "\n"), "")
		if len(unknown) == 0 && len(reasons) > 0 {
			sum.passed--
			sum.known++
		}
		for _, reason := range reasons {
			fmt.Fprintf(out, "         known: %s\n", reason)
		}
		if len(reasons) == 0 && known.speaksOf(r.name) {
			fmt.Fprintln(out, "         "+stale)
		}
	}
	return sum, nil
}

// sort returns the differences that are not known, and the reasons of those that are.
func (k *known) sort(name string, differences []difference) (unknown, reasons []string) {
	said := map[string]bool{} // the same at every look is one difference
	for _, d := range differences {
		reason := k.recording(name, d)
		if reason == "" {
			if !said[d.String()] {
				unknown = append(unknown, d.String())
			}
			said[d.String()] = true
		} else if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	return unknown, reasons
}
