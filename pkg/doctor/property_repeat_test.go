package doctor_test

import (
	"slices"
	"testing"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/internal/propertytest"
)

// A seed that finds a fault is worth something only if it finds it again.
func TestRandomSequencesSameSeedRepeatsEveryStep(t *testing.T) {
	for name, take := range map[string]func(*testing.T, *propertytest.Sequence) (log []string){
		"storages": takeStorages, "load balancers": takeBalancers,
	} {
		t.Run(name, func(t *testing.T) {
			first, again := take(t, propertytest.New(7, 150)), take(t, propertytest.New(7, 150))
			if len(first) < 30 || !slices.Equal(first, again) {
				t.Errorf("two runs with one seed differ: of %d and %d lines", len(first), len(again))
			}
		})
	}
}
