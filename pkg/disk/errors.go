package disk

import (
	"errors"
	"fmt"
)

// Kinds of failure. Every error of this package that a caller can act on matches one of them with errors.Is;
// all others are failures of the machine (a command that failed, an I/O error).
var (
	// ErrNoDevice: the volume's device is not on this machine, or what claims to be it is not.
	ErrNoDevice = errors.New("device not found")
	// ErrRefused: doing what was asked could lose data, or cannot be done with what is on the device.
	ErrRefused = errors.New("refused")
	// ErrInvalid: the request makes no sense, whatever the state of the machine.
	ErrInvalid = errors.New("invalid request")
	// ErrNotStaged: the staging path does not hold the volume's filesystem.
	ErrNotStaged = errors.New("not staged")
	// ErrConflict: the path is in use already, in a way that is incompatible with the request.
	ErrConflict = errors.New("conflict")
	// ErrNotGrown: the kernel does not see the size yet that the disk should have.
	ErrNotGrown = errors.New("disk not grown yet")
	// ErrInUse: the volume is in use still, by somebody that the caller has to end first.
	ErrInUse = errors.New("in use")
	// ErrNotMounted: nothing of the volume is at the path.
	ErrNotMounted = errors.New("not mounted")
)

// Error is a failure with its kind and a text that names the volume, the device or path, the cause and the remedy.
type Error struct {
	Kind    error  // one of the Err values above
	Message string // complete in itself: the kind is not repeated in it
}

func (e *Error) Error() string { return e.Message }

// Unwrap makes errors.Is(err, ErrRefused) and the like work.
func (e *Error) Unwrap() error { return e.Kind }

func fail(kind error, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}
