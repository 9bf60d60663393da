package proxy

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"

	"shardproxy/exec"
	"shardproxy/pool"
	"shardproxy/router"
	"shardproxy/wire"
)

// SELECT ... LIMIT n FOR UPDATE SKIP LOCKED takes n rows of a queue, and what it has locked nobody else takes. A server locks the rows of a
// portal as they are asked for, not before: so each shard has one, and is asked for as many rows as are taken from it. Where rows
// have an order, the next row of each shard must be known, and is locked for that: behind a savepoint, and those that are
// not taken are given back by rolling back to it. What a server says of rows that others have, or have changed, is its own, row by row.

// claim is such a query that runs.
type claim struct {
	c     *scattering
	on    string // what the portals are called
	order []exec.Order
	from  []*claimShard
	left  int64
	rows  [][]byte // DataRow messages, without what they are ordered by
	bytes int
}

// claimShard is one shard's part.
type claimShard struct {
	shard *scatterShard
	row   []byte   // the next one, locked behind the savepoint; nil for none
	keys  [][]byte // of row
	// marked is set when the savepoint is there, taken when the row behind it is one of the answer, ended when
	// there are no more.
	marked, taken, ended bool
}

// claimSavepoint is the savepoint's name. It never outlives its statement.
const claimSavepoint = `"shardproxy_claim"`

// claims runs a part on the shards, and returns the rows that it has locked, limit at most, in their order; with nought
// it only has the columns described. What fails is noted.
func (c *scattering) claims(part *router.Part, shards []int, limit int64, order []exec.Order, described func(body []byte)) (rows [][]byte) {
	k := &claim{c: c, on: c.s.newPortalName(), order: order, left: limit}
	for _, shard := range c.shards {
		if slices.Contains(shards, shard.index) {
			k.from = append(k.from, &claimShard{shard: shard})
		}
	}
	k.open(part, described)
	switch {
	case c.err != nil || c.stale:
		return nil
	case len(order) == 0:
		k.inTurn()
	default:
		k.inOrder()
	}
	if c.err == nil {
		k.end()
	}
	if c.err != nil {
		return nil
	}
	return k.rows
}

// open makes the portals.
func (k *claim) open(part *router.Part, described func(body []byte)) {
	c := k.c
	c.prepare(c.start(func(shard *scatterShard) []byte {
		if !slices.ContainsFunc(k.from, func(s *claimShard) bool { return s.shard == shard }) {
			return nil
		}
		// When the shards are begun anew, one of the first try is there.
		frames := wire.AppendClose(c.s.closing(shard.index), 'P', k.on)
		frames = wire.AppendParse(frames, "", parseRest(part))
		frames = wire.AppendFrame(frames, wire.MsgBind, []byte(k.on), []byte{0, 0}, part.Bind)
		return wire.AppendFrame(frames, wire.MsgDescribe, []byte{'P'}, []byte(k.on), []byte{0})
	}, wire.AppendEmpty(nil, wire.MsgSync)), described)
}

// inTurn takes rows that have no order from one shard after the other. None is locked that is not taken.
func (k *claim) inTurn() {
	for _, s := range k.from {
		if k.left == 0 || !k.rest(s) {
			return
		}
	}
}

// rest takes all that is wanted from one shard.
func (k *claim) rest(s *claimShard) (ok bool) {
	frames := k.settling(nil, s)
	s.marked = false
	rows, ok := k.ask(s, k.execute(frames, k.left))
	k.failed(s)
	for _, row := range rows {
		ok = ok && k.take(row)
	}
	return ok
}

// inOrder takes the first of all rows, one after the other.
func (k *claim) inOrder() {
	if k.left == 0 || !k.together(k.from, k.next) {
		return
	}
	for k.left > 0 {
		var first *claimShard
		open := 0
		for _, s := range k.from {
			if s.row == nil {
				continue
			}
			if open++; first == nil {
				first = s
				continue
			}
			before, err := k.before(s, first)
			if err != nil {
				k.c.fail(wire.AsError(err), nil, -1)
				return
			}
			if before {
				first = s
			}
		}
		if first == nil {
			return
		}
		if first.taken = true; !k.take(first.row) {
			return
		}
		first.row = nil
		switch {
		case k.left == 0:
		case open == 1: // nobody else's row comes before
			k.rest(first)
			return
		case !k.together([]*claimShard{first}, k.next):
			return
		}
	}
}

// before reports whether the row of one shard comes before that of another.
func (k *claim) before(a, b *claimShard) (bool, error) {
	for i, o := range k.order {
		d, err := o.Compare(a.keys[i], b.keys[i])
		if err != nil || d != 0 {
			return d < 0, err
		}
	}
	return false, nil
}

