package driver

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cloud-provider-upcloud/cloud-provider-upcloud/pkg/cloud"
)

// codesOfErrors are the codes of every kind of error of the account, by RPC; the last column is for RPCs that only read.
// docs/storage.md says what Kubernetes does then, and test/sidecars holds that against the sidecars' own code.
var codesOfErrors = []struct {
	name                                                                               string
	kind                                                                               error
	create, delete, publish, unpublish, expand, modify, snapshot, deleteSnapshot, read codes.Code
}{
	{"ErrNotFound", cloud.ErrNotFound, codes.NotFound, codes.NotFound, codes.NotFound, codes.NotFound, codes.NotFound,
		codes.NotFound, codes.NotFound, codes.NotFound, codes.NotFound},
	{"ErrWrongType", cloud.ErrWrongType, codes.NotFound, codes.InvalidArgument, codes.NotFound, codes.NotFound, codes.NotFound,
		codes.NotFound, codes.NotFound, codes.InvalidArgument, codes.NotFound},
	{"ErrNotOwned", cloud.ErrNotOwned, codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition, codes.InvalidArgument, codes.InvalidArgument, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition},
	{"ErrInvalid", cloud.ErrInvalid, codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument,
		codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument, codes.InvalidArgument},
	{"ErrOutOfRange", cloud.ErrOutOfRange, codes.OutOfRange, codes.OutOfRange, codes.OutOfRange, codes.OutOfRange,
		codes.OutOfRange, codes.OutOfRange, codes.OutOfRange, codes.OutOfRange, codes.OutOfRange},
	{"ErrUnauthorized", cloud.ErrUnauthorized, codes.Unavailable, codes.Unauthenticated, codes.Unavailable, codes.Unauthenticated,
		codes.Unavailable, codes.Unavailable, codes.Unavailable, codes.Unauthenticated, codes.Unauthenticated},
	{"ErrForbidden", cloud.ErrForbidden, codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied,
		codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied, codes.PermissionDenied,
		codes.PermissionDenied},
	{"ErrExhausted", cloud.ErrExhausted, codes.ResourceExhausted, codes.ResourceExhausted, codes.ResourceExhausted,
		codes.ResourceExhausted, codes.OutOfRange, codes.FailedPrecondition, codes.FailedPrecondition, codes.ResourceExhausted,
		codes.ResourceExhausted},
	{"ErrAlreadyExists", cloud.ErrAlreadyExists, codes.AlreadyExists, codes.AlreadyExists, codes.AlreadyExists,
		codes.AlreadyExists, codes.AlreadyExists, codes.AlreadyExists, codes.AlreadyExists, codes.AlreadyExists,
		codes.AlreadyExists},
	{"ErrAttachedElsewhere", cloud.ErrAttachedElsewhere, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition},
	{"ErrInUse", cloud.ErrInUse, codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition, codes.FailedPrecondition},
	{"ErrServerState", cloud.ErrServerState, codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition, codes.Internal, codes.FailedPrecondition, codes.FailedPrecondition, codes.FailedPrecondition,
		codes.FailedPrecondition},
	{"ErrBusy", cloud.ErrBusy, codes.Aborted, codes.Aborted, codes.Aborted, codes.Aborted, codes.Aborted, codes.Aborted,
		codes.Aborted, codes.Aborted, codes.Aborted},
	{"ErrUnavailable", cloud.ErrUnavailable, codes.Unavailable, codes.Unavailable, codes.Unavailable, codes.Unavailable,
		codes.Unavailable, codes.Unavailable, codes.Unavailable, codes.Unavailable, codes.Unavailable},
	{"the caller's deadline", context.DeadlineExceeded, codes.DeadlineExceeded, codes.DeadlineExceeded, codes.DeadlineExceeded,
		codes.DeadlineExceeded, codes.DeadlineExceeded, codes.DeadlineExceeded, codes.DeadlineExceeded, codes.DeadlineExceeded,
		codes.DeadlineExceeded},
	{"the caller left", context.Canceled, codes.Canceled, codes.Canceled, codes.Canceled, codes.Canceled, codes.Canceled,
		codes.Canceled, codes.Canceled, codes.Canceled, codes.Canceled},
	{"unknown", errors.New("anything"), codes.Unavailable, codes.Internal, codes.Unavailable, codes.Internal, codes.Unavailable,
		codes.Unavailable, codes.Unavailable, codes.Internal, codes.Internal},
}

func TestEveryErrorHasItsCodeInEveryRPC(t *testing.T) {
	service := reflect.TypeFor[csi.ControllerServer]()
	for _, row := range codesOfErrors {
		special := map[string]codes.Code{
			"CreateVolume": row.create, "DeleteVolume": row.delete, "ControllerPublishVolume": row.publish,
			"ControllerUnpublishVolume": row.unpublish, "ControllerExpandVolume": row.expand, "ControllerModifyVolume": row.modify,
			"CreateSnapshot": row.snapshot, "DeleteSnapshot": row.deleteSnapshot,
		}
		for i := range service.NumMethod() {
			rpc := service.Method(i).Name
			want, found := special[rpc]
			if !found {
				want = row.read
			}
			if got := status.Code(StatusError(rpc, &cloud.Error{Kind: row.kind})); got != want {
				t.Errorf("%s of %s: %s, want %s", row.name, rpc, got, want)
			}
		}
	}
	for _, entry := range statusCodes {
		for rpc := range entry.except {
			if _, found := service.MethodByName(rpc); !found {
				t.Errorf("there is an exception for %s, which is not an RPC of the controller", rpc)
			}
		}
	}
}

// A new kind of error needs its codes.
func TestEveryKindOfErrorIsInTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "../cloud/errors.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "Err") {
			missing = append(missing, spec.Names[0].Name)
		}
		return true
	})
	if len(missing) == 0 {
		t.Fatal("no kinds found")
	}
	for _, name := range missing {
		found := false
		for _, row := range codesOfErrors {
			found = found || row.name == name
		}
		if !found {
			t.Errorf("cloud.%s has no row in codesOfErrors", name)
		}
	}
}
