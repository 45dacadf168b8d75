package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
)

// Whatever the API answers in the place of "this server does not exist", a Node stays; when the API is right again, the Node
// of a deleted server goes, and that of a server that is there does not.
func TestNoErrorLooksLikeAMissingServer(t *testing.T) {
	t.Parallel()
	for name, faults := range map[string][]simulator.Fault{
		"unauthorized":         {{Status: 401}},
		"forbidden":            {{Status: 403}},
		"server error":         {{Status: 500}},
		"dropped":              {{Drop: true}},
		"not found by a proxy": {{Operation: "GET /server/{uuid}", Status: 404, Code: "NOT_FOUND"}},
		"list not found":       {{Operation: "GET /server", Status: 404}},
		"server not allowed":   {{Operation: "GET /server/{uuid}", Status: 403}},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			c := started(t, "--node-monitor-period=1s")
			prefix := "err-" + strings.ReplaceAll(name, " ", "-")
			gone := c.member(prefix + "-gone")
			c.member(prefix + "-there")
			for _, fault := range faults {
				defer c.Inject(fault)()
			}
			if err := c.RemoveServer(gone); err != nil {
				t.Fatal(err)
			}
			c.setReady(prefix+"-gone", v1.ConditionUnknown)
			c.setReady(prefix+"-there", v1.ConditionUnknown)
			operation := faults[0].Operation
			if operation == "" {
				operation = "GET /server"
			}
			c.always("no Node is deleted", operation, 4, func() string {
				for _, suffix := range []string{"-gone", "-there"} {
					if !c.exists(prefix + suffix) {
						return prefix + suffix + " is"
					}
				}
				return ""
			})
		})
	}
}

// A list that is old, or cut short, deletes no Node; and that of a deleted server goes all the same.
func TestStaleAndShortListsDeleteNothing(t *testing.T) {
	t.Parallel()
	c := started(t, "--node-monitor-period=1s")
	var names []string
	for i := range 4 {
		names = append(names, fmt.Sprintf("list-%d", i))
		c.member(names[i])
	}
	remove := c.Inject(simulator.Fault{Operation: "GET /server", Stale: time.Hour}) // four servers, for ever
	for i := range 3 {
		name := fmt.Sprintf("list-unlisted-%d", i)
		names = append(names, name)
		c.member(name)
	}
	gone := c.member("list-gone")
	for _, name := range names {
		c.setReady(name, v1.ConditionUnknown)
	}
	c.always("no Node is deleted", "GET /server", 4, func() string {
		for _, name := range names {
			if !c.exists(name) {
				return name + " is"
			}
		}
		return ""
	})
	remove()
	if err := c.RemoveServer(gone); err != nil {
		t.Fatal(err)
	}
	c.setReady("list-gone", v1.ConditionUnknown)
	c.gone("list-gone")
	for _, name := range names {
		c.node(name)
	}
}

// gate lets requests through to the simulator, or refuses connections as an API does that is down.
type gate struct {
	*httptest.Server
	open atomic.Bool
}

