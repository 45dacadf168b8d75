package driver_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func codeOf(err error) codes.Code { return status.Code(err) }

func TestIdentifyByMetadata(t *testing.T) {
	sim := simulatortest.Start(t, simulator.Config{})
	server := sim.CreateServer(t, "worker-1", "de-fra1")
	url := sim.Metadata(t, server)
	other := "00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

	got, err := driver.Identify(callContext(t), driver.ModeNode, url, other, zone)
	if err != nil || got.NodeID != server || got.Zone != "de-fra1" {
		t.Errorf("node: %+v, %v; want what the metadata say", got, err)
	}
	if count, err := got.Interfaces(callContext(t)); err != nil || count != 3 {
		t.Errorf("%d network interfaces, %v", count, err)
	}
	got, err = driver.Identify(callContext(t), driver.ModeController, url, "", "")
	if err != nil || got.Zone != "de-fra1" {
		t.Errorf("controller: %+v, %v", got, err)
	}
	got, err = driver.Identify(callContext(t), driver.ModeController, url, "", zone)
	if err != nil || got.Zone != zone {
		t.Errorf("controller with --zone: %+v, %v", got, err)
	}
}

func TestIdentifyWithoutMetadata(t *testing.T) {
	absent := httptest.NewServer(http.NotFoundHandler())
	defer absent.Close()
	server := "00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	got, err := driver.Identify(callContext(t), driver.ModeAll, absent.URL, server, zone)
	if err != nil || got.NodeID != server || got.Zone != zone {
		t.Errorf("with both flags: %+v, %v", got, err)
	}
	got, err = driver.Identify(callContext(t), driver.ModeNode, absent.URL, strings.ToUpper(server), zone)
	if err != nil || got.NodeID != server {
		t.Errorf("an ID in capitals: %+v, %v; want it as the API has it", got, err)
	}
	for name, c := range map[string]struct {
		mode         driver.Mode
		nodeID, zone string
		says         []string
	}{
		"node without flags":      {driver.ModeNode, "", "", []string{"--metadata-url", "--node-id", "--zone"}},
		"node without a zone":     {driver.ModeNode, server, "", []string{"--zone"}},
		"controller without zone": {driver.ModeController, "", "", []string{"--zone"}},
		"a host name for an ID":   {driver.ModeNode, "worker-1", zone, []string{"--node-id", "UUID"}},
		"an ID in braces":         {driver.ModeNode, "{" + server + "}", zone, []string{"--node-id", "UUID"}},
	} {
		_, err := driver.Identify(callContext(t), c.mode, absent.URL, c.nodeID, c.zone)
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want one line", name, err)
			continue
		}
		for _, word := range c.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: the error does not say %s: %v", name, word, err)
			}
		}
	}
}

func TestReadMetadataTriesAgain(t *testing.T) {
	var requests atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if requests.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, `{"instance_id":"00aaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee","region":"fi-hel1"}`)
	}))
	defer web.Close()
	if got, err := driver.ReadMetadata(callContext(t), web.URL); err != nil || got.Zone != zone {
		t.Errorf("%+v, %v", got, err)
	}
}
