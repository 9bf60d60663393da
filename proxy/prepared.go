package proxy

import (
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// parseNamed deals with the Parse of a named statement. Servers know it under
// a name of ours, shared by all clients with the same text, types and
// search_path; where the server has it already, nothing is sent.
func (s *session) parseNamed(name string, rest []byte, p *router.Plan, size int) error {
	if old := s.statements[name]; old != nil {
		// The server itself says that it exists, which also fails the
		// transaction as it must.
		s.ensure(old.shared)
		s.lease.SetOutput(wire.AppendParse(s.lease.Output(), old.shared.Name, rest))
		s.drop(size)
		s.owed.push(expect{kind: expectParse, about: old})
		return nil
	}
	if limit := s.db.Policy().SessionStatements; limit > 0 && len(s.statements) >= limit {
		return wire.Fatal("53400", "too many prepared statements in one session").
			WithDetail("The limit is %d.", limit).
			WithHint("Close statements that are no longer used, or raise limits.session_statements.")
	}
	if limit := s.db.Policy().SessionStatementBytes; limit > 0 && s.statementBytes+len(rest) > limit {
		return wire.Fatal("53400", "prepared statements of one session take too much memory").
			WithDetail("The limit is %d bytes.", limit).
			WithHint("Close statements that are no longer used, or raise limits.session_statement_bytes.")
	}
	rest, substituted := s.substitute(name, rest, p)
	if text, tag := s.resetText(p); tag != "" {
		rest, substituted = append([]byte(text), 0, 0, 0), true
	}
	st := s.db.Statements.Acquire(s.searchPath, rest)
	ps := &preparedStatement{name: name, shared: st, plan: p, substituted: substituted}
	if s.statements == nil {
		s.statements = map[string]*preparedStatement{}
	}
	s.statements[name] = ps
	s.statementBytes += len(rest)
	e := expect{kind: expectParse, statement: ps, name: name}
	switch has := s.lease.Has(st); {
	case has && s.forgetting:
		s.prepare(st)
		e.again = st
	case has && s.tx != 'E':
		e.mode = local
	default:
		s.prepare(st)
		e.injected = st
	}
	s.drop(size)
	s.owed.push(e)
	return nil
}

// ensure makes the lease have the statement before what is sent next.
func (s *session) ensure(st *pool.Statement) {
	if s.lease.Has(st) {
		return // also if a DEALLOCATE ALL is ahead: then its name is the client's no more
	}
	s.prepare(st)
	s.owed.push(expect{kind: expectParse, mode: swallow, injected: st})
}

// prepare sends the Parse of st, and first the Close of the statement that
// must make room for it.
func (s *session) prepare(st *pool.Statement) {
	if old := s.lease.Prepared(st); old != nil {
		s.lease.SetOutput(wire.AppendClose(s.lease.Output(), 'S', old.Name))
		s.owed.push(expect{kind: expectClose, mode: swallow, injected: old})
	}
	s.lease.SetOutput(wire.AppendParse(s.lease.Output(), st.Name, st.Rest))
}

// harmless stands in for a DEALLOCATE of a statement that only we know by that
// name: it does nothing, returns no rows and fails in a failed transaction.
const harmless = "UNLISTEN _shardproxy_none"

// substitute replaces the text of a Parse that deallocates one of the
// session's own statements; the statement goes when it is executed.
func (s *session) substitute(name string, rest []byte, p *router.Plan) ([]byte, bool) {
	if c := p.Single; c != nil && c.Kind == query.KindDeallocate && (s.ownStatement(c) || name != "" && c.Target == name && !c.All) {
		return append([]byte(harmless), 0, 0, 0), true
	}
	return rest, false
}

// ownStatement reports whether the command names a statement that was prepared
// by protocol, which servers know under another name.
func (s *session) ownStatement(c *query.Command) bool {
	switch c.Kind {
	case query.KindDeallocate, query.KindExecute, query.KindPrepare:
		return !c.All && s.statements[c.Target] != nil
	}
	return false
}

// queryOfStatement sends a simple EXECUTE or DEALLOCATE of a protocol-level
// statement, or a PREPARE under its name, which the server refuses.
func (s *session) queryOfStatement(c *query.Command, text []byte, size int, p *router.Plan) error {
	st := s.statements[c.Target]
	if c.Kind == query.KindDeallocate {
		s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), harmless))
		s.drop(size)
		s.expectQuery(p)
		s.owed.last().tag = "DEALLOCATE"
		return nil
	}
	if !s.lease.Has(st.shared) {
		s.ensure(st.shared)
		s.lease.SetOutput(wire.AppendEmpty(s.lease.Output(), wire.MsgSync))
		s.owed.push(expect{kind: expectSync, mode: swallow})
	}
	sql := string(text[:c.TargetStart]) + st.shared.Name + string(text[c.TargetEnd:])
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), sql))
	s.drop(size)
	if c.Kind == query.KindExecute {
		p = s.replan(st)
	}
	s.expectQuery(p)
	return nil
}

// forgetStatements drops the session's statements but those that are being
// parsed behind the DEALLOCATE ALL that was executed: the server has dropped its
// own, which other sessions of this connection shared.
func (s *session) forgetStatements() {
	unnamed := s.lease.Unnamed // which DEALLOCATE ALL spares
	s.lease.ForgetAll()
	s.lease.Unnamed = unnamed
	later := map[*preparedStatement]bool{}
	for i := s.owed.head; i < len(s.owed.items); i++ {
		e := &s.owed.items[i]
		if e.statement != nil {
			later[e.statement] = true
		}
		if e.kind == expectParse && e.injected != nil {
			s.lease.Prepared(e.injected)
		}
		if e.again != nil {
			s.lease.Prepared(e.again)
		}
	}
	for name, st := range s.statements {
		if !later[st] {
			s.release(st)
			delete(s.statements, name)
		}
	}
}

// release ends the session's use of a statement that no name means any more.
func (s *session) release(st *preparedStatement) {
	s.statementBytes -= len(st.shared.Rest)
	s.db.Statements.Release(st.shared)
}

// undo takes back what a request did that the server has skipped or refused.
func (s *session) undo(e *expect) {
	s.wrote = s.wrote || e.writes()
	switch e.kind {
	case expectParse:
		if e.unnamed {
			// Skipped, it left the old one; failed, none. Both are refused as none.
			s.unnamedTok, s.unnamedAs = 0, nil
		}
		if (e.unnamed || e.restores) && s.lease != nil {
			s.lease.Unnamed = 0 // whatever is there, it is not what was sent
		}
		if e.injected != nil && s.lease != nil {
			s.lease.Forget(e.injected)
		}
		if e.statement != nil {
			if s.statements[e.name] == e.statement {
				delete(s.statements, e.name)
			}
			s.release(e.statement)
		}
	case expectClose:
		if e.injected != nil && s.lease != nil {
			s.lease.Prepared(e.injected) // it was not closed after all
		}
		if e.prev != nil && s.statements[e.name] == nil {
			s.statements[e.name] = e.prev
		}
	}
}
