package propertytest

import (
	"slices"
	"testing"
)

// Of the seeds that Run takes, in the order that it takes them.
func seedsTaken(t *testing.T, variables map[string]string) (seeds []uint64, steps int) {
	t.Helper()
	for _, name := range []string{StepsVariable, SeedVariable, CountVariable} {
		t.Setenv(name, variables[name])
	}
	t.Run("of a test", func(t *testing.T) {
		Run(t, 10, func(_ *testing.T, s *Sequence) {
			seeds, steps = append(seeds, s.Seed), s.Steps
		})
	})
	return seeds, steps
}

func TestRunWithoutVariablesTakesTheSameSeeds(t *testing.T) {
	first, steps := seedsTaken(t, nil)
	again, _ := seedsTaken(t, nil)
	if len(first) == 0 || !slices.Equal(first, again) || steps != 10 {
		t.Errorf("%v with %d steps, and then %v", first, steps, again)
	}
}

func TestRunRandomSeedsTakesAsManyOthers(t *testing.T) {
	random := map[string]string{SeedVariable: "random", CountVariable: "2", StepsVariable: "30"}
	first, steps := seedsTaken(t, random)
	again, _ := seedsTaken(t, random)
	if all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(first, again)))); len(all) != 4 || steps != 30 {
		t.Errorf("%v with %d steps, and then %v", first, steps, again)
	}
	if one, _ := seedsTaken(t, map[string]string{SeedVariable: "random"}); len(one) != 1 {
		t.Errorf("%v, want one", one)
	}
}

func TestRunSeedTakesThatSeedAlone(t *testing.T) {
	if seeds, _ := seedsTaken(t, map[string]string{SeedVariable: "1796081783503686047"}); !slices.Equal(seeds, []uint64{1796081783503686047}) {
		t.Errorf("%v", seeds)
	}
}

func TestNewSameSeedDrawsTheSame(t *testing.T) {
	drawn := func(seed uint64) []any {
		s := New(seed, 1)
		return []any{s.IntN(1000), s.NewUUID(), s.IntN(1000), s.NewUUID()}
	}
	if first, again, other := drawn(5), drawn(5), drawn(6); !slices.Equal(first, again) || slices.Equal(first, other) {
		t.Errorf("seed 5: %v, and then %v; seed 6: %v", first, again, other)
	}
}