// next locks the next row of a shard behind a savepoint.
func (k *claim) next(s *claimShard) bool {
	frames := k.settling(nil, s)
	s.marked, s.taken = true, false
	rows, ok := k.ask(s, k.execute(command(frames, "SAVEPOINT "+claimSavepoint), 1))
	if !ok {
		return false
	}
	if s.ended = len(rows) == 0; s.ended {
		return true
	}
	s.row = rows[0]
	fields := rowFields(s.row[5:])
	if len(fields) < len(k.order) {
		s.shard.err = errClaimRow
		return false
	}
	s.keys = fields[len(fields)-len(k.order):]
	return true
}

// settling appends what keeps the row that was taken, or gives the other back.
func (k *claim) settling(frames []byte, s *claimShard) []byte {
	switch {
	case !s.marked:
		return frames
	case !s.taken:
		frames = command(frames, "ROLLBACK TO SAVEPOINT "+claimSavepoint)
	}
	return command(frames, "RELEASE SAVEPOINT "+claimSavepoint)
}

// end gives back what was not taken, and closes the portals.
func (k *claim) end() {
	k.together(k.from, func(s *claimShard) bool {
		frames := wire.AppendClose(k.settling(nil, s), 'P', k.on)
		s.marked = false
		_, ok := k.ask(s, wire.AppendEmpty(frames, wire.MsgSync))
		return ok
	})
}

// command appends a command as the extended protocol has it.
func command(frames []byte, sql string) []byte {
	frames = wire.AppendParse(frames, "", append([]byte(sql), 0, 0, 0))
	frames = wire.AppendFrame(frames, wire.MsgBind, make([]byte, 8))
	return wire.AppendFrame(frames, wire.MsgExecute, make([]byte, 5))
}

