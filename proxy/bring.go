package proxy

import (
	"shardproxy/pool"
	"shardproxy/wire"
)

// A statement is prepared on a connection that lacks it when it is used, and the
// session may have other settings by then. Names are looked up anew under the
// search path of the moment: so does a server. Constants were read when the client
// prepared the statement, and stay what they were.

// bring makes the lease have the statement before what is sent next. When ready
// is false, replies must come first; an error says that the statement cannot be
// prepared there as it was. With compare, it must have the result that the client
// was told of.
func (s *session) bring(ps *preparedStatement, compare bool) (ready bool, err *wire.Error) {
	compare = compare && s.doubts(&ps.shape) && s.tx != 'E'
	switch {
	case s.compares(&ps.shape):
		return false, nil
	case ps.shape.changed && s.tx != 'E' && !s.doubts(&ps.shape):
		return true, errShape()
	case s.lease.Has(ps.shared) && !(ps.shape.changed && compare) || ps.shared.Name == noStatement:
		return true, nil // also if a DEALLOCATE ALL is ahead: then its name is the client's no more
	case ps.unknown || s.localConstants && s.tx != 'T':
		return true, wire.Errorf("0A000", "prepared statement \"%s\" cannot be prepared again", ps.name).
			WithDetail("It was prepared under settings that were in force for its transaction only, and this server connection lacks it.").
			WithHint("Prepare it again.")
	case !s.localConstants && s.sameConstants(ps.settings) && !compare:
		if ps.scope != s.scope || s.scopeAt != s.db.schema.Load() {
			s.rescope(ps)
		}
		s.ensure(ps.shared)
		return true, nil
	case !s.outcomeKnown():
		return false, nil
	}
	s.rescope(ps)
	if s.tx == 'E' || !s.localConstants && s.sameConstants(ps.settings) {
		s.ensure(ps.shared) // in a failed transaction it fails, as it must
	} else {
		s.bringUnder(ps)
	}
	if compare {
		s.compare(ps.shared.Name, &ps.shape)
	}
	return !compare, nil
}

// sameConstants reports whether constants mean the same under the settings as now.
func (s *session) sameConstants(st *pool.Settings) bool {
	if st == s.settings {
		return true
	}
	for _, name := range scoped[1:] {
		a, _ := st.Get(name)
		b, _ := s.settings.Get(name)
		if a != b {
			return false
		}
	}
	return true
}

// rescope makes the statement one of the scope of the moment, or of its own where
// its constants differ: what others share must mean what they prepared.
func (s *session) rescope(ps *preparedStatement) {
	old := ps.shared
	ps.scope = s.statementScope()
	if s.localConstants || !s.sameConstants(ps.settings) {
		ps.scope = s.uniqueScope()
	}
	ps.shared = s.db.Statements.Acquire(ps.scope, old.Rest)
	s.db.Statements.Release(old)
}

// bringUnder prepares the statement with its constants read as they were: under
// the settings that were in force then, which are put back behind it.
func (s *session) bringUnder(ps *preparedStatement) {
	want := s.looksLike(ps.settings)
	if s.localConstants {
		// What is set locally nobody knows: the server brings it back.
		s.execute("SAVEPOINT " + ownName)
		for _, name := range scoped[1:] {
			s.change(name, want)
		}
		s.ensure(ps.shared) // outlives the rollback
		s.execute("ROLLBACK TO " + ownName)
		s.execute("RELEASE " + ownName)
		return
	}
	var changed []string
	for _, name := range scoped[1:] {
		a, _ := want.Get(name)
		b, _ := s.lease.Settings.Get(name)
		if a != b {
			changed = append(changed, name)
			s.change(name, want)
		}
	}
	s.ensure(ps.shared)
	for _, name := range changed {
		s.change(name, s.lease.Settings)
	}
}

// change makes one setting what it is in st.
func (s *session) change(name string, st *pool.Settings) {
	it, ok := st.Get(name)
	if !ok {
		s.execute("RESET " + name)
		return
	}
	s.execute(it.SQL())
}

// distrust notes that settings which nobody saw change were others than believed
// when statements were prepared.
func (s *session) distrust(believed, found *pool.Settings) {
	for _, name := range scoped[1:] {
		a, _ := believed.Get(name)
		b, _ := found.Get(name)
		if a == b {
			continue
		}
		for _, ps := range s.statements {
			ps.unknown = ps.unknown || ps.unseen
		}
		return
	}
}
