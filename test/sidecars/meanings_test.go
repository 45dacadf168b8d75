package sidecars

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/driver"
)

// meaning is what a sidecar makes of an error.
type meaning string

const (
	pending    meaning = "it may have happened or may happen yet"
	over       meaning = "it did not happen"
	elsewhere  meaning = "it did not happen, another zone may do"
	infeasible meaning = "it cannot happen as asked"
)

// meanings are what the sidecars have to make of each kind of error of the account.
var meanings = []struct {
	name                                      string
	kind                                      error
	create, publish, snapshot, growth, modify meaning
}{
	{"nothing of that ID", cloud.ErrNotFound, over, over, over, infeasible, over},
	{"storage of another type", cloud.ErrWrongType, over, over, over, infeasible, over},
	{"invalid request", cloud.ErrInvalid, over, over, over, infeasible, infeasible},
	{"size out of range", cloud.ErrOutOfRange, over, over, over, infeasible, over},
	{"credentials refused", cloud.ErrUnauthorized, pending, pending, pending, pending, pending},
	{"no right", cloud.ErrForbidden, over, over, over, over, over},
	{"limit reached", cloud.ErrExhausted, elsewhere, pending, over, infeasible, over},
	{"name taken", cloud.ErrAlreadyExists, over, over, over, over, over},
	{"attached elsewhere", cloud.ErrAttachedElsewhere, over, over, over, over, over},
	{"in use", cloud.ErrInUse, over, over, over, over, over},
	{"state error", cloud.ErrServerState, over, over, over, over, over},
	{"busy", cloud.ErrBusy, pending, pending, pending, pending, pending},
	{"API unavailable", cloud.ErrUnavailable, pending, pending, pending, pending, pending},
	{"deadline", context.DeadlineExceeded, pending, pending, pending, pending, pending},
	{"caller left", context.Canceled, pending, pending, pending, pending, pending},
	{"unknown error", errors.New("anything"), pending, pending, pending, pending, pending},
}

// answer is the driver's answer to an RPC that failed so.
func answer(rpc string, kind error) error {
	return driver.StatusError(rpc, &cloud.Error{Kind: kind, Message: "refused by the test"})
}

func wantMeaning(t *testing.T, rpc string, kind error, got, want meaning) {
	t.Helper()
	if got != want {
		t.Errorf("%s answers %s, and the sidecar takes it for %q, want %q", rpc, status.Code(answer(rpc, kind)), got, want)
	}
}

// finality is the meaning where the sidecar tells final errors from others.
func finality(final bool) meaning {
	if final {
		return over
	}
	return pending
}

// A full node is the one refusal that external-attacher takes for pending: Kubernetes recognizes it by this code.
func TestFullNodeIsRecognizedByItsCode(t *testing.T) {
	if got := status.Code(answer("ControllerPublishVolume", cloud.ErrExhausted)); got != codes.ResourceExhausted {
		t.Errorf("got %s", got)
	}
}
