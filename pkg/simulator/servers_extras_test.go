package simulator_test

import (
	"fmt"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

type groupState struct {
	Group struct {
		UUID    string
		Servers struct{ Server []string }
		Status  []struct{ Status, UUID string } `json:"anti_affinity_status"`
	} `json:"server_group"`
}

func createGroup(t *testing.T, sim *simulatortest.Server, policy, servers string) groupState {
	t.Helper()
	var g groupState
	sim.Do(t, "POST", "/server-group",
		fmt.Sprintf(`{"server_group":{"title":"nodes","anti_affinity":%q,"servers":{"server":[%s]}}}`, policy, servers), &g)
	return g
}

func hostOf(t *testing.T, sim *simulatortest.Server, server string) int64 {
	t.Helper()
	var v struct{ Server struct{ Host int64 } }
	sim.Do(t, "GET", "/server/"+server, "", &v)
	return v.Server.Host
}

// stopped stops a server on a simulator that is instant.
func stopped(t *testing.T, sim *simulatortest.Server, server string) {
	t.Helper()
	sim.Do(t, "POST", "/server/"+server+"/stop", `{"stop_server":{"stop_type":"hard"}}`, nil)
}

func TestAServerIsInOneGroupAtMost(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", zone)
	first := createGroup(t, sim, "strict", fmt.Sprintf("%q", server))
	second := createGroup(t, sim, "no", "")
	add := fmt.Sprintf(`{"server":{"uuid":%q}}`, server)
	refused(t, sim, "POST", "/server-group/"+second.Group.UUID+"/servers", add, 409, "ALREADY_IN_SERVER_GROUP")
	sim.Do(t, "DELETE", "/server-group/"+first.Group.UUID+"/servers/"+server, "", nil)
	sim.Do(t, "POST", "/server-group/"+second.Group.UUID+"/servers", add, nil)
	stopped(t, sim, server)
	sim.Do(t, "DELETE", "/server/"+server, "", nil)
	var g groupState
	sim.Do(t, "GET", "/server-group/"+second.Group.UUID, "", &g)
	if len(g.Group.Servers.Server) != 0 {
		t.Errorf("a deleted server still is in its group: %+v", g)
	}
	refused(t, sim, "GET", "/server-group/nothing", "", 400, "GROUP_INVALID")
	refused(t, sim, "GET", "/server-group/"+server, "", 404, "GROUP_NOT_FOUND")
}

func TestStartAvoidsTheHostsOfTheGroup(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	a, b := sim.CreateServer(t, "node-1", zone), sim.CreateServer(t, "node-2", zone)
	createGroup(t, sim, "strict", fmt.Sprintf("%q,%q", a, b))
	stopped(t, sim, b)
	taken := hostOf(t, sim, a)
	sim.Do(t, "POST", "/server/"+b+"/start", "", nil)
	here := hostOf(t, sim, b)
	if here == taken {
		t.Errorf("both servers of a strict group are on host %d", taken)
	}
	stopped(t, sim, b)
	sim.Do(t, "POST", "/server/"+b+"/start", fmt.Sprintf(`{"server":{"avoid_host":%d}}`, here), nil)
	if got := hostOf(t, sim, b); got == here || got == taken {
		t.Errorf("started on host %d, to be avoided: %d and %d", got, here, taken)
	}
	stopped(t, sim, b)
	refused(t, sim, "POST", "/server/"+b+"/start", `{"server":{"host":1}}`, 403, "HOST_FORBIDDEN")
}

func TestRelocationIsBetweenAZoneAndItsPrivateOne(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "node-1", "fi-hel2")
	refused(t, sim, "POST", "/server/"+server+"/relocate", `{"zone":"fi-tst1"}`, 409, "SERVER_STATE_ILLEGAL")
	stopped(t, sim, server)
	refused(t, sim, "POST", "/server/"+server+"/relocate", `{"zone":"de-fra1"}`, 409, "ZONE_MISMATCH")
	refused(t, sim, "POST", "/server/"+server+"/relocate", `{"zone":"nowhere"}`, 404, "ZONE_NOT_FOUND")
	var v struct{ Server struct{ Zone string } }
	sim.Do(t, "POST", "/server/"+server+"/relocate", `{"zone":"fi-tst1"}`, &v)
	if v.Server.Zone != "fi-tst1" {
		t.Errorf("relocated to %q", v.Server.Zone)
	}
	sim.Do(t, "POST", "/server/"+server+"/relocate", `{"zone":"fi-hel2"}`, nil)
}

