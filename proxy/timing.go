package proxy

import (
	"sync/atomic"
	"time"

	"shardproxy/histogram"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/trace"
)

// What a request is, for its time. Of several statements in one request the greatest counts.
type askKind uint8

const (
	askTransaction askKind = iota // BEGIN, COMMIT, SAVEPOINT and their kin
	askRead                       // proven to read
	askWrite                      // all others
)

// askScope says what had to do with it.
type askScope uint8

const (
	scopeOne     askScope = iota // one shard
	scopeSeveral                 // several, or all
	scopeRefused                 // none: it cannot be run over several shards
)

var (
	askKinds  = [...]string{"transaction", "read", "write"}
	askScopes = [...]string{"one", "several", "refused"}
)

// timedEvery is how many requests of a session there are to one that is timed: two looks at the clock and a bucket for each
// request may cost more than 3 % of a small statement's CPU.
const timedEvery = 8

// asked are requests by kind and scope: all are counted, one in timedEvery of each session is timed.
type asked [len(askKinds)][len(askScopes)]struct {
	count     atomic.Int64
	durations histogram.Durations
}

// ask is what a request is.
type ask struct {
	kind   askKind
	scope  askScope
	parent *trace.Context // that its text names; nil for none
}

// asking is the request that a session is at.
type asking struct {
	began time.Duration // after the session's start; 0 at rest, where what is answered takes no time, and when it is not timed
	ask   ask           // of what the client sends; that of what is under way is with the replies owed
	block time.Duration // when the transaction block at hand began, if its first request was timed; -1 if not, 0 for none
	left  uint8         // requests until one is timed
	seed  uint32        // of the gaps between those
}

// askingOf is where a session begins: those of one request are timed as often as others.
func askingOf(id uint64) asking {
	return asking{left: uint8(id % timedEvery), seed: uint32(id) * 2654435761}
}

func (a *asking) timed() bool { return a.left == 0 }

// next goes on to the next request. The gaps are drawn, from 1 to 15 requests: applications do the same
// things over and over, and of four requests that make a transaction the same one would be timed each time.
func (a *asking) next() {
	if a.left > 0 {
		a.left--
		return
	}
	a.seed = a.seed*1664525 + 1013904223 // Numerical Recipes' generator; its high bits are the better ones
	a.left = uint8(a.seed >> 16 % (2*timedEvery - 1))
}

// setPhase publishes what the session does, from when on.
func (s *session) setPhase(p phase) {
	s.noteRest(p)
	if was := phase(s.phase.Load()); was != p {
		switch {
		case p == phaseIdle || p == phaseIdleInTx:
			s.asking.began = 0
			s.countBytes()
		case was == phaseIdle || was == phaseIdleInTx:
			s.tallying.sent = s.client.Sent()
			if s.asking.timed() || s.timesAll() {
				s.asking.began = time.Since(s.started) // what it asks may be noted already
			}
		}
		if s.asking.began > 0 {
			s.notePhase(was, p)
		}
		s.phase.Store(uint32(p))
		s.since.Store(s.server.clock.Load())
	}
}

// countBytes has the database count what has gone between client and proxy since the last time: sessions of
// applications last for days.
func (s *session) countBytes() {
	received, sent := s.client.Received(), s.client.Sent()
	if was := s.counted.received; received != was {
		s.db.stats.received.Add(int64(received - was))
	}
	if was := s.counted.sent; sent != was {
		s.db.stats.sent.Add(int64(sent - was))
	}
	s.counted.received, s.counted.sent = received, sent
}

// noteAsk notes a statement of the request at hand; p is nil for one that is not understood.
func (s *session) noteAsk(p *router.Plan, scope askScope) {
	s.noteAskKind(askKindOf(p), scope)
}

func (s *session) noteAskKind(kind askKind, scope askScope) {
	a := &s.asking.ask
	a.kind, a.scope = max(a.kind, kind), max(a.scope, scope)
}

