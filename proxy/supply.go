package proxy

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// supply gives the calls of currval and lastval in the request that begins the values
// which the session remembers. It changes the client's bytes before they are understood:
// a simple query gets constants, a Parse parameters behind the client's own, and a Bind
// their values. wait is set when replies must come first.
func (s *session) supply() (wait bool, e *wire.Error) {
	off, bound := 0, false
	if r := s.recall; r != nil {
		if at := s.client.Consumed(); r.until > at {
			if off = int(r.until - at); r.whole {
				return false, nil // what is behind it is another request's
			}
		} else {
			r.abandon()
			r.bound, r.whole = false, false
		}
	}
	for off < scanMax {
		b := s.client.Buffered()
		if off > len(b)-5 {
			return false, nil
		}
		kind, size := b[off], frameSize(b[off:])
		if size < 5 || len(b)-off < size || size > s.db.Policy().ParsedMax {
			return false, nil
		}
		switch kind {
		case wire.MsgQuery, wire.MsgParse, wire.MsgBind, wire.MsgDescribe, wire.MsgExecute, wire.MsgClose, wire.MsgSync, wire.MsgFlush:
		default:
			return false, nil
		}
		if kind == wire.MsgBind && s.needsValues(off) {
			if s.recall.bound {
				return false, nil // what comes before it may draw: see batch
			}
			if s.lease != nil && !s.owed.empty() {
				return true, nil
			}
		}
		if size, wait, e = s.supplyFrame(off, kind, size); wait || e != nil {
			return wait, e
		}
		off += size
		bound = bound || kind == wire.MsgBind
		if r := s.recall; r != nil { // perhaps since this frame, behind others of the request
			r.until = s.client.Consumed() + uint64(off)
			r.bound = r.bound || bound
		}
		if kind == wire.MsgSync || kind == wire.MsgQuery {
			if s.recall != nil {
				s.recall.whole = true
			}
			return false, nil
		}
	}
	return false, nil
}

// needsValues reports whether the frame at a place is a Bind that lacks values.
func (s *session) needsValues(off int) bool {
	r := s.recall
	if r == nil || len(r.supplied) == 0 || r.until > s.client.Consumed()+uint64(off) {
		return false
	}
	b := s.client.Buffered()[off:]
	if len(b) < 5 || b[0] != wire.MsgBind {
		return false
	}
	_, rest, ok := wire.CString(b[5:])
	if !ok {
		return false
	}
	name, _, ok := wire.CString(rest)
	return ok && len(r.supplied[string(name)]) > 0
}

// supplyFrame deals with one whole frame and returns its size then.
func (s *session) supplyFrame(off int, kind byte, size int) (now int, wait bool, e *wire.Error) {
	body := s.client.Buffered()[off+5 : off+size]
	var frame []byte
	switch kind {
	case wire.MsgQuery:
		text := trimNUL(body)
		if !query.MentionsSequences(text) || s.tx == 'E' {
			return size, false, nil
		}
		if s.lease != nil && !s.owed.empty() {
			return size, true, nil
		}
		if text, e = s.supplyQuery(text); text != nil {
			frame = wire.AppendQuery(nil, string(text))
		}
	case wire.MsgParse:
		frame = s.supplyParse(body)
	case wire.MsgBind:
		frame, e = s.supplyBind(body)
	case wire.MsgClose:
		if r := s.recall; r != nil && len(body) > 1 && body[0] == 'S' {
			delete(r.supplied, string(cut(body[1:])))
		}
	}
	if frame == nil || e != nil {
		return size, false, e
	}
	s.client.Replace(off, size, frame)
	return len(frame), false, nil
}

// readsOf returns the calls in a text, and what each asks for; nil when the text is not
// one in which they can be replaced.
func (s *session) readsOf(text []byte) (reads []query.SequenceRead, asked []suppliedRead) {
	if s.nonStandard || s.unsafeEncoding {
		return nil, nil
	}
	p := s.plan(text)
	if p.Single == nil || !readsSequences(p) || p.Effects&(query.EffectSequenceWrite|query.EffectUnknown) != 0 {
		return nil, nil
	}
	switch p.Single.Kind {
	case query.KindSelect, query.KindDML, query.KindExplain:
	default:
		return nil, nil
	}
	reads, ok := query.SequenceReads(text)
	if !ok {
		return nil, nil
	}
	for i := range reads {
		u, ok := s.db.Planner.SequenceUse(&reads[i], s.planContext())
		if !ok || !u.Drawn && !reads[i].Last() {
			return nil, nil
		}
		asked = append(asked, suppliedRead{use: u, last: reads[i].Last()})
	}
	return reads, asked
}

