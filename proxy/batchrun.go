package proxy

import (
	"slices"
	"sync/atomic"

	"shardproxy/pool"
	"shardproxy/wire"
)

// run runs the statements that were read, and answers them.
func (b *batch) run() error {
	units := b.units
	b.units, b.bytes = nil, 0
	for len(units) > 0 && !b.failed {
		n := slices.IndexFunc(units, func(u *unit) bool { return u.scatter != nil || u.do != nil })
		if n < 0 {
			return b.chunk(units)
		}
		if n > 0 {
			if err := b.chunk(units[:n]); err != nil || b.failed {
				return err
			}
		}
		do := units[n].do
		if do == nil {
			do = func() error { return b.scatter(units[n]) }
		}
		if err := do(); err != nil {
			return err
		}
		units = units[n+1:]
	}
	return nil
}

// scatter runs a query that is answered from several shards, and answers it.
func (b *batch) scatter(u *unit) error {
	s := b.s
	if e := b.enlist(u.shards); e != nil {
		if e.IsFatal() {
			return e
		}
		b.tell(e.Append(nil))
		return nil
	}
	c := u.scatter
	if err := c.execute(u.plan); err != nil {
		return err
	}
	ending := c.ending(nil, c.err)
	if c.err == nil && c.opening == nil && limited(ending, u.limit) {
		ending, c.err = errLimited().Append(nil), errLimited() // what it wrote is rolled back
	}
	if c.err != nil {
		b.tell(ending)
		s.tallyEnds()
		return nil
	}
	s.client.SetOutput(append(s.client.Output(), ending...))
	s.tallyEnds()
	s.steps++
	if u.opens != nil && u.executed {
		return b.executes(u.opens, u.limit)
	}
	return nil
}

// chunk runs statements all at once, and answers them.
func (b *batch) chunk(units []*unit) error {
	s := b.s
	var bad *wire.Error
	if i := slices.IndexFunc(units, func(u *unit) bool { return u.err != nil }); i >= 0 {
		bad, units = units[i].err, units[:i]
	}
	shards := b.shardsOf(units)
	if len(shards) > 0 {
		if e := b.enlist(shards); e != nil {
			if e.IsFatal() {
				return e
			}
			b.tell(e.Append(nil))
			return nil
		}
	}
	for _, u := range units {
		if u.moment {
			if e := s.putMoment(u.parts); e != nil {
				if e.IsFatal() {
					return e
				}
				b.tell(e.Append(nil))
				return nil
			}
		}
	}
	s.db.stats.statements.Add(int64(len(units)))
	s.noteAsk(nil, scopeSeveral)
	answers, err := b.onShards(shards, units)
	if err != nil {
		return err
	}
	if err := b.answer(units, shards, answers); err != nil || b.failed {
		return err
	}
	if bad != nil {
		b.tell(bad.Append(nil))
	}
	return nil
}

// shardsOf returns all shards of some statements, in order.
func (b *batch) shardsOf(units []*unit) (all []int) {
	for _, u := range units {
		for _, i := range u.shards {
			if !slices.Contains(all, i) {
				all = append(all, i)
			}
		}
	}
	slices.Sort(all)
	return all
}

// enlist makes shards a part of the transaction.
func (b *batch) enlist(shards []int) *wire.Error {
	s := b.s
	if s.pinned != "" {
		return s.tiedTo(shards[0])
	}
	if s.tx == 'E' {
		return wire.Errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	}
	e := s.enlistAll(s.tx == 'I', false, shards)
	b.begun = b.begun || e == nil
	s.setPhase(phaseActive)
	return e
}

// shardAnswer is what one shard said to its statements of a chunk.
type shardAnswer struct {
	lease  *pool.Server
	answer pool.Answer
	err    error
	units  []*unit
}

// onShards runs each shard's statements, all shards at once. An error ends the session.
func (b *batch) onShards(shards []int, units []*unit) ([]shardAnswer, error) {
	s := b.s
	answers := make([]shardAnswer, len(shards))
	frames := make([][]byte, len(shards))
	on := make([]*pool.Server, len(shards))
	for i, shard := range shards {
		a := &answers[i]
		var wrote *bool
		a.lease, wrote = s.partOn(shard)
		for _, u := range units {
			if at := slices.Index(u.shards, shard); at >= 0 {
				a.units, frames[i] = append(a.units, u), append(frames[i], u.parts[at]...)
				if u.bind != nil && u.plan.MayWrite {
					*wrote = true
				}
				if u.bind != nil && notifies(u.plan) {
					*wrote, s.spread.notified, s.spread.notifier = true, true, shard
				}
			}
		}
		frames[i], on[i] = wire.AppendEmpty(frames[i], wire.MsgSync), a.lease
	}
	var cancelled atomic.Bool
	wanted := func() bool {
		if !cancelled.Load() && s.cancelWanted() {
			cancelled.Store(true)
		}
		return cancelled.Load()
	}
	o := pool.RunOptions{Keep: answerMax, Cancelled: wanted}
	// What locks rows on several shards does so on one after the other, in their order,
	// as every other statement: else two of them lock each other out.
	step := len(on)
	if slices.ContainsFunc(units, func(u *unit) bool { return len(u.shards) > 1 && u.bind != nil && u.plan.MayWrite }) {
		step = 1
	}
	for i := 0; i < len(on); i += step {
		said, errs := s.runTogether(s.server.ctx, on[i:i+step], frames[i:i+step], o)
		for j := range said {
			answers[i+j].answer, answers[i+j].err = said[j], errs[j]
		}
	}
	for i := range answers {
		answers[i].err = s.ofVictim(&answers[i].answer, answers[i].err)
		if isLost(answers[i].err) {
			return nil, s.allFailed(answers[i].lease, answers[i].answer, answers[i].err)
		}
	}
	return answers, nil
}

