package proxy_test

import (
	"errors"
	"fmt"
	"strings"

	"shardproxy/wire"
)

// owedToClient holds a client's requests and judges what it is told, message by
// message: each must answer the request whose turn it is, as the protocol has it.
type owedToClient struct {
	requests []frame
	// loose is set once the client was asked for copy data: which of its messages
	// the server reads then, the client cannot know.
	loose bool
	ended bool // by a FATAL error
}

func newOwed(frames []frame) *owedToClient {
	o := &owedToClient{}
	for _, f := range frames {
		if strings.IndexByte("QPBDECSF", f.kind) >= 0 {
			o.requests = append(o.requests, f)
		}
	}
	return o
}

// take judges one message.
func (o *owedToClient) take(kind byte, body []byte) error {
	front := byte(0)
	if len(o.requests) > 0 {
		front = o.requests[0].kind
	}
	if o.ended {
		return fmt.Errorf("%s behind a FATAL error", describe(kind, body))
	}
	if kind == wire.MsgErrorResponse {
		return o.fail(front, body)
	}
	if kind == wire.MsgReadyForQuery && (len(body) != 1 || strings.IndexByte("ITE", body[0]) < 0) {
		return fmt.Errorf("status %q", body)
	}
	fits, done := false, false
	switch kind {
	case wire.MsgNoticeResponse, wire.MsgNotificationResponse, wire.MsgParameterStatus:
		return nil
	case wire.MsgReadyForQuery:
		fits, done = front == 'Q' || front == 'F' || front == 'S', true
	case wire.MsgParseComplete:
		fits, done = front == 'P', true
	case wire.MsgBindComplete:
		fits, done = front == 'B', true
	case wire.MsgCloseComplete:
		fits, done = front == 'C', true
	case wire.MsgParameterDescription:
		fits = front == 'D'
	case wire.MsgNoData:
		fits, done = front == 'D', true
	case wire.MsgRowDescription:
		fits, done = front == 'D' || front == 'Q', front == 'D'
	case wire.MsgDataRow, wire.MsgCopyData, wire.MsgCopyDone, wire.MsgCopyOutResponse:
		fits = front == 'Q' || front == 'E'
	case wire.MsgCopyInResponse, wire.MsgCopyBothResponse:
		fits = front == 'Q' || front == 'E'
		o.loose = true
	case wire.MsgCommandComplete, wire.MsgEmptyQueryResponse:
		fits, done = front == 'Q' || front == 'E', front == 'E'
	case wire.MsgPortalSuspended:
		fits, done = front == 'E', true
	case wire.MsgFunctionCallResponse:
		fits = front == 'F'
	}
	if !fits && !o.loose {
		return fmt.Errorf("%s answers %v", describe(kind, body), o.requests)
	}
	if done && len(o.requests) > 0 {
		o.requests = o.requests[1:]
	}
	return nil
}

// fail judges an error, which drops what the client has asked for up to the next
// Sync, unless it is that of a query.
func (o *owedToClient) fail(front byte, body []byte) error {
	severity := wire.Field(body, 'V')
	if severity == "" {
		severity = wire.Field(body, 'S')
	}
	switch {
	case severity == "FATAL" || severity == "PANIC":
		if wire.Field(body, 'M') == "internal error of the proxy" {
			return errors.New("the proxy takes it for a mistake of its own")
		}
		o.ended = true
	case front == 0 && !o.loose:
		return fmt.Errorf("%s answers nothing", describe('E', body))
	case front != 'Q' && front != 'F':
		for len(o.requests) > 0 && o.requests[0].kind != 'S' {
			o.requests = o.requests[1:]
		}
	}
	return nil
}

// describe shows any message, however broken it is.
func describe(kind byte, body []byte) string {
	if kind == 'E' {
		return fmt.Sprintf("E %s %s %q", wire.Field(body, 'S'), wire.Field(body, 'C'), wire.Field(body, 'M'))
	}
	return fmt.Sprintf("%c %.200q", kind, body)
}
