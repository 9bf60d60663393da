package proxy

import (
	"context"
	"sync"
	"time"

	"shardproxy/pool"
	"shardproxy/wire"
)

// The parts of an INSERT that is a transaction of its own run at once, as long as none of
// them has to wait for anybody. Parts that wait while others hold locks could end in a circle
// that one server would not have: of two INSERTs of the same rows, or of one and LOCK TABLE or
// ALTER TABLE, which take the shards one after the other. So a part does not wait for long: all is
// rolled back, and done once more on one shard after the other; also when the commit would have waited so.

// atOnceWait is how long a part waits for a lock: less than the time behind which servers
// look for deadlocks, so that nobody else is ended for it.
const atOnceWait = "; SET LOCAL lock_timeout = '100ms'"

// mayRunAtOnce reports whether the parts of a request outside of transactions may run at once. What
// it does must be gone when it is rolled back.
func (r *allRequest) mayRunAtOnce() bool {
	return len(r.shards) > 1 && r.parts != nil && !r.adds && r.plan.MayRunAtOnce()
}

// runHere runs the request, once it is enlisted, and returns its answer.
func (s *session) runHere(r *allRequest) (pool.Answer, *wire.Error) {
	if !r.atOnce {
		return s.onAll(r)
	}
	a, e := s.onAllAtOnce(r)
	if e == nil || e.Code != "55P03" && e.Code != "40P01" {
		return a, e
	}
	if err := s.finish(false); err != nil {
		return pool.Answer{}, wire.AsError(err)
	}
	return s.inTurn(r)
}

// inTurn runs a request on one shard after the other whose parts have run at once, and were rolled back.
func (s *session) inTurn(r *allRequest) (pool.Answer, *wire.Error) {
	since := s.since.Load()
	if s.lease != nil {
		s.giveBack(pool.Clean)
	}
	s.db.stats.retries.Add(1)
	r.atOnce = false
	if e := s.enlistAt(true, "", r.enlisted()); e != nil {
		return pool.Answer{}, e
	}
	s.setPhase(phaseActive)
	s.since.Store(since) // it is one statement
	return s.onAll(r)
}

// onAllAtOnce is onAll for the parts of an INSERT, all at once.
func (s *session) onAllAtOnce(r *allRequest) (pool.Answer, *wire.Error) {
	if e := s.readies(r); e != nil {
		return pool.Answer{}, e
	}
	on := make([]*pool.Server, len(r.shards))
	for i, shard := range r.shards {
		l, wrote := s.partOn(shard)
		on[i], *wrote = l, true
	}
	answers, errs := s.runEachOn(on, r.parts, answerMax)
	if e := s.ofParts(on, answers, errs); e.err != nil {
		return e.answer, s.allFailed(e.lease, e.answer, e.err)
	}
	if r.plan.Defers() {
		// What is checked at the end may have to wait, as it would on one server.
		for i, err := range s.runAlike(on, wire.AppendQuery(nil, s.lockTimeout()+"; SELECT "+boundsWaits)) {
			if err != nil {
				return pool.Answer{}, s.allFailed(on[i], pool.Answer{}, err)
			}
		}
	}
	a, e := r.join(answers)
	if e != nil {
		return a, s.allFailed(s.lease, a, e)
	}
	return a, nil
}

// ofParts returns the failure that decides what comes of parts that ran at once: a connection
// that is lost, else what was cancelled, else one that would have waited, else the first.
func (s *session) ofParts(on []*pool.Server, answers []pool.Answer, errs []error) (worst shardAnswer) {
	rank := 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		r := 1
		switch e := wire.AsError(err); {
		case isLost(err):
			r = 4
		case e.Code == "57014":
			r = 3 // who is not waited for any more is not served again
		case e.Code == "55P03", e.Code == "40P01":
			r = 2
		}
		if r > rank {
			rank, worst = r, shardAnswer{lease: on[i], answer: answers[i], err: err}
		}
	}
	return worst
}

