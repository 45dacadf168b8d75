package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// statusCodes is the one place where errors become gRPC status codes; the first match counts.
//
// One code does not mean the same to every sidecar, so there are exceptions by RPC. What the sidecars make of a code:
//
//	CreateVolume            ABORTED, UNAVAILABLE, DEADLINE_EXCEEDED and CANCELED: the volume may come to be, keep asking.
//	                        RESOURCE_EXHAUSTED: no volume, let the scheduler try another zone. Others: no volume.
//	CreateSnapshot          the same five: a snapshot may come to be, keep the content. Others: no snapshot.
//	ControllerExpandVolume  the same five: growth may go on, the claim cannot be lowered. INVALID_ARGUMENT, OUT_OF_RANGE,
//	                        NOT_FOUND: infeasible, asked again slowly. FAILED_PRECONDITION: not while a Pod uses it.
//	ControllerModifyVolume  the same five: change may go on, the claim cannot change its class. INVALID_ARGUMENT: infeasible.
//	ControllerPublishVolume RESOURCE_EXHAUSTED: Kubernetes counts again how many volumes the node takes.
//	others                  any code: an event, and asked again.
//
// So what leaves the outcome open must be one of those four or five, and what is certain and hopeless none of them.
// test/sidecars holds this table against the sidecars' own code.
var statusCodes = []struct {
	kind   error
	code   codes.Code
	except codesByRPC
}{
	{cloud.ErrNotFound, codes.NotFound, nil},
	// To delete nothing is a success, but a person has to see that the ID names something else.
	{cloud.ErrWrongType, codes.NotFound, codesByRPC{deleteVolume: codes.InvalidArgument, deleteSnapshot: codes.InvalidArgument}},
	// Growth and modification: infeasible, where FAILED_PRECONDITION would be about use by a Pod, or be asked again at once.
	{cloud.ErrNotOwned, codes.FailedPrecondition, codesByRPC{
		expandVolume: codes.InvalidArgument, modifyVolume: codes.InvalidArgument}},
	{cloud.ErrInvalid, codes.InvalidArgument, nil},
	{cloud.ErrOutOfRange, codes.OutOfRange, nil},
	// Without credentials nothing can be read, and what an earlier call began is not known.
	{cloud.ErrUnauthorized, codes.Unauthenticated, forEach(changing, codes.Unavailable)},
	{cloud.ErrForbidden, codes.PermissionDenied, nil},
	{cloud.ErrExhausted, codes.ResourceExhausted, codesByRPC{
		expandVolume: codes.OutOfRange, modifyVolume: codes.FailedPrecondition, createSnapshot: codes.FailedPrecondition}},
	{cloud.ErrAlreadyExists, codes.AlreadyExists, nil},
	{cloud.ErrAttachedElsewhere, codes.FailedPrecondition, nil},
	{cloud.ErrInUse, codes.FailedPrecondition, nil},
	{cloud.ErrServerState, codes.FailedPrecondition, codesByRPC{expandVolume: codes.Internal}}, // not about use by a Pod
	{cloud.ErrBusy, codes.Aborted, nil},
	{cloud.ErrUnavailable, codes.Unavailable, nil},

	{disk.ErrInvalid, codes.InvalidArgument, nil},
	{disk.ErrNoDevice, codes.NotFound, nil},
	{disk.ErrNotMounted, codes.NotFound, nil},
	{disk.ErrRefused, codes.FailedPrecondition, nil},
	{disk.ErrNotStaged, codes.FailedPrecondition, nil},
	{disk.ErrConflict, codes.AlreadyExists, nil},
	{disk.ErrInUse, codes.FailedPrecondition, nil},
	{disk.ErrNotGrown, codes.Unavailable, nil},

	{context.DeadlineExceeded, codes.DeadlineExceeded, nil},
	{context.Canceled, codes.Canceled, nil},
}

// codesByRPC are exceptions, by the name of the RPC.
type codesByRPC map[string]codes.Code

// The RPCs with exceptions.
const (
	createVolume   = "CreateVolume"
	deleteVolume   = "DeleteVolume"
	publishVolume  = "ControllerPublishVolume"
	expandVolume   = "ControllerExpandVolume"
	modifyVolume   = "ControllerModifyVolume"
	createSnapshot = "CreateSnapshot"
	deleteSnapshot = "DeleteSnapshot"
)

// changing are the RPCs that can leave something behind whose outcome matters to a sidecar.
var changing = []string{createVolume, publishVolume, expandVolume, modifyVolume, createSnapshot}

func forEach(rpcs []string, code codes.Code) codesByRPC {
	same := make(codesByRPC, len(rpcs))
	for _, rpc := range rpcs {
		same[rpc] = code
	}
	return same
}

// StatusError turns an error of an RPC into one with a gRPC status. rpc is its name, such as CreateVolume.
func StatusError(rpc string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	for _, entry := range statusCodes {
		if !errors.Is(err, entry.kind) {
			continue
		}
		if code, found := entry.except[rpc]; found {
			return status.Error(code, err.Error())
		}
		return status.Error(entry.code, err.Error())
	}
	return status.Error(unknownCode(rpc), err.Error())
}

// unknownCode is for errors that the table does not have and for panics. It is INTERNAL, which sidecars take for final,
// except where the RPC may have had its effect.
func unknownCode(rpc string) codes.Code {
	if slices.Contains(changing, rpc) {
		return codes.Unavailable
	}
	return codes.Internal
}

// invalid is INVALID_ARGUMENT: it names the field of the request, the value and the remedy.
func invalid(field, format string, args ...any) error {
	return status.Error(codes.InvalidArgument, field+": "+fmt.Sprintf(format, args...))
}

// outOfRange is OUT_OF_RANGE, for sizes that cannot be.
func outOfRange(format string, args ...any) error {
	return status.Errorf(codes.OutOfRange, format, args...)
}

// missing is INVALID_ARGUMENT for a required field that was left empty.
func missing(field string) error { return invalid(field, "is required and was empty") }
