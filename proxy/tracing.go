package proxy

import (
	"math/rand/v2"
	"time"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/tally"
	"shardproxy/trace"
)

// Tracing says which requests are told of, and to whom.
type Tracing struct {
	To *trace.Exporter
	// Ratio is the share of requests that are told of, of those that belong to no trace.
	Ratio float64
	// Parents has traces found in comments, and their word taken on what is told of; Texts has statements told as a whole.
	Parents, Texts bool
}

// stepsMax bounds the steps of one request that are told of.
const stepsMax = 200

// traceNotes are what a session notes of a request while requests are told of. Times are since its start.
type traceNotes struct {
	steps []trace.Step
	// address is that of the last lease, on shard.
	address string
	shard   int
}

// step notes a step, if requests are told of.
func (t *tallying) step(st trace.Step) {
	if t.slow != nil && t.slow.traced != nil && len(t.slow.traced.steps) < stepsMax {
		t.slow.traced.steps = append(t.slow.traced.steps, st)
	}
}

// traced reports whether requests are told of.
func (t *tallying) traced() bool { return t.slow != nil && t.slow.traced != nil }

// notesTrace makes, or drops, the place for what is noted.
func (s *session) notesTrace(on bool) {
	switch n := s.tallying.slow; {
	case on && n.traced == nil:
		n.traced = &traceNotes{}
	case !on:
		n.traced = nil
	}
}

// notesLease notes where the request runs.
func (s *session) notesLease() {
	if s.tallying.traced() {
		t := s.tallying.slow.traced
		t.address, t.shard = s.lease.Address(), s.index
	}
}

// notesRun notes that a shard has run something between two times.
func (s *session) notesRun(shard int, l *pool.Server, from, to time.Time, failed bool) {
	if s.tallying.traced() && !from.IsZero() {
		s.tallying.step(trace.Step{Kind: trace.Run, Shard: s.db.Shards[shard].Name, Address: l.Address(), From: from.Sub(s.started), To: to.Sub(s.started), Failed: failed})
	}
}

// seesParent looks for a trace in the text of the request at hand.
func (s *session) seesParent(text []byte) {
	t := s.db.Policy().Tracing
	if t == nil || !t.Parents {
		return
	}
	if c := trace.Parent(text); c.Valid() {
		s.asking.ask.parent = &c
	}
}

// traces tells of a request that is over, if it is one of those that are told of.
func (s *session) traces(parent *trace.Context, took time.Duration) {
	p := s.db.Policy().Tracing
	if p == nil || !s.tallying.traced() {
		return
	}
	if parent != nil && p.Parents {
		if !parent.Sampled {
			return
		}
	} else if parent = nil; p.Ratio == 0 || rand.Float64() >= p.Ratio {
		return
	}
	t := &s.tallying
	began := s.asking.began
	if began == 0 {
		began = time.Since(s.started)
	}
	r := &trace.Request{
		Began: s.started.Add(began), Took: took, Database: s.db.Name, Session: s.id, Text: p.Texts, Statements: int(t.ended),
		SQLState: t.slow.code, Way: t.slow.way, Rows: t.slow.rows,
	}
	if parent != nil {
		r.Parent = *parent
	}
	if t.only != nil && t.ended == 1 {
		if r.Statement = t.only.Text; t.only.Fingerprint != 0 {
			r.Fingerprint = query.FingerprintName(t.only.Fingerprint)
		}
	}
	r.Steps = s.stepsSince(began, took)
	p.To.Send(r)
}

// stepsSince returns the steps of the request that began then. One that was relayed ran from the end of its last wait on.
func (s *session) stepsSince(began, took time.Duration) (all []trace.Step) {
	t := &s.tallying
	ran, from := false, time.Duration(0)
	for _, st := range t.slow.traced.steps {
		st.From, st.To = max(st.From-began, 0), min(st.To-began, took)
		if all = append(all, st); st.Kind == trace.Run {
			ran = true
		} else {
			from = max(from, st.To)
		}
	}
	if ran || t.ended == 0 || t.nowhere || t.shard == tally.Several || int(t.shard) >= len(s.db.Shards) {
		return all
	}
	st := trace.Step{Kind: trace.Run, Shard: s.db.Shards[t.shard].Name, From: from, To: took, Failed: t.slow.code != ""}
	switch {
	case s.lease != nil && s.index == int(t.shard):
		st.Address = s.lease.Address()
	case t.slow.traced.shard == int(t.shard):
		st.Address = t.slow.traced.address
	}
	return append(all, st)
}
