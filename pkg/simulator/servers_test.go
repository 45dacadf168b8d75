package simulator_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

type serverState struct {
	Server struct {
		UUID, State string
		IPAddresses struct {
			IPAddress []struct{ Access, Address string }
		} `json:"ip_addresses"`
		StorageDevices struct {
			StorageDevice []struct{ Address, Storage string } `json:"storage_device"`
		} `json:"storage_devices"`
		Networking struct {
			Interfaces struct {
				Interface []struct {
					Type, MAC, Network string
					IPAddresses        struct {
						IPAddress []struct{ Address string } `json:"ip_address"`
					} `json:"ip_addresses"`
				}
			}
		}
	}
}

func getServer(t testing.TB, sim *simulatortest.Server, uuid string) serverState {
	t.Helper()
	var v serverState
	sim.Do(t, "GET", "/server/"+uuid, "", &v)
	return v
}

func attachBody(storage, address string) string {
	return fmt.Sprintf(`{"storage_device":{"type":"disk","address":%q,"storage":%q}}`, address, storage)
}

func attach(t testing.TB, sim *simulatortest.Server, server, storage string) (address string) {
	t.Helper()
	var v serverState
	sim.Do(t, "POST", "/server/"+server+"/storage/attach", attachBody(storage, "virtio"), &v)
	for _, d := range v.Server.StorageDevices.StorageDevice {
		if d.Storage == storage {
			return d.Address
		}
	}
	t.Fatalf("the answer to the attach lacks the storage: %+v", v)
	return ""
}

func TestOneAttachAtATimeTouchesAServer(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	server := startedServer(t, sim, clock)
	first, second := createStorage(t, sim, "first"), createStorage(t, sim, "second")

	var running sync.WaitGroup
	running.Go(func() { sim.Do(t, "POST", "/server/"+server+"/storage/attach", attachBody(first, "virtio:3"), nil) })
	for getServer(t, sim, server).Server.State != "maintenance" {
		time.Sleep(time.Millisecond)
	}
	refused(t, sim, "POST", "/server/"+server+"/storage/attach", attachBody(second, "virtio"), 409, "SERVER_STATE_ILLEGAL")
	refused(t, sim, "POST", "/server/"+server+"/storage/detach", `{"storage_device":{"address":"virtio:0"}}`, 409, "SERVER_STATE_ILLEGAL")
	refused(t, sim, "POST", "/server/"+server+"/stop", "", 409, "SERVER_STATE_ILLEGAL")
	refused(t, sim, "DELETE", "/storage/"+first, "", 409, "STORAGE_ATTACHED")
	clock.Advance(time.Minute)
	running.Wait()

	if v := getServer(t, sim, server); v.Server.State != "started" || len(v.Server.StorageDevices.StorageDevice) != 2 {
		t.Errorf("after the attach: %+v", v.Server)
	}
}

// startedServer makes a server on a clock that stands still.
func startedServer(t testing.TB, sim *simulatortest.Server, clock *simulator.ManualClock) string {
	t.Helper()
	var v serverState
	sim.Do(t, "POST", "/server", `{"server":{"hostname":"node-1","title":"node-1","zone":"fi-hel1","metadata":"yes",
		"storage_devices":{"storage_device":[{"action":"create","title":"system","size":10,"tier":"maxiops"}]}}}`, &v)
	if v.Server.State != "maintenance" {
		t.Errorf("a new server is in the state %s, want maintenance", v.Server.State)
	}
	clock.Advance(time.Minute)
	if s := getServer(t, sim, v.Server.UUID).Server.State; s != "started" {
		t.Fatalf("a minute later: %s", s)
	}
	return v.Server.UUID
}