func TestFirewallRulesAreOrderedAndChecked(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	path := "/server/" + sim.CreateServer(t, "node-1", zone) + "/firewall_rule"
	rule := func(fields string) string {
		return `{"firewall_rule":{"direction":"in","action":"accept","family":"IPv4","protocol":"tcp"` + fields + `}}`
	}
	sim.Do(t, "POST", path, rule(`,"comment":"last"`), nil)
	sim.Do(t, "POST", path, rule(`,"comment":"first","position":"1"`), nil)
	var list struct {
		Rules struct {
			Rule []struct{ Comment, Position string } `json:"firewall_rule"`
		} `json:"firewall_rules"`
	}
	sim.Do(t, "GET", path, "", &list)
	if r := list.Rules.Rule; len(r) != 2 || r[0].Comment != "first" || r[1].Position != "2" {
		t.Errorf("rules %+v", list)
	}
	for fields, code := range map[string]string{
		`,"action":"explode"`:                                                      "ACTION_INVALID",
		`,"direction":"sideways"`:                                                  "DIRECTION_INVALID",
		`,"destination_port_start":"80"`:                                           "DESTINATION_PORT_END_INVALID",
		`,"destination_port_start":"90","destination_port_end":"80"`:               "DESTINATION_PORT_ORDER_ILLEGAL",
		`,"protocol":"icmp","source_port_start":"1","source_port_end":"1"`:         "PORT_PROTOCOL_MISMATCH",
		`,"icmp_type":"8"`:                                                         "ICMP_TYPE_PROTOCOL_MISMATCH",
		`,"source_address_start":"2001:db8::1","source_address_end":"2001:db8::1"`: "SOURCE_ADDRESS_START_INVALID",
		`,"source_address_start":"10.0.0.2","source_address_end":"10.0.0.1"`:       "SOURCE_ADDRESS_ORDER_ILLEGAL",
		`,"destination_address_start":"10.0.0.2"`:                                  "DESTINATION_ADDRESS_END_INVALID",
		`,"position":"0"`:                                                          "POSITION_INVALID",
	} {
		refused(t, sim, "POST", path, rule(fields), 400, code)
	}
	refused(t, sim, "GET", path+"/3", "", 404, "FIREWALL_RULE_NOT_FOUND")
}

func TestServersAreRefusedWhatTheyCannotBe(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	const disk = `"storage_devices":{"storage_device":[{"action":"create","size":10,"tier":"maxiops","title":"d"}]}`
	for fields, code := range map[string]string{
		`"firewall":"maybe"`:                   "FIREWALL_INVALID",
		`"nic_model":"ne2000"`:                 "NIC_MODEL_INVALID",
		`"video_model":"hercules"`:             "VIDEO_MODEL_INVALID",
		`"timezone":"Moon/Tranquility"`:        "TIMEZONE_INVALID",
		`"simple_backup":"2500,daily"`:         "SIMPLE_BACKUP_INVALID",
		`"boot_order":"disk,disk"`:             "BOOT_ORDER_INVALID",
		`"core_number":21`:                     "CORE_NUMBER_INVALID",
		`"memory_amount":1500`:                 "MEMORY_AMOUNT_INVALID",
		`"plan":"2xCPU-4GB","core_number":"4"`: "PLAN_CORE_NUMBER_ILLEGAL",
		`"storage_devices":{"storage_device":[{"action":"clone","title":"d",
			"storage":"01000000-0000-4000-8000-000030240200"}]}`: "METADATA_DISABLED_ON_CLOUD-INIT",
	} {
		body := fmt.Sprintf(`{"server":{"hostname":"a","title":"a","zone":%q,%s,%s}}`, zone, disk, fields)
		refused(t, sim, "POST", "/server", body, 400, code)
	}
	server := sim.CreateServer(t, "node-1", zone)
	refused(t, sim, "PUT", "/server/"+server, `{"server":{"boot_order":"tape"}}`, 400, "BOOT_ORDER_INVALID")
	const restart = `{"restart_server":{"stop_type":"soft","timeout_action":"wait"}}`
	refused(t, sim, "POST", "/server/"+server+"/restart", restart, 400, "TIMEOUT_ACTION_INVALID")
}
