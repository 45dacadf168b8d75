package simulator_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// The account of a large user.
const (
	manyStorages      = 10000 // half of them the servers' system disks
	manyServers       = 5000
	manyLoadBalancers = 1000
	membersEach       = 10
)

// populated is a simulator with the large account, and the process's resident memory with it, in bytes.
func populated(b *testing.B) (sim *simulatortest.Server, resident int64) {
	b.Helper()
	sim = simulatortest.Start(b, simulator.Config{})
	network := sim.CreateNetwork(b, "private", "fi-hel1", "172.16.0.0/16")
	for n := range manyServers {
		sim.Do(b, "POST", "/server", fmt.Sprintf(`{"server":{"hostname":"node-%d","title":"node-%d","zone":"fi-hel1","plan":"2xCPU-4GB","metadata":"yes",
			"labels":{"label":[{"key":"cluster","value":"large"}]},"networking":{"interfaces":{"interface":[
			{"type":"public","ip_addresses":{"ip_address":[{"family":"IPv4"}]}},{"type":"utility","ip_addresses":{"ip_address":[{"family":"IPv4"}]}},
			{"type":"private","network":%q,"ip_addresses":{"ip_address":[{"family":"IPv4"}]}}]}},
			"storage_devices":{"storage_device":[{"action":"create","size":20,"tier":"maxiops","title":"node-%d system"}]}}}`, n, n, network, n), nil)
	}
	for n := range manyStorages - manyServers {
		sim.Do(b, "POST", "/storage", fmt.Sprintf(`{"storage":{"size":"10","title":"pvc-%d","zone":"fi-hel1","tier":"maxiops","labels":[
			{"key":"csi-name","value":"pvc-%d"},{"key":"csi-cluster","value":"large"}]}}`, n, n), nil)
	}
	for n := range manyLoadBalancers {
		members := make([]string, membersEach)
		for m := range members {
			members[m] = fmt.Sprintf(`{"name":"node-%d","ip":"172.16.%d.%d","port":30080,"weight":100,"max_sessions":1000,"enabled":true,"type":"static"}`,
				m, n%250, m+10)
		}
		sim.Do(b, "POST", "/load-balancer", fmt.Sprintf(`{"name":"lb-%d","plan":"development","zone":"fi-hel1","networks":[
			{"name":"public","type":"public","family":"IPv4"},{"name":"private","type":"private","family":"IPv4","uuid":%q}],
			"frontends":[{"name":"http","mode":"tcp","port":80,"default_backend":"http"},{"name":"https","mode":"tcp","port":443,"default_backend":"https"}],
			"backends":[{"name":"http","members":[%s]},{"name":"https","members":[%[3]s]}]}`, n, network, strings.Join(members, ",")), nil)
	}
	return sim, residentMemory(b)
}

// residentMemory is what the kernel says of this process, test included. Elsewhere than on Linux it is what Go has taken.
func residentMemory(b *testing.B) int64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.Sys)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		b.Fatal("no VmRSS in /proc/self/status")
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return kib << 10
}

// BenchmarkLargeAccount lists what a large account has, over HTTP, and tells the memory of the process that holds it.
// Goals: under 500 MB, a list of all storages in under 100 ms.
func BenchmarkLargeAccount(b *testing.B) {
	sim, resident := populated(b)
	for name, path := range map[string]string{"storages": "/storage", "storages-by-label": "/storage?label=csi-name%3Dpvc-77",
		"servers": "/server", "addresses": "/ip_address", "load-balancers": "/load-balancer?limit=100"} {
		b.Run("list="+name, func(b *testing.B) {
			size := int64(0)
			for b.Loop() {
				req, err := http.NewRequest(http.MethodGet, sim.URL+"/1.3"+path, nil)
				if err != nil {
					b.Fatal(err)
				}
				req.SetBasicAuth(sim.Username, sim.Password)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				size, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(resp.StatusCode, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/list")
			b.ReportMetric(float64(size)/1e6, "MB-answer")
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("memory", func(b *testing.B) {
		for b.Loop() {
			runtime.GC()
		}
		b.ReportMetric(float64(resident)/1e6, "MB-when-made")
		b.ReportMetric(float64(residentMemory(b))/1e6, "MB-after-lists")
		b.ReportMetric(0, "ns/op")
	})
}
