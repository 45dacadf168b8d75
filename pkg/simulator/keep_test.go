package simulator_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// shown are the answers to a few GET requests, which show all that a state holds.
func shown(t *testing.T, sim *simulatortest.Server, paths ...string) string {
	t.Helper()
	var b strings.Builder
	for _, path := range append(paths, "/server", "/storage", "/network", "/router", "/ip_address", "/load-balancer",
		"/load-balancer/certificate-bundles") {
		status, body := sim.Raw(t, "GET", path, "")
		fmt.Fprintf(&b, "%s: %d %s\n", path, status, body)
	}
	return b.String()
}

// populate makes some of each resource, and returns the paths that show them.
func populate(t *testing.T, sim *simulatortest.Server) (paths []string) {
	t.Helper()
	server := sim.CreateServer(t, "node-1", "fi-hel1")
	var disk struct{ Storage struct{ UUID string } }
	sim.Do(t, "POST", "/storage", `{"storage":{"size":"10","title":"data","zone":"fi-hel1","labels":[{"key":"csi-name","value":"pvc-1"}]}}`, &disk)
	sim.Do(t, "POST", "/server/"+server+"/storage/attach", `{"storage_device":{"address":"virtio","storage":"`+disk.Storage.UUID+`"}}`, nil)
	sim.Do(t, "POST", "/storage/"+disk.Storage.UUID+"/backup", `{"storage":{"title":"backup"}}`, nil)
	var router struct{ Router struct{ UUID string } }
	sim.Do(t, "POST", "/router", `{"router":{"name":"r","static_routes":[{"route":"10.9.0.0/16","nexthop":"172.16.0.9"}]}}`, &router)
	sim.Do(t, "POST", "/ip_address", `{"ip_address":{"family":"IPv4","floating":"yes","zone":"fi-hel1"}}`, nil)
	lb := createLoadBalancer(t, sim, "web")
	sim.Do(t, "POST", "/load-balancer/"+lb.UUID+"/frontends/fe-1/rules", `{"name":"r","priority":1,
		"matchers":[{"type":"src_ip","match_src_ip":{"value":"10.0.0.0/8"}}],"actions":[{"type":"tcp_reject","action_tcp_reject":{}}]}`, nil)
	sim.Do(t, "PATCH", "/load-balancer/"+lb.UUID+"/frontends/fe-1", `{"properties":{"inbound_proxy_protocol":true}}`, nil)
	return []string{"/server/" + server, "/storage/" + disk.Storage.UUID, "/load-balancer/" + lb.UUID, "/router/" + router.Router.UUID}
}

func TestStateOutlivesTheSimulator(t *testing.T) {
	dir := t.TempDir()
	clock := func() simulator.Clock { return simulator.NewManualClock() }
	first := simulatortest.Start(t, simulator.Config{StateDir: dir, Clock: clock()})
	paths := populate(t, first)
	before := shown(t, first, paths...)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := simulatortest.Start(t, simulator.Config{StateDir: dir, Clock: clock()})
	second.Do(t, "GET", paths[2], "", nil) // ends the short pending of a load balancer that is configured anew
	after := shown(t, second, paths...)
	compare(t, before, after)
	// what was there can be changed, and does not collide with what is new
	populated := second.CreateServer(t, "node-2", "fi-hel1")
	second.Do(t, "POST", "/server/"+populated+"/stop", "", nil)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	third := simulatortest.Start(t, simulator.Config{StateDir: dir, Clock: clock()})
	if _, body := third.Raw(t, "GET", "/server/"+populated, ""); !strings.Contains(string(body), `"state":"stopped"`) {
		t.Errorf("a server that was being stopped: %s", body)
	}
}

func compare(t *testing.T, before, after string) {
	t.Helper()
	was, is := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range was {
		// a load balancer is configured anew, which is a change
		if i < len(is) && withoutUpdates(was[i]) != withoutUpdates(is[i]) {
			t.Errorf("before: %s\nafter: %s", was[i], is[i])
		}
	}
}

func withoutUpdates(line string) string {
	head, rest, found := strings.Cut(line, `"updated_at":"`)
	if !found {
		return line
	}
	_, rest, _ = strings.Cut(rest, `"`)
	return head + withoutUpdates(rest)
}

