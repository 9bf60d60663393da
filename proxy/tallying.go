package proxy

import (
	"slices"
	"time"

	"shardproxy/audit"
	"shardproxy/router"
	"shardproxy/tally"
	"shardproxy/wire"
)

// tallying is what a session notes of the statement that it is at, for the statistics of statements:
// docs/design/statements.md.
type tallying struct {
	// entry is that of a statement which the session runs itself, on several shards or apart from the relay, nil when
	// none is under way.
	entry *tally.Entry
	// next is the only statement that the request at hand runs, as far as it was looked at; plans counts them.
	next *tally.Entry
	// only is the statement of the request that ended last; ended counts them.
	only  *tally.Entry
	slow  *slowNotes // nil until the log of slow statements wants them
	rows  int64
	sent  uint64 // bytes that the client had been sent when the last statement ended
	shard int32  // where entry runs, or only ran
	plans int32
	ended int32
	// nowhere is set when the last statement was refused before it was sent, failed when the one at hand has.
	nowhere, failed bool
}

// CountStatements makes the database's Tally, of at most limit statements; none when that is 0. It is called before the database is used.
func (d *Database) CountStatements(limit int, now time.Time) {
	if limit > 0 {
		d.Tally = tally.New(limit, len(d.Shards), now)
	}
}

// tallyOf returns the entry of what a plan runs, nil when nothing is counted. A nil plan is a text that was not understood.
func (s *session) tallyOf(p *router.Plan) *tally.Entry {
	if p == nil {
		return s.db.Tally.Unread()
	}
	return p.Tally
}

// tallies counts a statement whose last reply has been relayed, or made, and has it written down; e may be nil.
func (s *session) tallies(e *tally.Entry, shard int) {
	s.auditsEnd(e, shard)
	s.counts(e, shard)
}

// counts counts a statement as tallies does.
func (s *session) counts(e *tally.Entry, shard int) {
	t := &s.tallying
	sent := s.client.Sent()
	if e != nil {
		e.Ended(tally.Outcome{Rows: t.rows, Bytes: int64(sent - t.sent), Shard: shard, Failed: t.failed})
	}
	t.ended, t.only, t.shard, t.nowhere = t.ended+1, e, int32(shard), false
	if t.slow != nil {
		t.slow.rows += t.rows
	}
	t.sent, t.rows, t.failed = sent, 0, false
}

// tallyTime counts the time of the request that is over, if it was one statement: a server answers several together, so that the
// first would have the time of all.
func (s *session) tallyTime(took time.Duration) {
	if t := &s.tallying; t.ended == 1 && t.only != nil {
		t.only.Took(took)
	}
	if slow := s.db.Policy().SlowStatement; slow > 0 && took >= slow {
		s.tellSlow(took)
	}
}

// tallyNext begins a request.
func (s *session) tallyNext() {
	t := &s.tallying
	t.sent, t.rows, t.failed, t.ended, t.only = s.client.Sent(), 0, false, 0, nil
	if t.nowhere = false; t.slow != nil {
		traced := t.slow.traced
		if *t.slow = (slowNotes{traced: traced}); traced != nil {
			traced.steps = traced.steps[:0]
		}
	}
}

// tallyReply counts the statement that a reply to e has ended, and has it written down.
func (s *session) tallyReply(e *expect) {
	if e.runs() {
		s.tallies(s.tallyOf(e.plan), s.index)
	}
}

// runs reports whether it is a statement of the client's that runs on the server; one that is refused has been counted then.
func (e *expect) runs() bool {
	switch e.kind {
	case expectQuery:
		return e.mode == relay && e.instead == nil
	case expectExecute, expectFunction:
		return e.mode == relay
	}
	return false
}

// popExecute takes the entry of an Execute whose client has been answered.
func (s *session) popExecute() {
	e := s.pop()
	s.tallyReply(&e)
}

// rowsBy returns the rows of a portal that is suspended.
func (e *expect) rowsBy(kind byte) int64 {
	if kind != wire.MsgPortalSuspended {
		return 0
	}
	return e.limit
}

// tallyError notes that the server has failed what front asks for; all of it, but for a query, is over then.
func (s *session) tallyError(front *expect) {
	s.tallying.failed = true
	if front.ends() || front.mode != relay {
		return
	}
	e := s.tallyFailing(front)
	if e != nil && front.instead != nil {
		e.Refused()
		s.audits(e, 0, audit.Refused)
		e = nil
	}
	s.tallies(e, s.index)
}