// replaced returns a text with its calls replaced by expressions; nil when that leaves a
// call, or when the statement itself draws what it asks for.
func (s *session) replaced(text []byte, reads []query.SequenceRead, asked []suppliedRead, by []string) []byte {
	for i := range reads {
		if reads[i].Named {
			by[i] = "(SELECT " + by[i] + " " + reads[i].Function() + ")" // a column of that name, as before
		}
	}
	out := query.ReplaceReads(text, reads, by)
	p := s.plan(out)
	if readsSequences(p) {
		return nil
	}
	for _, d := range p.Draws() {
		for i := range asked {
			if d.Sequence != "" && (asked[i].last || asked[i].use.Key == d.Sequence) {
				return nil
			}
		}
	}
	return out
}

// supplyQuery returns the text of a simple query with values; nil when it stays as it is.
func (s *session) supplyQuery(text []byte) ([]byte, *wire.Error) {
	reads, asked := s.readsOf(text)
	if len(reads) == 0 {
		return nil, nil
	}
	s.recalls()
	by := make([]string, len(reads))
	for i := range by {
		v, here, e := s.recalled(&asked[i])
		if !here || e != nil {
			return nil, e
		}
		by[i] = "'" + strconv.FormatInt(v, 10) + "'::pg_catalog.int8"
	}
	return s.replaced(text, reads, asked, by), nil
}

// supplyParse returns the frame of a Parse whose calls are parameters; nil when it stays
// as it is.
func (s *session) supplyParse(body []byte) []byte {
	name, rest, ok := wire.CString(body)
	if !ok {
		return nil
	}
	if s.recall != nil {
		delete(s.recall.supplied, string(name))
	}
	text, types, ok := wire.CString(rest)
	if !ok || len(types) < 2 || !query.MentionsSequences(text) {
		return nil
	}
	reads, asked := s.readsOf(text)
	most := int32(binary.BigEndian.Uint16(types))
	for n := range query.CountParams(text) {
		most = max(most, n)
	}
	if len(reads) == 0 || int(most)+len(reads) > 65535 || len(types) < 2+4*int(binary.BigEndian.Uint16(types)) {
		return nil
	}
	s.recalls()
	by := make([]string, len(reads))
	for i := range by {
		if _, here, _ := s.recalled(&asked[i]); !here {
			return nil // a server will be asked, as long as nothing is drawn here
		}
		by[i] = "$" + strconv.Itoa(int(most)+1+i)
	}
	out := s.replaced(text, reads, asked, by)
	if out == nil {
		return nil
	}
	out = binary.BigEndian.AppendUint16(append(out, 0), uint16(int(most)+len(reads)))
	out = append(out, types[2:2+4*int(binary.BigEndian.Uint16(types))]...)
	for n := int32(binary.BigEndian.Uint16(types)); n < most; n++ {
		out = binary.BigEndian.AppendUint32(out, 0)
	}
	for range reads {
		out = binary.BigEndian.AppendUint32(out, oidInt8)
	}
	s.recall.supplied[string(name)] = asked
	return wire.AppendParse(nil, string(name), out)
}

