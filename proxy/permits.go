package proxy

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// Concurrent bounds how many statements run at a time. 0 is no bound. A transaction counts as one
// that runs from its BEGIN to its end, and as a write unless it is begun READ ONLY.
type Concurrent struct {
	Statements, Reads, Writes int
	Several                   int // on several shards
}

// Concurrency is what bounds all; nil where nothing does. It is read-only.
type Concurrency struct {
	User, Database func(name string) Concurrent
	// Wait is for how long a statement waits at most; then it is refused.
	Wait time.Duration
}

// What is bounded.
const (
	permitStatements = iota
	permitReads
	permitWrites
	permitSeveral
	permitKinds
)

var permitKindNames = [permitKinds]string{"statements", "reads", "writes", "several"}

// Whose bounds there are. Who waits for a user's holds none of the database's.
const (
	permitsOfUser = iota
	permitsOfDatabase
	permitOwners
)

var permitOwnerNames = [permitOwners]string{"user", "database"}

// permits are those of one user or database.
type permits struct {
	bounds  [permitKinds]atomic.Int64 // 0: none
	turns   [permitKinds]turns
	name    string
	holders int // sessions; under permitTable.mu
}

// limit is how many of a kind may run, as turns have it.
func (p *permits) limit(kind int) int {
	if n := p.bounds[kind].Load(); n > 0 {
		return int(n)
	}
	return math.MaxInt
}

// bound sets the bounds. Those who may run by them do.
func (p *permits) bound(c Concurrent) {
	for kind, n := range [permitKinds]int{c.Statements, c.Reads, c.Writes, c.Several} {
		p.bounds[kind].Store(int64(n))
		p.turns[kind].serve(p.limit(kind))
	}
}

// permitTable has the permits of all who have bounds.
type permitTable struct {
	mu      sync.Mutex
	of      [permitOwners]map[string]*permits
	waited  [permitKinds][permitOwners]atomic.Int64
	refused [permitKinds][permitOwners]atomic.Int64
}

// sessionPermits are those that bound a session, nil where nothing does.
type sessionPermits [permitOwners]*permits

// hold returns the permits that bound a user's use of a database, nil when nothing does. drop gives them back.
func (t *permitTable) hold(c *Concurrency, user, database string) *sessionPermits {
	if c == nil {
		c = &Concurrency{User: unbounded, Database: unbounded}
	}
	var s sessionPermits
	t.mu.Lock()
	defer t.mu.Unlock()
	s[permitsOfUser] = t.getLocked(permitsOfUser, user, c.User(user))
	s[permitsOfDatabase] = t.getLocked(permitsOfDatabase, database, c.Database(database))
	if s == (sessionPermits{}) {
		return nil
	}
	return &s
}

func unbounded(string) Concurrent { return Concurrent{} }

// getLocked returns permits with one more holder, nil when nothing is bounded.
func (t *permitTable) getLocked(of int, name string, c Concurrent) *permits {
	p := t.of[of][name]
	if p == nil && c == (Concurrent{}) {
		return nil
	}
	if p == nil {
		p = &permits{name: name}
		if t.of[of] == nil {
			t.of[of] = map[string]*permits{}
		}
		t.of[of][name] = p
	}
	p.bound(c)
	if c == (Concurrent{}) {
		return nil // there is a session that has not been told yet
	}
	p.holders++
	return p
}

func (t *permitTable) drop(s *sessionPermits) {
	if s == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for of, p := range s {
		if p == nil {
			continue
		}
		if p.holders--; p.holders == 0 {
			delete(t.of[of], p.name)
		}
	}
}

// heldPermits are the turns that a session has for what it runs.
type heldPermits struct {
	kinds [permitKinds]bool
	turns []heldTurn
}

type heldTurn struct {
	of   *permits
	kind int
	turn *turn
}

// endPermits gives the turns of a session back: nothing of its runs any more.
func (s *session) endPermits() {
	h := s.permits
	s.permits = nil
	for _, t := range h.turns {
		t.of.turns[t.kind].leave(t.turn, t.of.limit(t.kind))
	}
}

