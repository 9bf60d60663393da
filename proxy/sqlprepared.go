package proxy

import (
	"strings"
	"unicode/utf8"

	"shardproxy/catalog"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// PREPARE by SQL makes the same kind of statement as Parse, in the same space
// of names, so a PREPARE is sent as a Parse: the statement is shared and follows
// the session like those of the protocol. EXECUTE and DEALLOCATE get the
// server's name in place of the client's.

// harmless stands in for a DEALLOCATE of a statement that only we know by that
// name: it does nothing, returns no rows and fails in a failed transaction.
const harmless = "UNLISTEN _shardproxy_none"

// namesStatement deals with a simple query that names prepared statements; done
// is false when the query is like any other.
func (s *session) namesStatement(p *router.Plan, text []byte, size int) (going, done bool, err error) {
	c := p.Single
	switch {
	case s.private || !namesStatements(p, text):
		return false, false, nil
	case c != nil && p.Exact && c.Target != "" && !s.open:
		if going, done, err = s.namesOne(p, c, text, size); done || err != nil {
			return going, done, err
		}
		if c.Kind != query.KindPrepare {
			return false, false, nil // the server says that it does not exist
		}
	}
	if !s.outcomeKnown() {
		return false, true, nil
	}
	if s.tx == 'E' && c == nil && leavesFailed(p) {
		s.sendRefusal(size, wire.Errorf("0A000", "several commands that depend on prepared statements cannot end a failed transaction").
			WithHint("Send ROLLBACK as a query of its own first."))
		return true, true, nil
	}
	s.goPrivate()
	return false, false, nil
}

// leavesFailed reports whether the first command of a text ends a failed
// transaction, so that those behind it run.
func leavesFailed(p *router.Plan) bool {
	if p.Statement == nil || len(p.Statement.Commands) == 0 {
		return true // not known
	}
	switch p.Statement.Commands[0].Kind {
	case query.KindRollback, query.KindCommit, query.KindRollbackTo, query.KindPrepareTx:
		return true
	}
	return false
}

// sendRefusal has the server refuse a simple query that it must not see, and the
// client be told why in our words.
func (s *session) sendRefusal(size int, e *wire.Error) {
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), "EXECUTE "+noStatement))
	s.drop(size)
	s.expectQuery(nil)
	s.owed.last().instead = e
}

// namesStatements reports whether the plan depends on the names under which the
// server has prepared statements, or changes them. What may run SQL that it
// carries as a value is believed to when it mentions their list.
func namesStatements(p *router.Plan, text []byte) bool {
	if p.Effects&query.EffectUnknown != 0 && catalog.TextAsks(string(text))&catalog.AsksPrepared != 0 {
		return true
	}
	if p.Effects&(query.EffectPrepared|query.EffectPreparedRead) == 0 {
		return false
	}
	if p.Statement == nil {
		return true
	}
	for i := range p.Statement.Commands {
		c := &p.Statement.Commands[i]
		dropsAll := c.Kind == query.KindDiscard || c.Kind == query.KindDeallocate && c.All
		if !dropsAll && c.Effects&(query.EffectPrepared|query.EffectPreparedRead) != 0 {
			return true
		}
	}
	return p.Effects&query.EffectPreparedRead != 0 // by a view or a function
}

// namesOne deals with a single PREPARE, EXECUTE or DEALLOCATE; going is false when
// replies must come first, done when it names a statement that the server must know by that name.
func (s *session) namesOne(p *router.Plan, c *query.Command, text []byte, size int) (going, done bool, err error) {
	own := s.statements[c.Target]
	switch {
	case c.Kind == query.KindPrepare && own == nil:
		types, ok := s.parameterTypes(text, c)
		if !ok {
			return true, false, nil
		}
		return true, true, s.prepareSQL(c, text, types, size)
	case c.Kind == query.KindDeallocate && own != nil:
		before := s.suspect
		s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), harmless))
		s.drop(size)
		s.expectQuery(p)
		s.suspect = before // the stand-in leaves nothing
		s.owed.last().tag = "DEALLOCATE"
		return true, true, nil
	}
	if own == nil {
		own = s.foreign(c.Target)
	}
	if own == nil {
		return true, false, nil
	}
	had := s.lease.Has(own.shared) // asked before, for bring may give it another identity
	switch ready, e := s.bring(own, false); {
	case !ready:
		return false, true, nil
	case e != nil:
		s.sendRefusal(size, e)
		return true, true, nil
	case !had && own.shared.Name != noStatement:
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgSync))
		s.owed.push(expect{kind: expectSync, mode: swallow})
	}
	s.renamedQuery(p, c, own, text, size)
	return true, true, nil
}

