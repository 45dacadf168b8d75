package haproxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// getTLS asks the address for a host's page, and returns the protocol, the certificate's name and the body.
func getTLS(t *testing.T, a *authority, address, host string) (proto, name, body string, err error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.pool(), ServerName: host}, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	resp, err := client.Get("https://" + address)
	if err != nil {
		return "", "", "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.Proto, resp.TLS.PeerCertificates[0].Subject.CommonName, strings.TrimSpace(string(text)), err
}

func TestTLSWithSeveralBundlesAndHTTP2(t *testing.T) {
	b := start(t)
	ca := newAuthority(t, "test")
	one, two := b.bundle(t, "one", ca, "one.example.com"), b.bundle(t, "two", ca, "two.example.com")
	uuid, address := b.balance(t, 18443, "http", "{}", web(t, "member"))
	frontend := "/load-balancer/" + uuid + "/frontends/fe"
	b.Do(t, "PATCH", frontend, fmt.Sprintf(`{"properties":{"http2_enabled":true},"tls_configs":[
		{"name":"one","certificate_bundle_uuid":%q},{"name":"two","certificate_bundle_uuid":%q}]}`, one, two), nil)
	b.running(t, uuid)
	for _, host := range []string{"one.example.com", "two.example.com"} {
		proto, name, body, err := getTLS(t, ca, address, host)
		if err != nil || proto != "HTTP/2.0" || name != host || body != "member" {
			t.Errorf("%s: %s, certificate of %s, %q, %v", host, proto, name, body, err)
		}
	}
	// a renewed certificate is used though nothing else changed
	certificate, key := newAuthority(t, "other").pair(t, "one.example.com")
	b.Do(t, "PATCH", "/load-balancer/certificate-bundles/"+one, fmt.Sprintf(`{"certificate":%q,"private_key":%q}`,
		b64(certificate), b64(key)), nil)
	b.running(t, uuid)
	if _, _, _, err := getTLS(t, ca, address, "one.example.com"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("after the renewal by another authority: %v", err)
	}
	b.Do(t, "PATCH", frontend, `{"properties":{"http2_enabled":false}}`, nil)
	b.running(t, uuid)
	if proto, _, _, err := getTLS(t, ca, address, "two.example.com"); err != nil || proto != "HTTP/1.1" {
		t.Errorf("without HTTP/2: %s, %v", proto, err)
	}
}

func TestTLSToMembersIsVerifiedWithTheAuthority(t *testing.T) {
	b := start(t)
	ours, others := newAuthority(t, "ours"), newAuthority(t, "others")
	member := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "secure "+r.Proto) }))
	member.TLS = ours.serverConfig(t, "member.example.com")
	member.EnableHTTP2 = true
	member.StartTLS()
	defer member.Close()
	good, bad := b.authorityBundle(t, "good", ours), b.authorityBundle(t, "bad", others)
	uuid, address := b.balance(t, 18444, "http", `{"tls_enabled":true,"tls_verify":true,"health_check_interval":1,"health_check_fall":1,"health_check_rise":1}`,
		memberAt("m", member.Listener.Addr().String()))
	backend := "/load-balancer/" + uuid + "/backends/be"
	use := func(bundle string) {
		b.Do(t, "PATCH", backend, fmt.Sprintf(`{"tls_configs":[{"name":"ca","certificate_bundle_uuid":%q}]}`, bundle), nil)
		b.running(t, uuid)
	}
	answers := func(want string) func() error {
		return func() error {
			status, body, err := tryGet("http://" + address)
			if err == nil && (status != 200 || body != want) {
				err = fmt.Errorf("%d %s", status, body)
			}
			return err
		}
	}
	use(good) // it may have failed a check before, against the system's authorities
	until(t, "the member that its own authority vouches for answers", answers("secure HTTP/1.1"))
	b.Do(t, "PATCH", backend, `{"properties":{"http2_enabled":true}}`, nil)
	b.running(t, uuid)
	until(t, "it answers over HTTP/2", answers("secure HTTP/2.0"))
	use(bad)
	until(t, "the member that another authority vouches for gets nothing", func() error {
		if status, _ := get(t, "http://"+address); status != 503 {
			return fmt.Errorf("status %d", status)
		}
		return nil
	})
	b.Do(t, "PATCH", backend, `{"properties":{"tls_verify":false}}`, nil)
	b.running(t, uuid)
	until(t, "the member answers unverified", answers("secure HTTP/2.0"))
}

func TestBundleThatIsUsedCannotBeDeleted(t *testing.T) {
	b := start(t)
	bundle := b.bundle(t, "one", newAuthority(t, "test"), "one.example.com")
	uuid, _ := b.balance(t, 18445, "tcp", "{}", web(t, "member"))
	b.Do(t, "POST", "/load-balancer/"+uuid+"/frontends/fe/tls-configs", fmt.Sprintf(`{"name":"one","certificate_bundle_uuid":%q}`, bundle), nil)
	if status, body := b.Raw(t, "DELETE", "/load-balancer/certificate-bundles/"+bundle, ""); status != 409 {
		t.Errorf("%d %s", status, body)
	}
}
