package wire

import (
	"errors"
	"fmt"
	"strconv"
)

// Error is what a client is told when shardproxy itself refuses or fails:
// the fields of an ErrorResponse (manual, section "Error and Notice Message
// Fields"). Code is a five-character SQLSTATE and is never empty; every code
// that shardproxy originates is listed in docs/errors.md.
//
// Cause, when set, is for the log only: it never reaches a client.
type Error struct {
	Severity string // "ERROR" when empty; "FATAL" ends the session
	Code     string
	Message  string
	Detail   string
	Hint     string
	Position int    // where in the client's text, in characters from 1; 0 for nowhere
	Where    string // the context: what the server was at, such as the line of COPY data
	Routine  string // of the server's source, where a driver looks for it
	Cause    error
	Foreign  bool // a server made it: its texts may hold data
}

// Error returns severity, message and SQLSTATE in one line, as psql prints them.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %s (SQLSTATE %s)", e.severity(), e.Message, e.Code)
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause that was kept from the client.
func (e *Error) Unwrap() error { return e.Cause }

// IsFatal reports whether the session ends with this error.
func (e *Error) IsFatal() bool { return e.severity() != "ERROR" }

func (e *Error) severity() string {
	if e.Severity == "" {
		return "ERROR"
	}
	return e.Severity
}

// sqlState is the code as a client must find it: that of a server's error may be
// none.
func (e *Error) sqlState() string {
	if len(e.Code) != 5 {
		return "XX000"
	}
	return e.Code
}

// Fatal returns an error that ends the session.
func Fatal(code, format string, args ...any) *Error {
	return &Error{Severity: "FATAL", Code: code, Message: fmt.Sprintf(format, args...)}
}

// Errorf returns an error of one statement; the session goes on.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy of e that carries the hint.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithDetail returns a copy of e that carries the detail.
func (e *Error) WithDetail(format string, args ...any) *Error {
	c := *e
	c.Detail = fmt.Sprintf(format, args...)
	return &c
}

// WithCause returns a copy of e that carries the cause for the log.
func (e *Error) WithCause(err error) *Error {
	c := *e
	c.Cause = err
	return &c
}

// AsError returns err as an Error, wrapping what is not one as an internal
// error (XX000) whose cause stays out of the client's sight.
func AsError(err error) *Error {
	var we *Error
	if errors.As(err, &we) {
		return we
	}
	return &Error{Code: "XX000", Message: "internal error of the proxy", Cause: err}
}

// Append appends e to dst as one ErrorResponse frame and returns the result.
func (e *Error) Append(dst []byte) []byte { return e.append(dst, 'E') }

// AppendNotice appends e to dst as one NoticeResponse frame.
func (e *Error) AppendNotice(dst []byte) []byte { return e.append(dst, 'N') }

func (e *Error) append(dst []byte, kind byte) []byte {
	start := len(dst)
	dst = append(dst, kind, 0, 0, 0, 0)
	field := func(k byte, v string) {
		if v != "" {
			dst = append(append(append(dst, k), v...), 0)
		}
	}
	field('S', e.severity())
	field('V', e.severity())
	field('C', e.sqlState())
	field('M', e.Message)
	field('D', e.Detail)
	field('H', e.Hint)
	if e.Position > 0 {
		field('P', strconv.Itoa(e.Position))
	}
	field('W', e.Where)
	field('R', e.Routine)
	dst = append(dst, 0)
	putLength(dst, start)
	return dst
}

// ReadError reads the body of an ErrorResponse or NoticeResponse, as far as Error has
// fields for it.
func ReadError(body []byte) *Error {
	sev := Field(body, 'V')
	if sev == "" {
		sev = Field(body, 'S')
	}
	return &Error{Severity: sev, Code: Field(body, 'C'), Message: Field(body, 'M'),
		Detail: Field(body, 'D'), Hint: Field(body, 'H'), Where: Field(body, 'W'), Foreign: Field(body, 'F') != ""} // servers name their source file
}