// prepareSQL sends a PREPARE as a Parse.
func (s *session) prepareSQL(c *query.Command, text, types []byte, size int) error {
	rest := append(append(append([]byte(nil), text[c.BodyStart:c.BodyEnd]...), 0), types...)
	if err := s.mayPrepare(rest); err != nil {
		return err
	}
	ps := s.newStatement(c.Target, rest, s.plan(text[c.BodyStart:c.BodyEnd]))
	ps.sql = string(text[c.Start:c.End])
	s.define(ps)
	// As a query it also ends the unnamed portal.
	s.lease.SetOutput(wire.AppendClose(s.lease.Output(), 'P', ""))
	s.owed.push(expect{kind: expectClose, mode: swallow})
	e := expect{kind: expectParse, statement: ps, name: ps.name, tag: "PREPARE", about: ps,
		shift: s.characters(text[:c.BodyStart])}
	s.prepareFor(&e)
	s.owed.push(e)
	s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgSync))
	s.owed.push(expect{kind: expectSync, ask: ask{kind: askWrite}})
	s.drop(size)
	s.unnamedTok, s.unnamedLarge = 0, false
	s.db.stats.statements.Add(1)
	return nil
}

// renamedQuery sends an EXECUTE, a PREPARE of a name that is taken, or what
// names a statement that does not exist for the client, with the server's name.
func (s *session) renamedQuery(p *router.Plan, c *query.Command, st *preparedStatement, text []byte, size int) {
	name := st.shared.Name
	sql := string(text[:c.TargetStart]) + name + string(text[c.TargetEnd:])
	s.suspect |= p.Effects & auditEffects &^ query.EffectPrepared // of the arguments
	s.guardSequences(p)
	if name != noStatement && c.Kind == query.KindExecute {
		p = s.replan(st)
		s.guardSequences(p)
	}
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), sql))
	shift := s.characters(text[c.TargetStart:c.TargetEnd]) - len(name)
	s.drop(size) // and with it the text
	s.expectQuery(p)
	e := s.owed.last()
	e.about, e.shift = st, shift
}

// characters counts what an error's position counts in the client's text.
func (s *session) characters(text []byte) int {
	if it, ok := s.settings.Get("client_encoding"); ok && !strings.EqualFold(strings.Trim(it.Text, "'"), "utf8") {
		return len(text)
	}
	return utf8.RuneCount(text)
}

// substitute replaces the text of a Parse that deallocates one of the
// session's own statements; the statement goes when it is executed.
func (s *session) substitute(name string, rest []byte, p *router.Plan) ([]byte, bool) {
	if c := p.Single; c != nil && c.Kind == query.KindDeallocate && (s.deallocatesNamed(c) || name != "" && c.Target == name && !c.All) {
		return append([]byte(harmless), 0, 0, 0), true
	}
	return rest, false
}

// deallocatesNamed reports whether the command deallocates a statement that
// servers know under another name.
func (s *session) deallocatesNamed(c *query.Command) bool {
	return !s.private && c.Kind == query.KindDeallocate && !c.All && s.statements[c.Target] != nil
}

// deallocatesOwn reports whether an Execute ran the stand-in of a DEALLOCATE.
func (s *session) deallocatesOwn(e *expect) bool {
	return e.plan != nil && e.plan.Single != nil && s.deallocatesNamed(e.plan.Single)
}

// deallocatedBy returns which statement a Bind of the name would deallocate that
// servers know under another name; "" for any other Bind.
func (s *session) deallocatedBy(name []byte, p *router.Plan) string {
	if p == nil || p.Single == nil || p.Single.Kind != query.KindDeallocate || p.Single.All || s.private {
		return ""
	}
	if len(name) == 0 && !s.unnamedOther {
		return ""
	}
	if st := s.statements[string(name)]; len(name) > 0 && (st == nil || !st.substituted) {
		return ""
	}
	return p.Single.Target
}

