package proxy

import (
	"errors"
	"strings"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// What all shards must have alike (rows of reference tables, definitions) is run on
// each of them, on the home shard first: writers of the same rows then meet there, and
// not in a circle. An INSERT whose rows belong to several shards is cut into one for
// each. Both are one transaction: the client's, or one of its own.

// answerMax bounds the answer of what runs on all shards, in bytes.
const answerMax = 16 << 20

// runAll runs the request, which is one statement alone, on several shards and answers it.
func (s *session) runAll(kind byte, size int) error {
	if kind == wire.MsgQuery && len(s.segment) == 1 && s.segment[0].CopyIn != nil {
		if e := s.permitSeveral(); e != nil {
			s.refuse(kind, size, e)
			return nil
		}
		return s.runCopyIn(size)
	}
	s.closes("") // the unnamed portal is another's now
	defer s.usedUnnamed()
	req, e := s.allRequest(kind, size)
	own := s.tx == 'I'
	if e == nil && own && req.plan != nil && req.plan.Single != nil && req.plan.Single.Locks {
		e = errNoBlock("LOCK TABLE")
	}
	if e == nil && len(req.shards) != 1 {
		e = s.permitSeveral()
	}
	if e == nil && own && s.pinned == "" && req.plan != nil && req.plan.Each {
		return s.runEach(kind, size, &req)
	}
	tied := s.staysTied()
	if e == nil && s.hasTemp {
		// A temporary table may hide one of the statement's, on one shard and not on the others.
		e = s.tiedTo(0)
	}
	if e == nil && tied && (!own || s.lease == nil || s.index != 0 || !s.owed.empty()) {
		e = s.tiedTo(0)
	}
	if e == nil && own && req.plan != nil && req.plan.Journalled {
		return s.runJournalled(kind, size, &req)
	}
	if e == nil && tied {
		return s.runTied(kind, size, &req)
	}
	if e == nil && own && len(req.shards) == 1 && req.move == nil && req.scatter == nil && req.limit == 0 {
		return s.runAlone(kind, size, &req)
	}
	if e == nil && own && req.scatter != nil {
		var end func()
		if end, e = s.awaitTurn(); e == nil {
			defer end()
		}
	}
	if e == nil && s.tx != 'E' {
		if req.scatter != nil {
			e = s.enlistScatter(req.scatter, own, req.enlisted())
		} else {
			req.atOnce = own && req.mayRunAtOnce()
			e = s.enlistFor(&req, own)
		}
	}
	if e != nil {
		return s.refuseWhole(kind, size, e)
	}
	if req.scatter != nil && s.tx != 'E' {
		return s.runScatter(&req, own, func(e *wire.Error) (*wire.Error, error) { return s.endSpread(own, e) })
	}
	s.db.stats.statements.Add(1)
	s.noteAsk(req.plan, scopeSeveral)
	s.tallyBegins(req.plan, req.enlisted())
	s.setPhase(phaseActive)
	answer, e := s.runHere(&req)
	if e == nil {
		s.noteAll(req.plan)
	}
	s.notesDrawing(req.plan)
	if own && e != nil && e.Code == "25001" && req.plan != nil && req.plan.Single != nil && req.plan.Single.Kind == query.KindDDL {
		// The block is not the client's.
		answer, e = pool.Answer{}, router.InNoTransaction()
	}
	if unfit := s.unfit(answer.Frames, req.limit); e == nil && unfit != nil {
		if answer, e = (pool.Answer{}), unfit; !own {
			if err := s.failHere(); err != nil {
				return err
			}
		}
	}
	e, err := s.endSpread(own, e)
	if err == nil && req.atOnce && e != nil && e.Code == "55P03" {
		// The parts were there, and the commit would have waited.
		if answer, e = s.inTurn(&req); e == nil {
			s.noteAll(req.plan)
		}
		e, err = s.endSpread(own, e)
	}
	if err != nil {
		return err
	}
	s.forgetPlans()
	return s.answerAll(kind, req, answer, e)
}

// refuseWhole refuses a request before anything of it ran, with a lease or without.
func (s *session) refuseWhole(kind byte, size int, e *wire.Error) error {
	switch {
	case s.lease != nil:
		return s.refuseHere(kind, size, e)
	case e.IsFatal():
		return e
	}
	s.refuse(kind, size, e)
	return nil
}

// endSpread ends the transaction of a statement on several shards that is its own, or
// fails the client's when the statement has. It returns what the client is told, and an
// error that ends the session.
func (s *session) endSpread(own bool, e *wire.Error) (*wire.Error, error) {
	switch {
	case own && e != nil && s.spread == nil:
		// It could not be begun once more.
	case own && e == nil:
		if err := s.finish(true); err != nil {
			return wire.AsError(err), nil
		}
	case own:
		return e, s.finish(false)
	case e != nil:
		s.tx, s.failed = 'E', true
	}
	return e, nil
}

// enlistAll makes shards a part of the transaction, and the connection to the first of
// them the lease; own begins one, which only reads with reads.
func (s *session) enlistAll(own, reads bool, shards []int) *wire.Error {
	if reads {
		return s.enlistAt(own, readCommitted, shards) // one statement, one snapshot
	}
	return s.enlistAt(own, "", shards)
}

// enlistFor is enlistAll for the shards of a request that writes.
func (s *session) enlistFor(r *allRequest, own bool) *wire.Error {
	then := ""
	if r.atOnce {
		then = atOnceWait
	}
	return s.enlistWith(enlisting{own: own, then: then}, r.enlisted())
}

// enlistAt is enlistAll at an isolation level, "" for that of the session.
func (s *session) enlistAt(own bool, level string, shards []int) *wire.Error {
	return s.enlistWith(enlisting{own: own, level: level}, shards)
}

// enlisting says how a transaction comes to shards. One's own begins at an isolation level, "" for that of the session, with
// what then sets; its parts may be read on replicas.
type enlisting struct {
	own         bool
	level, then string
	parts       *replicaParts
}

// enlistWith is enlistAt with all that may be said.
func (s *session) enlistWith(o enlisting, shards []int) *wire.Error {
	defer func() { s.fresh = false }() // what is refused here was what the lease was taken for; the next request is looked at
	own, level := o.own, o.level
	if own && s.serializable && len(shards) > 1 {
		return errSerializable()
	}
	if own {
		s.begun, s.tx = &begunTx{text: "BEGIN", primary: true}, 'T'
		s.begun.reads(o.parts)
		if s.begun.isolation = s.isolation; level != "" {
			s.begun.text, s.begun.isolation = "BEGIN ISOLATION LEVEL "+strings.ToUpper(level), level
		}
		s.begun.text += o.then
	}
	if s.begun != nil && len(shards) > 1 {
		s.begun.mark = twopc.NewMark()
	}
	if s.lease == nil {
		if err := s.acquire(need{shard: shards[0], primary: o.parts == nil}); err != nil {
			return s.endOwnTx(own, wire.AsError(err))
		}
	}
	if own && level != "" && len(shards) > 1 {
		if e := s.mayBeOne(); e != nil {
			return s.endOwnTx(own, e)
		}
	}
	if e := s.extendAll(shards); e != nil {
		return s.endOwnTx(own, e)
	}
	if s.index != shards[0] {
		if e := s.extend(shards[0]); e != nil {
			return s.endOwnTx(own, e)
		}
	}
	return nil
}

// extendAll makes shards a part of the open transaction.
func (s *session) extendAll(shards []int) *wire.Error {
	var fresh []int
	for _, i := range shards {
		if i != s.index && s.spread.branchOn(i) < 0 {
			fresh = append(fresh, i)
		}
	}
	if len(fresh) == 0 {
		return s.awaitReplies()
	}
	if e := s.mayExtend(fresh[0]); e != nil {
		return e
	}
	if e := s.join(fresh); e != nil {
		return e
	}
	return s.awaitReplies()
}

// endOwnTx takes back a transaction that only the session knows of.
func (s *session) endOwnTx(own bool, e *wire.Error) *wire.Error {
	if !own || e.IsFatal() {
		return e
	}
	s.begun = nil
	if s.lease != nil && s.tx == 'T' {
		if lost := s.awaitReplies(); lost != nil && lost.IsFatal() {
			return lost
		}
		if err := s.finish(false); err != nil {
			return wire.AsError(err)
		}
	}
	s.tx, s.lost, s.lostErr = 'I', false, nil
	return e
}

// errLost is the cause when a connection is lost on which a transaction was to begin.
var errLost = errors.New("the connection was lost")

func (s *session) lostOn(shard int) *wire.Error {
	return wire.Errorf("08006", "the connection to a server was lost").WithDetail("Shard %s.", s.db.Shards[shard].Name).
		WithCause(&twopc.Unreached{Shard: shard, Err: errLost})
}

// awaitReplies waits until nothing is owed to the lease.
func (s *session) awaitReplies() *wire.Error {
	var cancelled *wire.Error // what is under way ends first
	at := s.index
	for s.lease != nil && !s.owed.empty() {
		before := s.steps
		err := s.pumpServer()
		if err == nil {
			err = s.flush()
		}
		if err == nil && s.lease != nil && s.lease.Abandoned() {
			err = s.serverLost(errNodeDown)
		}
		if err == nil && s.lease != nil && !s.owed.empty() && s.steps == before {
			if err = s.obeyWaiting(); err != nil && !wire.AsError(err).IsFatal() {
				cancelled, err = wire.AsError(err), nil
			}
			if err == nil {
				err = s.park()
			}
		}
		if err != nil {
			return wire.Fatal("08006", "the transaction could not be begun on every shard").WithCause(err)
		}
	}
	if s.lease == nil {
		return s.lostOn(at)
	}
	s.fresh = false
	return cancelled
}

// onAll runs the request on its shards, one after the other, on the lease first, and
// returns the answer.
func (s *session) onAll(r *allRequest) (pool.Answer, *wire.Error) {
	if e := s.readies(r); e != nil {
		return pool.Answer{}, e
	}
	answers := make([]pool.Answer, len(r.shards))
	for i, shard := range r.shards {
		at := s.spread.branchOn(shard)
		l, wrote := s.partOn(shard)
		*wrote = true
		frames, keep := r.frames, answerMax
		if r.parts != nil {
			frames = r.parts[i]
		} else if i > 0 {
			keep = 0
		}
		a, err := s.runPart(r, shard, l, frames, keep)
		if answers[i] = a; err == nil && r.parts == nil && a.Tag != answers[0].Tag {
			err = wire.Errorf("55000", "shards gave different results: %s on %s, %s on %s", answers[0].Tag, s.db.Shards[r.shards[0]].Name,
				a.Tag, s.db.Shards[shard].Name).WithHint("The copies of the table differ.")
		}
		if err != nil {
			if at >= 0 && !isLost(err) && s.tx == 'T' {
				// The client's next statement is to fail, as this one did.
				s.swap(at)
				s.fresh = false
			}
			return a, s.allFailed(l, a, err)
		}
	}
	if r.parts == nil {
		return answers[0], nil
	}
	if r.move != nil {
		if e := r.move.hear(answers); e != nil {
			return pool.Answer{}, s.allFailed(s.lease, pool.Answer{}, e)
		}
	}
	a, e := r.join(answers)
	if e != nil {
		return a, s.allFailed(s.lease, a, e)
	}
	if r.move != nil {
		return s.moveRows(r, a)
	}
	return a, nil
}

// runPart runs what one shard gets.
func (s *session) runPart(r *allRequest, shard int, l *pool.Server, frames []byte, keep int) (pool.Answer, error) {
	if r.move == nil {
		return s.runOn(l, frames, keep)
	}
	locked := -1
	if r.move.locks != nil {
		var a pool.Answer
		var err error
		if locked, a, err = s.lockRows(r.move, shard, l); err != nil {
			return a, err
		}
	}
	a, err := s.runOn(l, frames, keep)
	if err != nil {
		a.Frames, _, _ = withoutLast(a.Frames, r.move.extended) // the client knows nothing of that column
		return a, err
	}
	if _, n, ok := a.Count(); locked >= 0 && (!ok || n != locked) {
		return pool.Answer{}, wire.Errorf("40001", "rows that get another key were changed at the same time").WithHint("Try again.")
	}
	return a, nil
}

// readies gives what is to run the time of the transaction.
func (s *session) readies(r *allRequest) *wire.Error {
	s.client.Release()
	s.held = false
	if r.moment {
		frames := append(r.parts[:len(r.parts):len(r.parts)], r.frames)
		if r.move != nil {
			frames = append(frames, r.move.locks)
		}
		return s.putMoment(frames)
	}
	return nil
}

// allFailed turns the failure on one shard into what the client is told.
func (s *session) allFailed(l *pool.Server, a pool.Answer, err error) *wire.Error {
	if isLost(err) {
		shard := s.db.Shards[s.shardAt(l)]
		shard.lost(l.Node, err)
		return wire.Fatal("08006", "the connection to a server was lost").WithDetail("Shard %s, node %s.", shard.Name, l.Address()).WithCause(err)
	}
	e := wire.AsError(err)
	if err == pool.ErrAnswerTooLarge {
		e = wire.Errorf("54000", "the answer of what runs on all shards is larger than %d bytes", answerMax)
	}
	if a.Error == nil && s.tx == 'T' {
		_ = s.failLease()
	}
	return e
}

// failLease makes the transaction fail on the lease, where the client's next statement runs. The error
// says that the connection is lost, which that one finds out else.
func (s *session) failLease() error {
	_, err := s.runOn(s.lease, wire.AppendQuery(nil, failing), 0)
	if isLost(err) {
		return err
	}
	return nil
}

// failing fails, and the transaction with it.
const failing = "EXECUTE " + noStatement

// noteAll notes what the statement did.
func (s *session) noteAll(p *router.Plan) {
	s.notesSequences(p)
	if p == nil {
		return
	}
	if p.Effects&(query.EffectCatalog|query.EffectUnknown) != 0 {
		s.catalogChanged, s.catalogMade = true, true
	}
	s.suspect |= p.Effects & auditEffects
	s.acted = true
	s.spread.newViews = router.AddViews(s.spread.newViews, p.NewViews)
}

// answerAll answers the client's frames with what the home shard said.
func (s *session) answerAll(kind byte, req allRequest, a pool.Answer, e *wire.Error) error {
	if e != nil && e.IsFatal() {
		return e
	}
	out := s.client.Output()
	switch {
	case e == nil:
		s.recall.confirm()
		frames := a.Frames
		if req.parse {
			frames = withoutParse(frames)
		}
		out = append(out, frames...)
	case a.Error != nil:
		body, before := a.Error, a.Frames
		if req.moment || req.parts != nil && !req.adds || req.plan != nil && len(req.plan.Draws()) > 0 {
			body = withoutPosition(body)
		} else if s.script != nil {
			body = s.script.position(body)
		}
		if req.parse {
			before = withoutParse(before)
		}
		if kind != wire.MsgQuery {
			out = append(out, before...)
		}
		out = wire.AppendFrame(out, wire.MsgErrorResponse, body)
	default:
		out = e.Append(out)
	}
	s.client.SetOutput(out)
	s.steps++
	if e != nil {
		s.tellsError(e)
		s.scriptFails()
	}
	for {
		b := s.client.Buffered()
		kind, size := b[0], frameSize(b)
		s.drop(size)
		if kind == wire.MsgQuery || kind == wire.MsgSync {
			s.answerReady()
			return nil
		}
	}
}
