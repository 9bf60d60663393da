package proxy

import (
	"fmt"

	"shardproxy/wire"
)

// trail is what a checked build remembers of the client's frames, for when the next one is none.
type trail struct {
	frames [32]string
	n      int
}

// remembers notes a frame that is dealt with now, in checked builds.
func (s *session) remembers(kind byte, size int) {
	if !wire.Checked {
		return
	}
	if s.trail == nil {
		s.trail = &trail{}
	}
	t := s.trail
	t.frames[t.n%len(t.frames)] = fmt.Sprintf("%q of %d at %d (tx %c, lease %v, open %v, fresh %v, held %v, queued %v)", kind, size, s.client.Consumed(),
		s.tx, s.lease != nil, s.open, s.fresh, s.held, s.waiting.queued)
	t.n++
}

// errNoMessage ends a session whose client sent what is no message of the protocol, or whose bytes
// the proxy has lost count of.
func (s *session) errNoMessage(kind byte) error {
	s.tellTrail(brokenProtocol, "type", kind)
	return wire.Fatal("08P01", "invalid frontend message type %d", kind)
}

// tellTrail logs the last frames of the client.
func (s *session) tellTrail(what string, more ...any) {
	if s.trail == nil && what != brokenProtocol {
		return
	}
	b := s.client.Buffered()
	var frames []string
	var head []byte
	if t := s.trail; t != nil {
		head = b[:min(len(b), 128)] // tests have no secrets
		for i := max(0, t.n-len(t.frames)); i < t.n; i++ {
			frames = append(frames, t.frames[i%len(t.frames)])
		}
	}
	s.server.opt.Logger.Warn(what, append([]any{"session", s.id, "client", s.addr, "user", s.userName, "at", s.client.Consumed(),
		"buffered", len(b), "head", fmt.Sprintf("%q", head), "frames", frames}, more...)...)
}

// brokenProtocol is what is logged in all builds.
const brokenProtocol = "client broke the protocol"
