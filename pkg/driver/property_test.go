package driver_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// Variables of the property test: how many steps it takes, and which sequence.
const (
	stepsVariable = "PROPERTY_STEPS"
	seedVariable  = "PROPERTY_SEED"
)

// world is what the account must hold, as the answers so far have it.
type world struct {
	t       *testing.T
	rand    *rand.Rand
	sim     *simulatortest.Server
	process *process
	servers []string
	log     []string // the last steps

	volumes   map[string]*modelVolume   // by name
	snapshots map[string]*modelSnapshot // by name
}

type modelVolume struct {
	id, source, server string
	size               int64
}

type modelSnapshot struct {
	id, source string
	size       int64
}

// TestRandomSequences makes random calls, while requests fail before and after their effect and the process dies now and
// then, repeats each call until its answer is final, and compares answers and account with a model of a few maps.
func TestRandomSequences(t *testing.T) {
	steps, seed := variable(t, stepsVariable, 1500), variable(t, seedVariable, int(time.Now().UnixNano()))
	t.Logf("%s=%d %s=%d", stepsVariable, steps, seedVariable, seed)
	w := &world{
		t: t, rand: rand.New(rand.NewPCG(uint64(seed), 1)), sim: simulatortest.Start(t, simulator.Config{}),
		volumes: map[string]*modelVolume{}, snapshots: map[string]*modelSnapshot{},
	}
	for i := range 2 {
		w.servers = append(w.servers, w.sim.CreateServer(t, fmt.Sprint("worker-", i), zone))
	}
	w.restart()
	actions := []func(){w.createVolume, w.createVolume, w.copyVolume, w.deleteVolume, w.publish, w.publish, w.unpublish, w.expand,
		w.createSnapshot, w.deleteSnapshot, w.modify, w.doom}
	for step := range steps {
		actions[w.rand.IntN(len(actions))]()
		if step%10 == 0 || t.Failed() {
			w.compare()
		}
		if t.Failed() {
			t.Fatalf("after step %d of %s=%d; the last were:\n%s", step, seedVariable, seed,
				strings.Join(w.log[max(0, len(w.log)-15):], "\n"))
		}
	}
}

func variable(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// restart replaces the process by a fresh one, to which one request in thirty fails in some way.
func (w *world) restart() {
	if w.process != nil {
		w.process.kill()
	}
	w.process = startProcess(w.t, w.sim, -1, false)
	w.process.life.mu.Lock()
	defer w.process.life.mu.Unlock()
	w.process.life.chaos = rand.New(rand.NewPCG(w.rand.Uint64(), 2))
}

// doom lets the process die soon, in the middle of whatever comes.
func (w *world) doom() {
	w.process.life.mu.Lock()
	defer w.process.life.mu.Unlock()
	w.process.life.left, w.process.life.effect = w.rand.IntN(6), w.rand.IntN(2) == 0
}

// do makes a call, and makes it again in a fresh process when that one died, until the answer is final; now and then
// several times at once.
func (w *world) do(what string, call func(context.Context, csi.ControllerClient) error) codes.Code {
	w.log = append(w.log, what)
	for deadline := time.Now().Add(3 * time.Minute); ; {
		twin := make(chan struct{})
		if w.rand.IntN(8) == 0 {
			go func(p *process) { // its answer does not matter: it is that of the one beside it, or its process died
				defer close(twin)
				_, _ = p.call(w.t, call)
			}(w.process)
		} else {
			close(twin)
		}
		err, died := w.process.call(w.t, call)
		code := status.Code(err)
		if died {
			w.log = append(w.log, "  died")
			w.restart()
		}
		<-twin
		switch {
		case died:
			continue
		case code != codes.Aborted && code != codes.Unavailable && code != codes.DeadlineExceeded && code != codes.Canceled:
			w.log = append(w.log, "  "+code.String())
			if code != codes.OK {
				w.log = append(w.log, "  "+err.Error())
			}
			return code
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s: no final answer in three minutes: %v", what, err)
		}
	}
}

func (w *world) want(what string, got, want codes.Code) {
	w.t.Helper()
	if got != want {
		w.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func pick[V any](w *world, from map[string]V) (name string, value V) {
	names := slices.Sorted(maps.Keys(from))
	if len(names) == 0 {
		return "", value
	}
	name = names[w.rand.IntN(len(names))]
	return name, from[name]
}

// compare holds the account against the model: nothing lost, nothing left over, everything where it should be.
func (w *world) compare() {
	var list struct {
		Storages struct {
			Storage []struct {
				storage
				Type string
			}
		}
	}
	w.sim.Do(w.t, "GET", "/storage/private", "", &list)
	var got, want []string
	for _, s := range list.Storages.Storage {
		switch {
		case strings.HasSuffix(s.Title, " system"):
		case s.Type == "backup":
			got = append(got, fmt.Sprintf("snapshot %s %s %d GiB", s.Title, s.UUID, s.Size))
		default:
			var details struct{ Storage storage }
			w.sim.Do(w.t, "GET", "/storage/"+s.UUID, "", &details)
			got = append(got, fmt.Sprintf("volume %s %s %d GiB at %s", s.Title, s.UUID, s.Size,
				strings.Join(details.Storage.Servers.Server, ",")))
		}
	}
	for name, volume := range w.volumes {
		want = append(want, fmt.Sprintf("volume %s %s %d GiB at %s", name, volume.id, volume.size, volume.server))
	}
	for name, snapshot := range w.snapshots {
		want = append(want, fmt.Sprintf("snapshot %s %s %d GiB", name, snapshot.id, snapshot.size))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("the account has\n%s\nand should have\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
