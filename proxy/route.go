package proxy

import (
	"errors"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/gate"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// refusal is the reason why a request is not sent anywhere, nil when there is none.
func (s *session) refusal(n need) *wire.Error {
	if n.err != nil {
		return n.err
	}
	if s.mode != ModeStatement || len(s.segment) != 1 || s.segment[0].Single == nil {
		return nil
	}
	if s.segment[0].Single.Kind == query.KindBegin {
		return wire.Errorf("0A000", "transaction blocks are not allowed in statement pooling").
			WithHint("Use pool mode transaction for this database or user.")
	}
	return nil
}

// loginRefused turns a server's refusal of our login into what the client is
// told; nil when no server answered.
func loginRefused(de *pool.DialError) *wire.Error {
	var pe *pgconn.PgError
	if !errors.As(de, &pe) || pe.Code == "57P03" || pe.Code == "57P01" || pe.Code == "57P02" {
		return nil
	}
	e := wire.Errorf(pe.Code, "the server refused the proxy's login: %s", pe.Message).
		WithDetail("Node %s.", de.Address).WithCause(de)
	if pe.Code == "28P01" || pe.Code == "28000" {
		e = e.WithHint("The proxy needs a password of its own for the servers: users[].server_password, or server.user and its password " +
			"for the database. A SCRAM verifier, of the file or found by auth_query, proves a password and is none.")
	}
	return e
}

// pick chooses the node; without a primary it waits at the gate.
func (s *session) pick(n need, pol *DatabasePolicy) (node int, replica bool, err error) {
	if s.wantsSplit(n, pol) {
		mark := s.markAt(s.index, n.replica)
		if node, ok := s.shard.Nodes.PickRead(mark, mark != 0, s.exclude); ok {
			return node, true, nil
		}
		if mark != 0 {
			s.shard.Nodes.Want()
		}
	}
	for held := false; ; held = true {
		ready := !s.shard.Gate.Closed()
		// Who has waited for the primary is not turned away when it is there.
		broken := !held && !s.shard.Breaker.Admits(ready)
		if ready && !broken {
			if node, ok := s.shard.Nodes.Primary(); ok {
				return node, false, nil
			}
		}
		if n.read && s.mode != ModeSession {
			// Reads go on without a primary, on whatever replica is within bounds.
			mark := s.markAt(s.index, false)
			if node, ok := s.shard.Nodes.PickRead(mark, mark != 0, 0); ok && s.tries < 8 {
				return node, true, nil
			}
		}
		if broken {
			return 0, false, s.errBroken()
		}
		if err := s.hold(); err != nil {
			return 0, false, err
		}
	}
}

// markAt is the mark that a replica of a shard must have replayed for the session, 0 for none: its own last commit, unless the
// client vouches for replicas, and what had moved there when the slot map was learnt.
func (s *session) markAt(shard int, vouched bool) (mark uint64) {
	if s.db.Policy().Consistent && !vouched {
		mark = s.mark
		if shard != s.index {
			mark = s.places[shard].mark
		}
	}
	return max(mark, s.db.Shards[shard].placed.Load())
}

// wantsSplit reports whether the request may run on a replica at all.
func (s *session) wantsSplit(n need, pol *DatabasePolicy) bool {
	if s.places != nil && s.db.Owners().HiddenSlots() > 0 {
		return false // a replica may be behind what its primary was given
	}
	if s.mode == ModeSession || s.tx != 'I' && (s.begun == nil || !n.readOnly) || n.opaque {
		return false
	}
	if n.replica {
		return true
	}
	return pol.Split && (n.read || n.readOnly) && !n.primary && s.tries < 8 && (!s.serializable || n.readOnly)
}

// refused returns why a statement must not run, nil when it may.
func (s *session) refused(p *router.Plan) *wire.Error {
	if e := p.BlockedBy(); e != nil {
		return e
	}
	if e := refusedRoute(p); e != nil {
		return e
	}
	if e := s.refusedRouting(p); e != nil {
		return e
	}
	return s.refusedOnReplica(p)
}

// refusedOnReplica returns why a statement must not run in a transaction on a
// replica, nil when it may: an advisory lock there keeps nobody else out.
func (s *session) refusedOnReplica(p *router.Plan) *wire.Error {
	if !s.replica || p == nil || p.Statement == nil || p.Intent == router.Read {
		return nil
	}
	for i := range p.Statement.Commands {
		for _, f := range p.Statement.Commands[i].Functions {
			if strings.HasPrefix(f.Name, "pg_advisory_") || strings.HasPrefix(f.Name, "pg_try_advisory_") {
				return wire.Errorf("0A000", "advisory locks cannot be taken in a transaction that runs on a replica").
					WithDetail("Shard %s, node %s.", s.shard.Name, s.lease.Address()).
					WithHint("Begin the transaction with /* shardproxy: route=primary */ BEGIN READ ONLY.")
			}
		}
	}
	return nil
}

// hold waits at the gate until the shard has a primary.
func (s *session) hold() error {
	t, err := s.shard.Gate.Enter(s.wake)
	if err != nil {
		s.shard.Breaker.InVain("57P03")
		return wire.Errorf("57P03", "no primary, and too many statements wait for one").
			WithDetail("Shard %s.", s.shard.Name).WithCause(errors.Join(errNoPrimary, err))
	}
	if t == nil {
		// Open, but the new primary is not published yet.
		return s.pause(5*time.Millisecond, phaseHeld)
	}
	for t.State() == gate.Waiting {
		if err := s.waitTurn(phaseHeld); err != nil {
			t.Cancel()
			return err
		}
	}
	if t.State() == gate.Released {
		return nil
	}
	s.shard.Breaker.InVain("57P03")
	e := wire.Errorf("57P03", "no primary within the hold timeout").WithDetail("Shard %s has no primary.", s.shard.Name).WithCause(errNoPrimary)
	if s.greeted == nil {
		return e.WithHint("A login asks a server for its parameters; it may be tried again.")
	}
	return e.WithHint("The statement was not executed and may be tried again.")
}

// pause waits for a short while.
func (s *session) pause(d time.Duration, p phase) error {
	end := time.Now().Add(d)
	s.wakeIn(d)
	defer s.timer.Stop()
	for time.Now().Before(end) {
		if err := s.waitTurn(p); err != nil {
			return err
		}
	}
	return nil
}

// wakeIn has the session's timer wake it once d has passed, unless it is
// stopped before. The timer is made by the first wait.
func (s *session) wakeIn(d time.Duration) {
	if s.timer == nil {
		s.timer = time.AfterFunc(d, s.wake)
		return
	}
	s.timer.Reset(d)
}

// waitTurn parks once while no server is leased, and finds out whether nobody
// wants the session to stop and, if the wait is long, whether the client is still
// there.
func (s *session) waitTurn(p phase) error {
	s.setPhase(p)
	if err := s.obeyWaiting(); err != nil {
		return err
	}
	read := len(s.client.Buffered()) < aheadMax && !s.clientLeft && s.watchesAll()
	readable := read && s.client.More()
	if !readable {
		readable, _ = s.task.await(interest{socket: s.client.Socket(), read: read, write: s.client.Pending() > 0}, interest{})
	}
	if s.client.Pending() > 0 {
		if err := s.client.Flush(); err != nil {
			return s.clientError(err)
		}
	}
	if readable {
		if err := s.fillClient(); err != nil {
			return err
		}
	}
	return s.obeyWaiting()
}

// attach makes the lease ready for the request: it gets the session's settings.
func (s *session) attach(n need, replica bool) error {
	s.task.adopt(s.lease.Socket())
	s.replica = replica
	s.read = n.read && s.mode != ModeSession
	s.delivered = false
	s.fresh = true
	s.cancelled = false
	s.steps++
	if n.read {
		s.db.stats.reads.Add(1)
		if replica {
			s.db.stats.replicaReads.Add(1)
		}
	}
	if !replica {
		s.shard.Breaker.Tried()
	}
	s.notesLease()
	s.setPhase(phaseActive)
	s.identityGoes = s.replacesIdentity()
	if s.learning != nil {
		s.forgetSettings()
	}
	if err := s.applySettings(); err != nil {
		return err
	}
	s.leaseBase = s.lease.Settings
	if !n.opaque {
		s.client.Hold()
		s.held = true
	}
	s.located = !n.opaque
	s.enlist()
	return nil
}
