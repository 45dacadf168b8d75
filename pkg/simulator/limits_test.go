package simulator_test

import (
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestTheAccountsLimitsHold(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{Limits: &simulator.Limits{
		Cores: 2, Memory: 4096, Networks: 1, StorageMaxIOPS: 40, StorageHDD: 10,
	}})
	server := sim.CreateServer(t, "node-1", zone) // 2 cores, 4 GiB, a disk of 20 GiB, a network
	disk := createStorage(t, sim, "data")
	const second = `{"server":{"hostname":"a","title":"a","zone":"fi-hel1","plan":"1xCPU-1GB","storage_devices":{
		"storage_device":[]}}}`
	refused(t, sim, "POST", "/server", second, 409, "SERVER_CORE_LIMIT_REACHED")
	stopped(t, sim, server)
	refused(t, sim, "PUT", "/server/"+server, `{"server":{"plan":"4xCPU-8GB"}}`, 409, "SERVER_CORE_LIMIT_REACHED")
	sim.Do(t, "PUT", "/server/"+server, `{"server":{"plan":"1xCPU-2GB"}}`, nil)
	refused(t, sim, "PUT", "/server/"+server, `{"server":{"plan":"custom","core_number":"1","memory_amount":"8192"}}`, 409,
		"SERVER_MEMORY_LIMIT_REACHED")

	refused(t, sim, "PUT", "/storage/"+disk, `{"storage":{"size":21}}`, 409, "MAXIOPS_STORAGE_LIMIT_REACHED")
	sim.Do(t, "PUT", "/storage/"+disk, `{"storage":{"size":20}}`, nil)
	refused(t, sim, "POST", "/storage/"+disk+"/clone", `{"storage":{"title":"c","zone":"fi-hel1"}}`, 409,
		"MAXIOPS_STORAGE_LIMIT_REACHED")
	sim.Do(t, "POST", "/storage/"+disk+"/backup", `{"storage":{"title":"b"}}`, nil)
	const hdd = `{"storage":{"size":10,"tier":"hdd","title":"h","zone":"fi-hel1"}}`
	sim.Do(t, "POST", "/storage", hdd, nil)
	refused(t, sim, "POST", "/storage", hdd, 409, "HDD_STORAGE_LIMIT_REACHED")

	const network = `{"network":{"name":"n","zone":"fi-hel1","ip_networks":{"ip_network":[
		{"address":"172.30.0.0/24","dhcp":"yes","family":"IPv4"}]}}}`
	refused(t, sim, "POST", "/network", network, 409, "NETWORK_LIMIT_REACHED")
	var account struct {
		Account struct {
			Limits struct{ Cores int } `json:"resource_limits"`
		}
	}
	sim.Do(t, "GET", "/account", "", &account)
	if account.Account.Limits.Cores != 2 {
		t.Errorf("the account shows %+v", account)
	}
}
