package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/types"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/fairness"
)

// inOneRound looks after Services, and returns when that is done.
func inOneRound(look func(*rounds)) {
	var once rounds
	look(&once)
	once.wait()
}

func TestRoundOfNamespaceThatTakesLongDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all rounds
		var mu sync.Mutex
		looks := map[types.UID]int{}
		held := make(chan struct{})
		look := func(_ context.Context, uid types.UID) error {
			mu.Lock()
			looks[uid]++
			mu.Unlock()
			if uid == "noisy-1" {
				<-held
			}
			return errors.New("is told in the log")
		}
		namespaces := map[string][]types.UID{"noisy": {"noisy-1", "noisy-2"}, "quiet": {"quiet-1", "quiet-2"}}
		for range 3 {
			all.begin(t.Context(), namespaces, look, "test")
			synctest.Wait()
		}
		if want := "map[noisy-1:1 quiet-1:3 quiet-2:3]"; fmt.Sprint(looks) != want {
			t.Errorf("looks while the noisy namespace is held are %v, want %s", looks, want)
		}
		close(held)
		all.wait()
		if looks["noisy-2"] != 1 {
			t.Errorf("the noisy namespace's second Service was looked at %d times, want 1", looks["noisy-2"])
		}
	})
}

func TestRoundGoesOnWithInterruptedWorkAfterTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []types.UID
		look := func(_ context.Context, uid types.UID) error {
			order = append(order, uid)
			if uid == "large" && len(order) < 5 {
				return fmt.Errorf("load balancer: %w", fairness.Continues("changes are left", stepPause))
			}
			return nil
		}
		inOneRound(func(r *rounds) {
			r.begin(t.Context(), map[string][]types.UID{"n": {"large", "a", "b"}}, look, "test")
		})
		if want := []types.UID{"large", "a", "b", "large", "large"}; !slices.Equal(order, want) {
			t.Errorf("order is %v, want %v", order, want)
		}
	})
}
