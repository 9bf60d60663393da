package failover

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"

	"github.com/jackc/pgerrcode"

	"shardproxy/wire"
)

// sqlState returns the SQLSTATE that a server or the proxy gave, or "".
func sqlState(err error) string {
	var server interface{ SQLState() string }
	if errors.As(err, &server) {
		return server.SQLState()
	}
	var own *wire.Error
	if errors.As(err, &own) {
		return own.Code
	}
	return ""
}

// isShutdown reports whether a server that is going down, or not up yet, says
// this.
func isShutdown(state string) bool {
	switch state {
	case pgerrcode.AdminShutdown, pgerrcode.CrashShutdown, pgerrcode.CannotConnectNow:
		return true
	}
	return false
}

// classify says what kind of event a failed probe is.
func classify(err error) EventKind {
	switch state := sqlState(err); {
	case state == pgerrcode.TooManyConnections:
		return Saturated
	case isShutdown(state), errors.Is(err, syscall.ECONNREFUSED):
		return Gone
	}
	return Failed
}

// isSilence reports whether a failed probe brought nothing back, not even that
// the connection is refused or has ended: the machine hangs, or cannot be reached.
func isSilence(err error) bool {
	if sqlState(err) != "" {
		return false
	}
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, syscall.ETIMEDOUT) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// speaksAgainst reports whether an error of the data path says that its node
// may be gone or have another role: the connection was refused, lost or timed
// out, the server is shutting down (57P01, 57P02, 57P03), or refused a write as
// read-only (25006). An overloaded server (53300) is not ill.
func speaksAgainst(err error) bool {
	switch state := sqlState(err); {
	case isShutdown(state), state == pgerrcode.ReadOnlySQLTransaction:
		return true
	case pgerrcode.IsConnectionException(state):
		return true
	}
	var answered interface{ SQLState() string }
	if errors.As(err, &answered) {
		return false // a living server said so
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return true
	}
	for _, lost := range []error{
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}
