package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// Volumes carry the UID of the flag, or the one that the API server answers with; one that does not answer stops nothing.
func TestClusterUIDComesFromTheFlagOrTheAPIServer(t *testing.T) {
	sim := account(t)
	var refusals atomic.Int32 // to come
	refusals.Store(1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if refusals.Add(-1) >= 0 {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = w.Write([]byte(`{"metadata":{"uid":"from-the-server"}}`))
	}))
	t.Cleanup(server.Close)
	client, err := cloud.New(cloud.Config{Token: sim.Token, BaseURL: sim.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	label := func(name string) string {
		volume, err := client.CreateVolume(t.Context(), cloud.VolumeSpec{Name: name, SizeGiB: 1, Tier: "maxiops", Zone: zone})
		if err != nil {
			t.Fatal(err)
		}
		return volume.Labels[cloud.LabelClusterUID]
	}
	config := &rest.Config{Host: server.URL}
	if err := askClusterUID(t.Context(), config, client); err == nil || label("a") != "" {
		t.Errorf("a refusal was taken for an answer: %v", err)
	}
	refusals.Store(2)
	if err := awaitClusterUID(t.Context(), config, client); err != nil || label("b") != "from-the-server" {
		t.Errorf("an API server that answers after a moment: label %q, error %v", label("b"), err)
	}
	stop, err := startClusterUID(t.Context(), "from-the-flag", client)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if got := label("c"); got != "from-the-flag" {
		t.Errorf("label %q", got)
	}
	if _, err := startClusterUID(t.Context(), "a\nb", client); err == nil {
		t.Error("a flag that cannot be a label was taken")
	}
}
