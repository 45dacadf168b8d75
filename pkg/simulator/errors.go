package simulator

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// apiError is a refusal in the form of the older resources:
// {"error":{"error_code":"STORAGE_NOT_FOUND","error_message":"…"}}.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func refuse(status int, code, format string, args ...any) *apiError {
	return &apiError{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

func badRequest(code, format string, args ...any) *apiError {
	return refuse(http.StatusBadRequest, code, format, args...)
}

func notFound(code, format string, args ...any) *apiError {
	return refuse(http.StatusNotFound, code, format, args...)
}

func conflict(code, format string, args ...any) *apiError {
	return refuse(http.StatusConflict, code, format, args...)
}

// problem is a refusal in the form of the newer resources (RFC 7807).
type problem struct {
	status  int
	code    string // without ERROR_
	title   string
	invalid []invalidParam
}

type invalidParam struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func (p *problem) Error() string {
	var b strings.Builder
	b.WriteString(p.title)
	for _, i := range p.invalid {
		fmt.Fprintf(&b, " %s: %s", i.Name, i.Reason)
	}
	return b.String()
}

func invalid(params ...invalidParam) *problem {
	return &problem{status: http.StatusBadRequest, code: "INVALID_REQUEST", title: "Validation error.", invalid: params}
}

func problemNotFound(what string) *problem {
	return &problem{status: http.StatusNotFound, code: "RESOURCE_NOT_FOUND", title: what + " not found."}
}

func problemConflict(title string) *problem {
	return &problem{status: http.StatusConflict, code: "RESOURCE_ALREADY_EXISTS", title: title}
}

const (
	olderType   = "application/json; charset=UTF-8"
	newerType   = "application/json"
	problemType = "application/problem+json"
)

const errorPage = "https://developers.upcloud.com/1.3/errors#ERROR_"

type apiErrorBody struct {
	Error struct {
		Code    string `json:"error_code"`
		Message string `json:"error_message"`
	} `json:"error"`
}

type problemBody struct {
	CorrelationID string         `json:"correlation_id"`
	InvalidParams []invalidParam `json:"invalid_params,omitempty"`
	Status        int            `json:"status"`
	Title         string         `json:"title"`
	Type          string         `json:"type"`
}

// errorAnswer writes err in the form that the operation's resources use: an error that a handler shared by both kinds
// returned is turned into the other form.
func errorAnswer(err error, problems bool, now time.Time) answer {
	status, code, message := http.StatusInternalServerError, "INTERNAL_ERROR", err.Error()
	var invalidParams []invalidParam
	var old *apiError
	var told *problem
	switch {
	case errors.As(err, &old):
		status, code, message = old.status, old.code, old.message
	case errors.As(err, &told):
		status, code, message, invalidParams = told.status, told.code, told.title, told.invalid
	}
	if problems {
		return encode(status, problemType, problemBody{
			CorrelationID: correlationID(now),
			InvalidParams: invalidParams,
			Status:        status,
			Title:         message,
			Type:          errorPage + code,
		})
	}
	var body apiErrorBody
	body.Error.Code, body.Error.Message = code, message
	return encode(status, olderType, body)
}