func newGate(t *testing.T, c *cluster) *gate {
	t.Helper()
	g := &gate{}
	proxy := c.Proxy(t)
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.open.Load() {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

// The API is down when the ccm starts, comes up, goes down again, and comes back.
func TestAPIThatIsDown(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	g := newGate(t, c)
	c.env = []string{"UPCLOUD_DEBUG_API_BASE_URL=" + g.URL, "UPCLOUD_TOKEN=" + c.Token}
	c.args = append(c.args, "--node-monitor-period=1s")
	c.CreateServer(t, "down-1", zone)
	gone := c.CreateServer(t, "down-2", zone)
	c.register(c.newNode("down-1"), c.newNode("down-2"))
	c.ccm = c.start()
	c.eventually("it is told that the API is down", func() string {
		if !strings.Contains(c.log(c.ccm), "ccm: warning: check the UpCloud account") {
			return "it is not"
		}
		return ""
	})
	c.eventually("the ccm runs, and is not ready", func() string {
		if status := c.get("/readyz"); status != http.StatusServiceUnavailable {
			return fmt.Sprint("readiness is ", status)
		}
		return ""
	})
	g.open.Store(true)
	c.initialized("down-1", "down-2")
	c.eventually("the ccm is ready", func() string {
		if status := c.get("/readyz"); status != http.StatusOK {
			return fmt.Sprint("readiness is ", status)
		}
		return ""
	})

	g.open.Store(false)
	if err := c.RemoveServer(gone); err != nil {
		t.Fatal(err)
	}
	c.CreateServer(t, "down-3", zone)
	registered := time.Now()
	c.register(c.newNode("down-3"))
	for _, name := range []string{"down-1", "down-2"} {
		c.setReady(name, v1.ConditionUnknown)
	}
	c.eventually("the ccm finds the API down", func() string {
		if n := strings.Count(c.log(c.ccm), "error checking if node down-2 exists"); n < 3 {
			return fmt.Sprintf("it did so %d times", n)
		}
		return ""
	})
	for _, name := range []string{"down-1", "down-2"} {
		if !c.exists(name) {
			t.Errorf("%s was deleted while the API was down", name)
		}
	}
	down := time.Since(registered)
	g.open.Store(true)
	c.initialized("down-3")
	// A failed attempt would be followed by a pause that doubles each time: after an outage of minutes, by minutes. An attempt
	// waits for a minute, and is made anew; one that had less than half of it left may have failed on a slow machine.
	if down < time.Minute/2 && strings.Contains(c.log(c.ccm), "failed to get instance metadata for node down-3") {
		t.Error("the attempt to initialize a node did not wait for the API")
	}
	c.gone("down-2")
	c.node("down-1")
}

// The API throttles nine requests of ten. Nodes are initialized in the end, none is deleted, and it is not asked without pause.
func TestThrottlingAPI(t *testing.T) {
	t.Parallel()
	c := started(t, "--node-monitor-period=1s")
	c.member("throttled-old")
	c.setReady("throttled-old", v1.ConditionUnknown)
	var names []string
	for i := range 20 {
		names = append(names, fmt.Sprintf("throttled-%d", i))
		c.CreateServer(t, names[i], zone)
	}
	remove := c.Inject(simulator.Fault{Status: http.StatusTooManyRequests, RetryAfter: time.Second, Rate: 0.9})
	for _, name := range names {
		c.register(c.newNode(name))
	}
	c.ResetRequests()
	began := time.Now()
	c.always("no Node is deleted", "GET /server", 3, func() string {
		if !c.exists("throttled-old") {
			return "one is"
		}
		return ""
	})
	// Requests that were under way when the answer came may still arrive; each second lets in as many as are sent at once.
	if total, seconds := c.Requests().Total(), time.Since(began).Seconds()+1; float64(total) > 64*seconds {
		t.Errorf("%d requests in %.0f s to an API that asks for a pause of a second", total, seconds)
	}
	remove()
	c.initialized(names...)
}

// D-30: rotated credentials are taken without a restart: a token or user and password, from a mounted secret or from the configuration
// file.
func TestCredentialsRotate(t *testing.T) {
	t.Parallel()
	for _, source := range []string{"token-directory", "token-file", "user-directory", "user-file"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.env = []string{"UPCLOUD_DEBUG_API_BASE_URL=" + c.URL}
			kind, place, _ := strings.Cut(source, "-")
			if place == "directory" {
				c.dir = t.TempDir()
				c.args = append(c.args, "--credentials-dir="+c.dir)
			}
			first, second := "first", "second"
			var rotate func()
			if kind == "user" {
				door := newDoor(c)
				door.user.Store(first)
				c.env, rotate = []string{"UPCLOUD_DEBUG_API_BASE_URL=" + door.URL}, func() { door.user.Store(second) }
			} else {
				first, rotate = c.token()
				second, _ = c.token()
			}
			c.writeCredentials(kind, place, first)
			c.ccm = c.start()
			c.member("rotate-" + source + "-1")
			rotate()
			c.writeCredentials(kind, place, second)
			c.member("rotate-" + source + "-2")
		})
	}
}

// writeCredentials puts a token, or a user whose password is the same as his name, where the ccm looks.
func (c *cluster) writeCredentials(kind, place, secret string) {
	c.t.Helper()
	switch {
	case place == "directory" && kind == "token":
		c.file("token", secret)
	case place == "directory":
		c.file("username", secret)
		c.file("password", secret)
	case kind == "token":
		c.config = "  apiCredentials: {token: " + secret + "}\n"
		c.file("config.yaml", c.configText())
	default:
		c.config = "  apiCredentials: {user: " + secret + ", password: " + secret + "}\n"
		c.file("config.yaml", c.configText())
	}
}