// refusedBind returns the error for a Bind that must not go through, nil for
// others: of the stand-in of a DEALLOCATE whose statement is gone, and of what a
// replica must not run.
func (s *session) refusedBind(name []byte, p *router.Plan) *wire.Error {
	if target := s.deallocatedBy(name, p); target != "" && s.statements[target] == nil && string(name) != target {
		return wire.Errorf("26000", "prepared statement \"%s\" does not exist", target)
	}
	return s.refused(p)
}

// uncertain reports whether a DEALLOCATE of the name is under way in the same
// request; the server is then made to answer, and the caller comes again.
func (s *session) uncertain(name []byte) bool {
	if s.owed.barriers == 0 {
		return false
	}
	for i := s.owed.head; i < len(s.owed.items); i++ {
		e := &s.owed.items[i]
		if e.plan != nil && e.plan.Single != nil && e.plan.Single.Kind == query.KindDeallocate && e.plan.Single.Target == string(name) {
			return !s.outcomeKnown()
		}
	}
	return false
}

// deallocated removes the statement that a DEALLOCATE named.
func (s *session) deallocated(name string) {
	if st := s.statements[name]; st != nil {
		s.release(st)
		delete(s.statements, name)
	}
}

// isPoolName reports whether a name is one that servers have for our statements.
func isPoolName(name string) bool { return strings.HasPrefix(name, pool.NamePrefix) }

// parameterTypes returns the parameter types of a PREPARE as a Parse message
// has them: a count and OIDs. ok is false when a type is not one of
// PostgreSQL's own by an unmistakable name.
func (s *session) parameterTypes(text []byte, c *query.Command) (types []byte, ok bool) {
	list := strings.TrimSpace(string(text[c.ParamTypesStart:c.ParamTypesEnd]))
	if list == "" {
		return []byte{0, 0}, true
	}
	if _, set := s.settings.Get("search_path"); set && (s.searchPath == router.UnknownPath || strings.Contains(s.searchPath, "pg_catalog")) {
		return nil, false // PostgreSQL's own types may come last
	}
	if s.localMeaning {
		return nil, false
	}
	names := strings.Split(list, ",")
	types = []byte{byte(len(names) >> 8), byte(len(names))}
	for _, n := range names {
		oid, known := builtinTypes[strings.ToLower(strings.Join(strings.Fields(n), " "))]
		if !known {
			return nil, false
		}
		types = append(types, byte(oid>>24), byte(oid>>16), byte(oid>>8), byte(oid))
	}
	return types, true
}

// builtinTypes are the OIDs of common types by the names that PREPARE may give
// them (src/include/catalog/pg_type.dat); they never change.
var builtinTypes = map[string]uint32{
	"bool": 16, "boolean": 16, "bytea": 17, "name": 19, "int8": 20, "bigint": 20, "int2": 21, "smallint": 21,
	"int4": 23, "int": 23, "integer": 23, "text": 25, "oid": 26, "json": 114, "xml": 142, "point": 600,
	"float4": 700, "real": 700, "float8": 701, "double precision": 701, "money": 790, "macaddr": 829, "inet": 869, "cidr": 650,
	"varchar": 1043, "character varying": 1043, "date": 1082, "time": 1083, "time without time zone": 1083,
	"timestamp": 1114, "timestamp without time zone": 1114, "timestamptz": 1184, "timestamp with time zone": 1184,
	"interval": 1186, "timetz": 1266, "time with time zone": 1266, "numeric": 1700, "decimal": 1700, "uuid": 2950,
	"jsonb": 3802, "regclass": 2205, "unknown": 705,
	"int4[]": 1007, "int[]": 1007, "integer[]": 1007, "int8[]": 1016, "bigint[]": 1016, "text[]": 1009, "uuid[]": 2951,
	"bool[]": 1000, "boolean[]": 1000, "float8[]": 1022, "numeric[]": 1231, "varchar[]": 1015, "date[]": 1182,
	"timestamptz[]": 1185, "timestamp[]": 1115, "bytea[]": 1001, "jsonb[]": 3807, "int2[]": 1005, "smallint[]": 1005,
}
