package simulator_test

import (
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

func TestSeedMakesUUIDsRepeatable(t *testing.T) {
	made := func(seed uint64) string {
		sim := simulatortest.StartInMemory(t, simulator.Config{Seed: seed})
		var answer struct{ Storage struct{ UUID string } }
		sim.Do(t, "POST", "/storage", `{"storage":{"size":10,"title":"one","zone":"fi-hel1"}}`, &answer)
		return answer.Storage.UUID
	}
	if first, again, other := made(5), made(5), made(6); first == "" || first != again || first == other {
		t.Errorf("seed 5 makes %s and %s, seed 6 makes %s", first, again, other)
	}
	if first, again := made(0), made(0); first == again {
		t.Errorf("no seed makes %s twice", first)
	}
}
