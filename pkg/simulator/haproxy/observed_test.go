package haproxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestMetricsTellTrafficAndHealth(t *testing.T) {
	b := start(t)
	gone, err := net.Listen("tcp", "127.0.0.5:0") // where other tests do not listen a moment later
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	uuid, address := b.balance(t, 18209, "http", `{"health_check_interval":1,"health_check_fall":1}`,
		web(t, "up"), memberAt("down", gone.Addr().String()))
	type measured struct {
		Frontends []struct {
			Name     string
			Requests int `json:"total_http_requests"`
			OK       int `json:"total_http_responses_2xx"`
		}
		Backends []struct {
			Members []struct {
				Name, Status string
				Check        string `json:"check_status"`
			}
		}
	}
	for range 3 {
		get(t, "http://"+address)
	}
	until(t, "the metrics show it", func() error {
		var m measured
		b.Do(t, "GET", "/load-balancer/"+uuid+"/metrics", "", &m)
		if fmt.Sprint(m) != "{[{fe 3 3}] [{[{up up passing} {down down failed}]}]}" {
			return fmt.Errorf("%v", m)
		}
		return nil
	})
}

func TestDynamicBundleGetsItsCertificateOnceTheNameLeadsHere(t *testing.T) {
	b := start(t)
	var bundle struct{ UUID string }
	b.Do(t, "POST", "/load-balancer/certificate-bundles", `{"type":"dynamic","name":"dynamic","key_type":"ecdsa","hostnames":["www.example.com"]}`, &bundle)
	uuid, address := b.balance(t, 18210, "http", "{}", web(t, "member"))
	b.Do(t, "POST", "/load-balancer/"+uuid+"/frontends/fe/tls-configs", fmt.Sprintf(`{"name":"c","certificate_bundle_uuid":%q}`, bundle.UUID), nil)
	b.running(t, uuid)
	var shown struct {
		Certificate string
		State       string `json:"operational_state"`
	}
	look := func() { b.Do(t, "GET", "/load-balancer/certificate-bundles/"+bundle.UUID, "", &shown) }
	b.SetDNS("www.example.com", "elsewhere.example.net")
	if look(); shown.Certificate != "" || shown.State != "idle" {
		t.Errorf("before the name leads here: %+v", shown)
	}
	var lb struct {
		Networks []struct {
			DNSName string `json:"dns_name"`
		}
	}
	b.Do(t, "GET", "/load-balancer/"+uuid, "", &lb)
	b.SetDNS("elsewhere.example.net", lb.Networks[0].DNSName)
	b.SetDNS("www.example.com", "elsewhere.example.net")
	until(t, "there is a certificate", func() error {
		if look(); shown.Certificate == "" || shown.State != "idle" {
			return fmt.Errorf("%+v", shown)
		}
		return nil
	})
	b.running(t, uuid)
	resp, err := http.Get(b.URL + "/_simulator/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ca, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the load balancer shows the certificate", func() error {
		_, name, body, err := getTLS(t, authorityOf(t, ca), address, "www.example.com")
		if err == nil && (name != "www.example.com" || body != "member") {
			err = fmt.Errorf("certificate of %s, %q", name, body)
		}
		return err
	})
}

func TestLoadBalancersAreStartedAgainFromTheKeptState(t *testing.T) {
	stateDir, dir := t.TempDir(), t.TempDir()
	run := func() *bench {
		plane := newPlane(t, haproxy.Config{Dir: dir})
		return &bench{Server: simulatortest.Start(t, simulator.Config{LoadBalancers: plane, StateDir: stateDir})}
	}
	b := run()
	b.network = b.CreateNetwork(t, "private", testZone, "172.20.0.0/24")
	b.balance(t, 18212, "tcp", "{}", web(t, "first")) // so that the addresses of the second are not the first ones
	uuid, address := b.balance(t, 18211, "tcp", "{}", web(t, "member"))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		conn.Close()
		t.Error("after the end the load balancer listens")
	}
	b = run()
	b.running(t, uuid)
	if again := net.JoinHostPort(b.publicAddress(t, uuid), "18211"); again != address {
		t.Errorf("the address was %s, is %s", address, again)
	}
	if _, body := get(t, "http://"+address); strings.TrimSpace(body) != "member" {
		t.Errorf("%q answered", body)
	}
}

func TestSessionsOfAMemberAreLimited(t *testing.T) {
	b := start(t)
	var now, most atomic.Int32
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		<-release
		fmt.Fprint(w, "x")
	}))
	defer server.Close()
	letGo := sync.OnceFunc(func() { close(release) })
	defer letGo()
	member := strings.Replace(memberAt("m", server.Listener.Addr().String()), `"max_sessions":1000`, `"max_sessions":1`, 1)
	uuid, address := b.balance(t, 18213, "http", "{}", member)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			resp, err := http.Get("http://" + address)
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	until(t, "five requests wait for the sixth", func() error {
		var m struct {
			Backends []struct {
				Waiting int `json:"connections_waiting"`
			}
		}
		b.Do(t, "GET", "/load-balancer/"+uuid+"/metrics", "", &m)
		if m.Backends[0].Waiting != 5 {
			return fmt.Errorf("%+v", m)
		}
		return nil
	})
	letGo()
	all.Wait()
	if most.Load() != 1 {
		t.Errorf("%d sessions at a time, want 1", most.Load())
	}
}
