package proxy

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/wire"
)

// Some texts depend on the very names under which the server has a session's
// prepared statements: EXPLAIN EXECUTE, several commands in one text, the view
// pg_prepared_statements. For these the session gets its lease for itself, with
// its statements, and no others, under its own names, until it drops them all.

// Reasons for which a session keeps its connection; see also auditResult.
const (
	pinnedPrivate = "prepared statements under its own names"
	pinnedLarge   = "a statement too large to be kept"
	pinnedLoading = "the catalog is not loaded yet"
)

// goPrivate replaces the statements of the lease by the session's own under
// its own names. A failed transaction cannot be helped: everything fails there.
func (s *session) goPrivate() {
	if s.private || s.tx == 'E' || s.breach {
		return
	}
	s.private = true
	s.unsure = true // nobody else may find these names
	s.execute("DEALLOCATE ALL")
	for _, name := range slices.Sorted(maps.Keys(s.statements)) {
		st := s.statements[name]
		switch {
		case st.sql != "":
			s.execute(st.sql)
		case st.shared != nil:
			s.lease.SetOutput(wire.AppendParse(s.lease.Output(), name, st.shared.Rest))
			s.owed.push(expect{kind: expectParse, mode: swallow, purpose: forOwn})
		}
	}
	if !s.open {
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgSync))
		s.owed.push(expect{kind: expectSync, mode: swallow})
	}
}

// outcomeKnown reports whether nothing is owed; if it is, the server is made to
// answer, and the caller comes again.
func (s *session) outcomeKnown() bool {
	if s.owed.empty() || s.breach {
		s.awaited = false
		return true
	}
	if s.open && !s.awaited {
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgFlush))
		s.awaited = true
		s.steps++
	}
	return false
}

// execute sends a command of ours by the extended protocol, which leaves the
// unnamed statement and portal alone.
func (s *session) execute(sql string) {
	const name = pool.NamePrefix + "own"
	out := wire.AppendParse(s.lease.Output(), name, []byte(sql+"\x00\x00\x00"))
	// Bind: portal, statement, no formats, no parameters, no result formats.
	out = wire.AppendFrame(out, wire.MsgBind, []byte(name+"\x00"+name+"\x00"), make([]byte, 6))
	out = wire.AppendFrame(out, wire.MsgExecute, []byte(name+"\x00"), make([]byte, 4))
	out = wire.AppendClose(out, 'P', name)
	out = wire.AppendClose(out, 'S', name)
	s.lease.SetOutput(out)
	purpose := forClient
	if sql == "DEALLOCATE ALL" {
		purpose = forPrivate
	}
	for _, k := range [...]expectKind{expectParse, expectBind, expectExecute, expectClose, expectClose} {
		e := expect{kind: k, mode: swallow}
		if k == expectExecute {
			e.purpose = purpose
		}
		s.owed.push(e)
	}
}

// endPrivate notes that the server has none of the session's statements under
// its own names.
func (s *session) endPrivate() {
	if s.private {
		s.private = false
		if s.pinned == pinnedPrivate {
			s.pin("")
		}
	}
}

// forwardParse sends a Parse as it is: the server has the name for this session only.
func (s *session) forwardParse(name string, ps *preparedStatement, size int) {
	s.define(ps)
	if ps.shared == nil {
		s.forwardLarge(size)
	} else {
		s.forward(size)
	}
	s.owed.push(expect{kind: expectParse, statement: ps, name: name})
}

// scoped are the settings under which a text that is prepared can mean
// something else than under others: they decide how its names and its constants
// are read, which happens once.
var scoped = [...]string{
	"array_nulls", "backslash_quote", "client_encoding", "datestyle", "intervalstyle", "lc_monetary", "search_path",
	"standard_conforming_strings", "timezone", "transform_null_equals", "xmloption",
}

// setScope notes what the session's prepared statements depend on besides
// their texts and types.
func (s *session) setScope() {
	var b strings.Builder
	for _, name := range scoped {
		it, ok := s.settings.Get(name)
		if !ok {
			it.Text = s.told(name)
		}
		if !ok && it.Text == "" {
			continue
		}
		b.WriteString(name)
		if it.Literal || !ok {
			b.WriteByte('\'')
		}
		b.WriteString(it.Text)
		b.WriteByte(0)
	}
	s.scope = b.String()
}

// told returns the value of a setting that the client was told at login, "" for
// one that is not reported.
func (s *session) told(setting string) string {
	if s.greeted == nil {
		return ""
	}
	for _, t := range tracked {
		if t.setting == setting {
			return s.greeted.values[t.reported]
		}
	}
	return ""
}

// statementScope returns the scope in which a statement is prepared now. While
// the settings in force are not known it is one that nobody else ever has.
func (s *session) statementScope() string {
	if s.localMeaning || s.tx != 'I' && s.suspect&query.EffectUnknown != 0 {
		return "\x00" + strconv.FormatUint(s.db.tokens.Add(1), 36)
	}
	return s.scope
}

// shiftPosition moves the position that an error names by n characters.
func shiftPosition(body []byte, n int) []byte {
	at := wire.Field(body, 'P')
	pos := 0
	for _, c := range []byte(at) {
		pos = pos*10 + int(c-'0')
	}
	if at == "" || pos+n < 1 {
		return body
	}
	return bytes.Replace(body, []byte("\x00P"+at+"\x00"), []byte("\x00P"+strconv.Itoa(pos+n)+"\x00"), 1)
}
