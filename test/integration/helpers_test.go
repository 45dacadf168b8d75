package integration

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// metrics are what whoever may read them is shown.
func (c *cluster) metrics() string {
	c.t.Helper()
	status, text := c.serve("/metrics", "admin")
	if status != http.StatusOK {
		c.t.Fatalf("metrics: %d %s", status, text)
	}
	return text
}

// serve asks the ccm's own port, with a token of the API server if there is one.
func (c *cluster) serve(path, token string) (status int, text string) {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d%s", c.secure, path), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // its certificate is its own
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// token makes a token of the account, and a way to take it back.
func (c *cluster) token() (token string, forget func()) {
	c.t.Helper()
	var answer struct{ ID, Token string }
	c.Do(c.t, http.MethodPost, "/account/tokens", `{"name":"ccm","expires_at":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+
		`","can_create_tokens":false,"allowed_ip_ranges":["0.0.0.0/0","::/0"]}`, &answer)
	return answer.Token, func() { c.Do(c.t, http.MethodDelete, "/account/tokens/"+answer.ID, "", nil) }
}

// door stands before the simulator, which knows one user only, and lets in the user of the day; his password is the same as his
// name.
type door struct {
	*httptest.Server
	user atomic.Value
}

func newDoor(c *cluster) *door {
	c.t.Helper()
	d := &door{}
	proxy := c.Proxy(c.t)
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, password, _ := r.BasicAuth(); name != d.user.Load() || password != name {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"error_code":"AUTHENTICATION_FAILED","error_message":"Authentication failed."}}`)
			return
		}
		r.Header.Set("Authorization", "Bearer "+c.Token)
		proxy.ServeHTTP(w, r)
	}))
	c.t.Cleanup(d.Close)
	return d
}

// changes counts the requests that changed the account.
func (c *cluster) changes() (count int) {
	requests := c.Requests()
	for _, operation := range requests.Operations() {
		if !strings.HasPrefix(operation, "GET ") {
			count += requests.Of(operation)
		}
	}
	return count
}

// holder is who leads.
func (c *cluster) holder() string {
	c.t.Helper()
	lease, err := client.CoordinationV1().Leases("kube-system").Get(c.t.Context(), c.name, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return *lease.Spec.HolderIdentity
}

// holding is a ccm elsewhere that leads.
type holding struct {
	c        *cluster
	identity string
	skew     time.Duration
	lease    *coordinationv1.Lease
}

func (c *cluster) hold(skew time.Duration) *holding {
	c.t.Helper()
	h := &holding{c: c, identity: "elsewhere_1", skew: skew}
	seconds, now := int32(leaseDuration/time.Second), metav1.NewMicroTime(time.Now().Add(skew))
	lease, err := client.CoordinationV1().Leases("kube-system").Create(c.t.Context(), &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: c.name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &h.identity, LeaseDurationSeconds: &seconds, AcquireTime: &now, RenewTime: &now},
	}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	h.lease = lease
	return h
}

func (h *holding) renew() {
	h.c.t.Helper()
	now := metav1.NewMicroTime(time.Now().Add(h.skew))
	h.lease.Spec.RenewTime = &now
	lease, err := client.CoordinationV1().Leases("kube-system").Update(h.c.t.Context(), h.lease, metav1.UpdateOptions{})
	if err != nil {
		h.c.t.Fatal(err)
	}
	h.lease = lease
}

// Interfaces of servers.
const (
	public4 = `{"type":"public","ip_addresses":{"ip_address":[{"family":"IPv4"}]}}`
	public6 = `{"type":"public","ip_addresses":{"ip_address":[{"family":"IPv6"}]}}`
	utility = `{"type":"utility","ip_addresses":{"ip_address":[{"family":"IPv4"}]}}`
)

func private(network, family, address string) string {
	return fmt.Sprintf(`{"type":"private","network":%q,"source_ip_filtering":"no","ip_addresses":{"ip_address":[{"family":%q,"address":%q}]}}`,
		network, family, address)
}

// network makes a private network.
func (c *cluster) network(name, prefix, family string) string {
	c.t.Helper()
	var answer struct{ Network struct{ UUID string } }
	c.Do(c.t, http.MethodPost, "/network/", fmt.Sprintf(`{"network":{"name":%q,"zone":%q,"ip_networks":{"ip_network":[
		{"address":%q,"dhcp":"yes","family":%q}]}}}`, name, zone, prefix, family), &answer)
	return answer.Network.UUID
}

// serverWith makes a server with these interfaces.
func (c *cluster) serverWith(name string, interfaces ...string) (server string) {
	c.t.Helper()
	var answer struct{ Server struct{ UUID string } }
	c.Do(c.t, http.MethodPost, "/server", fmt.Sprintf(`{"server":{"hostname":%q,"title":%q,"zone":%q,"plan":"1xCPU-1GB",
		"networking":{"interfaces":{"interface":[%s]}},
		"storage_devices":{"storage_device":[{"action":"create","size":20,"tier":"maxiops","title":"s"}]}}}`,
		name, name, zone, strings.Join(interfaces, ",")), &answer)
	return answer.Server.UUID
}

// eventuallyEvent waits for an event on a Node whose message contains a text.
func (c *cluster) eventuallyEvent(node, reason, text string) {
	c.t.Helper()
	c.eventually("an event "+reason+" on "+node, func() string {
		events, err := client.CoreV1().Events("default").List(c.t.Context(), metav1.ListOptions{
			FieldSelector: "involvedObject.name=" + node + ",reason=" + reason})
		if err != nil {
			c.t.Fatal(err)
		}
		for _, event := range events.Items {
			if strings.Contains(event.Message, text) {
				return ""
			}
		}
		return fmt.Sprintf("%d events, none of them with %q: %v", len(events.Items), text, events.Items)
	})
}

// privateAddress is the server's on its private network.
func (c *cluster) privateAddress(server string) string {
	c.t.Helper()
	var answer struct {
		Server struct {
			Networking struct {
				Interfaces struct {
					Interface []struct {
						Type      string
						Addresses struct {
							Address []struct{ Address string } `json:"ip_address"`
						} `json:"ip_addresses"`
					}
				}
			}
		}
	}
	c.Do(c.t, http.MethodGet, "/server/"+server, "", &answer)
	for _, nic := range answer.Server.Networking.Interfaces.Interface {
		if nic.Type == "private" {
			return nic.Addresses.Address[0].Address
		}
	}
	c.t.Fatalf("server %s has no private address", server)
	return ""
}

// report makes Nodes' kubelets report that they are ready, as they do again and again. The CCM knows by it that a Node is alive.
func (c *cluster) report(names ...string) {
	c.t.Helper()
	patch := fmt.Appendf(nil, `{"status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":%q}]}}`, time.Now().UTC().Format(time.RFC3339))
	for _, name := range names {
		if _, err := client.CoreV1().Nodes().Patch(c.t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status"); err != nil {
			c.t.Fatal(err)
		}
	}
}
