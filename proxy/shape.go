package proxy

import (
	"encoding/binary"
	"unique"

	"shardproxy/wire"
)

// shape is what a client was told of a prepared statement's result. A server
// refuses to run a statement whose result is another since it was prepared; one
// that is prepared on a further connection after a change of the schema is
// compared with this, for the client reads its rows by what it was told.
type shape struct {
	columns unique.Handle[string] // see appendColumns
	known   bool
	changed bool
	asking  bool // a comparison is under way
	// schema is the database's count of changes when columns were right for sure,
	// asked that when the question under way was put.
	schema, asked uint64
	token         uint64 // tells the unnamed statements of a session apart
	// params are the parameters' types, in a database of several shards.
	params []uint32
}

// shapeMax bounds the descriptions that are looked at, in bytes.
const shapeMax = 64 << 10

// errShape is what PostgreSQL says; drivers know it by its code, its text and
// the routine that says it.
func errShape() *wire.Error {
	e := wire.Errorf("0A000", "cached plan must not change result type")
	e.Routine = "RevalidateCachedQuery"
	return e
}

// doubts reports whether the result may be another than the client was told.
func (s *session) doubts(sh *shape) bool { return sh.known && sh.schema != s.db.schema.Load() }

// compare asks the lease, which has just been made to have the statement, for
// its result. Its answer must come before the statement is used.
func (s *session) compare(name string, sh *shape) {
	s.lease.SetOutput(append(wire.AppendHeader(s.lease.Output(), wire.MsgDescribe, len(name)+2), "S"+name+"\x00"...))
	s.owed.push(expect{kind: expectDescribe, mode: swallow, purpose: forShape, shape: s.asks(sh), token: sh.token})
	s.open = true // the request has begun
	sh.asking = true
	s.outcomeKnown() // has the server answer
}

// compares reports whether the answer to a comparison must come first.
func (s *session) compares(sh *shape) bool {
	// Nothing is sent behind the question, so that it is answered, or lost, when
	// nothing is owed any more.
	sh.asking = sh.asking && !s.outcomeKnown()
	return sh.asking
}

// asks notes that a server is asked for the result of the shape's statement.
func (s *session) asks(sh *shape) *shape {
	sh.asked = s.db.schema.Load()
	return sh
}

// shapeOf returns the shape of what a Describe asks about, nil when none is kept:
// of a named statement, the unnamed one, or a named one that the unnamed portal runs.
func (s *session) shapeOf(kind byte, name []byte, st *preparedStatement) *shape {
	switch {
	case s.private:
	case kind == 'S' && st != nil:
		return s.asks(&st.shape)
	case kind == 'S' && len(name) == 0 && s.unnamedTok != 0:
		if s.unnamedShape == nil {
			s.unnamedShape = &shape{}
		}
		if s.unnamedShape.token != s.unnamedTok {
			*s.unnamedShape = shape{token: s.unnamedTok}
		}
		return s.asks(s.unnamedShape)
	case kind == 'P' && len(name) == 0 && s.portalShape != nil:
		return s.asks(s.portalShape)
	}
	return nil
}

// described notes what a server says of a statement's result; body is that of a
// RowDescription, nil for no rows.
func (s *session) described(e *expect, body []byte) {
	sh := e.shape
	if sh == nil || sh.token != e.token {
		return
	}
	s.scratch = appendColumns(s.scratch[:0], body)
	same := sh.known && sh.columns.Value() == string(s.scratch)
	switch {
	case e.purpose == forShape:
		sh.changed, sh.schema = !same, sh.asked
	case !sh.known:
		sh.columns, sh.known, sh.schema = unique.Make(string(s.scratch)), true, sh.asked
	}
}

// toldOf returns the result that the client was told of a statement, nil when it was not.
func (s *session) toldOf(name []byte) *string {
	sh := s.unnamedShape
	if len(name) > 0 {
		if st := s.statements[string(name)]; st != nil {
			sh = &st.shape
		}
	} else if sh != nil && sh.token != s.unnamedTok {
		sh = nil
	}
	if sh == nil || !sh.known {
		return nil
	}
	told := sh.columns.Value()
	return &told
}

// takesParams notes the parameters' types; body is that of a ParameterDescription.
func (sh *shape) takesParams(body []byte, token uint64) {
	if sh.token != token || len(body) < 2 {
		return
	}
	sh.params = sh.params[:0]
	for b := body[2:]; len(b) >= 4; b = b[4:] {
		sh.params = append(sh.params, binary.BigEndian.Uint32(b))
	}
}

// appendColumns appends what of a RowDescription a server compares: names, types
// and their modifiers.
func appendColumns(dst, body []byte) []byte {
	const behind = 18 // the bytes behind a name
	for rest := body[min(len(body), 2):]; len(rest) > 0; {
		name, after, ok := wire.CString(rest)
		if !ok || len(after) < behind {
			return dst
		}
		dst = append(append(dst, name...), 0)
		dst = append(dst, after[6:10]...)  // type
		dst = append(dst, after[12:16]...) // modifier
		rest = after[behind:]
	}
	return dst
}

// bringUnnamed makes the lease's unnamed statement the session's own. As with
// bring, replies may have to come first.
func (s *session) bringUnnamed() (ready bool, err *wire.Error) {
	sh := s.unnamedShape
	if sh == nil || sh.token != s.unnamedTok {
		s.restoreUnnamed()
		return true, nil
	}
	lacks := s.unnamedTok != 0 && !s.unnamedLarge && s.lease.Unnamed != s.unnamedTok
	switch {
	case s.compares(sh):
		return false, nil
	case !lacks || !s.doubts(sh) || s.tx == 'E':
		s.restoreUnnamed()
		if sh.changed && s.tx != 'E' {
			return true, errShape()
		}
		return true, nil
	case !s.outcomeKnown():
		return false, nil
	}
	s.restoreUnnamed()
	s.compare("", sh)
	return false, nil
}
