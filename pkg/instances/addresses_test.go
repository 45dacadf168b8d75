package instances

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudproviderapi "k8s.io/cloud-provider/api"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

func addr(access, ip string) cloud.Address {
	return cloud.Address{Access: access, IP: netip.MustParseAddr(ip)}
}

func TestNodeAddresses(t *testing.T) {
	floating := addr("public", "203.0.113.9")
	floating.Floating = true
	common := []cloud.Address{
		addr("public", "2a04:3545::1"), addr("public", "94.237.9.138"), addr("utility", "10.6.6.198"), floating,
	}
	withPrivate := append([]cloud.Address{addr("private", "172.16.1.5")}, common...)
	for _, test := range []struct {
		name      string
		provided  string
		addresses []cloud.Address
		want      string
		wantErr   string
	}{
		{
			name: "private before utility", addresses: withPrivate,
			want: "Hostname=n1 InternalIP=172.16.1.5 ExternalIP=94.237.9.138 ExternalIP=2a04:3545::1",
		},
		{
			name: "a server without a private network", addresses: common,
			want: "Hostname=n1 InternalIP=10.6.6.198 ExternalIP=94.237.9.138 ExternalIP=2a04:3545::1",
		},
		{
			name: "public only", addresses: []cloud.Address{addr("public", "94.237.9.138")},
			want: "Hostname=n1 InternalIP=94.237.9.138 ExternalIP=94.237.9.138",
		},
		{
			name: "private only, dual stack", addresses: []cloud.Address{addr("private", "fd00::5"), addr("private", "172.16.1.5")},
			want: "Hostname=n1 InternalIP=172.16.1.5 InternalIP=fd00::5",
		},
		{
			name: "node-ip is the utility address", provided: "10.6.6.198", addresses: withPrivate,
			want: "Hostname=n1 InternalIP=10.6.6.198 InternalIP=172.16.1.5 ExternalIP=94.237.9.138 ExternalIP=2a04:3545::1",
		},
		{
			name: "node-ip is a floating address", provided: "203.0.113.9", addresses: []cloud.Address{floating},
			want: "Hostname=n1 InternalIP=203.0.113.9 ExternalIP=203.0.113.9",
		},
		{
			name: "node-ip of both families", provided: "172.16.1.5,2a04:3545::1", addresses: withPrivate,
			want: "Hostname=n1 InternalIP=172.16.1.5 ExternalIP=2a04:3545::1 ExternalIP=94.237.9.138",
		},
		{
			name: "dual stack, IPv6 asked for first", provided: "fd00::5,172.16.1.5",
			addresses: []cloud.Address{addr("private", "172.16.1.5"), addr("private", "fd00::5"), addr("public", "94.237.9.138")},
			want:      "Hostname=n1 InternalIP=fd00::5 InternalIP=172.16.1.5 ExternalIP=94.237.9.138",
		},
		{
			name: "IPv6 alone asked for", provided: "fd00::5", addresses: append([]cloud.Address{addr("private", "fd00::5")}, withPrivate...),
			want: "Hostname=n1 InternalIP=fd00::5 InternalIP=172.16.1.5 ExternalIP=2a04:3545::1 ExternalIP=94.237.9.138",
		},
		{name: "node-ip from elsewhere", provided: "100.64.0.1", addresses: common, wantErr: "100.64.0.1 is none of"},
		{name: "node-ip is no address", provided: "eth0", addresses: common, wantErr: "want IP addresses"},
		{name: "no addresses at all", wantErr: "no IP address"},
		{name: "floating addresses alone", addresses: []cloud.Address{floating}, wantErr: "203.0.113.9"},
	} {
		t.Run(test.name, func(t *testing.T) {
			node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
			if test.provided != "" {
				node.Annotations = map[string]string{cloudproviderapi.AnnotationAlphaProvidedIPAddr: test.provided}
			}
			got, err := nodeAddresses(node, test.addresses)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Fatalf("error %v, want one with %q", err, test.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, address := range got {
				texts = append(texts, string(address.Type)+"="+address.Address)
			}
			if diff := cmp.Diff(test.want, strings.Join(texts, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostnameIsTheKubelets(t *testing.T) {
	node := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	node.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeHostName, Address: "n1.example.com"}}
	got, err := nodeAddresses(node, []cloud.Address{addr("utility", "10.6.6.198")})
	if err != nil || got[0].Address != "n1.example.com" {
		t.Errorf("nodeAddresses = %v, %v", got, err)
	}
}
