package proxy

import (
	"bytes"
	"encoding/binary"
	"slices"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// onlyQuery is a request that runs one query.
type onlyQuery struct {
	plan      *router.Plan
	text      []byte // in the client's buffer, or of a prepared statement
	size      int    // of the request
	described bool   // it asks for the columns of what it runs
	columns   string // that the client was told of before, and will not be told of; "" when it was not
}

// asksOne reads the request at hand, and makes the key of its answer; ok is false when that cannot be kept.
func (s *session) asksOne() (a onlyQuery, ok bool) {
	b := s.client.Buffered()
	if len(b) < 5 || frameSize(b) > min(keepMax, len(b)) {
		return a, false
	}
	if b[0] == wire.MsgQuery {
		a.size, a.text, a.described = frameSize(b), trimNUL(b[5:frameSize(b)]), true
		a.plan = s.plan(a.text)
		s.makeKey(&a, []byte{0, 0, 0}, make([]byte, 6)) // no types, no parameters, all as texts
		return a, a.keepable()
	}
	var parsed, rest, bind []byte
	executed := false
	for ; ; b = b[frameSize(b):] {
		if len(b) < 5 || frameSize(b) < 5 || frameSize(b) > len(b) || a.size > keepMax {
			return a, false
		}
		a.size += frameSize(b)
		body := b[5:frameSize(b)]
		switch b[0] {
		case wire.MsgParse:
			name, r, good := wire.CString(body)
			if !good || rest != nil || bind != nil || len(name) > 0 && (s.statements[string(name)] != nil || s.mayPrepare(r) != nil) {
				return a, false
			}
			parsed, rest = name, r
			a.plan = s.plan(cut(r))
		case wire.MsgBind:
			portal, after, good := wire.CString(body)
			name, values, fine := wire.CString(after)
			if !good || !fine || len(portal) > 0 || bind != nil {
				return a, false
			}
			if bind = values; rest == nil {
				a.plan, rest, a.columns = s.preparedAlike(name)
			} else if !bytes.Equal(name, parsed) {
				return a, false
			}
			if a.plan == nil || rest == nil {
				return a, false
			}
		case wire.MsgDescribe:
			if bind == nil || executed || a.described || len(body) != 2 || body[0] != 'P' {
				return a, false
			}
			a.described = true
		case wire.MsgExecute:
			if bind == nil || executed || len(body) != 5 || body[0] != 0 || binary.BigEndian.Uint32(body[1:]) != 0 {
				return a, false
			}
			executed = true
		case wire.MsgSync:
			if !executed {
				return a, false
			}
			a.text = cut(rest)
			s.makeKey(&a, rest[len(a.text):], bind)
			return a, a.keepable()
		default:
			return a, false
		}
	}
}

func (a *onlyQuery) keepable() bool { return a.plan.Footprint.Steady && a.plan.BlockedBy() == nil }

// preparedAlike returns what a statement was prepared from that means the same as if it were prepared now, and the columns that the client was told of;
// nil for any other.
func (s *session) preparedAlike(name []byte) (p *router.Plan, rest []byte, columns string) {
	st := s.statements[string(name)]
	if st == nil || st.shared == nil || st.substituted || st.unknown || st.unseen || st.shape.changed || st.shape.asking || !st.settings.Equal(s.settings) {
		return nil, nil, ""
	}
	if st.shape.known {
		columns = st.shape.columns.Value()
	}
	return s.replan(st), st.shared.Rest, columns
}

// makeKey makes the key of an answer: who asks, under which settings, what, with which values, in which form. types and bind are as in Parse and Bind, behind
// the text and the names.
func (s *session) makeKey(a *onlyQuery, types, bind []byte) {
	k := s.keeping
	if k.scope == nil || k.settings != s.settings {
		k.settings, k.scope = s.settings, appendPart(k.scope[:0], s.userName)
		for _, it := range s.settings.All() {
			k.scope = appendPart(appendPart(appendPart(k.scope, it.Name), it.Text), it.Encoding)
			k.scope = append(k.scope, bit(it.Literal))
		}
	}
	k.key = append(kept(k.key), bit(a.described), byte(s.crossShard), byte(s.snapshots))
	k.key = append(binary.BigEndian.AppendUint32(k.key, uint32(len(k.scope))), k.scope...)
	if a.described {
		a.columns = ""
	}
	k.key = appendPart(k.key, a.columns)
	k.key = append(binary.BigEndian.AppendUint32(k.key, uint32(len(a.text))), a.text...)
	k.key = append(append(k.key, types...), bind...)
}

func appendPart(dst []byte, part string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(part))), part...)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// fingerprint returns that of the query.
func (s *session) fingerprint(a onlyQuery) uint64 {
	if t := a.plan.Tally; t != nil && t.Fingerprint != 0 {
		return t.Fingerprint
	}
	return query.FingerprintOf(a.text, s.textOptions()).Hash
}

// momentWords stand for the time of day, as literals or of themselves.
var momentWords = []string{"now", "today", "tomorrow", "yesterday", "current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}

// hasMoment reports whether a request may mean another day, or second, when it is asked again.
func hasMoment(b []byte) bool {
	word := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= '0' && c <= '9' }
	for i := 0; i < len(b); i++ {
		if !word(b[i]) {
			continue
		}
		from := i
		for i < len(b) && word(b[i]) {
			i++
		}
		if n := i - from; n >= 3 && n <= 17 && slices.ContainsFunc(momentWords, func(w string) bool { return len(w) == n && bytes.EqualFold(b[from:i], []byte(w)) }) {
			return true
		}
	}
	return false
}

// wholeAnswer returns the rows of one query, with the description of their columns if there is to be one, and its tag, from all that a client was
// sent. ok is false when there was anything else: an error, a notice, a change of a parameter.
func wholeAnswer(b []byte, described bool) (answer []byte, ok bool) {
	shown, complete := false, false
	for len(b) >= 5 && frameSize(b) >= 5 && frameSize(b) <= len(b) {
		frame := b[:frameSize(b)]
		b = b[len(frame):]
		switch frame[0] {
		case wire.MsgParseComplete, wire.MsgBindComplete:
			if len(answer) > 0 {
				return nil, false
			}
			continue
		case wire.MsgRowDescription:
			if shown || !described || len(answer) > 0 {
				return nil, false
			}
			shown = true
		case wire.MsgDataRow:
			if shown != described || complete {
				return nil, false
			}
		case wire.MsgCommandComplete:
			if shown != described || complete || !bytes.HasPrefix(frame[5:], []byte("SELECT ")) {
				return nil, false
			}
			complete = true
		case wire.MsgReadyForQuery:
			return answer, complete && len(b) == 0 && len(frame) == 6 && frame[5] == 'I'
		default:
			return nil, false
		}
		answer = append(answer, frame...)
	}
	return nil, false
}
