package proxy

import (
	"slices"
	"time"

	"shardproxy/cache"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// Results are kept, and given again, for requests that do nothing but run one query outside of transactions: docs/design/cache.md.

// keeping is what a session has to do with kept results.
type keeping struct {
	// touched are the tables that the transaction at hand, or what is about to run, may have written to; all: any may be.
	touched []string
	all     bool
	// scope is what besides its text decides on an answer, as the session is with settings.
	scope    []byte
	settings *pool.Settings
	key      []byte
	// flight is the query that is being run to keep its answer, which tee copies; nil when none is.
	flight    *cache.Flight
	tee       wire.Tee
	described bool
}

// keepMax bounds the requests whose answers are kept, in bytes.
const keepMax = 16 << 10

// slowAnswer is how long others wait for somebody whose client takes an answer slowly.
const slowAnswer = time.Second

// keeps returns the session's, made when there is none.
func (s *session) keeps() *keeping {
	if s.keeping == nil {
		s.keeping = &keeping{}
	}
	return s.keeping
}

// fillsCache reports whether the query at hand is run to keep its answer.
func (s *session) fillsCache() bool { return s.keeping != nil && s.keeping.flight != nil }

// answersKept answers the request at hand from what is kept, waits for somebody who asks the same, or sees to it that its answer is kept.
func (s *session) answersKept(n *need) (verdict, error) {
	c := s.db.Policy().Cache
	if c == nil || !n.read || n.err != nil || n.opaque || n.replica || n.script || s.tx != 'I' || s.begun != nil || s.mode == ModeSession ||
		s.setsUnknown || s.private || s.localMeaning || s.auditAgain.Load() || s.shard.Pools.Paused() {
		return goesOn, nil
	}
	for waited := false; ; waited = true {
		k := s.keeps()
		s.keepsAnswer() // a request that was begun anew
		a, ok := s.asksOne()
		if !ok {
			return goesOn, nil
		}
		lasts := c.Lasts(a.plan.Footprint.Named, func() uint64 { return s.fingerprint(a) })
		if lasts == 0 {
			return goesOn, nil
		}
		if answer := c.Get(k.key, time.Now()); answer != nil && (s.resultMax == 0 || int64(len(answer)) <= s.resultMax) {
			s.givesKept(a, answer)
			return isRefused, nil
		}
		if waited || hasMoment(a.text) || hasMoment(s.client.Buffered()[:a.size]) { // its values, too
			return goesOn, nil
		}
		f, mine := c.Claim(k.key, a.plan.Footprint.Reads, lasts, s.wake)
		switch {
		case f == nil:
			return goesOn, nil
		case mine:
			k.flight, k.described = f, a.described
			k.tee = wire.Tee{Max: c.EntryMax() + 64, First: f.Answers} // with the replies of the protocol
			s.client.Tee(&k.tee)
			n.primary = true // replicas may lack what was written before
			return goesOn, nil
		}
		if err := s.awaitFlight(f); err != nil {
			return goesOn, err
		}
		var whole bool
		if *n, whole = s.scan(); !whole {
			return waits, nil
		}
		if n.err != nil || !n.read {
			return goesOn, nil
		}
	}
}

// awaitFlight waits until somebody who asks the same has the answer, or takes too long to take it.
func (s *session) awaitFlight(f *cache.Flight) error {
	defer func() {
		if s.timer != nil {
			s.timer.Stop()
		}
	}()
	for !f.Done() {
		if since := f.Answering(); !since.IsZero() {
			left := time.Until(since.Add(slowAnswer))
			if left <= 0 {
				return nil
			}
			s.wakeIn(left)
		}
		if err := s.waitTurn(phaseWaiting); err != nil {
			return err
		}
	}
	return nil
}

// givesKept answers the request from what is kept.
func (s *session) givesKept(a onlyQuery, answer []byte) {
	s.db.stats.statements.Add(1)
	s.db.stats.transactions.Add(1)
	s.noteAsk(a.plan, scopeOne)
	s.auditsKept(a.plan)
	s.forgetPlans()
	for s.steps++; ; {
		b := s.client.Buffered()
		kind, size := b[0], frameSize(b)
		switch kind {
		case wire.MsgParse:
			name, rest, _ := wire.CString(b[5:size])
			_ = s.preparesHere(string(name), rest, a.plan) // asksOne has seen that it can be
			s.client.SetOutput(wire.AppendEmpty(s.client.Output(), wire.MsgParseComplete))
		case wire.MsgBind:
			s.client.SetOutput(wire.AppendEmpty(s.client.Output(), wire.MsgBindComplete))
		case wire.MsgQuery, wire.MsgExecute:
			_ = s.client.Queue(answer) // a failed write shows again at the next flush
		}
		s.drop(size)
		switch kind {
		case wire.MsgQuery:
			s.unnamedTok, s.unnamedLarge = 0, false
			fallthrough
		case wire.MsgSync:
			s.answerReady()
			return
		}
	}
}

// keepsAnswer ends the query that was run to keep its answer, if one was.
func (s *session) keepsAnswer() {
	if !s.fillsCache() {
		return
	}
	k := s.keeping
	f, tee := k.flight, k.tee
	s.client.Tee(nil)
	k.flight, k.tee = nil, wire.Tee{}
	if answer, ok := wholeAnswer(tee.Bytes, k.described); ok {
		f.Fill(answer, time.Now())
		return
	}
	f.Drop(tee.Over)
}

// endsKeeping has nobody wait for a session that ends, and nobody keep what it may have changed.
func (s *session) endsKeeping() {
	if s.keeping == nil {
		return
	}
	if s.fillsCache() {
		s.keeping.flight.Drop(false)
		s.keeping.flight = nil
	}
	s.tellsWrites()
}

// writesBy notes what a statement that is about to run may write to.
func (s *session) writesBy(p *router.Plan) {
	if p == nil {
		s.writesAny()
		return
	}
	f := &p.Footprint
	if !f.WritesAny && len(f.Writes) == 0 || s.db.Policy().Cache == nil {
		return
	}
	if c := p.Single; c != nil && c.Kind == query.KindExecute {
		if st := s.statements[c.Target]; st != nil && st.plan != nil && st.plan != p {
			s.replan(st)
			return
		}
	}
	k := s.keeps()
	k.all = k.all || f.WritesAny
	for _, t := range f.Writes {
		if !slices.Contains(k.touched, t) {
			k.touched = append(k.touched, t)
		}
	}
}

// writesAny is writesBy for what is not understood.
func (s *session) writesAny() {
	if s.db.Policy().Cache != nil {
		s.keeps().all = true
	}
}

// tellsWrites has nothing kept any more that hangs on what was written: a client is about to hear of it. What comes behind in the same transaction
// may write to the same.
func (s *session) tellsWrites() {
	k := s.keeping
	if k == nil || !k.all && len(k.touched) == 0 {
		return
	}
	if c := s.db.Policy().Cache; c != nil {
		c.Touch(k.touched, k.all)
	}
	if s.tx == 'I' && s.owed.empty() && !s.open && s.script == nil {
		k.touched, k.all = k.touched[:0], false
	}
}
