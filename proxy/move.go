package proxy

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
	"strconv"
	"strings"

	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// An UPDATE that changes the key runs on the shards where its rows are, and tells which it changed. Those that
// belong elsewhere now are deleted there, and inserted where they belong, in the same
// transaction; in binary format, which no setting changes.

// moving is how the rows of a request are moved.
type moving struct {
	plan   *router.Plan
	owners *router.Owners
	// to is where all of them belong, AnyShard when each has a new key of its own.
	to int
	// extended is set when the request is no simple query.
	extended bool
	// locks, when it is not nil, is run on each shard first, and tells of the rows that will be changed.
	locks []byte
	// told is what each shard says of the rows that it has changed; had, by the shard, the hashes of what these rows had that
	// unique indexes compare, each with the number of its index ahead.
	told [][]string
	had  map[int]map[string]bool
}

// movesOn returns the shard of an UPDATE whose rows are, and stay, on one; errSplit when
// they are not, or it is not known where they will be.
func movesOn(p *router.Plan, owners *router.Owners, v *router.Values) (int, error) {
	if p.MovesEach() {
		return router.AnyShard, errSplit
	}
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

// moves makes the request, whose values are set, one that tells which rows it changed, and moves them.
func (s *session) moves(r *allRequest, owners *router.Owners, bind, tail []byte) *wire.Error {
	ctx := s.planContext()
	if ctx.HiddenSlots > 0 {
		return router.KeyMoves()
	}
	m := &moving{plan: r.plan, owners: owners, to: router.AnyShard, extended: bind != nil}
	var err error
	if !r.plan.MovesEach() {
		if m.to, err = r.plan.Destination(owners, &s.values); err != nil {
			return wire.AsError(err)
		}
	}
	tells, err := s.db.Planner.Telling(string(s.values.Text), r.plan, owners.Map().Slots(), ctx)
	if err != nil {
		return wire.AsError(err)
	}
	if bind != nil {
		ok := false
		if bind, ok = s.values.WithText(bind); !ok {
			return wire.Errorf("08P01", "invalid Bind message")
		}
	}
	if tells.Locks != "" {
		part, ok := s.values.Restate([]byte(tells.Locks))
		if !ok {
			return wire.Errorf("08P01", "invalid Bind message")
		}
		m.locks, m.had = rowsFrames(&part), map[int]map[string]bool{}
	}
	r.move, r.frames = m, s.rewritten(nil, []byte(tells.Text), bind, tail)
	return nil
}

// rowsFrames is a request of ours whose rows come as text.
func rowsFrames(part *router.Part) []byte {
	part.Bind = append(part.Bind, 0, 0)
	return partFrames(part, true, wire.AppendEmpty(wire.AppendFrame(nil, wire.MsgExecute, make([]byte, 5)), wire.MsgSync))
}

// lockRows locks the rows that the request will change on a shard, when it has to know what they had. The answer is that of
// a failure.
func (s *session) lockRows(m *moving, shard int, l *pool.Server) (locked int, a pool.Answer, err error) {
	if a, err = s.runOn(l, m.locks, answerMax); err != nil {
		if a.Frames = nil; a.Error != nil {
			a.Error = withoutPosition(a.Error)
		}
		return 0, a, err
	}
	_, told, ok := withoutLast(a.Frames, true)
	if !ok {
		return 0, pool.Answer{}, errUntold()
	}
	had, rows := map[string]bool{}, map[string]bool{}
	for _, row := range told {
		part := strings.Split(row, " ")
		if len(part) < 2 {
			return 0, pool.Answer{}, errUntold()
		}
		rows[part[0]+part[1]] = true
		for i, hash := range part[2:] {
			had[strconv.Itoa(i)+" "+hash] = true
		}
	}
	m.had[shard] = had
	return len(rows), a, nil
}

func errUntold() *wire.Error {
	return wire.Errorf("XX000", "a shard does not tell which rows it changes")
}

// hear takes from the shards' answers what they tell of the rows that they have changed.
func (m *moving) hear(answers []pool.Answer) *wire.Error {
	m.told = make([][]string, len(answers))
	for i := range answers {
		frames, told, ok := withoutLast(answers[i].Frames, m.extended)
		if !ok {
			return errUntold()
		}
		answers[i].Frames, m.told[i] = frames, told
	}
	return nil
}

// withoutLast returns an answer without its last column, and what was in it. Without any other column it is that to
// a statement that returns no rows.
func withoutLast(frames []byte, extended bool) (out []byte, last []string, ok bool) {
	out, ok = make([]byte, 0, len(frames)), true
	for len(frames) > 0 {
		kind, body := frames[0], frames[5:frameSize(frames)]
		frames = frames[frameSize(frames):]
		switch kind {
		case wire.MsgRowDescription:
			out, ok = appendLessColumn(out, body, extended)
		case wire.MsgDataRow:
			out, last, ok = appendLessField(out, last, body)
		default:
			out = wire.AppendFrame(out, kind, body)
		}
		if !ok {
			return nil, nil, false
		}
	}
	return out, last, true
}

// appendLessColumn appends a RowDescription without its last column, or what stands for none.
func appendLessColumn(dst, body []byte, extended bool) ([]byte, bool) {
	if len(body) < 2 {
		return nil, false
	}
	n, at := int(binary.BigEndian.Uint16(body)), 2
	for range n - 1 {
		end := bytes.IndexByte(body[at:], 0)
		if end < 0 || at+end+1+18 > len(body) {
			return nil, false
		}
		at += end + 1 + 18
	}
	switch {
	case n <= 1 && extended:
		return wire.AppendEmpty(dst, wire.MsgNoData), true
	case n <= 1:
		return dst, true
	}
	return wire.AppendFrame(dst, wire.MsgRowDescription, binary.BigEndian.AppendUint16(nil, uint16(n-1)), body[2:at]), true
}

// appendLessField appends a DataRow without its last field, which it adds to last; nothing when there is no other.
func appendLessField(dst []byte, last []string, body []byte) ([]byte, []string, bool) {
	if len(body) < 2 {
		return nil, nil, false
	}
	n, at := int(binary.BigEndian.Uint16(body)), 2
	for i := range n {
		if at+4 > len(body) {
			return nil, nil, false
		}
		size := int(int32(binary.BigEndian.Uint32(body[at:])))
		if i == n-1 {
			if size < 0 || at+4+size != len(body) {
				return nil, nil, false
			}
			last = append(last, string(body[at+4:]))
			break
		}
		at += 4 + max(size, 0)
	}
	if n > 1 {
		dst = wire.AppendFrame(dst, wire.MsgDataRow, binary.BigEndian.AppendUint16(nil, uint16(n-1)), body[2:at])
	}
	return dst, last, n > 0
}

// enlisted returns the shards that take part in the request, in order.
func (r *allRequest) enlisted() []int {
	switch {
	case r.move == nil, r.move.to >= 0 && slices.Contains(r.shards, r.move.to):
		return r.shards
	case r.move.to < 0:
		return r.move.owners.All()
	}
	all := append(r.shards[:len(r.shards):len(r.shards)], r.move.to)
	slices.Sort(all)
	return all
}

// batchOfRows are rows that are in one table of a shard, and belong to another shard.
type batchOfRows struct {
	from, to int
	table    string // its number
}

// astray returns the rows, by their ctids, that belong to another shard than the one where they are now.
func (m *moving) astray(shards []int) (map[batchOfRows][]string, *wire.Error) {
	rows := map[batchOfRows][]string{}
	for i, shard := range shards {
		for _, row := range m.told[i] {
			part := strings.Split(row, " ")
			if len(part) < 2 {
				return nil, errUntold()
			}
			to := m.to
			if m.plan.MovesEach() {
				var e *wire.Error
				if to, e = m.belongs(part, shard); e != nil {
					return nil, e
				}
			}
			if to != shard {
				b := batchOfRows{shard, to, part[0]}
				rows[b] = append(rows[b], part[1])
			}
		}
	}
	return rows, nil
}

// belongs returns the shard that a row belongs to which has a new key of its own.
func (m *moving) belongs(told []string, shard int) (int, *wire.Error) {
	if len(told) < 3 {
		return 0, errUntold()
	}
	if told[2] == "-" {
		return 0, m.plan.NullKey()
	}
	slot, err := strconv.Atoi(told[2])
	if err != nil || slot < 0 || slot >= m.owners.Map().Slots() {
		return 0, errUntold()
	}
	to := m.owners.OfSlot(shardmap.Slot(slot))
	if to == shard {
		return to, nil
	}
	for i, hash := range told[3:] {
		if m.had[to][strconv.Itoa(i)+" "+hash] {
			return 0, router.KeyTaken()
		}
	}
	return to, nil
}

// moveRows moves the rows that were updated: first all are taken from where they are, for others may come there.
// It returns the answer: a, or an error.
func (s *session) moveRows(r *allRequest, a pool.Answer) (pool.Answer, *wire.Error) {
	astray, e := r.move.astray(r.shards)
	if e != nil {
		return s.notMoved(s.lease, pool.Answer{}, e)
	}
	batches := slices.SortedFunc(maps.Keys(astray), func(a, b batchOfRows) int {
		return cmp.Or(a.from-b.from, a.to-b.to, strings.Compare(a.table, b.table))
	})
	taken := make([][][]byte, len(batches))
	for i, b := range batches {
		from, _ := s.partOn(b.from)
		said, err := s.runOn(from, takeFrames(r.move.plan.Take(b.table, astray[b])), answerMax)
		if err != nil {
			return s.notMoved(from, said, err)
		}
		if _, taken[i], _ = cutRows(said.Frames); len(taken[i]) != len(astray[b]) {
			return s.notMoved(from, pool.Answer{}, wire.Errorf("0A000", "the rows that were changed cannot be moved to the shard of their new key: the table, or its triggers, are not what they were").
				WithHint("Try again."))
		}
	}
	put := wire.AppendParse(nil, "", append([]byte(r.move.plan.Put()), 0, 0, 0))
	for i, b := range batches {
		to, wrote := s.partOn(b.to)
		*wrote = true
		if said, err := s.putRows(to, put, taken[i]); err != nil {
			return s.notMoved(to, said, err)
		}
	}
	return a, nil
}

// takeFrames is a request whose rows come in binary format.
func takeFrames(sql string) []byte {
	frames := wire.AppendParse(nil, "", append([]byte(sql), 0, 0, 0))
	frames = wire.AppendFrame(frames, wire.MsgBind, []byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 1})
	frames = wire.AppendFrame(frames, wire.MsgExecute, make([]byte, 5))
	return wire.AppendEmpty(frames, wire.MsgSync)
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
		_ = s.failLease()
	}
	a.Frames = nil
	return a, s.allFailed(l, a, err)
}
