package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Frontend message types (manual, section "Message Formats").
const (
	MsgBind         = 'B'
	MsgClose        = 'C'
	MsgCopyData     = 'd'
	MsgCopyDone     = 'c'
	MsgCopyFail     = 'f'
	MsgDescribe     = 'D'
	MsgExecute      = 'E'
	MsgFlush        = 'H'
	MsgFunctionCall = 'F'
	MsgParse        = 'P'
	MsgPassword     = 'p'
	MsgQuery        = 'Q'
	MsgSync         = 'S'
	MsgTerminate    = 'X'
)

// Backend message types.
const (
	MsgAuthentication           = 'R'
	MsgBackendKeyData           = 'K'
	MsgBindComplete             = '2'
	MsgCloseComplete            = '3'
	MsgCommandComplete          = 'C'
	MsgCopyInResponse           = 'G'
	MsgCopyOutResponse          = 'H'
	MsgCopyBothResponse         = 'W'
	MsgDataRow                  = 'D'
	MsgEmptyQueryResponse       = 'I'
	MsgErrorResponse            = 'E'
	MsgFunctionCallResponse     = 'V'
	MsgNegotiateProtocolVersion = 'v'
	MsgNoData                   = 'n'
	MsgNoticeResponse           = 'N'
	MsgNotificationResponse     = 'A'
	MsgParameterDescription     = 't'
	MsgParameterStatus          = 'S'
	MsgParseComplete            = '1'
	MsgPortalSuspended          = 's'
	MsgReadyForQuery            = 'Z'
	MsgRowDescription           = 'T'
)

// ErrMalformed is returned for a frame whose body does not parse.
var ErrMalformed = errors.New("wire: malformed message")

// putLength writes the length word of the frame that starts at dst[start]
// (its type byte) and ends at the end of dst.
func putLength(dst []byte, start int) {
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
}

// AppendFrame appends a frame of the kind whose body is the parts in order.
func AppendFrame(dst []byte, kind byte, parts ...[]byte) []byte {
	start := len(dst)
	dst = append(dst, kind, 0, 0, 0, 0)
	for _, p := range parts {
		dst = append(dst, p...)
	}
	putLength(dst, start)
	return dst
}

// AppendHeader appends the header of a frame whose body of size bytes follows.
func AppendHeader(dst []byte, kind byte, size int) []byte {
	dst = append(dst, kind)
	return binary.BigEndian.AppendUint32(dst, uint32(size+4))
}

// AppendQuery appends a simple Query.
func AppendQuery(dst []byte, sql string) []byte {
	dst = AppendHeader(dst, MsgQuery, len(sql)+1)
	return append(append(dst, sql...), 0)
}

// AppendParse appends a Parse under the given name; rest is everything of a
// Parse body behind its name (text, terminator, parameter types).
func AppendParse(dst []byte, name string, rest []byte) []byte {
	dst = AppendHeader(dst, MsgParse, len(name)+1+len(rest))
	dst = append(append(dst, name...), 0)
	return append(dst, rest...)
}

// AppendClose appends a Close of a statement ('S') or portal ('P').
func AppendClose(dst []byte, what byte, name string) []byte {
	dst = AppendHeader(dst, MsgClose, len(name)+2)
	return append(append(append(dst, what), name...), 0)
}

// AppendEmpty appends a frame without a body.
func AppendEmpty(dst []byte, kind byte) []byte { return append(dst, kind, 0, 0, 0, 4) }

// AppendReadyForQuery appends a ReadyForQuery with the transaction status.
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, MsgReadyForQuery, 0, 0, 0, 5, status)
}

// AppendCommandComplete appends a CommandComplete with the tag.
func AppendCommandComplete(dst []byte, tag string) []byte {
	dst = AppendHeader(dst, MsgCommandComplete, len(tag)+1)
	return append(append(dst, tag...), 0)
}

// AppendParameterStatus appends a ParameterStatus.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	dst = AppendHeader(dst, MsgParameterStatus, len(name)+len(value)+2)
	dst = append(append(dst, name...), 0)
	return append(append(dst, value...), 0)
}

// AppendBackendKeyData appends the cancel key of a session.
func AppendBackendKeyData(dst []byte, pid uint32, secret []byte) []byte {
	dst = AppendHeader(dst, MsgBackendKeyData, 4+len(secret))
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return append(dst, secret...)
}

// CString splits b at its first NUL: the string before it and what follows.
func CString(b []byte) (s, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return nil, nil, false
	}
	return b[:i], b[i+1:], true
}

// Field returns one field of an ErrorResponse or NoticeResponse body, "" when
// it is not there.
func Field(body []byte, key byte) string {
	for len(body) > 0 && body[0] != 0 {
		k := body[0]
		v, rest, ok := CString(body[1:])
		if !ok {
			return ""
		}
		if k == key {
			return string(v)
		}
		body = rest
	}
	return ""
}