// tallyFailing returns the entry of the statement that failed with front, nil when it is not certain.
func (s *session) tallyFailing(front *expect) *tally.Entry {
	var p *router.Plan
	switch {
	case front.kind == expectExecute:
		return s.tallyOf(front.plan)
	case front.statement != nil:
		p = front.statement.plan
	case front.about != nil:
		p = front.about.plan
	case front.kind == expectParse && front.unnamed && s.owed.unnamed == 1,
		front.kind == expectBind && s.owed.unnamed == 0 && s.portal == s.unnamedAs:
		p = s.unnamedAs
	}
	if p == nil {
		return nil
	}
	return p.Tally
}

// tallyRefused counts a request that is sent nowhere.
func (s *session) tallyRefused() {
	t := &s.tallying
	switch {
	case t.entry != nil:
		t.failed = true // it had begun
	case t.plans == 1 && t.next != nil:
		t.next.Refused()
		s.audits(t.next, 0, audit.Refused)
		t.ended, t.only, t.nowhere = t.ended+1, t.next, true
	}
}

// tallyRetry counts that the request at hand begins anew.
func (s *session) tallyRetry() {
	t := &s.tallying
	if t.entry != nil {
		t.entry.Retried()
	} else if t.plans == 1 && t.next != nil {
		t.next.Retried()
	}
	t.entry, t.rows, t.failed = nil, 0, false
}

// tallyBegins notes a statement that the session itself runs on some shards. It ends with the request, or when the next one begins.
func (s *session) tallyBegins(p *router.Plan, shards []int) {
	s.tallyEnds()
	t := &s.tallying
	s.noteShards(shards)
	if t.entry = s.tallyOf(p); t.entry == nil {
		return
	}
	if t.shard = tally.Several; len(shards) == 1 {
		t.shard = int32(shards[0])
		return
	}
	t.entry.Spread(shards)
}

// tallyAlso notes that the statement which the session itself runs writes on these shards, too.
func (s *session) tallyAlso(shards []int) {
	t := &s.tallying
	all := slices.Clone(shards)
	if t.shard != tally.Several {
		all = append(all, int(t.shard))
	} else if t.slow != nil {
		all = append(all, t.slow.on...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if s.noteShards(all); t.entry == nil || t.shard == tally.Several || len(all) == 1 {
		return
	}
	t.shard = tally.Several
	t.entry.Spread(all)
}

// tallyEnds counts a statement that the session itself ran, whose answer ends the client's output.
func (s *session) tallyEnds() {
	t := &s.tallying
	e := t.entry
	if e == nil {
		return
	}
	t.entry = nil
	if out := s.client.Output(); !t.failed {
		t.rows = rowsAtEnd(out)
	}
	s.tallies(e, int(t.shard))
}

// tallyUnit counts a statement of a batch, whose answer was frames.
func (s *session) tallyUnit(u *unit, frames []byte, failed bool) {
	if u.bind == nil || u.plan == nil || u.plan.Tally == nil {
		return
	}
	s.tallying.failed = failed
	if !failed {
		s.tallying.rows = rowsAtEnd(frames)
	}
	shard := tally.Several
	if len(u.shards) == 1 {
		shard = u.shards[0]
	} else {
		u.plan.Tally.Spread(u.shards)
		s.noteShards(u.shards)
	}
	s.tallies(u.plan.Tally, shard)
}

// askedOn returns the places of the shards that a query is asked on.
func (c *scattering) askedOn() []int {
	all := make([]int, len(c.shards))
	for i, shard := range c.shards {
		all[i] = shard.index
	}
	return all
}

// enlistedShards returns the places of the shards that the open transaction runs on.
func (s *session) enlistedShards() (all []int) {
	if s.lease != nil {
		all = append(all, s.index)
	}
	if s.spread != nil {
		for i := range s.spread.branches {
			all = append(all, s.spread.branches[i].index)
		}
	}
	return all
}

// rowsAtEnd returns the rows of the CommandComplete that ends the frames, 0 when none does.
func rowsAtEnd(frames []byte) int64 {
	n := completeAtEnd(frames)
	if n == 0 {
		return 0
	}
	return rowsOf(cut(frames[len(frames)-n+5:]))
}

// rowsOf returns the rows that a command tag tells of, 0 when it tells of none.
func rowsOf(tag []byte) (n int64) {
	at := len(tag)
	for at > 0 && tag[at-1]-'0' < 10 && len(tag)-at < 18 {
		at--
	}
	for _, c := range tag[at:] {
		n = n*10 + int64(c-'0')
	}
	return n
}

// limitIn returns the row limit of an Execute, 0 for none.
func limitIn(body []byte) int64 {
	if n := len(body); n >= 4 {
		return int64(int32(uint32(body[n-4])<<24 | uint32(body[n-3])<<16 | uint32(body[n-2])<<8 | uint32(body[n-1])))
	}
	return 0
}
