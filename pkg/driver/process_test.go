package driver_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/simulator/simulatortest"
)

// life is what stands between a process of the driver and the API: it lets so many requests pass, and then the process
// dies. To the API the process is gone from then on; the request at which it dies took effect or not.
type life struct {
	api  http.Handler
	died chan struct{}

	mu     sync.Mutex
	left   int  // requests until death; negative: for ever
	effect bool // the last request takes effect, its answer is lost
	dead   bool
}

func newLife(api http.Handler, left int, effect bool) *life {
	return &life{api: api, left: left, effect: effect, died: make(chan struct{})}
}

func (l *life) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	last := l.left == 0 && !l.dead
	if last {
		l.dead = true
		close(l.died)
	}
	dead := l.dead
	l.left--
	l.mu.Unlock()
	if last && l.effect {
		l.api.ServeHTTP(httptest.NewRecorder(), r.Clone(context.WithoutCancel(r.Context())))
	}
	if dead {
		panic(http.ErrAbortHandler)
	}
	l.api.ServeHTTP(w, r)
}

// process is a driver that lives as long as its life lets it.
type process struct {
	*rig
	life *life
	kill func()
}

func startProcess(t *testing.T, sim *simulatortest.Server, left int, effect bool) *process {
	t.Helper()
	life := newLife(sim.Handler(), left, effect)
	web := httptest.NewServer(life)
	account, err := cloud.New(cloud.Config{Token: sim.Token, BaseURL: web.URL, ClusterID: "test", AdoptHalfMade: true})
	if err != nil {
		t.Fatal(err)
	}
	r := serve(t, sim, driver.Config{Mode: driver.ModeController, Cloud: account})
	killed := false
	kill := func() {
		if killed {
			return
		}
		killed = true
		if err := r.stop(); err != nil {
			t.Errorf("the driver ended with %v", err)
		}
		account.Close()
		web.CloseClientConnections()
		web.Close()
	}
	t.Cleanup(kill)
	return &process{rig: r, life: life, kill: kill}
}

// call makes a call that ends with the process.
func (p *process) call(t *testing.T, do func(context.Context, csi.ControllerClient) error) (err error, died bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- do(ctx, p.controller) }()
	select {
	case err = <-ended:
	case <-p.life.died:
		cancel()
		err = <-ended
	}
	select {
	case <-p.life.died:
		return err, true
	default:
		return err, false
	}
}

// mustSucceed calls again while the answer says that it may.
func (p *process) mustSucceed(t *testing.T, do func(context.Context, csi.ControllerClient) error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		err, _ := p.call(t, do)
		switch {
		case err == nil:
			return
		case !mayTryAgain(err), time.Now().After(deadline):
			t.Fatal(err)
		}
	}
}

func mayTryAgain(err error) bool {
	return status.Code(err) == codes.Aborted || status.Code(err) == codes.Unavailable
}