func TestAttachRefusals(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	one, two := sim.CreateServer(t, "node-1", zone), sim.CreateServer(t, "node-2", zone)
	elsewhere := sim.CreateServer(t, "node-3", "de-fra1")
	disk, other := createStorage(t, sim, "data"), createStorage(t, sim, "other")
	address := attach(t, sim, one, disk)
	path := func(server, what string) string { return "/server/" + server + "/storage/" + what }

	refused(t, sim, "POST", path(two, "attach"), attachBody(disk, "virtio"), 409, "STORAGE_ATTACHED_AS_DISK")
	refused(t, sim, "POST", path(one, "attach"), attachBody(disk, "virtio"), 409, "STORAGE_ATTACHED_AS_DISK")
	refused(t, sim, "POST", path(one, "attach"), attachBody(other, address), 409, "DEVICE_ADDRESS_IN_USE")
	refused(t, sim, "POST", path(one, "attach"), attachBody(other, "virtio:16"), 400, "ADDRESS_INVALID")
	refused(t, sim, "POST", path(one, "attach"), attachBody(other, "usb"), 400, "ADDRESS_INVALID")
	refused(t, sim, "POST", path(elsewhere, "attach"), attachBody(other, "virtio"), 409, "ZONE_MISMATCH")
	refused(t, sim, "POST", path(one, "attach"), attachBody("01000000-0000-4000-8000-00000000beef", "virtio"), 404,
		"STORAGE_NOT_FOUND")
	refused(t, sim, "POST", path("00000000-0000-4000-8000-00000000beef", "attach"), attachBody(other, "virtio"), 404,
		"SERVER_NOT_FOUND")
	refused(t, sim, "POST", path(one, "detach"), `{"storage_device":{"address":"virtio:9"}}`, 409, "DEVICE_ADDRESS_NOT_IN_USE")
	refused(t, sim, "POST", path(one, "detach"), `{"storage_device":{}}`, 400, "ADDRESS_OR_UUID_REQUIRED")
	refused(t, sim, "DELETE", "/storage/"+disk, "", 409, "STORAGE_ATTACHED")
	refused(t, sim, "DELETE", "/server/"+one, "", 409, "SERVER_STATE_ILLEGAL")
}

func TestAServerHasSixteenDisks(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", zone)
	for i := range 15 {
		if got, want := attach(t, sim, server, createStorage(t, sim, "data")), fmt.Sprintf("virtio:%d", i+1); got != want {
			t.Errorf("disk %d is at %s, want %s", i, got, want)
		}
	}
	refused(t, sim, "POST", "/server/"+server+"/storage/attach", attachBody(createStorage(t, sim, "one too many"),
		"scsi"), 409,
		"STORAGE_DEVICE_LIMIT_REACHED")
}

func TestServerStates(t *testing.T) {
	clock := simulator.NewManualClock()
	sim := simulatortest.Start(t, simulator.Config{Profile: simulator.Realistic, Clock: clock})
	server := startedServer(t, sim, clock)
	state := func() string { return getServer(t, sim, server).Server.State }
	var v serverState

	sim.Do(t, "POST", "/server/"+server+"/restart", `{"restart_server":{"stop_type":"soft"}}`, &v)
	if v.Server.State != "started" {
		t.Errorf("restart answers %s, want started", v.Server.State)
	}
	clock.Advance(3 * time.Second)
	if s := state(); s != "maintenance" {
		t.Errorf("during the restart: %s", s)
	}
	clock.Advance(time.Minute)
	if s := state(); s != "started" {
		t.Errorf("after the restart: %s", s)
	}
	sim.Do(t, "POST", "/server/"+server+"/stop", `{"stop_server":{"stop_type":"hard","timeout":"900"}}`, &v)
	if v.Server.State != "started" {
		t.Errorf("stop answers %s, want started", v.Server.State)
	}
	refused(t, sim, "POST", "/server/"+server+"/stop", "", 409, "SERVER_STATE_ILLEGAL")
	clock.Advance(time.Minute)
	if s := state(); s != "stopped" {
		t.Errorf("after the stop: %s", s)
	}
	sim.Do(t, "DELETE", "/server/"+server+"/?storages=1", "", nil)
	refused(t, sim, "GET", "/server/"+server, "", 404, "SERVER_NOT_FOUND")
	var list struct{ Storages struct{ Storage []any } }
	sim.Do(t, "GET", "/storage/private", "", &list)
	if len(list.Storages.Storage) != 0 {
		t.Errorf("storages left: %v", list.Storages.Storage)
	}
}

