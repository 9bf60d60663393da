package proxy

import (
	"strings"
	"sync"
	"time"

	"shardproxy/wire"
)

// errorKindsMax bounds the kinds of errors that are told apart: functions may raise any code.
const errorKindsMax = 500

// errorKind is what errors are counted by.
type errorKind struct {
	code  string
	owned bool // the proxy's own
}

// errorCounts counts what clients were told of.
type errorCounts struct {
	mu    sync.Mutex
	kinds map[errorKind]*errorSeen
	other errorSeen // of kinds beyond errorKindsMax
}

type errorSeen struct {
	count   int64
	at      int64 // Unix nanoseconds
	message string
}

// note counts an error. Of a server's own nothing but the code is kept, for its text may hold data; of ours the text
// without what stands in quotes.
func (c *errorCounts) note(e *wire.Error, owned bool, at int64) {
	kind := errorKind{e.Code, owned}
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.kinds[kind]
	switch {
	case seen != nil:
	case len(c.kinds) >= errorKindsMax:
		seen = &c.other
	default:
		if c.kinds == nil {
			c.kinds = map[errorKind]*errorSeen{}
		}
		seen = &errorSeen{}
		c.kinds[errorKind{strings.Clone(e.Code), owned}] = seen
	}
	seen.count++
	seen.at = at
	if owned && seen != &c.other {
		seen.message = unquoted(e.Message)
	}
}

// copyFailed is what an error begins with whose rest a client has given in CopyFail.
const copyFailed = "COPY from stdin failed: "

// unquoted leaves out what stands in quotes: names, and values. These may have quotes of their own, so it is all from the first one
// to the last.
func unquoted(text string) string {
	const most = 500
	if strings.HasPrefix(text, copyFailed) {
		return copyFailed + "..." // what follows is the client's own text
	}
	if first := strings.IndexByte(text, '"'); first >= 0 {
		last := strings.LastIndexByte(text, '"')
		if last == first {
			last = len(text) // it has no end
		}
		text = text[:first] + `"..."` + text[min(last+1, len(text)):]
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return text
}

// ErrorCount is one kind of error that clients were told of.
type ErrorCount struct {
	// Code is the SQLSTATE, "" for those of too many kinds together. Own is set when the proxy made it, not a server.
	Code  string
	Own   bool
	Count int64
	Last  time.Time
	// Message is the last text, without what stood in quotes; "" of servers' errors, which may hold data.
	Message string
}

// ErrorCounts returns the errors that clients were told of since the start, in no order.
func (d *Database) ErrorCounts() (all []ErrorCount) {
	c := &d.errs
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, seen := range c.kinds {
		all = append(all, ErrorCount{kind.code, kind.owned, seen.count, time.Unix(0, seen.at), seen.message})
	}
	if c.other.count > 0 {
		all = append(all, ErrorCount{Count: c.other.count, Last: time.Unix(0, c.other.at)})
	}
	return all
}

// tellsError counts an error that the client is told.
func (s *session) tellsError(e *wire.Error) {
	s.db.stats.errors.Add(1)
	s.tallying.failed = true
	if e != nil {
		s.notesForAudit()
		if n := s.tallying.slow; n != nil {
			n.code = e.Code
		}
		s.db.errs.note(e, !e.Foreign, s.server.clock.Load())
	}
}

// tellsFrames is tellsError of the error that ends some frames.
func (s *session) tellsFrames(frames []byte) {
	var last *wire.Error
	for len(frames) >= 5 {
		size := frameSize(frames)
		if size < 5 || size > len(frames) {
			break
		}
		if frames[0] == wire.MsgErrorResponse {
			last = wire.ReadError(frames[5:size])
		}
		frames = frames[size:]
	}
	s.tellsError(last)
}