// lockTimeout gives back to the transaction how long it waits for locks.
func (s *session) lockTimeout() string {
	it, ok := s.settings.Get("lock_timeout")
	switch {
	case !ok:
		return "SET LOCAL lock_timeout TO DEFAULT"
	case it.Literal:
		return string(it.AppendCall([]byte("SELECT "), true))
	}
	return "SET LOCAL lock_timeout TO " + it.Text
}

// runEachOn runs a request of ours on each of some connections, at once. It blocks the session, not
// its loop. The answers and errors are theirs, in order; keep bounds each answer.
func (s *session) runEachOn(on []*pool.Server, frames [][]byte, keep int) ([]pool.Answer, []error) {
	var mu sync.Mutex
	cancelled := false
	unwanted := func() bool {
		mu.Lock()
		defer mu.Unlock()
		cancelled = cancelled || s.cancelWanted()
		return cancelled
	}
	answers, errs := s.runTogether(s.server.ctx, on, frames, pool.RunOptions{Keep: keep, Cancelled: unwanted})
	for i := range errs {
		errs[i] = s.ofVictim(&answers[i], errs[i])
	}
	return answers, errs
}

// runTogether runs a request on each of some connections, at once; nil frames are none. It blocks the session, not its loop.
func (s *session) runTogether(ctx context.Context, on []*pool.Server, frames [][]byte, o pool.RunOptions) ([]pool.Answer, []error) {
	answers, errs := make([]pool.Answer, len(on)), make([]error, len(on))
	began, over := time.Now(), make([]time.Time, len(on))
	defer func() {
		for i, l := range on {
			s.notesSick(s.shardAt(l), l, errs[i])
			if frames[i] != nil {
				s.notesRun(s.shardAt(l), l, began, over[i], errs[i] != nil)
			}
		}
	}()
	if s.task.awaits() {
		s.runOnLoop(ctx, on, frames, o, func(i int, r *pool.Running) {
			answers[i], errs[i] = r.Answer()
			over[i] = time.Now()
		})
		return answers, errs
	}
	s.task.aside(func() {
		var group sync.WaitGroup
		for i, l := range on {
			if frames[i] != nil {
				group.Go(func() {
					answers[i], errs[i] = l.Run(ctx, frames[i], o)
					over[i] = time.Now()
				})
			}
		}
		group.Wait()
	})
	return answers, errs
}

// runOnLoop is runTogether without a goroutine: the session's loop tells what has come.
func (s *session) runOnLoop(ctx context.Context, on []*pool.Server, frames [][]byte, o pool.RunOptions, ended func(i int, r *pool.Running)) {
	runs := make([]*pool.Running, len(on))
	for i, l := range on {
		if frames[i] != nil {
			s.task.adopt(l.Socket())
			runs[i] = l.Begin(ctx, frames[i], o, s.task.wake)
		}
	}
	look := time.AfterFunc(pool.PollInterval, s.task.wake)
	defer look.Stop()
	waits := make([]interest, 0, len(on))
	for {
		waits = waits[:0]
		for i, r := range runs {
			switch {
			case r == nil:
			case r.Go():
				ended(i, r)
				runs[i] = nil
			default:
				waits = append(waits, interest{socket: on[i].Socket(), read: true, write: r.Pending()})
			}
		}
		if len(waits) == 0 {
			break
		}
		s.task.awaitAny(waits)
		look.Reset(pool.PollInterval)
	}
	for i, l := range on {
		if frames[i] != nil {
			s.task.release(l.Socket())
		}
	}
}

// runAlike runs the same on each of some connections, at once, and returns their errors.
func (s *session) runAlike(on []*pool.Server, frames []byte) []error {
	all := make([][]byte, len(on))
	for i := range all {
		all[i] = frames
	}
	_, errs := s.runEachOn(on, all, 0)
	return errs
}
