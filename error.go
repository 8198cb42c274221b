package neuroscreen

import (
	"errors"
	"fmt"
)

// Code classifies an error for whoever has to act on it. One table in
// internal/httpapi maps codes to HTTP statuses; nothing else does.
type Code string

const (
	CodeInvalid         Code = "invalid"         // the request is malformed or a field is wrong
	CodeUnauthenticated Code = "unauthenticated" // no key, or an unknown or revoked one
	CodeForbidden       Code = "forbidden"       // the key's role does not allow it
	CodeNotFound        Code = "not-found"       // nothing there, or it belongs to another site
	CodeConflict        Code = "conflict"        // the state of the thing does not allow it
	CodeTooLarge        Code = "too-large"       // over a size limit
	CodeUnprocessable   Code = "unprocessable"   // well formed, but not usable: a refused scan, a reused idempotency key
	CodeUnsupported     Code = "unsupported"     // a media type or format that is not read
	CodeUnavailable     Code = "unavailable"     // a dependency is down; try again
	CodeBusy            Code = "busy"            // the client has too much under way; try again later
	CodeInternal        Code = "internal"        // our fault
)

// Error is the one error type that crosses package borders towards a user.
//
// Type is stable and becomes the last path element of the RFC 9457 problem
// type ("not-a-brain", "missing-field"); clients switch on it. Message is
// shown to the user: it names the fault and what to do, and never holds
// patient data. Err is for the log only.
type Error struct {
	Code    Code
	Type    string
	Field   string // metadata field or header at fault, if one is
	Message string
	Err     error
}

func (e *Error) Error() string {
	s := e.Type + ": " + e.Message
	if e.Field != "" {
		s = e.Type + " (" + e.Field + "): " + e.Message
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error with a formatted message.
func Errorf(code Code, typ, format string, args ...any) *Error {
	return &Error{Code: code, Type: typ, Message: fmt.Sprintf(format, args...)}
}

// FieldErrorf returns an Error that blames one metadata field or header.
func FieldErrorf(code Code, typ, field, format string, args ...any) *Error {
	return &Error{Code: code, Type: typ, Field: field, Message: fmt.Sprintf(format, args...)}
}

// AsError returns the *Error in err's chain, or wraps err as an internal one.
// It returns nil for nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeInternal, Type: "internal", Message: "an unexpected error occurred", Err: err}
}