// permitted takes the turns of the request at the head of the buffer, waits for them, or refuses the
// request. Of a transaction that has begun nothing waits: it has its turns, or keeps locks.
func (s *session) permitted(t *throttle, kind byte, size int) (verdict, error) {
	if s.script != nil || s.tx != 'I' {
		return goesOn, nil
	}
	of, ok := s.permitAhead()
	if !ok {
		return goesOn, nil
	}
	busy := s.lease != nil && s.busyForOthers()
	err := s.takePermits(t.permits, permitStatements, busy)
	if err == nil && of != permitStatements {
		err = s.takePermits(t.permits, of, busy)
	}
	switch {
	case err == nil:
		return goesOn, nil
	case err == errBusy:
		return waits, nil
	}
	e := wire.AsError(err)
	if e.IsFatal() || err == errEnded {
		return isRefused, err
	}
	s.refuse(kind, size, e)
	return isRefused, nil
}

// permitSeveral takes the turns of a statement that runs on several shards. In a transaction it
// takes them without having to wait.
func (s *session) permitSeveral() *wire.Error {
	t := s.throttle.Load()
	if t == nil || t.permits == nil {
		return nil
	}
	if s.tx != 'I' {
		s.forcePermits(t.permits, permitSeveral)
		return nil
	}
	if err := s.takePermits(t.permits, permitSeveral, false); err != nil {
		return wire.AsError(err)
	}
	return nil
}

// errBusy says that replies are to be waited for first.
var errBusy = wire.Errorf("53400", "the session waits for replies")

// takePermits takes turns of a kind of all whose bounds there are, unless the session has them.
// A busy session does not wait, and may have some of them then.
func (s *session) takePermits(all *sessionPermits, kind int, busy bool) error {
	if s.permits != nil && s.permits.kinds[kind] {
		return nil
	}
	table, wait := &s.server.permits, time.Duration(0)
	if c := s.server.settings.Load().Concurrency; c != nil {
		wait = c.Wait
	}
	deadline := time.Now().Add(wait)
	for owner, p := range all {
		if p == nil || p.bounds[kind].Load() == 0 || s.hasPermit(p, kind) {
			continue
		}
		n := p.turns[kind].enter(p.limit(kind), s.wake)
		if !n.given.Load() {
			var err error = errBusy
			if !busy {
				table.waited[kind][owner].Add(1)
				err = s.awaitPermit(n, deadline, kind, owner, wait)
			}
			if err != nil {
				p.turns[kind].leave(n, p.limit(kind))
				return err
			}
		}
		s.keepPermit(p, kind, n)
	}
	if s.permits != nil {
		s.permits.kinds[kind] = true
	}
	return nil
}

// forcePermits takes turns whatever the bounds are.
func (s *session) forcePermits(all *sessionPermits, kind int) {
	for _, p := range all {
		if p != nil && p.bounds[kind].Load() > 0 && !s.hasPermit(p, kind) {
			s.keepPermit(p, kind, p.turns[kind].enter(math.MaxInt, s.wake))
		}
	}
}

func (s *session) hasPermit(p *permits, kind int) bool {
	if s.permits == nil {
		return false
	}
	for _, t := range s.permits.turns {
		if t.of == p && t.kind == kind {
			return true
		}
	}
	return false
}

func (s *session) keepPermit(p *permits, kind int, n *turn) {
	if s.permits == nil {
		s.permits = &heldPermits{}
	}
	s.permits.turns = append(s.permits.turns, heldTurn{p, kind, n})
}

// awaitPermit waits with the stack until the turn is given.
func (s *session) awaitPermit(n *turn, deadline time.Time, kind, owner int, wait time.Duration) error {
	s.wakeIn(time.Until(deadline))
	defer func() { s.timer.Stop() }()
	for !n.given.Load() {
		if !time.Now().Before(deadline) {
			s.server.permits.refused[kind][owner].Add(1)
			return errPermit(kind, owner, wait)
		}
		if s.control.Load()&controlDrain != 0 {
			return errTerminated()
		}
		if err := s.waitTurn(phaseWaiting); err != nil {
			return err
		}
	}
	return nil
}

