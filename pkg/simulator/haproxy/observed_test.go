package haproxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

func TestMetricsTellTrafficAndHealth(t *testing.T) {
	b := start(t)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
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
