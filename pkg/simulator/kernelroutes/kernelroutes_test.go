package kernelroutes_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/kernelroutes"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// inNamespace runs the test in a network namespace of its own, with an interface on 172.16.0.0/24. It says false in the
// process that only started the other.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "KERNELROUTES_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		unshare, err := exec.LookPath("unshare")
		if err != nil || os.Getuid() != 0 {
			t.Skip("a network namespace needs root and unshare")
		}
		command := exec.CommandContext(t.Context(), unshare, "--net", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		command.Env = append(os.Environ(), inside+"=1")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return false
	}
	for _, line := range []string{"ip link set lo up", "ip link add private type bridge", "ip addr add 172.16.0.1/24 dev private", "ip link set private up"} {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	return true
}

// kernel lists the routes of the plane as the kernel has them.
func kernel(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ip", "-json", "route", "show", "proto", "171").Output()
	if err != nil {
		t.Fatal(err)
	}
	var routes []struct{ Dst, Gateway string }
	if err := json.Unmarshal(out, &routes); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, route := range routes {
		texts = append(texts, route.Dst+" "+route.Gateway)
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

func TestTheKernelFollowsTheRouter(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	plane, err := kernelroutes.New()
	if err != nil {
		t.Skip(err)
	}
	sim := simulatortest.Start(t, simulator.Config{Routers: plane})
	network := sim.CreateNetwork(t, "nodes", "fi-hel1", "172.16.0.0/24")
	var made struct{ Router struct{ UUID string } }
	sim.Do(t, "POST", "/router", `{"router":{"name":"r"}}`, &made)
	patch := func(routes string) {
		t.Helper()
		sim.Do(t, "PATCH", "/router/"+made.Router.UUID, `{"router":{"static_routes":[`+routes+`]}}`, nil)
	}
	attach := func(router string) {
		t.Helper()
		sim.Do(t, "PUT", "/network/"+network, fmt.Sprintf(`{"network":{"router":%s}}`, router), nil)
	}
	check := func(when, want string) {
		t.Helper()
		if got := kernel(t); got != want {
			t.Errorf("%s the kernel has %q, want %q", when, got, want)
		}
	}
	const a = `{"name":"a","route":"10.244.0.0/24","nexthop":"172.16.0.11"}`
	const b = `{"name":"b","route":"10.244.1.0/24","nexthop":"172.16.0.12"}`
	patch(a)
	check("before the router is on the network", "")
	attach(`"` + made.Router.UUID + `"`)
	check("after that", "10.244.0.0/24 172.16.0.11")
	patch(a + "," + b + `,{"name":"c","route":"10.9.0.0/16","nexthop":"10.0.0.5"}`)
	check("with a route to nowhere among three,", "10.244.0.0/24 172.16.0.11, 10.244.1.0/24 172.16.0.12")
	patch(strings.Replace(a, "172.16.0.11", "172.16.0.21", 1))
	check("after one route went, and one was changed,", "10.244.0.0/24 172.16.0.21")
	attach("null")
	check("off the network", "")
	attach(`"` + made.Router.UUID + `"`)
	if err := plane.Close(); err != nil {
		t.Fatal(err)
	}
	check("after the end", "")
}