func TestWorkUnderWayGoesOn(t *testing.T) {
	dir := t.TempDir()
	clock := simulator.NewManualClock()
	first := simulatortest.Start(t, simulator.Config{StateDir: dir, Clock: clock, Profile: simulator.Realistic})
	var source, clone struct{ Storage struct{ UUID string } }
	first.Do(t, "POST", "/storage", createBody, &source)
	first.Do(t, "POST", "/storage/"+source.Storage.UUID+"/clone", `{"storage":{"title":"c","zone":"fi-hel1"}}`, &clone)
	var server struct{ Server struct{ UUID string } }
	first.Do(t, "POST", "/server", `{"server":{"hostname":"a","title":"a","zone":"fi-hel1","storage_devices":{"storage_device":[
		{"action":"clone","storage":"01000000-0000-4000-8000-000020060100","title":"system","size":10}]}}}`, &server)
	lb := createLoadBalancer(t, first, "web")
	gone := createLoadBalancer(t, first, "gone")
	clock.Advance(45 * time.Second)
	first.Do(t, "POST", "/storage/"+source.Storage.UUID+"/backup", `{"storage":{"title":"b"}}`, nil)
	first.Do(t, "DELETE", "/load-balancer/"+gone.UUID, "", nil)
	clock.Advance(time.Second)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	clock = simulator.NewManualClock()
	second := simulatortest.Start(t, simulator.Config{StateDir: dir, Clock: clock, Profile: simulator.Realistic})
	clock.Advance(200 * time.Second)
	for path, state := range map[string]string{
		"/storage/" + source.Storage.UUID: `"state":"online"`, "/storage/" + clone.Storage.UUID: `"state":"online"`,
		"/server/" + server.Server.UUID: `"state":"started"`, "/load-balancer/" + lb.UUID: `"operational_state":"running"`,
		"/load-balancer/" + gone.UUID: "Service not found.", "/storage/backup": `"state":"online"`,
	} {
		if _, body := second.Raw(t, "GET", path, ""); !strings.Contains(string(body), state) {
			t.Errorf("%s: %s, want %s", path, body, state)
		}
	}
}

func TestUnusableStateIsAnErrorThatNamesTheFile(t *testing.T) {
	dir := t.TempDir()
	sim := simulatortest.Start(t, simulator.Config{StateDir: dir})
	sim.Do(t, "POST", "/storage", createBody, nil)
	if _, err := simulator.New(simulator.Config{StateDir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second simulator in one folder: %v", err)
	}
	if err := sim.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cut off":          string(whole[:len(whole)/2]),
		"another format":   strings.Replace(string(whole), `"format":1`, `"format":7`, 1),
		"an unknown field": strings.Replace(string(whole), `"title":`, `"subject":`, 1),
		"another type":     strings.Replace(string(whole), `"size":10`, `"size":"ten"`, 1),
	} {
		if text == string(whole) {
			t.Fatalf("%s: the file is as it was", name)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := simulator.New(simulator.Config{StateDir: dir})
		if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "move the file away") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// childStateDir is set in the copy of the test program that is killed.
const childStateDir = "SIMULATOR_TEST_STATE_DIR"

func TestStateSurvivesKill(t *testing.T) {
	if dir := os.Getenv(childStateDir); dir != "" {
		sim := simulatortest.Start(t, simulator.Config{StateDir: dir})
		sim.Do(t, "POST", "/storage", createBody, nil)
		fmt.Println("made") // the parent kills this process once the file has the storage
		select {}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestStateSurvivesKill$")
	cmd.Env = append(os.Environ(), childStateDir+"="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text, _ := os.ReadFile(filepath.Join(dir, "state.json"))
		if strings.Contains(string(text), `"title":"x"`) {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			t.Fatal("the storage is not in the file")
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if n := storages(t, simulatortest.Start(t, simulator.Config{StateDir: dir})); n != 1 {
		t.Errorf("%d storages after the kill, want 1", n)
	}
}

func TestImportsGoOnAfterARestart(t *testing.T) {
	dir := t.TempDir()
	clock := simulator.NewManualClock()
	first := simulatortest.Start(t, simulator.Config{StateDir: dir, Clock: clock, Profile: simulator.Realistic})
	var upload, web struct{ Storage struct{ UUID string } }
	first.Do(t, "POST", "/storage", createBody, &upload)
	first.Do(t, "POST", "/storage", createBody, &web)
	first.Do(t, "POST", "/storage/"+upload.Storage.UUID+"/import", `{"storage_import":{"source":"direct_upload"}}`, nil)
	first.Do(t, "POST", "/storage/"+web.Storage.UUID+"/import", `{"storage_import":{"source":"http_import","source_location":"http://127.0.0.1:1/x"}}`, nil)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	clock = simulator.NewManualClock()
	second := simulatortest.Start(t, simulator.Config{StateDir: dir, Clock: clock, Profile: simulator.Realistic})
	clock.Advance(time.Hour)
	for uuid, want := range map[string][2]string{upload.Storage.UUID: {"maintenance", "prepared"}, web.Storage.UUID: {"online", "failed"}} {
		_, storage := second.Raw(t, "GET", "/storage/"+uuid, "")
		_, imported := second.Raw(t, "GET", "/storage/"+uuid+"/import", "")
		if !strings.Contains(string(storage), `"state":"`+want[0]+`"`) || !strings.Contains(string(imported), `"state":"`+want[1]+`"`) {
			t.Errorf("want %v, have %s and %s", want, storage, imported)
		}
	}
}
