package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"

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
	// TakeUnique and DrawUnique give ids that nobody else is given, as Take and Draw.
	TakeUnique(n int) (ids []int64, ok bool)
	DrawUnique(ctx context.Context, n int) ([]int64, error)
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
		if d.OfMoment() {
			continue
		}
		if d.OfChance() {
			for row := range n {
				s.values.Drawn[row*len(draws)+i] = randomUUID().text()
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
	s.recallDrawn(p)
	return nil
}

func (s *session) drawValues(d *router.Draw, n int) (values []int64, e *wire.Error) {
	var ok bool
	if d.Unique {
		values, ok = s.db.Draws.TakeUnique(n)
	} else {
		values, ok = s.db.Draws.Take(s.role, d, n)
	}
	if ok {
		return values, nil
	}
	var err error
	s.task.aside(func() { values, err = s.drawMore(d, n) })
	if err != nil {
		return nil, wire.AsError(err)
	}
	return values, nil
}

// drawMore waits for values.
func (s *session) drawMore(d *router.Draw, n int) ([]int64, error) {
	if d.Unique {
		return s.db.Draws.DrawUnique(s.server.ctx, n)
	}
	return s.db.Draws.Draw(s.server.ctx, s.role, d, n)
}

// uuid is one as its type's binary format has it.
type uuid [16]byte

// randomUUID returns one of version 4, as gen_random_uuid does.
func randomUUID() (id uuid) {
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// text returns the type's text format.
func (id uuid) text() []byte {
	out := make([]byte, 0, 36)
	for i, part := range [][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
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
