// Package propertytest chooses the random sequences that property tests take: the same ones in every run of `go test`, so that a change is
// not refused for what chance finds in another place, and others when PROPERTY_SEED=random looks for new faults.
package propertytest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/google/uuid"
)

// Environment variables that choose the sequences.
const (
	// StepsVariable is how many steps each sequence takes. Empty: as many as the test takes by default.
	StepsVariable = "PROPERTY_STEPS"
	// SeedVariable is a seed, or "random". Empty: the fixed seeds.
	SeedVariable = "PROPERTY_SEED"
	// CountVariable is how many seeds "random" draws. Empty: one.
	CountVariable = "PROPERTY_COUNT"
)

// fixedSeeds are those of every ordinary run.
var fixedSeeds = []uint64{1, 2, 3}

// Sequence is one random sequence of a test. Whatever a test chooses at random, names and UIDs too, it draws from here: otherwise its seed
// does not repeat it.
type Sequence struct {
	*rand.Rand
	Seed   uint64
	Steps  int
	source *rand.ChaCha8
}

// New is the sequence of a seed.
func New(seed uint64, steps int) *Sequence {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	source := rand.NewChaCha8(key)
	return &Sequence{Rand: rand.New(source), Seed: seed, Steps: steps, source: source}
}

// NewUUID is a random UUID of the sequence.
func (s *Sequence) NewUUID() string { return uuid.Must(uuid.NewRandomFromReader(s.source)).String() }

// String is what to set to repeat the sequence.
func (s *Sequence) String() string {
	return fmt.Sprintf("%s=%d %s=%d", StepsVariable, s.Steps, SeedVariable, s.Seed)
}

// Run takes a test through one sequence for each seed that the environment asks for, of that many steps unless the environment says
// otherwise. Each is a subtest, whose name has the seed.
func Run(t *testing.T, steps int, test func(t *testing.T, s *Sequence)) {
	t.Helper()
	if text := os.Getenv(StepsVariable); text != "" {
		steps = int(number(t, StepsVariable, text))
	}
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			s := New(seed, steps)
			t.Log(s)
			test(t, s)
		})
	}
}

func seeds(t *testing.T) []uint64 {
	t.Helper()
	switch text := os.Getenv(SeedVariable); text {
	case "":
		return fixedSeeds
	case "random":
		count := uint64(1)
		if text := os.Getenv(CountVariable); text != "" {
			count = number(t, CountVariable, text)
		}
		drawn := make([]uint64, count)
		for i := range drawn {
			drawn[i] = rand.Uint64()
		}
		return drawn
	default:
		return []uint64{number(t, SeedVariable, text)}
	}
}

func number(t *testing.T, variable, text string) uint64 {
	t.Helper()
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil || value == 0 {
		t.Fatalf("invalid %s %q: must be a number from 1", variable, text)
	}
	return value
}
