package cloud

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud"
	"github.com/UpCloudLtd/upcloud-go-api/v8/upcloud/client"
)

// The kinds of failure, matched with errors.Is. An error whose cause is that the caller's context ended matches
// context.Canceled or context.DeadlineExceeded instead.
var (
	// ErrNotFound: the thing named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrWrongType: the storage exists and is of another type than the caller means, such as a backup given as a volume.
	ErrWrongType = errors.New("wrong type of storage")
	// ErrNotOwned: the storage is not this cluster's, so that this may not be done to it.
	ErrNotOwned = errors.New("not this cluster's")
	// ErrInvalid: the request can never succeed as it is.
	ErrInvalid = errors.New("invalid request")
	// ErrOutOfRange: no size is within what is asked for and what the API has.
	ErrOutOfRange = errors.New("size out of range")
	// ErrUnauthorized: the credentials are wrong.
	ErrUnauthorized = errors.New("credentials refused")
	// ErrForbidden: the credentials are right, and do not allow this.
	ErrForbidden = errors.New("not allowed")
	// ErrExhausted: a quota, a limit of devices, the zone's capacity or the account's credits.
	ErrExhausted = errors.New("limit reached")
	// ErrAlreadyExists: something of that name exists and is not what was asked for.
	ErrAlreadyExists = errors.New("already exists")
	// ErrAttachedElsewhere: the volume is attached to another server.
	ErrAttachedElsewhere = errors.New("attached to another server")
	// ErrInUse: the resource cannot go while something uses it.
	ErrInUse = errors.New("in use")
	// ErrBusy: a conflict with a state that passes by itself.
	ErrBusy = errors.New("busy")
	// ErrUnavailable: the API is unreachable, failing or throttling.
	ErrUnavailable = errors.New("API unavailable")
	// ErrServerState: a server or storage is in a state that does not pass by itself, such as error.
	ErrServerState = errors.New("state does not allow this")
)

// errInternal is for mistakes of this program.
var errInternal = errors.New("internal error")

// Error is what went wrong with one thing that was asked for. Its text is a sentence for the person who reads it in an
// event or a log.
type Error struct {
	Kind     error  // one of the sentinels, or the error of the context that ended
	Op       string // what was tried: "attach", or "GET /storage/{uuid}" where nobody said better
	Resource string // on what: "storage"
	ID       string // on which one
	Target   string // and where: "to server 00…"; may be empty
	Status   int    // HTTP status, zero when there was no answer
	Code     string // the API's error code, such as STORAGE_NOT_FOUND
	Message  string // what is wrong; when it comes from the API, in the API's words
	Remedy   string // what to do about it
	Err      error  // the cause, if there is one below
	// NotPermitted says that Config.BeforeChange kept the request back.
	NotPermitted bool

	uncertain   bool // the request may have had its effect
	ineffective bool // it certainly had none, and may succeed when it is sent again
}

// Error reads: attach storage 01… to server 00…: the server has no room (STORAGE_DEVICE_LIMIT_REACHED); detach one.
func (e *Error) Error() string {
	var tried []string
	for _, part := range []string{e.Op, e.Resource, e.ID, e.Target} {
		if part != "" {
			tried = append(tried, part)
		}
	}
	text := strings.Join(tried, " ")
	if text != "" {
		text += ": "
	}
	switch {
	case e.Message != "":
		text += strings.TrimRight(e.Message, ". ")
	case e.Kind != nil:
		text += e.Kind.Error()
	}
	switch {
	case e.Code != "":
		text += " (" + e.Code + ")"
	case e.Status != 0:
		text += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	if e.Remedy != "" {
		text += "; " + e.Remedy
	}
	return text
}

// Unwrap lets errors.Is find the kind and the cause.
func (e *Error) Unwrap() []error {
	var wrapped []error
	for _, err := range []error{e.Kind, e.Err} {
		if err != nil {
			wrapped = append(wrapped, err)
		}
	}
	return wrapped
}

// uncertain reports whether a failed request may have had its effect all the same, so that the caller must look before
// it repeats it.
func uncertain(err error) bool {
	var failed *Error
	return errors.As(err, &failed) && failed.uncertain
}

// hasCode reports whether the API answered with one of these codes.
func hasCode(err error, codes ...string) bool {
	var failed *Error
	if !errors.As(err, &failed) {
		return false
	}
	for _, code := range codes {
		if failed.Code == code {
			return true
		}
	}
	return false
}

// explain says of an error what was being done to what. nil stays nil; words given earlier, nearer to the fault, win
// for the message and the remedy, and ours for the rest.
func explain(err error, doing Error) error {
	if err == nil {
		return nil
	}
	var failed *Error
	if !errors.As(err, &failed) {
		doing.Kind, doing.Err = err, nil
		return &doing
	}
	explained := *failed
	explained.Op, explained.Resource, explained.ID, explained.Target = doing.Op, doing.Resource, doing.ID, doing.Target
	explained.Remedy = firstNonEmpty(failed.Remedy, doing.Remedy)
	return &explained
}

// maxWords is how much of what the API says is passed on, in bytes: it ends in log lines and gRPC trailers.
const maxWords = 1000

func oneLine(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + " …"
	}
	return text
}

// answerError reads both of the API's error formats; the body tells which, as proxies change the Content-Type.
// repeatable says that the request has the same effect when it is sent twice.
func answerError(op string, repeatable bool, answer *client.Error) *Error {
	var body struct {
		upcloud.Problem
		Old struct {
			Code    string `json:"error_code"`
			Message string `json:"error_message"`
		} `json:"error"`
	}
	failed := &Error{Op: op, Status: answer.ErrorCode}
	if err := json.Unmarshal(bytes.TrimSpace(answer.ResponseBody), &body); err == nil {
		failed.Code = firstNonEmpty(body.Old.Code, body.ErrorCode())
		failed.Message = firstNonEmpty(body.Old.Message, body.Title)
		for _, param := range body.InvalidParams {
			failed.Message = strings.TrimRight(failed.Message, ". ") + ", " + param.Name + ": " + param.Reason
		}
	}
	failed.Code, failed.Message = oneLine(failed.Code), oneLine(failed.Message)
	failed.Kind, failed.Remedy = kindOf(failed.Code, failed.Status)
	failed.Message = firstNonEmpty(failed.Message, http.StatusText(answer.ErrorCode), "the API answered an error")
	failed.uncertain = !repeatable && answer.ErrorCode >= http.StatusInternalServerError
	failed.ineffective = answer.ErrorCode == http.StatusTooManyRequests || answer.ErrorCode == http.StatusUnauthorized
	return failed
}
