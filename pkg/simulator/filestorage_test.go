package simulator_test

import (
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

type fileStorageState struct {
	UUID     string
	State    string `json:"operational_state"`
	Networks []struct {
		IP string `json:"ip_address"`
	}
	Shares []struct {
		Name     string
		Deleting bool
	}
}

func TestFileStorageGoesThroughItsStates(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Clock: clock, Profile: simulator.Realistic})
	network := sim.CreateNetwork(t, "nfs", zone, "172.20.0.0/29")
	var f fileStorageState
	sim.Do(t, "POST", "/file-storage", `{"name":"files","zone":"fi-hel1","size_gib":250,"configured_status":"started",
		"networks":[{"uuid":"`+network+`","name":"nfs","family":"IPv4"}],"shares":[{"name":"a","path":"/a"}]}`, &f)
	path := "/file-storage/" + f.UUID
	if f.State != "pending" || len(f.Networks) != 1 || f.Networks[0].IP == "" {
		t.Errorf("created: %+v", f)
	}
	state := func(path string) fileStorageState {
		var now fileStorageState
		sim.Do(t, "GET", path, "", &now)
		return now
	}
	clock.Advance(time.Minute)
	sim.Do(t, "DELETE", path+"/shares/a", "", nil)
	if now := state(path); now.State != "pending" || !now.Shares[0].Deleting {
		t.Errorf("after a share was deleted: %+v", now)
	}
	if now := state(path + "/current-state"); now.State != "running" || now.Shares[0].Deleting {
		t.Errorf("what runs before the change is applied: %+v", now)
	}
	clock.Advance(time.Minute)
	if now := state(path); now.State != "running" || len(now.Shares) != 0 {
		t.Errorf("when the change has been applied: %+v", now)
	}
	refused(t, sim, "DELETE", "/network/"+network, "", 409, "NETWORK_NOT_EMPTY")
	sim.Do(t, "DELETE", path, "", nil)
	refusedNew(t, sim, "PATCH", path, `{"name":"late"}`, 409, "")
	clock.Advance(time.Minute)
	refusedNew(t, sim, "GET", path, "", 404, "")
	sim.Do(t, "DELETE", "/network/"+network, "", nil)
}

func TestFileStorageIsChecked(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	elsewhere := sim.CreateNetwork(t, "nfs", "de-fra1", "172.20.0.0/24")
	with := func(fields string) string {
		return `{"name":"files","zone":"fi-hel1","size_gib":250,"configured_status":"started"` + fields + `}`
	}
	for fields, param := range map[string]string{
		`,"name":"not valid"`:                        "name",
		`,"zone":"nowhere"`:                          "zone",
		`,"size_gib":10`:                             "size_gib",
		`,"configured_status":"resting"`:             "configured_status",
		`,"shares":[{"name":"a","path":"relative"}]`: "shares.0.path",
		`,"shares":[{"name":"a","path":"/a"},{"name":"a","path":"/b"}]`:                                    "shares.1",
		`,"shares":[{"name":"a","path":"/a","acl":[{"name":"x","target":"somewhere","permission":"ro"}]}]`: "shares.0.acl.0",
		`,"shares":[{"name":"a","path":"/a","acl":[{"name":"x","target":"*","permission":"all"}]}]`:        "shares.0.acl.0",
		`,"networks":[{"name":"n","uuid":"` + elsewhere + `","family":"IPv4"}]`:                            "networks.0.uuid",
		`,"labels":[{"key":"x","value":"too short a key"}]`:                                                "labels",
	} {
		refusedNew(t, sim, "POST", "/file-storage", with(fields), 400, param)
	}
	var f fileStorageState
	sim.Do(t, "POST", "/file-storage", with(`,"size_gib":500`), &f)
	refusedNew(t, sim, "PATCH", "/file-storage/"+f.UUID, `{"size_gib":300}`, 400, "size_gib")
	sim.Do(t, "POST", "/file-storage/"+f.UUID+"/labels", `{"key":"team","value":"a"}`, nil)
	refusedNew(t, sim, "POST", "/file-storage/"+f.UUID+"/labels", `{"key":"team","value":"b"}`, 409, "")
	refusedNew(t, sim, "GET", "/file-storage/"+f.UUID+"/labels/missing", "", 404, "")
	const acl = `{"name":"x","target":"*","permission":"ro"}`
	refusedNew(t, sim, "POST", "/file-storage/"+f.UUID+"/shares/missing/acl", acl, 404, "")
}
