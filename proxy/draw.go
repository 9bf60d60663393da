package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/wire"
)

// Draws gives values of sequences that no shard has; sequence.Allocator does.
type Draws interface {
	// Take returns n values if that takes no waiting.
	Take(role string, d *router.Draw, n int) (values []int64, ok bool)
	// Draw returns n values, or why there are none: a *wire.Error.
	Draw(ctx context.Context, role string, d *router.Draw, n int) ([]int64, error)
	// Forget gives up what was drawn ahead: sequences may have been set.
	Forget()
}

// draw draws what the rows of an INSERT leave to sequences, and to chance.
func (s *session) draw(p *router.Plan) *wire.Error {
	s.values.Drawn = s.values.Drawn[:0]
	if p == nil || len(p.Draws()) == 0 {
		return nil
	}
	draws, n := p.Draws(), p.RowCount()
	s.values.Drawn = make([][]byte, n*len(draws))
	for i := range draws {
		d := &draws[i]
		if d.Sequence == "" {
			for row := range n {
				s.values.Drawn[row*len(draws)+i] = randomUUID()
			}
			continue
		}
		values, e := s.drawValues(d, n)
		if e != nil {
			return e
		}
		for row, v := range values {
			s.values.Drawn[row*len(draws)+i] = strconv.AppendInt(nil, v, 10)
		}
	}
	return nil
}

func (s *session) drawValues(d *router.Draw, n int) (values []int64, e *wire.Error) {
	values, ok := s.db.Draws.Take(s.role, d, n)
	if ok {
		return values, nil
	}
	var err error
	s.task.aside(func() { values, err = s.db.Draws.Draw(s.server.ctx, s.role, d, n) })
	if err != nil {
		return nil, wire.AsError(err)
	}
	return values, nil
}

// randomUUID returns one of version 4, as gen_random_uuid does.
func randomUUID() []byte {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	out := make([]byte, 0, 36)
	for i, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			out = append(out, '-')
		}
		out = hex.AppendEncode(out, part)
	}
	return out
}

// notesSequences notes that a plan may set a sequence: what was drawn ahead of it may
// come again then.
func (s *session) notesSequences(p *router.Plan) {
	const sets = query.EffectSequenceWrite | query.EffectCatalog | query.EffectUnknown
	s.setsSequences = s.setsSequences || s.places != nil && s.db.Draws != nil && (p == nil || p.Effects&sets != 0)
}

// runAlone runs a request that was rewritten and needs one shard, outside of a
// transaction, and answers it.
func (s *session) runAlone(kind byte, size int, r *allRequest) error {
	err := s.acquire(need{shard: r.shards[0], primary: true})
	if err == nil {
		if e := s.awaitReplies(); e != nil {
			err = e
		}
	}
	if err != nil {
		e := wire.AsError(err)
		if err == errEnded || e.IsFatal() {
			return err
		}
		s.refuse(kind, size, e)
		return nil
	}
	s.db.stats.statements.Add(1)
	s.setPhase(phaseActive)
	s.client.Release()
	s.held = false
	a, err := s.runOn(s.lease, r.parts[0], answerMax)
	var e *wire.Error
	switch {
	case isLost(err):
		return s.lostAlone(kind, size, err)
	case err == pool.ErrAnswerTooLarge:
		e = wire.Errorf("54000", "the answer is larger than %d bytes", answerMax).WithDetail("The rows were inserted.")
	case err != nil:
		e = wire.AsError(err)
	}
	s.acted, s.wrote = true, true
	s.suspect |= r.plan.Effects & auditEffects
	s.transaction('I')
	s.forgetPlans()
	return s.answerAll(kind, *r, a, e)
}

// lostAlone ends a request whose connection is gone: it may have been executed.
func (s *session) lostAlone(kind byte, size int, cause error) error {
	l := s.lease
	s.shard.Nodes.Suspect(l.Node, cause)
	s.giveBack(pool.Dead)
	s.mark, s.wrote = s.shard.Nodes.Mark(), false
	s.refuse(kind, size, wire.Errorf("08007", "the connection to the server was lost: it is not known whether the rows were inserted").
		WithDetail("Shard %s, node %s.", s.shard.Name, l.Address()).WithCause(cause))
	return nil
}