// execute appends a request for rows of the portal.
func (k *claim) execute(frames []byte, rows int64) []byte {
	n := min(rows, 1<<31-1)
	frames = wire.AppendFrame(frames, wire.MsgExecute, []byte(k.on), []byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	return wire.AppendEmpty(frames, wire.MsgSync)
}

// take has a row be one of the answer.
func (k *claim) take(row []byte) bool {
	row, ok := withoutKeys(row, len(k.order))
	if !ok {
		k.c.fail(wire.Errorf("08P01", "lost synchronization with the server").WithDetail("A row is not well-formed."), nil, -1)
		return false
	}
	if k.bytes += len(row); int64(k.bytes) > k.c.s.db.Policy().GatherMax {
		k.c.fail(errClaimLarge(k.c.s.db.Policy().GatherMax), nil, -1)
		return false
	}
	k.rows, k.left = append(k.rows, row), k.left-1
	return true
}

// errClaimRow says that a row is not well-formed.
var errClaimRow = errors.New("a row is not well-formed")

func errClaimLarge(max int64) *wire.Error {
	return wire.Errorf("54000", "the rows that one statement locks on several shards are more than %d bytes", max).
		WithHint("Lock fewer at once, or raise limits.gather.")
}

// together does the same with several shards at once, and reports whether all went well.
func (k *claim) together(shards []*claimShard, do func(*claimShard) bool) bool {
	var wg sync.WaitGroup
	for _, s := range shards {
		wg.Go(func() { do(s) })
	}
	wg.Wait()
	for _, s := range shards {
		k.failed(s)
	}
	return k.c.err == nil
}

// ask runs frames on a shard, and returns the rows that it gives. Nothing but the shard's own is touched, so that several may be
// asked at once; see failed.
func (k *claim) ask(s *claimShard, frames []byte) (rows [][]byte, ok bool) {
	shard := s.shard
	if k.c.unwanted.Load() {
		shard.err = errUnwanted
		return nil, false
	}
	shard.answer, shard.err = shard.lease.Run(k.c.s.server.ctx, frames, pool.RunOptions{Keep: int(k.c.s.db.Policy().GatherMax), Cancelled: k.c.unwanted.Load})
	if shard.err != nil {
		return nil, false
	}
	for b := shard.answer.Frames; len(b) > 0; b = b[frameSize(b):] {
		if b[0] == wire.MsgDataRow {
			rows = append(rows, b[:frameSize(b)])
		}
	}
	return rows, true
}

// failed notes what a shard has failed with.
func (k *claim) failed(s *claimShard) {
	switch shard := s.shard; {
	case shard.err == nil:
	case shard.err == errUnwanted:
		shard.err = nil
		k.c.fail(errUserCancel(), nil, -1)
	case shard.err == errClaimRow:
		shard.err = nil
		k.c.fail(wire.Errorf("08P01", "lost synchronization with the server").WithDetail("A row is not well-formed."), nil, -1)
	case shard.err == pool.ErrAnswerTooLarge:
		shard.err = nil
		k.c.fail(errClaimLarge(k.c.s.db.Policy().GatherMax), nil, -1)
	default:
		k.c.fail(wire.AsError(shard.err), k.c.told(shard), slices.Index(k.c.shards, shard))
	}
}

// withoutKeys is a DataRow without its last columns.
func withoutKeys(row []byte, keys int) ([]byte, bool) {
	if keys == 0 {
		return row, true
	}
	fields := int(binary.BigEndian.Uint16(row[5:])) - keys
	rest, ok := row[7:], fields >= 0
	for i := 0; i < fields && ok; i++ {
		var n int
		if ok = len(rest) >= 4; ok {
			n = max(0, int(int32(binary.BigEndian.Uint32(rest))))
			if ok = len(rest) >= 4+n; ok {
				rest = rest[4+n:]
			}
		}
	}
	if !ok {
		return nil, false
	}
	out := slices.Clone(row[:len(row)-len(rest)])
	binary.BigEndian.PutUint32(out[1:], uint32(len(out)-1))
	binary.BigEndian.PutUint16(out[5:], uint16(fields))
	return out, true
}

// mergeClaimed gives the client the rows that a merge has locked.
func (c *scattering) mergeClaimed(part *router.Part, o exec.MergeOptions, columns []byte) {
	agree := true
	rows := c.claims(part, c.merging, o.Limit, o.Keys, func(body []byte) {
		if agree = agree && c.agrees(body); agree && columns == nil {
			columns = append([]byte(nil), body...)
		}
		agree = agree && c.asTold(columns)
	})
	if c.err != nil {
		return
	}
	if c.stale {
		c.afresh(c.merge)
		return
	}
	if columns == nil {
		columns = []byte{0, 0}
	}
	c.s.client.SetOutput(c.head(c.s.client.Output(), columns))
	records := checksRecords(c.expected[:len(c.expected)-o.Hidden], c.asks.formats)
	for _, row := range rows {
		if e := records.frames(row); e != nil {
			c.fail(e, nil, -1)
			return
		}
		if c.send(row) != nil {
			return
		}
	}
	c.rows = int64(len(rows))
}

// claiming reports whether the query writes rows that it locks first.
func (c *scattering) claiming() bool {
	return c.way != nil && len(c.way.Inputs) == 1 && c.way.Inputs[0].Claim != nil
}

// readClaimed reads the only input, whose rows are locked.
func (c *scattering) readClaimed(inputs []gathered) bool {
	g := &inputs[0]
	m := g.input.Claim
	limit, _, ok := c.bounds(m)
	if !ok {
		return false
	}
	part, ok := c.part(mergedText(m, limit, 0))
	if !ok {
		return false
	}
	if limit < 0 {
		limit = math.MaxInt64
	}
	d := c.describe(part)
	if c.err != nil {
		return false
	}
	visible := len(d[0].columns) - len(m.Keys)
	if c.stale = c.cached && !sameTypes(d[0].columns[:max(visible, 0)], g.about.columns); c.stale {
		return false
	}
	order := make([]exec.Order, len(m.Keys))
	for i, k := range m.Keys {
		order[i] = exec.Order{Type: d[0].columns[visible+i].typ, Descending: k.Descending, NullsFirst: k.NullsFirst, Bytewise: k.Bytewise}
		if !order[i].Comparable() {
			c.fail(wire.Errorf("0A000", "this statement cannot be run over several shards: rows of several shards are locked, in an order that a server is to find").
				WithHint("Order them by numbers or times."), nil, -1)
			return false
		}
	}
	part.Bind = appendFormats(part.Bind, c.inputFormats(inputs), visible, len(m.Keys))
	c.gathering, c.expected = true, d[0].columns
	defer func() { c.gathering = false }()
	rows := c.claims(&part, g.shards, limit, order, func(body []byte) { c.agrees(body) })
	for _, row := range rows {
		if err := g.arrays.Add(row[5:], 0); err != nil {
			c.fail(c.tooMuch(inputs, err), nil, -1)
			return false
		}
	}
	if c.err == nil && c.haveMoved(inputs) {
		c.fail(errMoved, nil, -1)
	}
	c.held = c.budget.Used()
	c.s.db.stats.gathered.Add(c.held)
	c.s.db.stats.gatherHeld.Add(c.held)
	return c.err == nil && !c.stale
}
