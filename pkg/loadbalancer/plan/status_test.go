package plan

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/loadbalancer/settings"
)

// From the recording of a load balancer's life, with a second node.
const running = `{"uuid":"0a32aa77","dns_name":"lb-0a32aa77-1.upcloudlb.com","operational_state":"running","networks":[
	{"name":"public-IPv4","type":"public","family":"IPv4","dns_name":"lb-0a32aa77-1.upcloudlb.com"},
	{"name":"private-IPv4","type":"private","family":"IPv4","dns_name":"lb-0a32aa77-2.upcloudlb.com","uuid":"03b5"}],"nodes":[
	{"operational_state":"running","networks":[
		{"name":"public-IPv4","type":"public","ip_addresses":[{"address":"5.22.223.127","listen":true}]},
		{"name":"private-IPv4","type":"private","ip_addresses":[{"address":"192.168.55.2","listen":false},{"address":"192.168.55.3","listen":true}]}]},
	{"operational_state":"running","networks":[
		{"name":"public-IPv4","type":"public","ip_addresses":[{"address":"5.22.223.12","listen":true}]},
		{"name":"private-IPv4","type":"private","ip_addresses":[{"address":"192.168.55.4","listen":false},{"address":"192.168.55.3","listen":true}]}]}]}`

func TestStatus(t *testing.T) {
	for _, test := range []struct {
		mode   settings.StatusMode
		change func(lb *cloud.LoadBalancer)
		want   string
	}{
		{mode: settings.StatusHostname, want: `{"ingress":[{"hostname":"lb-0a32aa77-1.upcloudlb.com"}]}`},
		{mode: settings.StatusIP, want: `{"ingress":[{"ip":"5.22.223.12","ipMode":"Proxy"},{"ip":"5.22.223.127","ipMode":"Proxy"}]}`},
		{mode: settings.StatusBoth, want: `{"ingress":[` +
			`{"ip":"5.22.223.12","hostname":"lb-0a32aa77-1.upcloudlb.com","ipMode":"Proxy"},` +
			`{"ip":"5.22.223.127","hostname":"lb-0a32aa77-1.upcloudlb.com","ipMode":"Proxy"}]}`},
		{
			mode: settings.StatusHostname, change: func(lb *cloud.LoadBalancer) { lb.Networks = lb.Networks[1:] },
			want: `{"ingress":[{"hostname":"lb-0a32aa77-2.upcloudlb.com"}]}`,
		},
		{
			mode: settings.StatusIP, change: func(lb *cloud.LoadBalancer) { lb.Networks = lb.Networks[1:] },
			want: `{"ingress":[{"ip":"192.168.55.3","ipMode":"Proxy"}]}`,
		},
		{mode: settings.StatusIP, change: func(lb *cloud.LoadBalancer) { lb.Nodes = nil }, want: `{}`},
		{mode: settings.StatusHostname, change: func(lb *cloud.LoadBalancer) { *lb = cloud.LoadBalancer{} }, want: `{}`},
	} {
		lb := &cloud.LoadBalancer{}
		if err := json.Unmarshal([]byte(running), lb); err != nil {
			t.Fatal(err)
		}
		if test.change != nil {
			test.change(lb)
		}
		got, err := json.Marshal(StatusOf(lb, test.mode))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, string(got)); diff != "" {
			t.Errorf("%s: %s", test.mode, diff)
		}
	}
}