// supplyBind returns the frame of a Bind with the values of the statement's calls; nil
// for a statement without.
func (s *session) supplyBind(body []byte) ([]byte, *wire.Error) {
	if s.recall == nil || len(s.recall.supplied) == 0 {
		return nil, nil
	}
	portal, after, ok := wire.CString(body)
	if !ok {
		return nil, nil
	}
	name, values, ok := wire.CString(after)
	reads := s.recall.supplied[string(name)]
	if !ok || len(reads) == 0 {
		return nil, nil
	}
	if len(portal) > 0 {
		return nil, wire.Errorf("0A000", "a statement with currval or lastval cannot be bound to a named portal: its values are those of this moment")
	}
	numbers := make([]int64, len(reads))
	for i := range reads {
		if s.tx == 'E' {
			break // where it fails
		}
		v, here, e := s.recalled(&reads[i])
		if e == nil && !here {
			e = wire.Errorf("0A000", "the statement was prepared to ask for values drawn for INSERTs into tables on several shards, and others were drawn since").
				WithHint("Prepare it again.")
		}
		if e != nil {
			return nil, e
		}
		numbers[i] = v
	}
	out, ok := appendParams(values, numbers)
	if !ok {
		return nil, nil // the server says what is wrong
	}
	return wire.AppendFrame(nil, wire.MsgBind, body[:len(body)-len(values)], out), nil
}

// appendParams returns what stands in a Bind behind the names, with further parameters.
func appendParams(b []byte, numbers []int64) (out []byte, ok bool) {
	if len(b) < 2 {
		return nil, false
	}
	formats := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+2*formats+2 {
		return nil, false
	}
	count := int(binary.BigEndian.Uint16(b[2+2*formats:]))
	at := 4 + 2*formats
	for range count {
		if len(b) < at+4 {
			return nil, false
		}
		at += 4 + int(max(int32(binary.BigEndian.Uint32(b[at:])), 0))
	}
	if len(b) < at {
		return nil, false
	}
	binaryFormat := formats == 1 && b[3] == 1
	if formats > 1 {
		out = binary.BigEndian.AppendUint16(out, uint16(formats+len(numbers)))
		out = append(append(out, b[2:2+2*formats]...), make([]byte, 2*len(numbers))...)
	} else {
		out = append(out, b[:2+2*formats]...)
	}
	out = binary.BigEndian.AppendUint16(out, uint16(count+len(numbers)))
	out = append(out, b[4+2*formats:at]...)
	for _, v := range numbers {
		if binaryFormat {
			out = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(out, 8), uint64(v))
			continue
		}
		text := strconv.AppendInt(nil, v, 10)
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(text))), text...)
	}
	return append(out, b[at:]...), true
}

// suppliedTo returns how many parameters of a prepared statement the client does not know.
func (s *session) suppliedTo(name []byte) int {
	if s.recall == nil {
		return 0
	}
	return len(s.recall.supplied[string(name)])
}

// withoutSupplied takes the last n parameters out of a ParameterDescription, a whole
// frame, and returns what is left of it, which ends where the frame does.
func withoutSupplied(frame []byte, n int) []byte {
	count := int(binary.BigEndian.Uint16(frame[5:])) - n
	if n == 0 || count < 0 || len(frame) < 7+4*(count+n) {
		return frame
	}
	out := frame[4*n:]
	copy(out, frame[:7+4*count])
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	binary.BigEndian.PutUint16(out[5:], uint16(count))
	return out
}

// withoutSuppliedIn does the same for the ParameterDescription among frames.
func withoutSuppliedIn(frames []byte, n int) []byte {
	for at := 0; n > 0 && at < len(frames); at += frameSize(frames[at:]) {
		if frames[at] == wire.MsgParameterDescription {
			size := frameSize(frames[at:])
			left := withoutSupplied(bytes.Clone(frames[at:at+size]), n)
			return append(append(frames[:at:at], left...), frames[at+size:]...)
		}
	}
	return frames
}

// planContext is what besides its text decides what a statement means now.
func (s *session) planContext() router.Context {
	ctx := router.Context{SearchPath: s.searchPath, NonStandardStrings: s.nonStandard, UnsafeEncoding: s.unsafeEncoding}
	if s.places != nil {
		ctx.Role = s.role
		if s.spread != nil {
			ctx.NewViews = s.spread.newViews
		}
		ctx.Altered = s.catalogChanged
		ctx.HiddenSlots = s.db.Owners().HiddenSlots()
		if s.spread != nil {
			// Snapshots of the transaction may have rows that are hidden, also when none is any more.
			s.spread.hidden = max(s.spread.hidden, ctx.HiddenSlots)
			ctx.HiddenSlots = s.spread.hidden
		}
	}
	return ctx
}
