// Package simulatortest runs a simulator in a test, as net/http/httptest runs a handler.
//
// It knows tests and the API; what the simulator does is pkg/simulator's.
package simulatortest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Server is a simulator that serves on the loopback interface until the test ends.
type Server struct {
	*simulator.Simulator
	URL string // http://127.0.0.1:PORT, without /1.3: what UPCLOUD_DEBUG_API_BASE_URL takes
	// Username, Password and Token are credentials that the simulator accepts.
	Username, Password, Token string

	client *http.Client
}

// Start runs a simulator for the test.
func Start(t testing.TB, cfg simulator.Config) *Server {
	t.Helper()
	server := start(t, cfg)
	web := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		server.close(t)
		web.CloseClientConnections()
		web.Close()
	})
	server.URL, server.client = web.URL, http.DefaultClient
	return server
}

// StartInMemory runs a simulator that no network leads to: Do, Raw and Transport reach it within the process. A test in a
// bubble of testing/synctest needs that, as its time stands still while a goroutine waits for a network.
func StartInMemory(t testing.TB, cfg simulator.Config) *Server {
	t.Helper()
	server := start(t, cfg)
	t.Cleanup(func() { server.close(t) })
	server.URL, server.client = "http://simulator.example", &http.Client{Transport: server.Transport()}
	return server
}

func start(t testing.TB, cfg simulator.Config) *Server {
	t.Helper()
	s, err := simulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := &Server{Simulator: s, Username: cfg.Username, Password: cfg.Password, Token: cfg.Token}
	if cfg.Username == "" && cfg.Token == "" {
		server.Username, server.Password = simulator.DefaultUsername, simulator.DefaultPassword
		server.Token = simulator.DefaultToken
	}
	return server
}

func (s *Server) close(t testing.TB) {
	if err := s.Close(); err != nil {
		t.Errorf("closing the simulator: %v", err)
	}
}

// Transport carries requests to the simulator within the process: what cloud.Config.Transport takes.
func (s *Server) Transport() http.RoundTripper { return inProcess{s.Handler()} }

// inProcess calls a handler as if a network lay between.
type inProcess struct{ handler http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (answer *http.Response, err error) {
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.WroteHeaders != nil {
		trace.WroteHeaders()
	}
	defer func() {
		switch aborted := recover(); aborted {
		case nil:
		case http.ErrAbortHandler:
			answer, err = nil, io.ErrUnexpectedEOF
		default:
			panic(aborted)
		}
	}()
	recorder := httptest.NewRecorder()
	served := r.Clone(r.Context())
	served.RequestURI = r.URL.RequestURI()
	if served.Body == nil {
		served.Body = http.NoBody
	}
	p.handler.ServeHTTP(recorder, served)
	return recorder.Result(), nil
}

// Proxy passes requests on to the simulator, for tests that stand between it and a client.
func (s *Server) Proxy(t testing.TB) *httputil.ReverseProxy {
	t.Helper()
	target, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return httputil.NewSingleHostReverseProxy(target)
}

// PassTime moves the clock on, a step a millisecond, until what it returns is called, or the test ends.
func PassTime(t testing.TB, clock *simulator.ManualClock, step time.Duration) (pause func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				clock.Advance(step)
			}
		}
	}()
	pause = sync.OnceFunc(func() {
		close(done)
		<-stopped
	})
	t.Cleanup(pause)
	return pause
}

// Metadata serves the metadata service as the server sees it, and returns its URL: what takes the place of
// http://169.254.169.254.
func (s *Server) Metadata(t testing.TB, serverUUID string) string {
	t.Helper()
	web := httptest.NewServer(s.MetadataHandlerFor(serverUUID))
	t.Cleanup(web.Close)
	return web.URL
}

// CreateServer makes a server as real ones are: with metadata, a public, a utility and a private interface and a system
// disk, and returns its UUID when it is started. All servers made in one zone are on one private network.
func (s *Server) CreateServer(t testing.TB, hostname, zone string) string {
	t.Helper()
	return s.CreateServerOn(t, hostname, zone, s.privateNetwork(t, zone))
}

// CreateServerOn is CreateServer on a private network that there is.
func (s *Server) CreateServerOn(t testing.TB, hostname, zone, network string) string {
	t.Helper()
	body := fmt.Sprintf(`{"server":{"hostname":%q,"title":%q,"zone":%q,"metadata":"yes","plan":"2xCPU-4GB",
		"networking":{"interfaces":{"interface":[
			{"type":"public","ip_addresses":{"ip_address":[{"family":"IPv4"}]}},
			{"type":"utility","ip_addresses":{"ip_address":[{"family":"IPv4"}]}},
			{"type":"private","network":%q,"ip_addresses":{"ip_address":[{"family":"IPv4"}]}}]}},
		"storage_devices":{"storage_device":[
			{"action":"create","size":20,"tier":"maxiops","title":%q}]}}}`,
		hostname, hostname, zone, network, hostname+" system")
	var answer struct {
		Server struct{ UUID, State string }
	}
	s.Do(t, "POST", "/server", body, &answer)
	s.waitStarted(t, answer.Server.UUID)
	return answer.Server.UUID
}

func (s *Server) waitStarted(t testing.TB, uuid string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		var answer struct{ Server struct{ State string } }
		s.Do(t, "GET", "/server/"+uuid, "", &answer)
		if answer.Server.State == "started" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("server %s is in the state %s after a minute", uuid, answer.Server.State)
		}
	}
}

const testNetworkName = "simulatortest"

func (s *Server) privateNetwork(t testing.TB, zone string) string {
	t.Helper()
	var list struct {
		Networks struct {
			Network []struct{ UUID, Name string }
		}
	}
	s.Do(t, "GET", "/network?zone="+zone, "", &list)
	for _, n := range list.Networks.Network {
		if n.Name == testNetworkName {
			return n.UUID
		}
	}
	return s.CreateNetwork(t, testNetworkName, zone, "172.16.0.0/16")
}

// CreateNetwork makes a private network with DHCP and returns its UUID.
func (s *Server) CreateNetwork(t testing.TB, name, zone, prefix string) string {
	t.Helper()
	body := fmt.Sprintf(`{"network":{"name":%q,"zone":%q,"ip_networks":{"ip_network":[
		{"address":%q,"dhcp":"yes","dhcp_default_route":"no","family":"IPv4"}]}}}`, name, zone, prefix)
	var answer struct{ Network struct{ UUID string } }
	s.Do(t, "POST", "/network/", body, &answer)
	return answer.Network.UUID
}

// Do makes a request of the path below /1.3 and decodes the answer, which must be a success, into out. Requests made
// this way are counted like others: reset the counts before counting.
func (s *Server) Do(t testing.TB, method, path, body string, out any) {
	t.Helper()
	status, answer := s.Raw(t, method, path, body)
	if status >= 300 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
}

// Raw makes a request of the path below /1.3 and returns the answer, whatever it is.
func (s *Server) Raw(t testing.TB, method, path, body string) (status int, answer []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, s.URL+"/1.3"+path, bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	} else {
		req.SetBasicAuth(s.Username, s.Password)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, answer
}
