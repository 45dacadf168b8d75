package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
	"github.com/prometheus/client_golang/prometheus"
)

const testZone = "fi-hel1"

// startCloud runs a simulator and a Cloud that talks to it, with short waits between retries.
func startCloud(t *testing.T, simulated simulator.Config) (*Cloud, *simulatortest.Server) {
	t.Helper()
	sim := simulatortest.Start(t, simulated)
	return newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token}), sim
}

func newCloud(t *testing.T, config Config) *Cloud {
	t.Helper()
	setEnv(t, nil)
	config.RequestsPerSecond, config.Burst = 10_000, 10_000
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.http.Transport.(*transport).backoff = func() *backoff { return &backoff{first: time.Millisecond, most: time.Millisecond} }
	return c
}

// wantCalls fails unless the simulator served exactly these operations, so often, since the counts were reset.
func wantCalls(t *testing.T, sim *simulatortest.Server, want map[string]int) {
	t.Helper()
	got := map[string]int{}
	for operation, count := range sim.Requests() {
		got[operation] = count.Requests
	}
	if fmt.Sprint(got) != fmt.Sprint(want) { // maps print in order of their keys
		t.Errorf("calls are %v, want %v", got, want)
	}
}

func wantKind(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error is %v, want one of kind %q", err, kind)
	}
	wantMentions(t, err, words...)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after two minutes still not: %s", what)
		}
	}
}

// leaveWhen does the work with a context that ends as soon as the condition is true, and returns the work's error.
func leaveWhen(t *testing.T, what string, condition func() bool, do func(context.Context) error) error {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	outcome := make(chan error, 1)
	go func() { outcome <- do(ctx) }()
	eventually(t, what, condition)
	leave()
	return <-outcome
}

func TestCheckTakesOneCall(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCalls(t, sim, map[string]int{"GET /account": 1})

	user := newCloud(t, Config{BaseURL: sim.URL, Username: sim.Username, Password: sim.Password})
	if err := user.Check(t.Context()); err != nil {
		t.Errorf("with user and password: %v", err)
	}
}

func TestCheckNamesTheSettingAndTheRemedy(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	elsewhere := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(elsewhere.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, "<html>Welcome</html>")
	}))
	t.Cleanup(page.Close)
	redirect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, sim.URL+r.URL.Path, http.StatusMovedPermanently)
	}))
	t.Cleanup(redirect.Close)

	for name, test := range map[string]struct {
		config Config
		kind   error
		words  []string
	}{
		"wrong token":      {Config{BaseURL: sim.URL, Token: "wrong"}, ErrUnauthorized, []string{"UPCLOUD_TOKEN", "refused"}},
		"wrong password":   {Config{BaseURL: sim.URL, Username: "simulator", Password: "wrong"}, ErrUnauthorized, []string{"UPCLOUD_PASSWORD"}},
		"nobody listens":   {Config{BaseURL: "http://" + closedPort(t), Token: "t"}, ErrUnavailable, []string{"did not answer", "refused", "network", "UPCLOUD_DEBUG_API_BASE_URL"}},
		"another service":  {Config{BaseURL: elsewhere.URL, Token: "t"}, ErrUnavailable, []string{"not the UpCloud API", "UPCLOUD_DEBUG_API_BASE_URL"}},
		"a page":           {Config{BaseURL: page.URL, Token: "t"}, ErrUnavailable, []string{"not", "UpCloud API", "UPCLOUD_DEBUG_API_BASE_URL"}},
		"a redirect":       {Config{BaseURL: redirect.URL, Token: sim.Token}, ErrUnavailable, []string{"not the UpCloud API", "UPCLOUD_DEBUG_API_BASE_URL"}},
		"https to a plain": {Config{BaseURL: strings.Replace(sim.URL, "http:", "https:", 1), Token: "t"}, ErrUnavailable, []string{"did not answer", "UPCLOUD_DEBUG_API_BASE_URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := newCloud(t, test.config).Check(t.Context())
			wantKind(t, err, test.kind, test.words...)
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "wrong") {
				t.Errorf("not one sentence, or tells a secret: %q", err)
			}
		})
	}
}

// What accepts connections and never answers must be told too, in the time that the caller gives.
func TestCheckOfASilentAPINamesTheSetting(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	address := listener.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = newCloud(t, Config{BaseURL: "http://" + address, Token: "t"}).Check(ctx)
	wantKind(t, err, ErrUnavailable, address, "did not answer", "UPCLOUD_DEBUG_API_BASE_URL")
}

// closedPort is a loopback address at which nobody listens: on 127.0.0.1, others' tests might a moment later.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.5:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func TestRotatedCredentialsTakeEffectWithoutRestart(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	dir := t.TempDir()
	writeSecret(t, dir, map[string]string{"username": "simulator", "password": "expired"})
	c := newCloud(t, Config{BaseURL: sim.URL, CredentialsDir: dir})
	wantKind(t, c.Check(t.Context()), ErrUnauthorized, dir)

	writeSecret(t, dir, map[string]string{"token": sim.Token})
	spec := VolumeSpec{Name: "pvc-1", SizeGiB: 1, Tier: "maxiops", Zone: testZone}
	if _, err := c.CreateVolume(t.Context(), spec); err != nil {
		t.Errorf("with the new credentials: %v", err)
	}
}

