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
	s.endOwn()
	for _, name := range slices.Sorted(maps.Keys(s.statements)) {
		if st := s.statements[name]; st.sql != "" || st.shared != nil {
			s.prepareOwn(st)
		}
	}
}

// prepareOwn prepares one of the session's statements under its own name. One
// that the server refuses by now, for a table that is gone, must neither keep
// the others back nor fail the client's transaction.
func (s *session) prepareOwn(st *preparedStatement) {
	guarded := s.tx == 'T' && !s.open
	if guarded {
		s.queryOwn("SAVEPOINT " + ownName)
	}
	if st.sql != "" {
		s.execute(st.sql)
	} else {
		s.lease.SetOutput(wire.AppendParse(s.lease.Output(), st.name, st.shared.Rest))
		s.owed.push(expect{kind: expectParse, mode: swallow, purpose: forOwn})
	}
	s.endOwn()
	if guarded {
		s.queryOwn("ROLLBACK TO " + ownName + "; RELEASE " + ownName) // a prepared statement outlives it
	}
}

// ownName names what the session makes for itself on a server.
const ownName = pool.NamePrefix + "own"

// endOwn keeps what went before apart from the client's request; within one it cannot.
func (s *session) endOwn() {
	if !s.open {
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgSync))
		s.owed.push(expect{kind: expectSync, mode: swallow})
	}
}

func (s *session) queryOwn(sql string) {
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), sql))
	s.lease.Unnamed = 0
	s.unnamedTok, s.unnamedLarge = 0, false // a query goes before it as well as behind
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forOwn})
}

// outcomeKnown reports whether nothing is owed; if it is, the server is made to
// answer, and the caller comes again.
func (s *session) outcomeKnown() bool {
	if s.owed.empty() || s.breach {
		return true
	}
	if s.open && s.owed.flushed != s.owed.pushed {
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgFlush))
		s.owed.flushed = s.owed.pushed
		s.steps++
	}
	return false
}

// execute sends a command of ours by the extended protocol, which leaves the
// unnamed statement and portal alone.
func (s *session) execute(sql string) {
	out := wire.AppendClose(s.lease.Output(), 'S', ownName) // one that failed may have left it
	out = wire.AppendParse(out, ownName, []byte(sql+"\x00\x00\x00"))
	// Bind: portal, statement, no formats, no parameters, no result formats.
	out = wire.AppendFrame(out, wire.MsgBind, []byte(ownName+"\x00"+ownName+"\x00"), make([]byte, 6))
	out = wire.AppendFrame(out, wire.MsgExecute, []byte(ownName+"\x00"), make([]byte, 4))
	out = wire.AppendClose(out, 'P', ownName)
	out = wire.AppendClose(out, 'S', ownName)
	s.lease.SetOutput(out)
	for _, k := range [...]expectKind{expectClose, expectParse, expectBind, expectExecute, expectClose, expectClose} {
		e := expect{kind: k, mode: swallow, purpose: forOwn}
		if k == expectExecute && sql == "DEALLOCATE ALL" {
			e.purpose = forPrivate
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
	s.db.stats.serverParses.Add(1)
	if ps.shared == nil {
		s.forwardLarge(size)
	} else {
		s.forward(size)
	}
	s.owed.push(expect{kind: expectParse, statement: ps, name: name})
}

// scoped are the settings under which a text that is prepared can mean something
// else than under others. The first decides where its names are found, the others
// (scoped[1:]) how its constants are read, and how those of a statement without
// parameters are written, which happens once.
var scoped = [...]string{
	"search_path",
	"array_nulls", "backslash_quote", "bytea_output", "client_encoding", "datestyle", "extra_float_digits",
	"intervalstyle", "lc_monetary", "standard_conforming_strings", "timezone", "timezone_abbreviations",
	"transform_null_equals", "xmloption",
}

// setScope notes what the session's prepared statements depend on besides
// their texts and types: settings, and the schema at some moment. A server takes
// up a changed schema in the statements it has, but keeps to the tables and the
// columns that they were about.
func (s *session) setScope() {
	s.scopeAt = s.db.schema.Load()
	var b strings.Builder
	b.WriteString(strconv.FormatUint(s.scopeAt, 36))
	b.WriteByte(0)
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
	if s.greeted != nil && s.greeted.scope == s.scope {
		s.scope = s.greeted.scope // one copy for all sessions of the kind
	}
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

// uniqueScope returns a scope that no other statement ever has.
func (s *session) uniqueScope() string { return "\x00" + strconv.FormatUint(s.db.tokens.Add(1), 36) }

// statementScope returns the scope in which a statement is prepared now. While
// the settings in force are not known, or objects are there that nobody else
// sees, it is one that no other statement ever has.
func (s *session) statementScope() string {
	unseen := s.suspect&(query.EffectUnknown|query.EffectTemp) != 0 || s.hasTemp || s.mode == ModeSession
	if unseen || s.localMeaning || s.catalogChanged || s.owed.altering > 0 || s.halfDateStyle() {
		return s.uniqueScope()
	}
	if s.scopeAt != s.db.schema.Load() {
		s.setScope()
	}
	return s.scope
}

// clientPosition moves the position that an error names to where the client's
// text has it.
func (s *session) clientPosition(body []byte, f *expect) []byte {
	pos, err := strconv.Atoi(wire.Field(body, 'P'))
	if err != nil {
		return body
	}
	shift := f.shift
	if f.spliced != nil {
		shift = f.spliced.shift(pos)
	}
	if st := f.about; f.kind == expectQuery && st != nil && st.shared.Name != noStatement {
		// Of the statement that is executed, or of the text that executes it? What
		// the message speaks of tells.
		text := string(st.shared.Text())
		if word := wordAt(text, pos); word != "" && strings.Contains(wire.Field(body, 'M'), word) {
			shift = max(0, strings.Index(st.sql, text))
		}
	}
	if pos+shift < 1 {
		return body
	}
	return bytes.Replace(body, []byte("\x00P"+strconv.Itoa(pos)+"\x00"), []byte("\x00P"+strconv.Itoa(pos+shift)+"\x00"), 1)
}

// wordAt returns the word at a position, which counts characters from 1.
func wordAt(text string, pos int) string {
	runes := []rune(text)
	if pos < 1 || pos > len(runes) {
		return ""
	}
	word, _, _ := strings.Cut(strings.TrimLeft(string(runes[pos-1:]), `"`), " ")
	return strings.TrimRight(word, "\"(),;")
}
