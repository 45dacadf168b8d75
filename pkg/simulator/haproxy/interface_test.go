package haproxy_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// inNamespace is set in the copy of the test program that runs in a network namespace of its own.
const inNamespace = "HAPROXY_TEST_IN_NAMESPACE"

func TestAddressesAreAddedToTheInterface(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		runInNamespace(t)
		return
	}
	for _, command := range []string{"ip link set lo up", "ip link add public type bridge", "ip link set public up"} {
		if out, err := exec.Command("sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %s", command, out)
		}
	}
	plane := newPlane(t, haproxy.Config{Dir: t.TempDir(), Interface: "public"})
	sim := simulatortest.Start(t, simulator.Config{LoadBalancers: plane,
		PublicNetwork: netip.MustParsePrefix("198.18.0.0/15")})
	b := &bench{Server: sim, network: sim.CreateNetwork(t, "private", testZone, "172.20.0.0/24")}
	member := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "one") }))
	defer member.Close()
	uuid, address := b.balance(t, 80, "tcp", "{}", memberAt("one", member.Listener.Addr().String()))
	if !strings.HasPrefix(address, "198.18.") {
		t.Errorf("public address %s, want one of 198.18.0.0/15", address)
	}
	if _, body := get(t, "http://"+address); body != "one" {
		t.Errorf("%q answered", body)
	}
	if !has(t, address) {
		t.Errorf("%s is not on the interface", address)
	}
	b.Do(t, "POST", "/load-balancer/"+uuid+"/frontends",
		`{"name":"inside","mode":"tcp","port":81,"default_backend":"be","networks":[{"name":"private"}]}`, nil)
	b.running(t, uuid)
	if _, body := get(t, "http://172.20.0.3:81"); body != "one" {
		t.Errorf("%q answered on the private network", body)
	}

	var floating struct {
		IPAddress struct{ Address string } `json:"ip_address"`
	}
	b.Do(t, "POST", "/ip_address", `{"ip_address":{"family":"IPv4","floating":"yes","zone":"`+testZone+`"}}`, &floating)
	b.Do(t, "POST", "/load-balancer/"+uuid+"/ip-addresses", `{"address":"`+floating.IPAddress.Address+`","network_name":"public"}`, nil)
	b.running(t, uuid)
	if _, body := get(t, "http://"+floating.IPAddress.Address); body != "one" {
		t.Errorf("%q answered on the floating address", body)
	}
	b.Do(t, "DELETE", "/load-balancer/"+uuid+"/ip-addresses/"+floating.IPAddress.Address, "", nil)
	b.running(t, uuid)
	if has(t, floating.IPAddress.Address+":80") {
		t.Error("the floating address that was taken back is on the interface")
	}

	b.Do(t, "DELETE", "/load-balancer/"+uuid, "", nil)
	until(t, "the addresses are gone", func() error {
		if has(t, address) || has(t, "172.20.0.3:81") {
			return errors.New("they are not")
		}
		return nil
	})
}

func has(t *testing.T, hostPort string) bool {
	t.Helper()
	host, _, _ := net.SplitHostPort(hostPort)
	device, err := net.InterfaceByName("public")
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := device.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if a.String() == host+"/32" {
			return true
		}
	}
	return false
}

func runInNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("the program unshare is missing: package util-linux")
	}
	cmd := exec.Command(unshare, "--net", os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=yes")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP") {
		t.Skipf("%s", out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("the test did not run: %s", out)
	}
}