// answer tells the client what became of the statements, in their order.
func (b *batch) answer(units []*unit, shards []int, answers []shardAnswer) error {
	s := b.s
	// What each shard said to each statement.
	said := map[*unit][]pool.Answer{}
	failed := map[*unit]int{}
	partial := map[*unit][]byte{}
	for i := range answers {
		a := &answers[i]
		rest := a.answer.Frames
		for _, u := range a.units {
			mine, tag, more, whole := u.cut(rest)
			if !whole {
				if _, ok := failed[u]; !ok {
					failed[u], partial[u] = i, rest
				}
				break
			}
			said[u], rest = append(said[u], pool.Answer{Frames: mine, Tag: tag}), more
		}
	}
	for _, u := range units {
		if i, bad := failed[u]; bad {
			err := b.failAt(u, partial[u], &answers[i])
			s.tallyUnit(u, nil, true)
			return err
		}
		frames, e := b.join(u, said[u])
		if e == nil {
			e = s.unfit(frames, u.limit)
		}
		if e != nil {
			b.tell(e.Append(nil))
			s.tallyUnit(u, nil, true)
			return nil
		}
		out := append(s.client.Output(), u.lead...)
		s.client.SetOutput(append(out, frames...))
		s.tallyUnit(u, frames, false)
		if u.bind != nil {
			s.noteAll(u.plan)
			s.suspect |= u.plan.Effects & auditEffects
		}
	}
	s.recall.confirm()
	s.steps++
	if s.client.Pending() > highWater {
		if err := s.flushAll(); err != nil {
			return s.clientError(err)
		}
	}
	return nil
}

// failAt tells the error of a shard, behind what it had said of the statement.
func (b *batch) failAt(u *unit, before []byte, a *shardAnswer) error {
	if !u.parsed {
		before = withoutParse(before)
	}
	switch {
	case a.answer.Error != nil:
		body := a.answer.Error
		if len(u.shards) > 1 || u.moment || len(u.plan.Draws()) > 0 {
			body = withoutPosition(body)
		}
		b.tell(wire.AppendFrame(before[:len(before):len(before)], wire.MsgErrorResponse, body))
	case a.err != nil:
		e := wire.AsError(a.err)
		if a.err == pool.ErrAnswerTooLarge {
			e = wire.Errorf("54000", "the answer of a request on several shards is larger than %d bytes", answerMax)
		}
		b.tell(e.Append(nil))
	default:
		return b.s.outOfStep("an answer that is not whole")
	}
	return nil
}

// join makes one answer of those of a statement's shards.
func (b *batch) join(u *unit, answers []pool.Answer) ([]byte, *wire.Error) {
	if len(answers) == 0 {
		return nil, nil
	}
	frames := answers[0].Frames
	if u.described {
		frames = withoutSuppliedIn(frames, u.supplied)
	}
	switch {
	case u.same:
		for i := range answers {
			if answers[i].Tag != answers[0].Tag {
				return nil, wire.Errorf("55000", "shards gave different results: %s and %s", answers[0].Tag, answers[i].Tag).
					WithHint("The copies of the table differ.")
			}
		}
	case len(answers) > 1:
		a, e := (&allRequest{rows: u.rows, adds: u.adds}).join(answers)
		if e != nil {
			return nil, e
		}
		frames = a.Frames
	}
	if !u.parsed {
		frames = withoutParse(frames)
	}
	return frames, nil
}

// cut takes the statement's answer off what a shard said: all that belongs to it, up to
// its end. whole is false when the end is not there.
func (u *unit) cut(b []byte) (mine []byte, tag string, rest []byte, whole bool) {
	due := []byte{wire.MsgParseComplete}
	if u.described {
		due = append(due, wire.MsgParameterDescription, wire.MsgRowDescription)
	}
	if u.bind != nil {
		due = append(due, wire.MsgBindComplete)
		if u.portal {
			due = append(due, wire.MsgRowDescription)
		}
		due = append(due, wire.MsgCommandComplete)
	}
	at := 0
	for len(due) > 0 {
		if len(b)-at < 5 {
			return nil, "", b, false
		}
		kind, size := b[at], frameSize(b[at:])
		switch {
		case kind == due[0], kind == wire.MsgNoData && due[0] == wire.MsgRowDescription, kind == wire.MsgEmptyQueryResponse:
			if kind == wire.MsgCommandComplete {
				tag = string(cut(b[at+5 : at+size]))
			}
			due = due[1:]
		}
		at += size
	}
	return b[:at:at], tag, b[at:], true
}

// sync ends the batch.
func (b *batch) sync(size int) error {
	s := b.s
	defer s.usedUnnamed()
	s.client.Discard(size)
	s.steps++
	b.finishUnit()
	if err := b.run(); err != nil {
		return err
	}
	switch {
	case b.own && b.begun && s.tx == 'T':
		if err := s.finish(!b.failed); err != nil {
			e := wire.AsError(err)
			if e.IsFatal() {
				return e
			}
			if !b.failed {
				b.tell(e.Append(nil))
			}
		}
	case b.failed && s.tx == 'T':
		s.tx, s.failed = 'E', true
		if s.lease != nil {
			// The client's next statement is to fail there, as one did elsewhere.
			_ = s.failLease()
		}
	}
	s.forgetPlans()
	s.answerReady()
	return nil
}
