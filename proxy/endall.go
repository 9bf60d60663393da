package proxy

import (
	"context"
	"slices"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// forAll runs what concerns all shards of a transaction: it reports whether it dealt
// with the request.
// A cursor over several shards is no shard's own.
func (s *session) forAll(kind byte, size int, n *need) (done bool, err error) {
	if !s.spreads() || s.tx == 'I' || len(s.executes) == 0 {
		return false, nil
	}
	for _, p := range s.executes {
		if p.Single == nil && controlsTransaction(p) {
			return true, s.refuseHere(kind, size, errAlone())
		}
	}
	i := -1
	for j, p := range s.executes {
		if controlsTransaction(p) && !(n.pieces && s.names(p)) {
			i = j
		}
	}
	if i < 0 {
		return false, nil
	}
	p := s.executes[i]
	text, alone := s.onlyText(kind, size)
	if s.travels(p) && (kind == wire.MsgQuery || alone && len(s.executes) == 1) {
		return s.onBranches(kind, size, string(text))
	}
	if !alone || len(s.executes) > 1 {
		return true, s.refuseHere(kind, size, errAlone())
	}
	switch p.Single.Kind {
	case query.KindCommit, query.KindRollback:
		if p.Single.Chain && (s.pinned != "" || s.spread.tied) {
			return true, s.refuseHere(kind, size, wire.Errorf("0A000", "AND CHAIN cannot follow a transaction over several shards in a session that is tied to a server connection"))
		}
		return true, s.endAll(kind, p, tagOf(p.Single, text))
	case query.KindSavepoint, query.KindRelease:
		return s.onBranches(kind, size, string(text))
	case query.KindRollbackTo:
		done, err = s.onBranches(kind, size, string(text)+s.spread.againSQL())
		s.spread.again = !done && err == nil && s.spread.behind
		return done, err
	}
	if e := cannotPrepare(p); e != nil {
		return true, s.refuseHere(kind, size, e)
	}
	return true, s.refuseHere(kind, size, errAlone())
}

// controlsTransaction reports whether a command of the plan begins, ends or divides a
// transaction, changes settings, which all its shards must have, or makes what later
// commands find on its server connection only.
func controlsTransaction(p *router.Plan) bool {
	if staysOnServer(p) {
		return true
	}
	for i := range p.Statement.Commands {
		switch c := &p.Statement.Commands[i]; c.Kind {
		case query.KindCommit, query.KindRollback, query.KindSavepoint, query.KindRelease, query.KindRollbackTo,
			query.KindPrepareTx, query.KindSetTransaction, query.KindSet, query.KindReset, query.KindDiscard:
			return true
		default:
			if c.Effects&query.EffectSetting != 0 {
				return true
			}
		}
	}
	return false
}

// cannotPrepare is what a statement is told after which a part of the transaction could not be prepared, nil when it could.
func cannotPrepare(p *router.Plan) *wire.Error {
	switch {
	case p.Single != nil && p.Single.Kind == query.KindPrepareTx:
		return wire.Errorf("0A000", "this command cannot be run in a transaction over several shards: PREPARE TRANSACTION").
			WithHint("COMMIT prepares and commits it on all its shards. A transaction on the home shard alone can be prepared.")
	case p.Effects&(query.EffectTemp|query.EffectHoldCursor|query.EffectListen) != 0 && staysOnServer(p), calls(p, "pg_export_snapshot"):
		return wire.Errorf("0A000", "this command cannot be run in a transaction over several shards: what it makes cannot be prepared").
			WithDetail("Such a transaction is prepared when it commits; temporary tables, cursors WITH HOLD, LISTEN and exported snapshots cannot be.").
			WithHint("Run it outside of the transaction, or in one that stays on one shard.")
	}
	return nil
}

func errAlone() *wire.Error {
	return wire.Errorf("0A000", "this command cannot be run in a transaction over several shards, or not together with others").
		WithHint("COMMIT, ROLLBACK and the commands about savepoints are to be sent on their own; settings are to be changed before the transaction.")
}

// onlyText returns the text of a request that is one simple query, or runs one
// statement and nothing else, up to its Sync.
func (s *session) onlyText(kind byte, size int) ([]byte, bool) {
	b := s.client.Buffered()
	if kind == wire.MsgQuery {
		return trimNUL(b[5:size]), true
	}
	return s.oneAlone(b)
}

// onBranches runs a command on the parked connections of the transaction, ahead of the
// lease. In a failed transaction, which the lease alone knows of, they get what the lease
// will do, too. When one refuses it so must the lease: done is set then.
func (s *session) onBranches(kind byte, size int, sql string) (done bool, err error) {
	if s.tx == 'E' && !slices.ContainsFunc(s.executes, leavesFailed) {
		return false, nil
	}
	branches := slices.Clone(s.spread.branches)
	var refused error
	for i, err := range s.runOnAll(branches, wire.AppendQuery(nil, sql)) {
		switch {
		case isLost(err):
			return true, s.branchLost(branches[i], err)
		case refused == nil:
			refused = err
		}
	}
	if refused != nil {
		return true, s.refuseHere(kind, size, wire.AsError(refused))
	}
	return false, nil
}

// committed is the error of a part that was to commit in one phase. A block that has failed says no error, but
// that it has rolled back.
func committed(a pool.Answer, err error) error {
	if err == nil && a.Tag != "COMMIT" {
		return wire.Errorf("40000", "the transaction had failed on one of its shards and was rolled back")
	}
	return err
}

// notCommitted is what the client is told of an error before anything was committed: a
// connection that is lost has no words of its own.
func (s *session) notCommitted(b branch, err error) error {
	if !isLost(err) {
		return err
	}
	return wire.Errorf("08006", "the connection to a server of the transaction was lost before it could commit").
		WithDetail("Shard %s, node %s.", s.db.Shards[b.index].Name, b.lease.Address()).
		WithHint("The transaction was rolled back; begin it again.").WithCause(err)
}

// branchLost ends a transaction of which a part is lost.
func (s *session) branchLost(b branch, cause error) error {
	s.db.Shards[b.index].lost(b.lease.Node, cause)
	for i := range s.spread.branches {
		if s.spread.branches[i].lease == b.lease {
			s.spread.branches = append(s.spread.branches[:i], s.spread.branches[i+1:]...)
			b.lease.Release(pool.Dead)
			break
		}
	}
	// The lease is whole; its transaction goes with the others.
	return wire.Fatal("08006", "the connection to a server of the transaction was lost").
		WithDetail("Shard %s, node %s.", s.db.Shards[b.index].Name, b.lease.Address()).WithCause(cause)
}

// endAll ends a transaction on all its shards and answers the request that does.
func (s *session) endAll(kind byte, p *router.Plan, tag string) error {
	commits := p.Single.Kind == query.KindCommit && s.tx == 'T'
	if !commits {
		tag = "ROLLBACK"
	}
	s.db.stats.statements.Add(1)
	s.noteAsk(p, scopeSeveral)
	s.tallyBegins(p, s.enlistedShards())
	s.setPhase(phaseActive)
	if e := s.prepareAlone(p); e != nil {
		return e
	}
	begin, level := s.spread.begin, s.spread.isolation
	err := s.finish(commits)
	s.forgetPlans()
	if err == nil {
		if p.Single.Chain {
			s.chain(begin, level)
		}
		s.answerFrames(tag, false)
		return nil
	}
	e := wire.AsError(err)
	if e.IsFatal() {
		return e
	}
	s.tellsError(e)
	s.scriptFails()
	s.client.SetOutput(e.Append(s.client.Output()))
	s.steps++
	if kind == wire.MsgQuery {
		s.drop(frameSize(s.client.Buffered()))
		s.answerReady()
		return nil
	}
	s.skipping = true
	return nil
}

// chain begins another transaction behind one that has ended on its shards: no server knows of it yet.
func (s *session) chain(begin, level string) {
	fate := pool.Clean
	if s.suspect != 0 {
		fate = pool.Dirty
	}
	if s.lease != nil {
		s.giveBack(fate)
	}
	s.suspect, s.acted = 0, false
	s.tx, s.begun = 'T', &begunTx{text: begin, primary: true, isolation: level}
}

// finish commits, or rolls back, on all shards of the transaction. Behind it the
// session has no transaction; its lease is idle.
func (s *session) finish(commits bool) error {
	if err := s.backHome(); err != nil {
		return err
	}
	all := append([]branch{{index: s.index, lease: s.lease, base: s.leaseBase, wrote: s.spread.wrote}}, s.spread.branches...)
	results := make([]error, len(all))
	s.task.release(s.lease.Socket())
	var failed error
	if commits {
		failed = s.commitAll(all, results)
	} else {
		s.rollBackOn(all, results)
	}
	return s.settleBranches(all, results, commits && failed == nil, failed)
}

// commitAll commits the parts that only read first: one that fails must take the
// others with it.
func (s *session) commitAll(all []branch, results []error) (failed error) {
	var readers, writers []int
	for i, b := range all {
		if b.wrote {
			writers = append(writers, i)
		} else {
			readers = append(readers, i)
		}
	}
	if at := slices.IndexFunc(writers, func(w int) bool { return s.spread.notified && all[w].index == s.spread.notifier }); at > 0 {
		// It decides, for what notifies cannot be prepared.
		writers[0], writers[at] = writers[at], writers[0]
	}
	s.commitOn(all, readers, results)
	for i, err := range results {
		if failed == nil {
			failed = s.notCommitted(all[i], err)
		}
	}
	if failed == nil && len(writers) > 0 {
		results[writers[0]] = s.sendNews(all[writers[0]])
		failed = s.notCommitted(all[writers[0]], results[writers[0]])
	}
	switch {
	case failed != nil:
	case len(writers) == 1:
		s.commitOn(all, writers, results)
		if failed = results[writers[0]]; isLost(failed) {
			failed = wire.Errorf("08007", "the connection to the server was lost while the transaction was committed").
				WithDetail("Shard %s. It may have been committed or not.", s.db.Shards[all[writers[0]].index].Name).WithCause(failed)
		}
	case len(writers) > 1:
		failed = s.commitTwoPhase(all, writers, results)
	}
	if failed != nil {
		s.rollBackOn(all, results)
	}
	return failed
}

// commitOn commits some parts in one phase each. Nothing cancels that.
func (s *session) commitOn(all []branch, which []int, results []error) {
	if len(which) == 0 {
		return
	}
	on, frames := make([]*pool.Server, len(which)), make([][]byte, len(which))
	for i, n := range which {
		on[i], frames[i] = all[n].lease, wire.AppendQuery(nil, "COMMIT")
	}
	answers, errs := s.runTogether(s.server.ctx, on, frames, pool.RunOptions{Cancelled: s.hearsCancel})
	for i, n := range which {
		results[n] = committed(answers[i], errs[i])
	}
}

// hearsCancel tells who has sent a cancel request that it is dealt with: a commit goes on.
func (s *session) hearsCancel() bool {
	if s.flag(controlCancel) {
		s.cancels.take()()
	}
	return false
}

// commitTwoPhase commits the parts that have written, of which the first decides.
func (s *session) commitTwoPhase(all []branch, writers []int, results []error) error {
	on := make([]*pool.Server, len(writers))
	parts := CommitParts{Shards: make([]string, len(writers))}
	for i, w := range writers {
		on[i], parts.Shards[i] = all[w].lease, s.db.Shards[all[w].index].Name
	}
	parts.Run = func(ctx context.Context, sql []string) []error {
		frames := make([][]byte, len(on))
		for i, text := range sql {
			if text != "" && results[writers[i]] == nil {
				frames[i] = wire.AppendQuery(nil, text)
			}
		}
		_, errs := s.runTogether(ctx, on, frames, pool.RunOptions{Cancelled: s.hearsCancel})
		for i, err := range errs {
			if lost := &results[writers[i]]; *lost == nil && isLost(err) {
				*lost = err
			}
			if sql[i] != "" && frames[i] == nil {
				errs[i] = results[writers[i]]
			}
		}
		return errs
	}
	left, err := s.db.TwoPhase.Commit(s.server.ctx, parts)
	s.warnLeft(left)
	return err
}

// warnLeft tells the client of shards that could not be told that the transaction is committed.
func (s *session) warnLeft(shards []string) {
	if len(shards) == 0 {
		return
	}
	w := &wire.Error{Severity: "WARNING", Code: "01000", Message: "the transaction is committed, and not yet seen on every shard",
		Detail: "Shards that could not be told: " + strings.Join(shards, ", ") + ".", Hint: "They will have it as soon as they can be reached; its rows there are locked until then."}
	s.client.SetOutput(w.AppendNotice(s.client.Output()))
}

// sendNews has the commit of a transaction's first part tell other proxies of changed
// definitions. PostgreSQL does not prepare what notifies: only a part that commits in one
// phase can, and only the home shard is listened to. For others see spreadDDL.
func (s *session) sendNews(b branch) error {
	if !s.catalogChanged || b.index != 0 || s.db.News == nil {
		return nil
	}
	news := s.db.News()
	if news == "" {
		return nil
	}
	if _, errs := s.runTogether(s.server.ctx, []*pool.Server{b.lease}, [][]byte{wire.AppendQuery(nil, news)}, pool.RunOptions{}); errs[0] != nil {
		return errs[0]
	}
	s.newsSent = true
	return nil
}

// rollBackOn ends the transaction on the connections that are not lost; on one that has
// none any more it does no harm.
func (s *session) rollBackOn(all []branch, results []error) {
	on, frames := make([]*pool.Server, len(all)), make([][]byte, len(all))
	for i, b := range all {
		if on[i] = b.lease; !isLost(results[i]) {
			frames[i] = wire.AppendQuery(nil, "ROLLBACK")
		}
	}
	answers, errs := s.runTogether(s.server.ctx, on, frames, pool.RunOptions{})
	for i := range all {
		if frames[i] != nil {
			results[i] = errs[i]
		}
		s.takenBack = append(s.takenBack, answers[i].Reported...)
	}
}

// settleBranches gives the parked connections back and makes the session one without
// a transaction.
func (s *session) settleBranches(all []branch, results []error, committed bool, failed error) error {
	s.spread = nil
	var lost error
	for i, b := range all {
		sh := s.db.Shards[b.index]
		if !committed {
			b.lease.Settings = b.base
		}
		if b.wrote && (committed || isLost(results[i])) {
			s.markOn(b.index, sh.Nodes.Mark())
		}
		switch {
		case isLost(results[i]):
			sh.lost(b.lease.Node, results[i])
			if i == 0 {
				lost = results[i]
			} else {
				b.lease.Release(pool.Dead)
			}
		case i == 0:
		case s.suspect != 0:
			b.lease.Release(pool.Dirty)
		default:
			b.lease.Release(pool.Clean)
		}
	}
	s.wrote, s.failed = false, false
	if !committed {
		s.rolledBack()
	}
	s.transaction('I')
	if lost != nil {
		s.giveBack(pool.Dead)
	}
	return failed
}

// markOn notes the session's last commit on a shard.
func (s *session) markOn(index int, mark uint64) {
	if index == s.index {
		s.mark = mark
		return
	}
	s.places[index].mark = mark
}
