package driver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// wire is the network between a copy of the controller and the API: requests and answers take time, get lost, are throttled or
// refused. Before a request takes effect the world looks whether it may.
type wire struct {
	*world
	who  string
	dead atomic.Bool // the process is gone: nothing more is sent
	// looked holds the servers whose disks were looked at since the last detachment there was sent. The world's lock guards it.
	looked map[string]bool
}

// What happens to a request.
const (
	arrives = iota
	throttledThere
	refusedThere // before it took effect
	lostThere
	answerRefused // after it took effect
	answerLost
)

// fate draws what happens to a request: something is wrong with one in twenty.
func (l *wire) fate() int {
	if l.calm.Load() {
		return arrives
	}
	return max(0, l.intn(100)-94)
}

var errNoConnection = errors.New("connection refused")

// RoundTrip carries a request. Once sent, it goes its way whether its sender waits or not.
func (l *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.dead.Load() {
		return nil, errNoConnection
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	type outcome struct {
		response *http.Response
		err      error
	}
	back := make(chan outcome, 1)
	fate, there, here := l.fate(), l.delay(), l.delay()
	if !l.mayBeLate(r) {
		there = 0
	}
	if strings.HasPrefix(r.URL.Path, "/1.3/server/") && r.Method == http.MethodGet {
		here = 0 // nothing can be done about an address that is another disk's between the look and the detachment
	}
	go func() {
		time.Sleep(there)
		response, err := l.deliver(r, body, fate)
		time.Sleep(here)
		back <- outcome{response, err}
	}()
	select {
	case o := <-back:
		return o.response, o.err
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// mayBeLate reports whether the network may hold a request back. It does not where its sender could do nothing about what comes
// of that: an attachment that arrives when the volume has been detached again, a detachment that arrives when another disk has
// that address, a deletion that was refused at first.
func (l *wire) mayBeLate(r *http.Request) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.Method {
	case http.MethodPost:
		return false
	case http.MethodDelete:
		id := path.Base(r.URL.Path)
		attached := false
		for _, volume := range l.volumes {
			attached = attached || volume.id == id && volume.server != ""
		}
		return l.asked[id] == "delete" && !attached
	}
	return true
}

// latest is how late requests and answers are at most.
const latest = 15 * time.Second

// delay is how long a request or an answer is on its way: seldom some seconds.
func (l *wire) delay() time.Duration {
	if l.intn(20) == 0 {
		return time.Duration(l.intn(int(latest/time.Millisecond))) * time.Millisecond
	}
	return time.Duration(l.intn(20)) * time.Millisecond
}

func (l *wire) deliver(r *http.Request, body []byte, fate int) (*http.Response, error) {
	refuse := func(status int) *http.Response {
		return &http.Response{
			StatusCode: status, Request: r, Header: http.Header{"Retry-After": {fmt.Sprint(l.intn(4))}},
			Body: io.NopCloser(strings.NewReader(`{"error":{"error_code":"INJECTED","error_message":"injected"}}`)),
		}
	}
	looked := l.look(r)
	switch fate {
	case throttledThere:
		return refuse(http.StatusTooManyRequests), nil
	case refusedThere:
		return refuse(http.StatusInternalServerError), nil
	case lostThere:
		return nil, io.ErrUnexpectedEOF
	}
	response, err := l.takeEffect(r, body, looked)
	switch fate {
	case answerRefused:
		return refuse(http.StatusBadGateway), nil
	case answerLost:
		return nil, io.ErrUnexpectedEOF
	}
	return response, err
}

// look remembers that the disks of a server are looked at, and forgets it when a detachment there is sent. It reports whether it
// was so.
func (l *wire) look(r *http.Request) (looked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	server, isDetachment := strings.CutSuffix(r.URL.Path, "/storage/detach")
	looked = l.looked[server]
	l.looked[server] = !isDetachment && (looked || r.Method == http.MethodGet)
	return looked
}

// takeEffect lets the API have a request, and remembers what was made. looked says that its sender looked first.
func (l *wire) takeEffect(r *http.Request, body []byte, looked bool) (*http.Response, error) {
	again := r.Clone(context.WithoutCancel(r.Context()))
	again.Body = io.NopCloser(bytes.NewReader(body))
	l.mu.Lock()
	defer l.mu.Unlock()
	target := strings.TrimPrefix(r.URL.Path, "/1.3")
	if r.Method != http.MethodGet {
		l.note("  %s: %s %s %s", l.who, r.Method, target, body)
		if other := l.theirsThere(target, body); other != "" && looked {
			// The person was at that address between the look and the detachment, which the client's own limit may hold back for a
			// moment. The API has no request that says which disk is meant.
			defer l.lookAt(other)
		} else if wrong := l.mustNot(r.Method, target, body); wrong != "" {
			l.t.Errorf("%s sends %s %s %s: %s", l.who, r.Method, target, body, wrong)
		}
	}
	response, err := l.sim.Transport().RoundTrip(again)
	if err != nil || r.Method != http.MethodPost || strings.HasPrefix(target, "/server/") {
		return response, err
	}
	text, _ := io.ReadAll(response.Body)
	response.Body = io.NopCloser(bytes.NewReader(text))
	var made struct{ Storage storage }
	if json.Unmarshal(text, &made) == nil && made.Storage.UUID != "" {
		l.made[made.Storage.UUID] = true
	}
	return response, nil
}

// mustNot tells why a request must not be sent: it changes what is not the driver's, or what it was not asked to change.
func (w *world) mustNot(method, target string, body []byte) string {
	part := strings.Split(strings.Trim(target, "/"), "/")
	switch {
	case method == http.MethodDelete && len(part) == 2 && part[0] == "storage":
		return w.mustNotDelete(part[1])
	case method == http.MethodPut && len(part) == 2 && part[0] == "storage":
		if !w.made[part[1]] {
			return "the driver did not make that storage"
		}
		return ""
	case method == http.MethodPost && part[0] == "storage" && (len(part) == 1 || part[2] == "clone" || part[2] == "backup"):
		return ""
	case method == http.MethodPost && len(part) == 4 && part[0] == "server" && part[2] == "storage":
		var change struct {
			Device struct{ Storage, Address string } `json:"storage_device"`
		}
		if err := json.Unmarshal(body, &change); err != nil {
			return err.Error()
		}
		return w.mustNotPlug(part[3], part[1], change.Device.Storage, change.Device.Address)
	}
	return "the driver has no use for such a request"
}

// theirsThere is the person's disk that a detachment takes, empty for every other request.
func (w *world) theirsThere(target string, body []byte) string {
	server, found := strings.CutSuffix(target, "/storage/detach")
	var change struct {
		Device struct{ Address string } `json:"storage_device"`
	}
	if !found || json.Unmarshal(body, &change) != nil {
		return ""
	}
	if id := w.at(path.Base(server), change.Device.Address); slices.Contains(w.theirs, id) {
		return id
	}
	return ""
}

func (w *world) mustNotDelete(id string) string {
	if !w.made[id] {
		return "the driver did not make that storage"
	}
	for name, volume := range w.volumes {
		if volume.id == id && w.asked[id] != "delete" {
			return "nothing asked for the deletion of " + name
		}
	}
	for name, snapshot := range w.snapshots {
		if snapshot.id == id && w.asked[id] != "delete" {
			return "nothing asked for the deletion of " + name
		}
	}
	return ""
}

func (w *world) mustNotPlug(what, server, id, address string) string {
	if what == "detach" && id == "" {
		id = w.at(server, address)
	}
	switch {
	case id == "":
		return "" // there is nothing
	case !w.made[id]:
		return "the storage " + id + " there is not one that the driver made"
	case what == "attach" && w.asked[id] != "publish "+server:
		return "nothing asks for " + id + " at that server now"
	case what == "detach" && w.asked[id] != "unpublish "+server && w.asked[id] != "unpublish ":
		return "nothing asks for " + id + " to leave that server now"
	}
	return ""
}

// at is the storage at an address of a server, empty where the address is free.
func (w *world) at(server, address string) string {
	var answer struct {
		Server struct {
			Devices struct {
				Device []struct{ Address, Storage string } `json:"storage_device"`
			} `json:"storage_devices"`
		}
	}
	w.sim.Do(w.t, "GET", "/server/"+server, "", &answer)
	for _, device := range answer.Server.Devices.Device {
		if device.Address == address {
			return device.Storage
		}
	}
	return ""
}

// copyOfController is a replica, and what leads to it.
type copyOfController struct {
	*replica
	wire *wire
	life context.Context // ends with its process
	kill func()
}

func (w *world) startCopy(n int) *copyOfController {
	name := fmt.Sprint("copy ", n+1)
	wire := &wire{world: w, who: name, looked: map[string]bool{}}
	life, end := context.WithCancel(w.t.Context())
	c := &copyOfController{replica: startReplica(w.t, w.sim, name, wire, time.Minute), wire: wire, life: life}
	c.kill = func() {
		wire.dead.Store(true)
		end()
		go c.stop()
	}
	return c
}
