package proxy

import (
	"errors"
	"sync/atomic"
	"time"

	"shardproxy/pool"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// No server sees a deadlock whose locks lie on several. So each part of a transaction on
// several shards has a mark, by which every proxy knows what belongs together, and while such
// a transaction may wait for itself its proxy has it looked into. A victim is cancelled by the session that
// runs it, and by nobody else: see docs/design/deadlocks.md.

// Deadlocks looks for them; the program's cluster does, by twopc.Detector.
type Deadlocks interface {
	// After is how long a statement runs before it is a suspect.
	After() time.Duration
	// Hunt is told each tenth of a second which transactions are suspects, while there
	// are any. It must not wait.
	Hunt([]twopc.Suspect)
}

// takesPart is what makes a server connection a part of the transaction. It takes the
// lock of the mark, and bounds the waits for locks of a transaction on several shards, unless
// its user has: a shard that cannot be asked hides a deadlock. It is a text of its own, which
// can stand wherever the transaction is open already.
func takesPart(mark twopc.Mark) string {
	return "SELECT " + mark.Lock() + ", " + boundsWaits
}

// boundsWaits bounds the waits of a transaction for locks, where nobody has.
const boundsWaits = "CASE WHEN pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.=) '0'" +
	" THEN pg_catalog.set_config('lock_timeout', '30s', true) END"

// marks is that text behind another one; "" without a mark.
func marks(mark twopc.Mark) string {
	if mark == 0 {
		return ""
	}
	return "\n; " + takesPart(mark) // on a line of its own: a comment may end the other
}

// marksParts sees to it that the transaction, which comes to more shards, has a mark, and the
// lease takes part; with anew it is begun once more there, which does.
func (s *session) marksParts(anew bool) *wire.Error {
	m := s.spread
	switch {
	case m.mark != 0 && (!m.behind || len(m.branches) > 0):
		return nil
	case anew:
		m.mark, m.behind = twopc.NewMark(), false
		s.txMark.Store(uint32(m.mark))
		return nil
	}
	return s.markLease()
}

// markLease makes the lease, the only part of the transaction until now, one of several. It is
// the one round trip that this costs.
func (s *session) markLease() *wire.Error {
	m := s.spread
	m.mark, m.behind, m.markErr = twopc.NewMark(), len(s.savepoints) > 0, nil
	s.txMark.Store(uint32(m.mark))
	s.sendMark()
	e := s.awaitReplies()
	switch {
	case s.lease == nil:
		return wire.Fatal("08006", "the connection to a server of the transaction was lost").WithCause(e)
	case e == nil && s.tx == 'E':
		m.mark = 0
		return m.markErr
	}
	return e
}

// sendMark has the lease take the lock of the mark.
func (s *session) sendMark() {
	s.lease.SetOutput(wire.AppendQuery(s.lease.Output(), takesPart(s.spread.mark)))
	s.lease.Unnamed = 0
	s.owed.push(expect{kind: expectQuery, mode: swallow, purpose: forMark})
}

// againSQL is what a part runs behind a ROLLBACK TO, which may take its lock away.
func (m *spreadTx) againSQL() string {
	if !m.behind {
		return ""
	}
	return marks(m.mark)
}

// marksAgain has the lease do so, without waiting for it.
func (s *session) marksAgain() {
	if s.spread == nil || !s.spread.again {
		return
	}
	s.spread.again = false
	s.sendMark()
}

// suspected returns the session's transaction if it is one.
func (s *session) suspected() (twopc.Suspect, bool) {
	mark := s.txMark.Load()
	if mark == 0 || s.db.Deadlocks == nil {
		return twopc.Suspect{}, false
	}
	since := s.since.Load()
	if !s.expired(phaseActive, max(s.db.Deadlocks.After(), sweepInterval)) || s.since.Load() != since {
		return twopc.Suspect{}, false
	}
	return twopc.Suspect{Mark: twopc.Mark(mark), Since: since}, true
}

// suspects are those of each database, between two sweeps.
type suspects map[*Database][]twopc.Suspect

func (m *suspects) add(s *session) {
	if one, is := s.suspected(); is {
		if *m == nil {
			*m = suspects{}
		}
		(*m)[s.db] = append((*m)[s.db], one)
	}
}

func (m suspects) tell() {
	for db, all := range m {
		db.Deadlocks.Hunt(all)
	}
}

// EndDeadlock has the session cancel its statement that is the victim of a deadlock. It
// returns false when that statement runs no more. It does not wait.
func (srv *Server) EndDeadlock(db *Database, v twopc.Victim) (told bool) {
	srv.each(func(s *session) {
		if s.db == db && s.isVictim(&v) {
			s.doomed.Store(&v)
			s.signal(controlDeadlock)
			told = true
		}
	})
	return told
}

// isVictim reports whether the session still runs the statement that is the victim.
func (s *session) isVictim(v *twopc.Victim) bool {
	return s.txMark.Load() == uint32(v.Mark) && phase(s.phase.Load()) == phaseActive && s.since.Load() == v.Since
}

// victim is the session's statement when it is cancelled to end a deadlock.
type victim struct {
	twopc.Victim
	taken chan struct{} // closed when the server has taken the request; nil when others wait for that
	told  atomic.Bool   // the client is
}

// condemned reports whether what the session runs now is to be cancelled as the victim of
// a deadlock, and has that noted. It must run while the session's connections stay as they are.
func (s *session) condemned() bool {
	if !s.flag(controlDeadlock) {
		return s.victim.Load() != nil
	}
	v := s.doomed.Swap(nil)
	if v != nil && s.victim.Load() == nil && s.spread != nil && s.isVictim(v) && s.waitsAs(v) {
		s.victim.Store(&victim{Victim: *v})
	}
	return s.victim.Load() != nil
}

// waitsAs reports whether the process that is said to wait is the session's: any role can
// take the lock of a mark.
func (s *session) waitsAs(v *twopc.Victim) bool {
	for i, sh := range s.db.Shards {
		if sh.Name == v.Shard && (i == s.index || s.spread.branchOn(i) >= 0) {
			l, _ := s.partOn(i)
			return l != nil && l.PID == v.PID
		}
	}
	return false
}

// cancelVictim cancels what runs on the lease if it is to be.
func (s *session) cancelVictim() {
	if !s.condemned() || s.owed.empty() {
		return
	}
	v := s.victim.Load()
	if v.taken != nil {
		select {
		case <-v.taken: // and had no effect
		default:
			return
		}
	}
	taken := make(chan struct{})
	v.taken, s.cancelled = taken, true
	s.lease.Cancel(func() { close(taken) })
}

// deadlocked is what the client is told instead of a cancelled statement's error, nil when
// that is another one: that of its deadlock, that its session is ended, or that it has taken too long on several shards.
func (s *session) deadlocked(e *wire.Error) *wire.Error {
	v := s.victim.Load()
	switch {
	case e == nil || e.Code != "57014":
		return nil
	case v == nil && s.control.Load()&controlKill != 0:
		killed := *errTerminated()
		killed.Severity = "ERROR" // the connection to the server is not at its end; the session is, and says so
		return &killed
	case v == nil && s.overtime.Load():
		return errQueryTimeout()
	case v == nil:
		return nil
	}
	v.told.Store(true)
	return wire.Errorf("40P01", "deadlock detected").WithDetail("%s", v.Detail)
}

// ofVictim makes the error of a cancelled victim that of its deadlock.
func (s *session) ofVictim(a *pool.Answer, err error) error {
	var said *wire.Error
	if !errors.As(err, &said) {
		return err
	}
	e := s.deadlocked(said)
	if e == nil {
		return err
	}
	a.Error = e.Append(nil)[5:]
	return e
}

// endVictim ends what is noted of a victim, when its statement has ended. If that has failed
// all parts of the transaction fail, as they do on one server: what others wait for
// must not be kept until the client rolls back. lease is nil when that one surely has.
func (s *session) endVictim(lease *pool.Server) {
	if s.overtime.Load() {
		s.overtime.Store(false)
	}
	v := s.victim.Load()
	if v == nil {
		return
	}
	var parts []*pool.Server
	if s.spread != nil && s.tx == 'E' {
		for _, b := range s.spread.branches {
			parts = append(parts, b.lease)
		}
		if lease != nil && s.owed.empty() {
			parts = append(parts, lease)
		}
	}
	for _, l := range parts {
		s.task.release(l.Socket())
	}
	s.task.aside(func() {
		if v.taken != nil {
			<-v.taken // or it might hit what runs next
		}
		for _, l := range parts {
			_ = l.Exec(s.server.ctx, failing)
		}
	})
	if v.told.Load() {
		s.db.stats.deadlocks.Add(1)
	}
	s.victim.Store(nil)
}