func TestThrottlingIsWaitedOut(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	sim.Inject(simulator.Fault{Operation: "POST /storage", Status: 429, RetryAfter: time.Second, Count: 1})
	began := time.Now()
	if _, err := c.CreateVolume(t.Context(), testSpec("pvc-1")); err != nil {
		t.Fatal(err)
	}
	if time.Since(began) < time.Second {
		t.Error("the API's wish for a second of quiet was not honoured")
	}
	wantCalls(t, sim, map[string]int{"GET /storage": 1, "POST /storage": 2})
}

func TestFailingAPIIsUnavailableNotFinal(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	sim.Inject(simulator.Fault{Status: 503})
	_, err := c.CreateVolume(t.Context(), testSpec("pvc-1"))
	wantKind(t, err, ErrUnavailable, "pvc-1", "SERVICE_UNAVAILABLE")
	_, err = c.Volume(t.Context(), "01a5568f-4766-4ce7-abf5-7d257892a5c5")
	wantKind(t, err, ErrUnavailable)
}

func TestZonesAreAskedForOnce(t *testing.T) {
	c, sim := startCloud(t, simulator.Config{})
	for range 3 {
		if err := c.CheckZone(t.Context(), testZone); err != nil {
			t.Fatal(err)
		}
	}
	wantKind(t, c.CheckZone(t.Context(), "fi-hel9"), ErrInvalid, "fi-hel9", "fi-hel1", "de-fra1")
	wantCalls(t, sim, map[string]int{"GET /zone": 1})
}

func TestMetricsTellOperationsAndQueues(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	registry := prometheus.NewRegistry()
	c := newCloud(t, Config{BaseURL: sim.URL, Token: sim.Token, Registerer: registry})
	server := sim.CreateServer(t, "node-1", testZone)
	volume := mustCreate(t, c, "pvc-1")
	if err := c.Attach(t.Context(), volume.ID, server); err != nil {
		t.Fatal(err)
	}

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := fmt.Sprint(families)
	for _, want := range []string{
		"POST /server/{uuid}/storage/attach", "GET /storage", "201", "upcloud_api_requests_total",
		"upcloud_api_request_duration_seconds", "upcloud_server_queue_depth", "upcloud_server_queue_wait_seconds",
	} {
		if !strings.Contains(seen, want) {
			t.Errorf("metrics do not tell %q", want)
		}
	}
	if strings.Contains(seen, volume.ID) {
		t.Error("metrics have a UUID in a label: as many series as volumes")
	}
	if _, err := New(Config{BaseURL: sim.URL, Token: "t", Registerer: registry}); err == nil {
		t.Error("a second Cloud on one registry is no error")
	}
}

func TestCloseEndsWorkThatOutlivedItsCallers(t *testing.T) {
	clock := simulator.NewManualClock()
	c, sim, server := realisticServer(t, clock)
	volume := mustCreate(t, c, "pvc-1")
	ctx, cancel := context.WithCancel(t.Context())
	outcome := make(chan error)
	go func() { outcome <- c.Attach(ctx, volume.ID, server) }()
	eventually(t, "the attachment is being done", func() bool { return stateOf(t, sim, server) == "maintenance" })
	cancel()
	wantKind(t, <-outcome, context.Canceled)

	// Simulated time stands still: the API does not answer, and Close must not wait for it.
	c.Close()
	if c.attachments.flying["attach "+volume.ID+" "+server] != nil {
		t.Error("the attachment goes on after Close")
	}
	wantKind(t, c.Attach(t.Context(), volume.ID, server), context.Canceled)
}

func TestCertificatesAreVerifiedUnlessToldOtherwise(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	secure := httptest.NewUnstartedServer(sim.Handler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // it complains about the refused handshake
	secure.StartTLS()
	t.Cleanup(secure.Close)

	c := newCloud(t, Config{BaseURL: secure.URL, Token: sim.Token})
	wantKind(t, c.Check(t.Context()), ErrUnavailable, "certificate",
		"UPCLOUD_DEBUG_API_BASE_URL", "UPCLOUD_DEBUG_SKIP_CERTIFICATE_VERIFY=1")
	c = newCloud(t, Config{BaseURL: secure.URL, Token: sim.Token, SkipCertificateVerify: true})
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestBaseURLMayHaveAPath(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	proxy := httptest.NewServer(http.StripPrefix("/upcloud", sim.Handler()))
	t.Cleanup(proxy.Close)
	c := newCloud(t, Config{BaseURL: proxy.URL + "/upcloud/", Token: sim.Token})
	if err := c.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