// Two ccms share a cluster, as the shipped manifests have it. The leader is stopped in the middle of making a load balancer, for
// so long that the other one takes over; when it goes on, it changes nothing any more and ends. There is one load balancer.
//
// It runs alone: other tests' nodes would be members of the load balancer, and change it.
func TestLeaderThatIsLostInTheMiddle(t *testing.T) {
	c := newCluster(t)
	c.args = c.elect()
	c.CreateServer(t, "leader-node", zone)
	c.register(c.newNode("leader-node"))
	first := c.start()
	c.initialized("leader-node")
	firstHolder := c.holder()
	c.start()

	remove := c.Inject(simulator.Fault{Operation: "POST /load-balancer", Latency: 3 * time.Second})
	service := &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "leader"},
		Spec: v1.ServiceSpec{Type: v1.ServiceTypeLoadBalancer, Ports: []v1.ServicePort{{Name: "http", Port: 80}}}}
	if _, err := client.CoreV1().Services("default").Create(t.Context(), service, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the load balancer is being made", func() string {
		// The request is noted when it has been answered; that it is under way shows by what comes before.
		if c.Requests().Of("GET /load-balancer/plans")+c.Requests().Of("GET /load-balancer") == 0 {
			return "nothing was asked"
		}
		return ""
	})
	if err := first.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c.eventually("the other ccm leads", func() string {
		if c.holder() == firstHolder {
			return "it does not"
		}
		return ""
	})
	remove()
	c.eventually("the Service has its load balancer", func() string {
		current, err := client.CoreV1().Services("default").Get(t.Context(), "leader", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(current.Status.LoadBalancer.Ingress) == 0 {
			return "it has no address"
		}
		return ""
	})
	changes := c.changes()
	if err := first.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Ended():
	case <-time.After(patience):
		t.Fatal("the former leader goes on")
	}
	if code := first.ExitCode(); code != 1 || !strings.Contains(c.log(first), "leaderelection lost") {
		t.Errorf("the former leader ended with %d", code)
	}
	if now := c.changes(); now != changes {
		t.Errorf("the former leader changed something: %d changes, before %d: %v", now, changes, c.Requests())
	}
	var all []struct{ Name string }
	c.Do(t, http.MethodGet, "/load-balancer", "", &all)
	if len(all) != 1 {
		t.Errorf("load balancers: %v", all)
	}
	if err := client.CoreV1().Services("default").Delete(t.Context(), "leader", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.eventually("the load balancer goes with its Service", func() string {
		c.Do(t, http.MethodGet, "/load-balancer", "", &all)
		if len(all) > 0 {
			return fmt.Sprint(all)
		}
		return ""
	})
	c.node("leader-node")
}

// The leader is stopped while it makes sure that a server is gone, for so long that the other ccm deletes the Node, and a new one
// registers under its name. When the former leader goes on it deletes nothing, and ends.
func TestLeaderThatIsLostWhileANodeGoes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.args = c.elect("--controllers=*,-service-lb-controller", "--node-monitor-period=1s")
	server := c.CreateServer(t, "replaced", zone)
	c.register(c.newNode("replaced"))
	first := c.start()
	c.initialized("replaced")
	firstHolder := c.holder()
	c.start()

	if err := c.RemoveServer(server); err != nil {
		t.Fatal(err)
	}
	asked := c.Requests().Of("GET /server/{uuid}")
	// The leader gets one answer that the server is gone, and needs two to delete the Node.
	answer := c.Inject(simulator.Fault{Operation: "GET /server/{uuid}", Skip: 1, Status: http.StatusServiceUnavailable})
	c.setReady("replaced", v1.ConditionUnknown)
	c.eventually("the leader has asked for the server once", func() string {
		if c.Requests().Of("GET /server/{uuid}") == asked {
			return "it has not"
		}
		return ""
	})
	if err := first.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	answer()
	c.gone("replaced")
	if c.holder() == firstHolder {
		t.Fatal("the leader deleted the Node after one answer")
	}
	c.member("replaced")
	uid := c.node("replaced").UID
	if err := first.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.Ended():
	case <-time.After(patience):
		t.Fatal("the former leader goes on")
	}
	if node := c.node("replaced"); node.UID != uid {
		t.Error("the former leader deleted a Node of the same name")
	}
}

// The clock of the machine of another ccm is wrong by an hour: as long as that one renews its lease it leads, and no longer.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	for name, skew := range map[string]time.Duration{"behind": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			c.args = c.elect("--controllers=*,-service-lb-controller")
			other := c.hold(skew)
			c.CreateServer(t, "skew-"+name, zone)
			c.register(c.newNode("skew-" + name))
			c.ccm = c.start()
			for begin := time.Now(); time.Since(begin) < 2*leaseDuration; {
				other.renew()
				if c.holder() != other.identity {
					t.Fatal("the lease was taken from a leader whose clock is wrong")
				}
				time.Sleep(time.Second)
			}
			if lacksInitialization(c.node("skew-"+name)) == "" {
				t.Error("a ccm that does not lead initialized a node")
			}
			c.initialized("skew-" + name)
		})
	}
}

// Beside UpCloud's own CCM the node controllers are off, and Nodes are that one's alone.
func TestAddOnTouchesNoNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.args = []string{"--leader-elect=false",
		"--controllers=*,-cloud-node-controller,-cloud-node-lifecycle-controller,-node-route-controller,-service-lb-controller"}
	c.CreateServer(t, "addon", zone)
	c.ccm = c.start()
	node := c.newNode("addon")
	node.Status.Conditions[0].Status = v1.ConditionUnknown
	c.register(node)
	c.eventually("the ccm is up", func() string {
		if status := c.get("/readyz"); status != http.StatusOK {
			return fmt.Sprint("readiness is ", status)
		}
		return ""
	})
	before := c.node("addon").ResourceVersion
	for range 3 {
		time.Sleep(time.Second)
		if c.node("addon").ResourceVersion != before {
			t.Fatal("the Node was changed")
		}
	}
	if n := c.Requests().Of("GET /server"); n != 0 {
		t.Errorf("the list of servers was read %d times", n)
	}
}

// get asks for readiness; 0 is no answer.
func (c *cluster) get(path string) (status int) {
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", c.ready, path), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}
