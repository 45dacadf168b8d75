package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

const apiPrefix = "/1.3"

const (
	// patience is how long, by the simulated clock, an answer may take to become what was recorded. The recordings
	// leave out most of what was asked while the SDK's tests waited.
	patience  = 10 * time.Minute
	clockStep = 500 * time.Millisecond
)

// player sends a recording's requests to a simulator at the time at which it was made.
type player struct {
	simulator *simulator.Simulator
	clock     *simulator.ManualClock
	compare   *comparison
	deleted   map[string]bool // URLs
}

// replay returns how the simulator's answers differ from the recorded ones.
func replay(r *recording, shapes shapes) ([]difference, error) {
	start, err := r.start()
	if err != nil {
		return nil, err
	}
	p := &player{clock: simulator.NewManualClockAt(start), compare: &comparison{names: names{}, shapes: shapes},
		deleted: map[string]bool{}}
	p.simulator, err = simulator.New(simulator.Config{
		Profile: simulator.Realistic, Clock: p.clock, Username: username, Password: password,
		ImportClient: &http.Client{Transport: anyFile{}},
	})
	if err != nil {
		return nil, err
	}
	defer p.simulator.Close()
	p.compare.names["testuser"] = username
	for _, line := range before[r.name] {
		fields := strings.SplitN(line, " ", 3)
		if got := p.send(fields[0], apiPrefix+fields[1], "application/json", strings.NewReader(fields[2])); got.Code >= 300 {
			return nil, fmt.Errorf("%s: %d %s", line, got.Code, got.Body)
		}
	}
	var out []difference
	for i := range r.Interactions {
		differences, err := p.step(&r.Interactions[i])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Interactions[i].line(), err)
		}
		out = append(out, differences...)
	}
	return out, nil
}

// step sends one request, again and again as time passes if the answer is one that time may change.
func (p *player) step(i *interaction) ([]difference, error) {
	recorded, err := i.answer()
	if err != nil {
		return nil, err
	}
	if i.Request.Method != http.MethodGet {
		p.catchUp(i)
	}
	var first []difference
	for waited := time.Duration(0); ; waited += clockStep {
		got := p.request(i)
		attempt := p.compare.next(i)
		attempt.response(i, recorded, got)
		if p.goneSooner(i, got.Code) {
			return nil, nil
		}
		passing := mayPass(i, got.Code, attempt.differences)
		if first == nil {
			first = attempt.differences
		}
		switch {
		case !passing:
			p.compare = attempt
			if i.Request.Method == http.MethodDelete && got.Code < 300 {
				p.deleted[i.Request.URL] = true
			}
			return attempt.differences, nil
		case waited >= patience:
			return first, nil
		}
		p.clock.Advance(clockStep)
	}
}

// catchUp lets the time pass that passed in the recording: its waits are not in it, but its dates are.
func (p *player) catchUp(i *interaction) {
	if date, err := http.ParseTime(i.Response.Headers.Get("Date")); err == nil && date.After(p.clock.Now()) {
		p.clock.Advance(date.Sub(p.clock.Now()))
	}
}

// goneSooner says whether what the recording deleted took less time to go here than it did there.
func (p *player) goneSooner(i *interaction, status int) bool {
	return p.deleted[i.Request.URL] && i.Request.Method == http.MethodGet && status == http.StatusNotFound &&
		i.Response.Code == http.StatusOK
}

// mayPass says whether time may make the answer what was recorded: a look at a state that is still to come, or a change
// that is refused because something is still under way.
func mayPass(i *interaction, status int, differences []difference) bool {
	if i.Request.Method == http.MethodGet {
		for _, d := range differences {
			if d.timed {
				return true
			}
		}
		return status != i.Response.Code
	}
	return status == http.StatusConflict && i.Response.Code < 300
}

func (p *player) request(i *interaction) *httptest.ResponseRecorder {
	_, path, _ := strings.Cut(i.Request.URL, ".upcloud.com")
	path = p.compare.names.translate(path)
	var body io.Reader = strings.NewReader(p.compare.names.translate(i.Request.Body))
	if strings.HasPrefix(path, "/uploader/") {
		body = uploaded(i)
	}
	contentType := i.Request.Headers.Get("Content-Type")
	if !strings.HasSuffix(path, "/storage/attach") && !strings.HasSuffix(path, "/storage/detach") {
		return p.send(i.Request.Method, path, contentType, body)
	}
	// these are answered when the server is through with it, which takes simulated time
	answered := make(chan *httptest.ResponseRecorder)
	go func() { answered <- p.send(i.Request.Method, path, contentType, body) }()
	for {
		select {
		case got := <-answered:
			return got
		case <-time.After(time.Millisecond):
			p.clock.Advance(100 * time.Millisecond)
		}
	}
}

func (p *player) send(method, path, contentType string, body io.Reader) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, "https://api.upcloud.com"+path, body)
	req.Header.Set("Content-Type", contentType)
	req.SetBasicAuth(username, password)
	got := httptest.NewRecorder()
	p.simulator.Handler().ServeHTTP(got, req)
	return got
}

// uploaded is a file like the one that the recording leaves out: as large, of zeros.
func uploaded(i *interaction) io.Reader {
	var answer struct {
		Written int64 `json:"written_bytes"`
	}
	_ = json.Unmarshal([]byte(i.Response.Body), &answer) // the answer is compared later
	file := io.LimitReader(zeros{}, answer.Written)
	if i.Request.Headers.Get("Content-Type") != "application/gzip" {
		return file
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.Copy(w, file); err != nil {
		panic(err) // memory takes everything
	}
	w.Close()
	return &packed
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// anyFile is a web that has every file.
type anyFile struct{}

func (anyFile) RoundTrip(r *http.Request) (*http.Response, error) {
	const file = "an image"
	return &http.Response{
		StatusCode: http.StatusOK, Status: "200 OK", Request: r, ContentLength: int64(len(file)),
		Header: http.Header{"Content-Type": {"application/octet-stream"}}, Body: io.NopCloser(strings.NewReader(file)),
	}, nil
}
