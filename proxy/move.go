package proxy

import (
	"slices"

	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/wire"
)

// An UPDATE that changes the key runs on the shards where its rows are. Then those that
// belong elsewhere now are deleted there, and inserted where they belong, in the same
// transaction; in binary format, which no setting changes.

// moving is how the rows of a request are moved.
type moving struct {
	to    int
	taken []byte // the request that takes them from a shard
	put   []byte // the Parse of the statement that inserts one
}

// movesOn returns the shard of an UPDATE whose rows are, and stay, on one; errSplit when
// they are not.
func movesOn(p *router.Plan, owners *router.Owners, v *router.Values) (int, error) {
	to, err := p.Destination(owners, v)
	if err != nil {
		return router.AnyShard, err
	}
	shards, err := p.Shards(owners, v)
	if err == nil && slices.ContainsFunc(shards, func(i int) bool { return i != to }) {
		err = errSplit
	}
	return to, err
}

// moving prepares to move the rows of a plan whose values are set.
func (s *session) moving(p *router.Plan, owners *router.Owners) (*moving, error) {
	to, err := p.Destination(owners, &s.values)
	if err != nil {
		return nil, err
	}
	part, ok := p.Taken(s.values.Text, s.scanner(), &s.values)
	if !ok {
		return nil, wire.Errorf("0A000", "the new key of the rows cannot be told apart")
	}
	execute := wire.AppendFrame(nil, wire.MsgExecute, make([]byte, 5))
	return &moving{
		to:    to,
		taken: partFrames(&part, true, wire.AppendEmpty(execute, wire.MsgSync)),
		put:   wire.AppendParse(nil, "", append([]byte(p.Put()), 0, 0, 0)),
	}, nil
}

// enlisted returns the shards that take part in the request, in order.
func (r *allRequest) enlisted() []int {
	if r.move == nil || slices.Contains(r.shards, r.move.to) {
		return r.shards
	}
	all := append(r.shards[:len(r.shards):len(r.shards)], r.move.to)
	slices.Sort(all)
	return all
}

// moveRows moves the rows that were updated, and returns the answer: a, or an error.
func (s *session) moveRows(r *allRequest, answers []pool.Answer, a pool.Answer) (pool.Answer, *wire.Error) {
	for i, shard := range r.shards {
		_, n, _ := answers[i].Count()
		if shard == r.move.to || n == 0 {
			continue
		}
		from, _ := s.partOn(shard)
		said, err := s.runOn(from, r.move.taken, answerMax)
		if err != nil {
			return s.notMoved(from, said, err)
		}
		_, rows, _ := cutRows(said.Frames)
		if len(rows) != n {
			return s.notMoved(from, pool.Answer{}, wire.Errorf("0A000", "the rows that were changed are not found by their new key, and cannot be moved to its shard").
				WithHint("Give the key in the form in which it is stored."))
		}
		to, wrote := s.partOn(r.move.to)
		*wrote = true
		if said, err = s.putRows(to, r.move.put, rows); err != nil {
			return s.notMoved(to, said, err)
		}
	}
	return a, nil
}

// putMax bounds what is sent before the answers are read, in bytes.
const putMax = 64 << 10

// putRows inserts rows that were taken.
func (s *session) putRows(l *pool.Server, parse []byte, rows [][]byte) (a pool.Answer, err error) {
	for len(rows) > 0 {
		frames := append([]byte(nil), parse...)
		for len(rows) > 0 && len(frames) < putMax {
			// A row's fields stand as Bind has its parameters.
			frames = wire.AppendFrame(frames, wire.MsgBind, []byte{0, 0, 0, 1, 0, 1}, rows[0][5:], []byte{0, 0})
			frames = wire.AppendFrame(frames, wire.MsgExecute, make([]byte, 5))
			rows = rows[1:]
		}
		if a, err = s.runOn(l, wire.AppendEmpty(frames, wire.MsgSync), answerMax); err != nil {
			return a, err
		}
		for b := a.Frames; len(b) > 0; b = b[frameSize(b):] {
			if b[0] == wire.MsgCommandComplete && string(cut(b[5:frameSize(b)])) != "INSERT 0 1" {
				return pool.Answer{}, wire.Errorf("0A000", "a row that is moved was not inserted on the shard of its new key")
			}
		}
	}
	return a, nil
}

// notMoved makes the transaction fail.
func (s *session) notMoved(l *pool.Server, a pool.Answer, err error) (pool.Answer, *wire.Error) {
	if a.Error != nil && !isLost(err) {
		a.Error = withoutPosition(a.Error)
		_ = s.lease.Exec(s.server.ctx, "EXECUTE "+noStatement) // it fails, and the transaction with it
	}
	a.Frames = nil
	return a, s.allFailed(l, a, err)
}
