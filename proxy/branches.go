package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// A transaction runs on the shards that its statements need: it begins on each with
// the first statement there. One of its server connections is the lease; the others
// are parked meanwhile. Commands that are for all of them run on the parked ones
// first, which the session waits for, and then on the lease.

// spreadTx is a transaction that may run on several shards.
type spreadTx struct {
	begin    string // what began it
	branches []branch
	// parts are the nodes that it is read on, if these may be replicas.
	parts *replicaParts
	// mark says to whom its parts belong, 0 while there is but one; behind is set when
	// the lock of it may go with a savepoint, again when the lease takes it once more.
	mark          twopc.Mark
	behind, again bool
	markErr       *wire.Error // why it could not be taken
	// wrote is set when something that may write ran on the lease; only keeps it from
	// other shards.
	wrote bool
	// only says why it cannot go on to another shard; "" when it can.
	only string
	// locals are the SET LOCAL that every shard gets; travelling is the plan of the last.
	locals     []string
	travelling *router.Plan
	// crossShard is what SET LOCAL says of queries over several shards, "" for nothing; snapshots
	// what it says of what they see.
	crossShard, snapshots string
	// partial is what it says of answers that lack shards.
	partial string
	// isolation is the isolation level, "" while it is not known.
	isolation string
	began     time.Time
	// owners are those when it began; hidden is what Context.HiddenSlots was at most.
	owners *router.Owners
	hidden int
	// notified is set when it has sent notifications, on the shard notifier.
	notified bool
	notifier int
	// portals are where the portals are that were bound in it, and the cursors that were declared on one shard.
	portals map[string]int
	// levels are the numbers of savepoints that were open when they were.
	levels map[string]int
	// tied is set when the session stays tied to its connection to the shard home.
	tied bool
	home int
	// newViews names the views that it has made, which nobody else knows of.
	newViews string
	// moment is the time at which it began, once it was asked for.
	moment string
	// opened counts the queries that were opened in it; unclosed are the portals on each shard that are
	// still to be closed.
	opened   int
	unclosed map[int][]string
	// noUnnamed is set when the client has no unnamed portal, whatever the servers have.
	noUnnamed bool
}

// branch is a part of a transaction whose connection is parked.
type branch struct {
	index int // of the shard
	lease *pool.Server
	base  *pool.Settings // what it has set when the transaction rolls back
	wrote bool
	// owed are the answers to its BEGIN that were not read yet: see beginOnAll.
	owed expects
}

// TwoPhase commits over several shards; the program's cluster does, by twopc.Commit.
type TwoPhase interface {
	// Commit commits open transactions that have written; the first decides. The
	// error is a *wire.Error: 08007 when what came of it is not known, any other when
	// nothing was committed: the caller rolls back what is still open. left are the shards
	// of parts that are committed by the decision and could not be told so.
	Commit(ctx context.Context, parts CommitParts) (left []string, err error)
}

// CommitParts are the parts of a transaction.
type CommitParts struct {
	// Shards are theirs.
	Shards []string
	// Run runs statements on them, all at once: see twopc.Options.
	Run func(ctx context.Context, sql []string) []error
}

// newSpread is a transaction that begins now.
func (s *session) newSpread(begin, isolation string) *spreadTx {
	owners := s.db.Owners()
	return &spreadTx{begin: begin, isolation: isolation, began: time.Now(), owners: owners, hidden: owners.HiddenSlots()}
}

// notesSpread notes what a statement does to a transaction that may spread.
func (s *session) notesSpread(p *router.Plan) {
	m := s.spread
	if m == nil {
		return
	}
	m.wrote = m.wrote || p == nil || p.MayWrite
	if p != nil && notifies(p) {
		m.wrote, m.notified, m.notifier = true, true, s.index
	}
	switch {
	case p == nil || p.Effects&query.EffectUnknown != 0:
		m.only = "something ran in it whose effects are not known"
	case p.Single != nil && p.Single.Kind == query.KindSetTransaction:
		if m.travelling != p {
			m.only = "it has SET TRANSACTION"
		}
		m.travelling = nil
	case p.Effects&query.EffectSetting != 0 && setsLocally(p):
		if m.travelling != p {
			m.only = "it has SET LOCAL"
		}
		m.travelling = nil
	case staysOnServer(p):
		m.only = "it has made what belongs to one server connection"
	}
}