// errPermit is what is refused for too many that run: 53400, as by a rate.
func errPermit(kind, owner int, wait time.Duration) *wire.Error {
	what := [permitKinds]string{"statements", "statements that read", "statements that write", "statements on several shards"}[kind]
	return wire.Errorf("53400", "too many %s run at once for this %s", what, permitOwnerNames[owner]).
		WithHint("The statement was not executed. It may be tried again when others have ended, and waits %v for that.", wait)
}

// permitAhead says what the request at the head of the buffer is to be counted as, besides as a
// statement: permitReads, permitWrites, or permitStatements for no more. ok is false when it runs nothing,
// and while too little of it has come.
func (s *session) permitAhead() (of int, ok bool) {
	of = permitStatements
	var text, name []byte // of the last Parse
	var bound *router.Plan
	b := s.client.Buffered()
	for off := 0; off+5 <= len(b); {
		kind, size := b[off], frameSize(b[off:])
		if size < 5 {
			break
		}
		body := b[off+5 : min(off+size, len(b))]
		whole := off+size <= len(b)
		switch kind {
		case wire.MsgQuery:
			if size > s.db.Policy().ParsedMax {
				return permitWrites, true
			}
			if !whole {
				return permitWrites, false
			}
			return permitOf(s.plan(trimNUL(body))), true
		case wire.MsgFunctionCall:
			return permitWrites, true
		case wire.MsgSync:
			return of, ok
		case wire.MsgParse:
			if !whole || size > s.db.Policy().ParsedMax {
				return permitWrites, size > s.db.Policy().ParsedMax
			}
			if n, rest, good := wire.CString(body); good {
				name, text = n, cut(rest)
			}
		case wire.MsgBind:
			var known bool
			if bound, known = s.boundAhead(body, name, text); !known && !whole {
				return permitWrites, false
			}
		case wire.MsgExecute:
			of, ok = max(of, permitOf(bound)), true
		}
		off += size
	}
	if !ok && text != nil {
		bound = s.plan(text) // what it executes comes later
	}
	return max(of, permitOf(bound)), true
}

// boundAhead returns the plan of what a Bind refers to, nil when there is none; text is that of the
// request's last Parse, of that name. known is false when the name has not come.
func (s *session) boundAhead(body, name, text []byte) (p *router.Plan, known bool) {
	_, after, ok := wire.CString(body)
	if !ok {
		return nil, false
	}
	bound, _, ok := wire.CString(after)
	switch {
	case !ok:
		return nil, false
	case text != nil && string(bound) == string(name):
		return s.plan(text), true
	}
	return s.planOf(bound, nil, nil), true
}

// permitOf says what a statement is counted as; nil is one that is not known.
func permitOf(p *router.Plan) int {
	switch {
	case p == nil:
		return permitWrites
	case p.Intent == router.Read:
		return permitReads
	case p.Single == nil:
		return permitWrites
	}
	switch c := p.Single; c.Kind {
	case query.KindBegin:
		if c.Tx.ReadOnly {
			return permitReads
		}
	case query.KindCommit, query.KindRollback, query.KindSet, query.KindReset, query.KindShow, query.KindSetTransaction, query.KindDeallocate,
		query.KindClose, query.KindListen, query.KindUnlisten, query.KindDiscard, query.KindPrepare:
		return permitStatements
	}
	return permitWrites
}

// Crowded counts what a bound on what runs at a time has held back.
type Crowded struct {
	// Kind is statements, reads, writes or several; By is user or database.
	Kind, By        string
	Waited, Refused int64
}

// Crowded returns the counts by kind and by whose bound it was; all are there.
func (srv *Server) Crowded() (all []Crowded) {
	for kind, name := range permitKindNames {
		for by, owner := range permitOwnerNames {
			all = append(all, Crowded{name, owner, srv.permits.waited[kind][by].Load(), srv.permits.refused[kind][by].Load()})
		}
	}
	return all
}
