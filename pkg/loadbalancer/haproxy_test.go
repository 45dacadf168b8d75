package loadbalancer

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/haproxy"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/internal/example"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// newTrafficAccount is an account whose load balancers carry traffic.
func newTrafficAccount(t *testing.T, rules haproxy.RuleEvaluation, nodes ...string) *account {
	t.Helper()
	plane, err := haproxy.New(haproxy.Config{Dir: t.TempDir(), Rules: rules})
	if errors.Is(err, haproxy.ErrNoProgram) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return newAccount(t, simulator.Config{LoadBalancers: plane}, nodes...)
}

// eachEvaluation runs a test with load balancers on which the first rule that matches ends the evaluation, and with others.
func eachEvaluation(t *testing.T, test func(*testing.T, haproxy.RuleEvaluation)) {
	t.Helper()
	for _, rules := range []haproxy.RuleEvaluation{haproxy.FirstRule, haproxy.AllRules} {
		t.Run(string(rules), func(t *testing.T) { test(t, rules) })
	}
}

// A real load balancer takes the configuration of every feature.
func TestEveryFeatureRuns(t *testing.T) { eachEvaluation(t, everyFeatureRuns) }

func everyFeatureRuns(t *testing.T, rules haproxy.RuleEvaluation) {
	files, err := filepath.Glob("testdata/features/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	a := newTrafficAccount(t, rules, "n1", "n2")
	bundle, authority := a.newBundle(cloud.BundleManual), a.newBundle("authority")
	for _, secret := range []string{"www-example-com", "api.example.com", "www"} {
		a.setSecret(secret, "www.example.com")
	}
	l := a.balancers()
	for i, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		if makesNothing(name) || name == "floating-ip" || name == "load-balancer-ip" {
			continue // addresses have a test of their own
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		id := bundle
		if strings.HasPrefix(name, "backend") {
			id = authority
		}
		config := strings.ReplaceAll(string(text), "0aded5c1-c7a3-498a-b9c8-a871611c47a2", id)
		config = strings.NewReplacer(`"configured_status": "stopped"`, `"configured_status": "started"`, "94.237.0.3", a.floatingAddress(),
			`"name": "shop-front",`, "").Replace(config)
		s := &v1.Service{}
		if err := yaml.UnmarshalStrict([]byte(config), s); err != nil {
			t.Fatal(err)
		}
		s.Namespace, s.Name = "default", fmt.Sprint("s", i)
		s.UID = "uid-of-" + s.UID
		s = a.addService(s)
		a.ensure(l, s)
		a.ensure(l, s)
		lb, err := a.cloud.LoadBalancer(t.Context(), a.current(s).Annotations[settings.AnnotationID])
		if err != nil {
			t.Fatal(err)
		}
		a.settle(lb.ID)
		for _, node := range lb.Nodes {
			if node.State != "running" {
				t.Errorf("%s: a server of the load balancer is %s", name, node.State)
			}
		}
		a.delete(l, s)
	}
}

// address is where a Service is reached.
func (a *account) address(l *LoadBalancers, s *v1.Service, port int) string {
	a.t.Helper()
	status := a.ensure(l, s)
	a.settle(a.only().ID)
	return net.JoinHostPort(status.Ingress[0].IP, fmt.Sprint(port))
}

// eventually waits for a condition, which says what it still lacks.
func (a *account) eventually(what string, lacks func() string) {
	a.t.Helper()
	var last string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if last = lacks(); last == "" {
			return
		}
	}
	a.t.Fatalf("%s: %s", what, last)
}

// Clients see the Secret's certificate, the new one after a rotation, and are sent from HTTP to HTTPS; those outside the source
// ranges see nothing.
func TestWhatClientsSee(t *testing.T) { eachEvaluation(t, whatClientsSee) }

func whatClientsSee(t *testing.T, rules haproxy.RuleEvaluation) {
	a := newTrafficAccount(t, rules, "n1")
	l := a.balancers()
	first := a.setSecret("www", "www.example.com")
	s := example.Service("http 18480 30080", "https 18443 30443")
	s = a.addService(example.Annotated(s, "tls-secret", "https=www", "mode", "http", "redirect-to-https", "http=true", "http2", "https=true"))
	secure := a.address(l, s, 18443)
	presented := func() string {
		conn, err := tls.Dial("tcp", secure, &tls.Config{ServerName: "www.example.com", InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		state := conn.ConnectionState()
		return state.NegotiatedProtocol + " " + string(state.PeerCertificates[0].Raw)
	}
	isPresented := func(certificate []byte) func() string {
		block, _ := pem.Decode(certificate)
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return func() string {
			if got := presented(); got != "h2 "+string(parsed.Raw) {
				return "another answer is given"
			}
			return ""
		}
	}
	a.eventually("the certificate is presented", isPresented(first))
	second := a.setSecret("www", "www.example.com")
	a.ensure(l, s)
	a.eventually("the new certificate is presented", isPresented(second))

	plain := "http://" + a.address(l, s, 18480)
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Get(plain + "/x?y=z")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if location := response.Header.Get("Location"); response.StatusCode != 301 || !strings.HasPrefix(location, "https://") || !strings.HasSuffix(location, "/x?y=z") {
		t.Errorf("%d to %s", response.StatusCode, location)
	}
	for _, test := range []struct {
		ranges string
		open   bool
	}{{"192.0.2.0/24", false}, {"127.0.0.0/8", true}} {
		a.change(s, func(s *v1.Service) { s.Spec.LoadBalancerSourceRanges = []string{test.ranges} })
		a.ensure(l, s)
		a.settle(a.only().ID)
		a.eventually("clients of "+test.ranges+" alone are served", func() string {
			response, err := client.Get(plain)
			if err == nil {
				response.Body.Close()
			}
			if (err == nil) != test.open {
				return fmt.Sprint("this one gets ", err)
			}
			return ""
		})
	}
}