// spreadEnds notes that the transaction has ended on the lease, its only shard. Another one
// that begins in the same request stays there; a chained one has its modes only.
func (s *session) spreadEnds(c *query.Command) {
	m := s.spread
	if m == nil || len(m.branches) > 0 || m.tied {
		return
	}
	s.txMark.Store(0)
	if s.spread = nil; c.Chain {
		s.spread = s.newSpread(m.begin, m.isolation)
		s.spread.only = m.only
	}
}

// staysOnServer reports whether the plan makes what only its server connection has.
func staysOnServer(p *router.Plan) bool {
	effects := p.Effects & auditEffects
	if p.Effects&query.EffectCatalog != 0 {
		effects &^= query.EffectTemp // dropped, not made
	}
	return effects != 0 || calls(p, "pg_export_snapshot") // which PREPARE TRANSACTION refuses
}

// notifies reports whether the plan sends notifications, which are to go out if all shards commit.
func notifies(p *router.Plan) bool {
	return calls(p, "pg_notify") || p.Statement != nil && slices.ContainsFunc(p.Statement.Commands, func(c query.Command) bool { return c.Kind == query.KindNotify })
}

// calls reports whether the plan's text calls a function of PostgreSQL's own.
func calls(p *router.Plan, function string) bool {
	return p.Statement != nil && slices.ContainsFunc(p.Statement.Commands, func(c query.Command) bool {
		return slices.ContainsFunc(c.Functions, func(f query.Name) bool { return f.Name == function })
	})
}

func setsLocally(p *router.Plan) bool {
	for i := range p.Statement.Commands {
		if slices.ContainsFunc(p.Statement.Commands[i].Settings, func(set query.Setting) bool { return set.Local }) {
			return true
		}
	}
	return false
}

// extend takes the transaction to another shard, or back to one where it was. The
// error is what the statement is told; the transaction goes on where it is.
func (s *session) extend(shard int) *wire.Error {
	if e := s.mayExtend(shard); e != nil {
		return e
	}
	at := s.spread.branchOn(shard)
	if at < 0 {
		return s.join([]int{shard})
	}
	s.swap(at)
	return nil
}

// swap makes a parked connection the lease, in whose place the lease is parked.
func (s *session) swap(at int) {
	to := s.spread.branches[at]
	s.spread.branches[at] = s.parkLease()
	s.unpark(to)
}

// mayExtend reports why the transaction cannot come to a shard.
func (s *session) mayExtend(shard int) *wire.Error {
	m := s.spread
	if s.tx != 'T' || m == nil || s.pinned != "" && !m.tied {
		return s.tiedTo(shard)
	}
	for _, sp := range s.savepoints {
		if sp.settings != s.settings {
			m.only = "settings were changed behind a savepoint"
		}
	}
	if m.branchOn(shard) < 0 && m.only != "" {
		return s.tiedTo(shard).WithHint("The transaction cannot go on to another shard: %s.", m.only)
	}
	return nil
}

// beginOn begins the transaction on a shard where it is not, and makes the connection to it the
// lease.
func (s *session) beginOn(shard int) *wire.Error {
	m := s.spread
	from := s.parkLease()
	s.begun = &begunTx{text: m.begin, mark: m.mark, then: m.localsSQL() + s.savepointsSQL(), primary: true}
	s.begun.reads(m.parts)
	if err := s.acquire(need{shard: shard, primary: m.parts == nil}); err != nil {
		s.begun = nil
		s.unpark(from)
		s.fresh = false
		e := wire.AsError(err)
		if err == errEnded || e.IsFatal() {
			e = wire.Fatal("57P01", "%s", e.Message)
		}
		return e
	}
	s.spread = m // enlist made one of its own
	m.branches, m.wrote = append(m.branches, from), false
	return nil
}

// beginSQL begins the transaction on a shard as it is on the others, but for what ran there.
func (s *session) beginSQL() string {
	m := s.spread
	return m.begin + marks(m.mark) + m.localsSQL() + s.savepointsSQL()
}

// localsSQL sets what SET LOCAL has set on a shard that the transaction comes to.
func (m *spreadTx) localsSQL() string {
	var b strings.Builder
	for _, sql := range m.locals {
		b.WriteString("; " + sql)
	}
	return b.String()
}