func TestPrivateAddressesAreChosenAndNotListed(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	network := sim.CreateNetwork(t, "private", zone, "172.16.0.0/24")
	body := `{"server":{"hostname":"%s","title":"n","zone":"fi-hel1","metadata":"yes","networking":{"interfaces":{"interface":[
		{"type":"private","network":"` + network + `","ip_addresses":{"ip_address":[{"family":"IPv4","address":"172.16.0.11"}]}}]}}}}`
	var v serverState
	sim.Do(t, "POST", "/server", fmt.Sprintf(body, "node-1"), &v)
	nic := v.Server.Networking.Interfaces.Interface[0]
	if nic.IPAddresses.IPAddress[0].Address != "172.16.0.11" {
		t.Errorf("address %v", nic.IPAddresses)
	}
	refused(t, sim, "POST", "/server", fmt.Sprintf(body, "node-2"), 409, "IP_ADDRESS_RESOURCES_UNAVAILABLE")
	_, list := sim.Raw(t, "GET", "/ip_address", "")
	if strings.Contains(string(list), "172.16.0.11") || len(getServer(t, sim, v.Server.UUID).Server.IPAddresses.IPAddress) != 0 {
		t.Errorf("the private address is in a list of addresses, where the real API never shows one: %s", list)
	}
	refused(t, sim, "DELETE", "/network/"+network, "", 409, "NETWORK_NOT_EMPTY")
}

func TestMetadataKnowsTheServerByItsAddress(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	uuid := sim.CreateServer(t, "node-1", zone)
	address := getServer(t, sim, uuid).Server.Networking.Interfaces.Interface[2].IPAddresses.IPAddress[0].Address
	ask := func(from, path string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = from
		w := httptest.NewRecorder()
		sim.MetadataHandler().ServeHTTP(w, r)
		return w
	}
	if w := ask(address+":4711", "/metadata/v1.json"); w.Code != 200 || !strings.Contains(w.Body.String(), `"instance_id":"`+uuid+`"`) {
		t.Errorf("from %s: %d %s", address, w.Code, w.Body)
	}
	if w := ask("203.0.113.9:4711", "/metadata/v1.json"); w.Code != http.StatusNotFound {
		t.Errorf("from an address of nobody: %d %s", w.Code, w.Body)
	}
}

func TestFloatingAddressMoves(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	one, two := sim.CreateServer(t, "node-1", zone), sim.CreateServer(t, "node-2", zone)
	mac := func(uuid string) string { return getServer(t, sim, uuid).Server.Networking.Interfaces.Interface[0].MAC }
	var a struct {
		IPAddress struct{ Address, Server string } `json:"ip_address"`
	}
	sim.Do(t, "POST", "/ip_address", fmt.Sprintf(`{"ip_address":{"family":"IPv4","floating":"yes","mac":%q}}`, mac(one)), &a)
	if a.IPAddress.Server != one {
		t.Errorf("attached to %s, want %s", a.IPAddress.Server, one)
	}
	path := "/ip_address/" + a.IPAddress.Address
	refused(t, sim, "DELETE", path, "", 409, "ADDRESS_ATTACHED")
	sim.Do(t, "PATCH", path, fmt.Sprintf(`{"ip_address":{"mac":%q}}`, mac(two)), &a)
	if a.IPAddress.Server != two {
		t.Errorf("moved to %s, want %s", a.IPAddress.Server, two)
	}
	sim.Do(t, "PATCH", path, `{"ip_address":{"mac":null}}`, nil)
	sim.Do(t, "DELETE", path, "", nil)
	refused(t, sim, "GET", path, "", 404, "IP_ADDRESS_NOT_FOUND")
}