// refusesAsk notes that the request which is answered now was refused.
func (s *session) refusesAsk() {
	for i := s.owed.head; i < len(s.owed.items); i++ {
		if e := &s.owed.items[i]; e.ends() {
			e.ask.kind, e.ask.scope = askWrite, scopeRefused
			return
		}
	}
	s.noteAsk(nil, scopeRefused) // its Sync is still to come
}

// takeAsk returns what the request is that is complete. What is noted from now on is of the next one.
func (s *session) takeAsk() ask {
	a := s.asking.ask
	s.asking.ask = ask{}
	return a
}

// askEnds counts a request whose ReadyForQuery the client gets. What it has sent behind it begins now.
func (s *session) askEnds(was ask) {
	s.tallyEnds()
	of := &s.db.stats.asked[was.kind][was.scope]
	of.count.Add(1)
	a := &s.asking
	took := time.Duration(0)
	if a.began > 0 {
		took = time.Since(s.started) - a.began
		s.tallyTime(took)
		s.traces(was.parent, took)
	} else if s.tallying.traced() && s.tallying.slow.code != "" { // refused at once
		s.traces(was.parent, 0)
	}
	s.timesBlock(took)
	if a.timed() {
		of.durations.Observe(took)
		s.countBytes() // a client that sends ahead may never rest
	}
	s.tallyNext()
	a.began = 0
	a.next()
	if p := phase(s.phase.Load()); (a.timed() || s.timesAll()) && p != phaseIdle && p != phaseIdleInTx {
		a.began = time.Since(s.started)
	}
}

// times are the times of one in timedEvery requests, and of the transaction blocks that these have begun, in nanoseconds.
type times struct {
	requests, inBlocks, blocks atomic.Int64
}

// queries and transactions are what all requests, and all transactions, have taken, as the timed ones tell. A request
// outside of a block is a transaction.
func (t *times) queries() time.Duration { return time.Duration(timedEvery * t.requests.Load()) }

func (t *times) transactions() time.Duration {
	// In this order: what is added meanwhile must not make it less.
	within := t.inBlocks.Load()
	return time.Duration(timedEvery * (t.requests.Load() - within + t.blocks.Load()))
}

// timesBlock notes the time of a request that is over, and that of the block which ends with it.
func (s *session) timesBlock(took time.Duration) {
	a, t := &s.asking, &s.db.stats.times
	if a.timed() {
		t.requests.Add(int64(took))
		if a.block != 0 || s.tx != 'I' {
			t.inBlocks.Add(int64(took))
		}
	}
	switch {
	case s.tx == 'I':
		if a.block > 0 {
			t.blocks.Add(int64(time.Since(s.started) - a.block))
		}
		a.block = 0
	case a.block == 0 && !a.timed():
		a.block = -1
	case a.block == 0:
		a.block = max(a.began, 1)
		if a.began == 0 { // it was answered at rest
			a.block = max(time.Since(s.started), 1)
		}
	}
}

func askKindOf(p *router.Plan) askKind {
	switch {
	case p == nil:
		return askWrite
	case p.Intent == router.Read:
		return askRead
	case p.Single != nil:
		switch p.Single.Kind {
		case query.KindBegin, query.KindCommit, query.KindRollback, query.KindSavepoint, query.KindRelease, query.KindRollbackTo, query.KindPrepareTx:
			return askTransaction
		}
	}
	return askWrite
}

// Asked are the requests of one kind and scope.
type Asked struct {
	// Kind is transaction, read or write; Scope is one, several or refused.
	Kind, Scope string
	Count       int64
	// Durations are the times of one in eight requests of each session, from its first byte to its ReadyForQuery.
	Durations histogram.Counts
}

// Asked returns the requests by kind and scope; all are there.
func (d *Database) Asked() (all []Asked) {
	for i, kind := range askKinds {
		for j, scope := range askScopes {
			of := &d.stats.asked[i][j]
			all = append(all, Asked{kind, scope, of.count.Load(), of.durations.Counts()})
		}
	}
	return all
}