// savepointsSQL makes the savepoints that are open on a shard that the transaction
// comes to.
func (s *session) savepointsSQL() string {
	var b strings.Builder
	for _, sp := range s.savepoints {
		b.WriteString(`; SAVEPOINT "` + strings.ReplaceAll(sp.name, `"`, `""`) + `"`)
	}
	return b.String()
}

// parkLease takes the lease from the session, which keeps it as a branch.
func (s *session) parkLease() branch {
	b := branch{index: s.index, lease: s.lease, base: s.leaseBase, wrote: s.spread != nil && s.spread.wrote}
	if !s.owed.empty() {
		b.owed, s.owed, s.enlisting = s.owed, expects{}, false
	}
	s.task.release(s.lease.Socket())
	s.lease, s.fresh = nil, false
	s.leased.Store(nil)
	return b
}

// unpark makes a parked connection the lease.
func (s *session) unpark(b branch) {
	s.moveTo(b.index)
	s.lease, s.leaseBase, s.spread.wrote = b.lease, b.base, b.wrote
	if !b.owed.empty() {
		s.owed, s.enlisting = b.owed, true
	}
	s.leased.Store(b.lease)
	if p := s.spread.parts; p != nil {
		_, s.replica = p.on[b.index]
	}
	s.task.adopt(b.lease.Socket())
	s.setPhase(phaseActive)
	s.fresh, s.located = true, true
	s.steps++
}

// dropBranches gives up the parked parts of a transaction, which roll back.
func (s *session) dropBranches() {
	s.closesAll()
	if s.spread == nil {
		return
	}
	for i := range s.spread.branches {
		b := &s.spread.branches[i]
		if b.owed.empty() {
			b.lease.Release(pool.Dirty)
		} else {
			b.lease.Release(pool.Dead)
		}
	}
	s.spread = nil
	s.txMark.Store(0)
}

// partOn returns the connection of the transaction to one of its shards, and the flag
// that it has written there.
func (s *session) partOn(shard int) (l *pool.Server, wrote *bool) {
	if shard == s.index {
		return s.lease, &s.spread.wrote
	}
	b := &s.spread.branches[s.spread.branchOn(shard)]
	return b.lease, &b.wrote
}

// shardAt returns the shard of one of the transaction's connections.
func (s *session) shardAt(l *pool.Server) int {
	if l != s.lease && s.spread != nil {
		for i := range s.spread.branches {
			if s.spread.branches[i].lease == l {
				return s.spread.branches[i].index
			}
		}
	}
	return s.index
}

// branchOn returns the place of a shard's parked branch, -1 when there is none.
func (m *spreadTx) branchOn(shard int) int {
	return slices.IndexFunc(m.branches, func(b branch) bool { return b.index == shard })
}

// spreads reports whether the transaction runs on several shards.
func (s *session) spreads() bool { return s.spread != nil && len(s.spread.branches) > 0 }

// runOn runs a request of ours on a parked connection, or on the lease when nothing is
// owed to it. It blocks the session, not its loop.
func (s *session) runOn(l *pool.Server, frames []byte, keep int) (pool.Answer, error) {
	answers, errs := s.runTogether(s.server.ctx, []*pool.Server{l}, [][]byte{frames}, pool.RunOptions{Keep: keep, Cancelled: s.cancelWanted})
	return answers[0], s.ofVictim(&answers[0], errs[0])
}

// runOnAll is runOn for several parked connections at once. The errors are theirs, in order.
func (s *session) runOnAll(branches []branch, frames []byte) []error {
	on := make([]*pool.Server, len(branches))
	for i := range branches {
		on[i] = branches[i].lease
	}
	return s.runAlike(on, frames)
}

// cancelWanted reports whether what runs shall be cancelled.
func (s *session) cancelWanted() bool {
	if s.control.Load()&controlDeadlock != 0 && s.condemned() {
		return true
	}
	overdue := s.overdue()
	wanted := s.control.Load()&(controlCancel|controlKill) != 0
	s.overtime.Store(overdue && !wanted)
	if !wanted && !overdue {
		return false
	}
	if s.flag(controlCancel) {
		s.cancels.take()()
	}
	return true
}

// overdue reports whether the statement has run for longer than it may.
func (s *session) overdue() bool { return s.expired(phaseActive, s.timeouts.Query) }

// isLost reports whether a connection is of no use after an error of runOn.
func isLost(err error) bool {
	var we *wire.Error
	return err != nil && !errors.Is(err, pool.ErrAnswerTooLarge) && (!errors.As(err, &we) || we.IsFatal())
}
