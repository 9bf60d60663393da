package proxy

import (
	"encoding/binary"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// Portals of queries over several shards that are read in pieces, and the commands about cursors, in the
// extended protocol. They come in the order of the request, each alone.

// reads reports whether a statement's portal may be read in pieces here.
func (u *unit) reads() bool {
	return u.plan != nil && u.plan.Scatters() && u.plan.Single.Kind == query.KindSelect
}

// opening has the statement's portal be one that is read in pieces.
func (b *batch) opening(u *unit) *wire.Error {
	if b.s.nameTaken(u.portalName) {
		return errCursorExists(u.portalName)
	}
	u.opens = &openQuery{name: u.portalName}
	return b.place(u)
}

// special adds a unit that is done alone.
func (b *batch) special(u *unit, do func() error) {
	u.do = do
	b.units = append(b.units, u)
}

// portalCommand deals with what is about a portal that is open. done is false for another portal.
func (b *batch) portalCommand(name []byte, do func(q *openQuery) error) (done bool) {
	q := string(name)
	if b.open != nil && b.open.bind != nil && b.open.portalName == q && !b.open.executed {
		return false
	}
	b.finishUnit()
	if b.s.cursors[q] == nil && !b.willOpen(q) {
		return false
	}
	b.special(&unit{}, func() error {
		if it := b.s.cursors[q]; it != nil {
			return do(it)
		}
		b.tell(errNoPortal([]byte(q)).Append(nil))
		return nil
	})
	return true
}

// willOpen reports whether a unit that has not run opens a query of the name.
func (b *batch) willOpen(name string) bool {
	for _, u := range b.units {
		if u.opens != nil && u.portalName == name || u.scatter != nil && u.scatter.opening != nil && u.scatter.opening.name == name {
			return true
		}
	}
	return false
}

// names reports whether a command is about an open query, or one that is opened before its turn comes.
func (b *batch) names(p *router.Plan) bool {
	return b.s.names(p) || p != nil && p.Single != nil && (p.Single.Kind == query.KindFetch || p.Single.Kind == query.KindClose) && b.willOpen(p.Single.Target)
}

// executes reads a piece of an open query, and answers for it.
func (b *batch) executes(q *openQuery, limit int64) error {
	s := b.s
	suspended, err := q.execute(limit)
	if err != nil {
		return err
	}
	if q.c.err != nil {
		b.tell(q.c.errorFrame(nil))
		return nil
	}
	out := append(s.client.Output(), q.c.notices...)
	if suspended {
		out = wire.AppendEmpty(out, wire.MsgPortalSuspended)
	} else {
		out = wire.AppendCommandComplete(out, selectTag(q.c.rows))
	}
	s.client.SetOutput(out)
	s.steps++
	return nil
}

// executesAgain reports whether another Execute follows at once.
func (b *batch) executesAgain() bool {
	next := b.s.client.Buffered()
	return len(next) > 0 && next[0] == wire.MsgExecute
}

// describes answers for the columns of an open query.
func (b *batch) describes(q *openQuery) error {
	s := b.s
	s.client.SetOutput(wire.AppendFrame(s.client.Output(), wire.MsgRowDescription, q.columns))
	s.steps++
	return nil
}

// closes closes an open query.
func (b *batch) closes(q *openQuery) error {
	s := b.s
	s.closes(q.name)
	s.client.SetOutput(wire.AppendEmpty(s.client.Output(), wire.MsgCloseComplete))
	s.steps++
	return nil
}

// limitOf returns the name and the row limit of an Execute.
func limitOf(body []byte) (name string, limit int64) {
	return string(cut(body)), int64(int32(binary.BigEndian.Uint32(body[len(body)-4:])))
}

// cursorUnit deals with the Execute of a FETCH, MOVE or CLOSE of an open query.
func (b *batch) cursorUnit(u *unit, limit int64) *wire.Error {
	s := b.s
	f, _ := query.ReadFetch(string(cut(u.rest)))
	if limit > 0 && u.plan.Single.Kind == query.KindFetch && !f.Move && (f.Count < 0 || f.Count >= limit) {
		return wire.Errorf("0A000", "a FETCH from a cursor over several shards cannot have a row limit besides").WithHint("FETCH so many rows.")
	}
	var v router.Values
	ok := v.Bind(u.bind)
	formats := []byte(nil)
	if ok {
		formats, ok = v.ResultFormats()
	}
	if !ok {
		return wire.Errorf("08P01", "invalid message format")
	}
	b.open = nil
	text := string(cut(u.rest))
	b.special(u, func() error {
		out := s.client.Output()
		if u.parsed {
			out = wire.AppendEmpty(out, wire.MsgParseComplete)
		}
		out = wire.AppendEmpty(out, wire.MsgBindComplete)
		if u.portal {
			out = s.appendColumnsOf(out, text, formats)
		}
		s.client.SetOutput(out)
		a, err := s.commandOf(u.plan, text, formats)
		if err != nil {
			return err
		}
		if a.failed {
			b.tell(a.frames)
			return nil
		}
		s.client.SetOutput(append(s.client.Output(), a.frames...))
		s.steps++
		return nil
	})
	return nil
}

// appendColumnsOf appends what describes the result of a FETCH, MOVE or CLOSE.
func (s *session) appendColumnsOf(out []byte, text string, formats []byte) []byte {
	f, ok := query.ReadFetch(text)
	q := s.cursors[f.Cursor]
	if !ok || f.Move || q == nil {
		return wire.AppendEmpty(out, wire.MsgNoData)
	}
	return wire.AppendFrame(out, wire.MsgRowDescription, columnsFor(q.columns, q.visible, formats))
}

// describesCommand answers for the Parse, and the Describe, of a FETCH, MOVE or CLOSE.
func (b *batch) describesCommand(u *unit) {
	s, text := b.s, string(cut(u.rest))
	b.special(u, func() error {
		out := s.client.Output()
		if u.parsed {
			out = wire.AppendEmpty(out, wire.MsgParseComplete)
		}
		if u.described {
			out = wire.AppendFrame(out, wire.MsgParameterDescription, []byte{0, 0})
			out = s.appendColumnsOf(out, text, []byte{0, 0})
		}
		s.client.SetOutput(out)
		s.steps++
		return nil
	})
}

// limited reports whether an answer has as many rows as a limit, 0 for none, so that a server would have stopped there.
func limited(frames []byte, limit int64) bool {
	for b := frames; len(b) > 0 && limit > 0; b = b[frameSize(b):] {
		if b[0] == wire.MsgDataRow {
			if limit--; limit == 0 {
				return true
			}
		}
	}
	return false
}

func errLimited() *wire.Error {
	return wire.Errorf("0A000", "a row limit cannot be used in a request on several shards, but for one query that reads rows of several").
		WithHint("Read all rows at once, or send the statement alone.")
}
