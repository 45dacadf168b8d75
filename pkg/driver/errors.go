package driver

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/disk"
)

// statusCodes is the one place where errors become gRPC status codes; the first match counts.
//
// What a code does in Kubernetes: the provisioner takes ABORTED, UNAVAILABLE, DEADLINE_EXCEEDED and CANCELED of a
// CreateVolume to mean that the volume may exist or come to be, and keeps asking; any other code lets it forget the
// volume. So whatever leaves the outcome open must be one of those. RESOURCE_EXHAUSTED of a ControllerPublishVolume
// makes Kubernetes look again at how many volumes the node can have.
var statusCodes = []struct {
	kind error
	code codes.Code
}{
	{cloud.ErrNotFound, codes.NotFound},
	{cloud.ErrInvalid, codes.InvalidArgument},
	{cloud.ErrOutOfRange, codes.OutOfRange},
	{cloud.ErrUnauthorized, codes.Unauthenticated},
	{cloud.ErrForbidden, codes.PermissionDenied},
	{cloud.ErrExhausted, codes.ResourceExhausted},
	{cloud.ErrAlreadyExists, codes.AlreadyExists},
	{cloud.ErrAttachedElsewhere, codes.FailedPrecondition}, // ControllerPublishVolume: published to another node
	{cloud.ErrInUse, codes.FailedPrecondition},             // DeleteVolume: volume in use
	{cloud.ErrServerState, codes.FailedPrecondition},
	{cloud.ErrBusy, codes.Aborted},
	{cloud.ErrUnavailable, codes.Unavailable},

	{disk.ErrInvalid, codes.InvalidArgument},
	{disk.ErrNoDevice, codes.NotFound},
	{disk.ErrNotMounted, codes.NotFound},
	{disk.ErrRefused, codes.FailedPrecondition},
	{disk.ErrNotStaged, codes.FailedPrecondition},
	{disk.ErrConflict, codes.AlreadyExists},
	{disk.ErrInUse, codes.FailedPrecondition},
	{disk.ErrNotGrown, codes.Unavailable},

	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// statusError turns any error into one with a gRPC status. What nobody knows is INTERNAL.
func statusError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok {
		return err
	}
	for _, entry := range statusCodes {
		if errors.Is(err, entry.kind) {
			return status.Error(entry.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
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
