package proxy

import (
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"shardproxy/query"
	"shardproxy/tally"
	"shardproxy/trace"
)

// slowLinesMax bounds the lines of slow statements that one database logs in a second.
const slowLinesMax = 10

// slowLog counts slow statements, and bounds their lines. No lock: a line more or less at the turn of a second does no harm.
type slowLog struct {
	second         atomic.Int64 // of the lines counted in lines
	lines          atomic.Int64
	slow, unlogged atomic.Int64
	told           atomic.Int64 // of unlogged, what a line has told of
}

// admits counts a slow statement and reports whether it may be logged, and how many were not since the last line.
func (l *slowLog) admits(second int64) (ok bool, unlogged int64) {
	l.slow.Add(1)
	if was := l.second.Load(); was != second && l.second.CompareAndSwap(was, second) {
		l.lines.Store(0)
	}
	if l.lines.Add(1) > slowLinesMax {
		l.unlogged.Add(1)
		return false, 0
	}
	all := l.unlogged.Load()
	return true, all - l.told.Swap(all)
}

// SlowStatements returns how many requests took as long as the policy's SlowStatement, and how many of them were not logged because there were too many.
func (d *Database) SlowStatements() (all, unlogged int64) {
	return d.slow.slow.Load(), d.slow.unlogged.Load()
}

// slowNotes is what the line of a slow request tells of it.
type slowNotes struct {
	rows int64
	code string // the last SQLSTATE
	way  string // how a query was answered from several shards, and why; "" for none
	// on are the shards of the last statement, if it ran on several; nil for all.
	on           []int
	waited, held time.Duration
	waits        time.Duration // when it began to wait, after the session's start
	traced       *traceNotes   // nil while requests are not told of
}

// noteShards notes on which shards a statement runs; nil: on all.
func (s *session) noteShards(shards []int) {
	s.notesForAudit()
	if t := s.tallying.slow; t != nil {
		t.on = shards
	}
}

// timesAll reports whether each request is timed, for the log of slow ones or to be told of.
func (s *session) timesAll() bool {
	p := s.db.Policy()
	if p.SlowStatement <= 0 && p.Tracing == nil {
		return false
	}
	if s.tallying.slow == nil {
		s.tallying.slow = &slowNotes{}
	}
	s.notesTrace(p.Tracing != nil)
	return true
}

// notePhase adds up what a request that is timed waits for.
func (s *session) notePhase(was, is phase) {
	if was != phaseWaiting && was != phaseHeld && is != phaseWaiting && is != phaseHeld {
		return
	}
	t := s.tallying.slow
	if t == nil {
		return
	}
	now := time.Since(s.started)
	switch was {
	case phaseWaiting:
		t.waited += now - t.waits
		s.tallying.step(trace.Step{Kind: trace.Acquire, Shard: s.shard.Name, From: t.waits, To: now})
	case phaseHeld:
		t.held += now - t.waits
		s.tallying.step(trace.Step{Kind: trace.Gate, Shard: s.shard.Name, From: t.waits, To: now})
	}
	t.waits = now
}

// tellSlow logs a request that took long. Its values are in none of it.
func (s *session) tellSlow(took time.Duration) {
	ok, unlogged := s.db.slow.admits(s.server.clock.Load() / int64(time.Second))
	if !ok {
		return
	}
	t := &s.tallying
	n := t.slow
	if n == nil {
		n = &slowNotes{} // the setting has just come
	}
	var fingerprint, text string
	if t.only != nil {
		if text = t.only.Text; t.only.Fingerprint != 0 {
			fingerprint = query.FingerprintName(t.only.Fingerprint)
		}
	}
	s.server.opt.Logger.Info("slow statement", "database", s.db.Name, "user", s.userName, "client", s.addr, "session", s.id,
		"took_ms", milliseconds(took), "waited_ms", milliseconds(n.waited), "held_ms", milliseconds(n.held), "ran_ms", milliseconds(took-n.waited-n.held),
		"shards", s.shardNames(n), "way", n.way, "statements", t.ended, "rows", n.rows, "sqlstate", n.code, "unlogged", unlogged, "fingerprint", fingerprint, "query", text)
}

// milliseconds returns a time in milliseconds, with microseconds behind the point.
func milliseconds(d time.Duration) float64 { return float64(max(d, 0).Microseconds()) / 1000 }

// shardNames names the shards that the request's last statement ran on.
func (s *session) shardNames(n *slowNotes) string {
	t := &s.tallying
	switch {
	case t.ended == 0 || t.nowhere:
		return ""
	case t.shard != tally.Several && int(t.shard) < len(s.db.Shards):
		return s.db.Shards[t.shard].Name
	}
	return s.namesOn(n.on)
}

// namesOn names shards; nil: all.
func (s *session) namesOn(on []int) string {
	var names []string
	for i, sh := range s.db.Shards {
		if on == nil || slices.Contains(on, i) {
			names = append(names, sh.Name)
		}
	}
	return strings.Join(names, ",")
}
