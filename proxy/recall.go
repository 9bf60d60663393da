package proxy

import (
	"strconv"

	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// What the proxy draws from sequences for a session no server knows of. So the session
// remembers it itself, and calls of currval and lastval have the value put in their
// place before anything else looks at the text: see supply.

// recall is what a session of a database of several shards remembers of sequences. What
// is drawn stays drawn when a transaction rolls back.
type recall struct {
	// values are the last values that were drawn from sequences, by Draw.Sequence. lost
	// are those from which others may have been drawn since.
	values map[string]int64
	lost   map[string]struct{}
	// last is the sequence that was drawn from last, "" for none; lastLost is set when
	// another may have been since.
	last     string
	lastLost bool
	// pending were drawn from for the request at hand, which may have failed before it
	// used the values.
	pending []string

	// supplied are the client's prepared statements with calls; see supplyParse.
	supplied map[string][]suppliedRead
	// until is the place in what the client sends up to which frames were looked at;
	// bound is set when one of them, in the request at hand, was a Bind.
	until uint64
	bound bool
	whole bool // they end the request
}

// suppliedRead is a call that has become a parameter, behind the client's own.
type suppliedRead struct {
	use  router.SequenceUse
	last bool // it is one of lastval
}

func (s *session) recalls() *recall {
	if s.recall == nil {
		s.recall = &recall{values: map[string]int64{}, lost: map[string]struct{}{}, supplied: map[string][]suppliedRead{}}
	}
	return s.recall
}

// any reports whether anything was drawn for the session.
func (r *recall) any() bool { return r != nil && len(r.values)+len(r.lost) > 0 }

// drew notes a value that was drawn.
func (r *recall) drew(sequence string, v int64) {
	r.values[sequence], r.last, r.lastLost = v, sequence, false
	delete(r.lost, sequence)
	r.pending = append(r.pending, sequence)
}

// confirm notes that what was drawn was used.
func (r *recall) confirm() {
	if r != nil {
		r.pending = r.pending[:0]
	}
}

// abandon notes that a request has ended which may have failed before its values were
// used: PostgreSQL would have drawn some of them, or none.
func (r *recall) abandon() {
	for _, sequence := range r.pending {
		r.lose(sequence)
	}
	r.lastLost = r.lastLost || len(r.pending) > 0
	r.pending = r.pending[:0]
}

func (r *recall) lose(sequence string) {
	delete(r.values, sequence)
	r.lost[sequence] = struct{}{}
}

// loseAll notes that anything may have been drawn elsewhere.
func (r *recall) loseAll() {
	if r == nil {
		return
	}
	for sequence := range r.values {
		r.lose(sequence)
	}
	r.lastLost = r.lastLost || r.last != ""
}

// forgetSequences is what DISCARD SEQUENCES does.
func (s *session) forgetSequences() {
	s.drewThere, s.lastThere = false, false
	if r := s.recall; r != nil {
		clear(r.values)
		clear(r.lost)
		r.last, r.lastLost, r.pending = "", false, r.pending[:0]
	}
}

// recallDrawn remembers what an INSERT has drawn; its values are set.
func (s *session) recallDrawn(p *router.Plan) {
	p.LastDrawn(&s.values, func(d *router.Draw, value []byte) {
		if v, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			s.recalls().drew(d.Sequence, v)
		}
	})
}

// notesDrawing notes that servers run a plan and may draw for it.
func (s *session) notesDrawing(p *router.Plan) {
	if s.places == nil || p != nil && (p.Intent == router.Read || p.Single != nil && drawsNothing(p.Single.Kind)) {
		return
	}
	const unseen = query.EffectSequenceWrite | query.EffectUnknown | query.EffectPreparedRead
	switch {
	case p == nil || p.Effects&unseen != 0 || p.Single == nil:
		s.drewThere, s.lastThere = true, true
		s.recall.loseAll()
	case p.Effects&query.EffectCatalog != 0:
		// A sequence may be another one of its name now. Only definitions of tables on
		// one shard may fill them with values that are drawn.
		s.lastThere = s.lastThere || p.Where != router.All
		s.recall.loseAll()
	case p.DrawsThere():
		// No other server knows what it drew last, and which one that was is not kept.
		s.recalls().lastLost = true
	case p.Single.Kind == query.KindDML && p.Where == router.Home:
		// The sequences of tables there are others, but the last value may be theirs.
		if s.lastThere = true; s.recall != nil {
			s.recall.lastLost = s.recall.lastLost || s.recall.last != ""
		}
	}
}

// recalled returns what a call gives. here is false when a server knows it instead, if
// anybody does.
func (s *session) recalled(read *suppliedRead) (v int64, here bool, e *wire.Error) {
	r, key := s.recall, read.use.Key
	lost := false
	if read.last {
		key, lost = r.last, r.lastLost
	} else {
		_, lost = r.lost[key]
	}
	if lost {
		return 0, true, wire.Errorf("0A000", "the value that was drawn last is not known").
			WithDetail("A statement since may have drawn others, or has failed.").WithHint("Use RETURNING.")
	}
	v, ok := r.values[key]
	switch {
	case ok:
		return v, true, nil
	case s.drewThere, read.last && s.lastThere:
		return 0, false, nil
	case read.last:
		return 0, true, wire.Errorf("55000", "lastval is not yet defined in this session")
	}
	return 0, true, wire.Errorf("55000", "currval of sequence \"%s\" is not yet defined in this session", read.use.Name)
}

// unrecalled returns why a statement that asks a server for values must not run: what
// was drawn for the session no server knows.
func (s *session) unrecalled(p *router.Plan, text []byte) *wire.Error {
	if !s.recall.any() && (s.recall == nil || !s.recall.lastLost) || !readsSequences(p) || s.readsOthers(text) {
		return nil
	}
	return wire.Errorf("0A000", "currval and lastval cannot be answered here: values were drawn for the session that no server knows").
		WithHint("Name the sequence by a constant, in a statement of its own that draws nothing, or use RETURNING.")
}

// readsOthers reports whether a text asks for nothing but sequences that only servers
// draw from.
func (s *session) readsOthers(text []byte) bool {
	reads, ok := query.SequenceReads(text)
	if !ok || len(reads) == 0 || s.nonStandard || s.unsafeEncoding {
		return false
	}
	for i := range reads {
		u, ok := s.db.Planner.SequenceUse(&reads[i], s.planContext())
		if !ok || u.Drawn || reads[i].Last() {
			return false
		}
	}
	return true
}
