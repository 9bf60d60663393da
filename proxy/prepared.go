package proxy

import (
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// preparedStatement is what a client's statement name means.
type preparedStatement struct {
	name   string
	shared *pool.Statement // nil for one whose text is not kept: see sendLargeParse
	plan   *router.Plan
	// scope is what shared was acquired with, settings were in force then; unknown
	// is set when they are not known, unseen when they are believed.
	scope           string
	settings        *pool.Settings
	unknown, unseen bool
	shape           shape
	// substituted is set when servers run another text than the client's.
	substituted bool
	// sql is the PREPARE command that made it, "" when a Parse did.
	sql string
}

// Servers know the statements that clients prepare under names of ours, shared
// by all clients with the same text, types and scope; see pool.Statement.

// parseNamed deals with the Parse of a named statement; where the server has
// it already, nothing is sent.
func (s *session) parseNamed(name string, rest []byte, p *router.Plan, size int) error {
	if old := s.statements[name]; old != nil {
		s.parseAgain(old, rest, size)
		return nil
	}
	if err := s.mayPrepare(rest); err != nil {
		return err
	}
	if s.private {
		ps := s.newStatement(name, rest, p)
		s.forwardParse(name, ps, size)
		return nil
	}
	rest, substituted := s.substitute(name, rest, p)
	if text, tag := s.resetText(p); tag != "" {
		rest, substituted = append([]byte(text), 0, 0, 0), true
	}
	ps := s.newStatement(name, rest, p)
	ps.substituted = substituted
	s.define(ps)
	e := expect{kind: expectParse, statement: ps, name: name}
	s.prepareFor(&e)
	s.drop(size)
	s.owed.push(e)
	return nil
}

// mayPrepare refuses what exceeds the bounds of one session.
func (s *session) mayPrepare(rest []byte) error {
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
	return nil
}

// parseAgain has the server itself say that the statement exists, which also
// fails the transaction as it must.
func (s *session) parseAgain(old *preparedStatement, rest []byte, size int) {
	if s.private {
		s.forward(size)
		s.owed.push(expect{kind: expectParse})
		return
	}
	if !s.lease.Has(old.shared) {
		// Any statement will do.
		st := s.db.Statements.Acquire("", []byte(discardSequences))
		s.ensure(st)
		s.db.Statements.Release(st)
		old = &preparedStatement{name: old.name, shared: st}
	}
	s.lease.SetOutput(wire.AppendParse(s.lease.Output(), old.shared.Name, rest))
	s.drop(size)
	s.owed.push(expect{kind: expectParse, about: old})
}

// newStatement returns a statement of the session that no name means yet.
func (s *session) newStatement(name string, rest []byte, p *router.Plan) *preparedStatement {
	s.db.stats.clientParses.Add(1)
	scope := s.statementScope()
	return &preparedStatement{
		name: name, shared: s.db.Statements.Acquire(scope, rest), plan: p, scope: scope, settings: s.settings,
		unknown: s.localConstants, unseen: s.suspect&query.EffectUnknown != 0,
	}
}

// countsBind counts a Bind of a statement with a name.
func (s *session) countsBind(name []byte) {
	if len(name) > 0 {
		s.db.stats.binds.Add(1)
	}
}

// define makes the statement's name mean it.
func (s *session) define(ps *preparedStatement) {
	if s.statements == nil {
		s.statements = map[string]*preparedStatement{}
	}
	s.statements[ps.name] = ps
	if ps.shared != nil {
		s.statementBytes += len(ps.shared.Rest)
	}
}

// prepareFor makes the server have the statement of e, and e the entry for
// whatever that takes.
func (s *session) prepareFor(e *expect) {
	st := e.statement.shared
	switch has := s.lease.Has(st); {
	case has && s.forgetting:
		s.prepare(st)
		e.again = st
	case has && (s.tx != 'E' || parsesInFailed(e.statement.plan)):
		e.mode = local
	case has:
		s.prepare(st) // which fails, and the server keeps it
	default:
		s.prepare(st)
		e.injected = st
	}
}

// parsesInFailed reports whether a server parses the statement in a failed transaction too: what ends it, and nothing at
// all (exec_parse_message of PostgreSQL's tcop/postgres.c).
func parsesInFailed(p *router.Plan) bool {
	if p == nil || p.Statement == nil || p.Statement.Opaque {
		return false
	}
	if len(p.Statement.Commands) == 0 {
		return true
	}
	if p.Single == nil {
		return false
	}
	switch p.Single.Kind {
	case query.KindRollback, query.KindCommit, query.KindRollbackTo, query.KindPrepareTx:
		return true
	}
	return false
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
	s.db.stats.serverParses.Add(1)
	s.lease.SetOutput(wire.AppendParse(s.lease.Output(), st.Name, st.Rest))
}

// closeStatement deals with the Close of a named statement.
func (s *session) closeStatement(name string, size int) error {
	st := s.statements[name]
	switch {
	case s.private:
		delete(s.statements, name)
		s.forward(size)
		s.owed.push(expect{kind: expectClose, name: name, prev: st})
	case st != nil:
		// The server keeps it: others may use it.
		delete(s.statements, name)
		s.drop(size)
		s.owed.push(expect{kind: expectClose, mode: local, name: name, prev: st})
	case s.foreign(name) != nil:
		s.drop(size)
		s.owed.push(expect{kind: expectClose, mode: local})
	default:
		s.forward(size)
		s.owed.push(expect{kind: expectClose})
	}
	return nil
}

// foreign stands for a statement that a client names as servers name ours: it
// does not exist for the client, whatever the server has. nil for other names.
func (s *session) foreign(name string) *preparedStatement {
	if s.private || !isPoolName(name) {
		return nil
	}
	return &preparedStatement{name: name, shared: &pool.Statement{Name: noStatement}}
}

// noStatement is the name of a statement that no server has.
const noStatement = pool.NamePrefix

// forgetStatements drops the session's statements but those that are being
// parsed behind the DEALLOCATE ALL that was executed: the server has dropped its
// own, which other sessions of this connection shared.
func (s *session) forgetStatements() {
	s.forgotten()
	later := map[*preparedStatement]bool{}
	for i := s.owed.head; i < len(s.owed.items); i++ {
		if e := &s.owed.items[i]; e.statement != nil {
			later[e.statement] = true
		}
	}
	for name, st := range s.statements {
		if !later[st] {
			s.release(st)
			delete(s.statements, name)
		}
	}
	if len(later) == 0 {
		s.endPrivate()
	}
}

// forgotten notes that the server has dropped every prepared statement but the
// unnamed one, and those that are on their way to it.
func (s *session) forgotten() {
	unnamed := s.lease.Unnamed
	s.lease.ForgetAll()
	s.lease.Unnamed = unnamed
	for i := s.owed.head; i < len(s.owed.items); i++ {
		e := &s.owed.items[i]
		if e.kind == expectParse && e.injected != nil {
			s.lease.Prepared(e.injected)
		}
		if e.again != nil {
			s.lease.Prepared(e.again)
			e.injected, e.again = e.again, nil
		}
	}
}

// release ends the session's use of a statement that no name means any more.
func (s *session) release(st *preparedStatement) {
	if st.shared == nil {
		return
	}
	s.statementBytes -= len(st.shared.Rest)
	s.db.Statements.Release(st.shared)
}

// undo takes back what a request did that the server has skipped or refused.
func (s *session) undo(e *expect) {
	s.noteWrite(e)
	if e.purpose == forPrivate {
		s.endPrivate()
	}
	switch e.kind {
	case expectParse:
		if e.unnamed {
			// Skipped, it left the old one; failed, none. Both are refused as none.
			s.unnamedTok, s.unnamedAs, s.unnamedLarge = 0, nil, false
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

// deallocates reports whether the plan is one DEALLOCATE.
func deallocates(p *router.Plan) bool {
	return p.Single != nil && p.Single.Kind == query.KindDeallocate
}
