package proxy

import (
	"bytes"
	"io"
	"slices"

	"shardproxy/exec"
	"shardproxy/query"
	"shardproxy/wire"
)

// How many rows a shard is asked for at once: so many first, then as many as are about blockBytes, and
// not more than blockMost. A client that takes less than blockLeast at once
// is read ahead for.
const (
	firstBlock = 16
	blockLeast = 16
	blockMost  = 8192
	blockBytes = 256 << 10
)

// read runs f, which reads a piece of the query, beside the session's loop. What failed is in c.err, and fails
// the transaction; an error ends the session.
func (q *openQuery) read(f func()) error {
	c := q.c
	c.err, c.raw, c.failed, c.notices, c.rows, c.given = nil, nil, -1, nil, 0, 0
	c.unwanted.Store(false)
	c.s.db.stats.statements.Add(1)
	c.s.noteAskKind(askRead, scopeSeveral)
	err := c.on(func() {
		c.inWindow = false // the portals have their snapshots
		if q.failed {
			c.fail(errOpenFailed(q.name), nil, -1)
			return
		}
		f()
	})
	q.failed = q.failed || c.err != nil
	if q.pieces != nil {
		held := int64(q.pieces.Held())
		c.s.db.stats.gatherHeld.Add(held - q.counted)
		q.counted = held
	}
	return err
}

// rows gives the next rows to give, max at most, all when it is negative, in formats as Bind has them. It returns how
// many these were; fewer than max are all that there were.
func (q *openQuery) rows(max int64, formats []byte, give func(frames []byte) error) (n int64) {
	c := q.c
	if q.pieces.Unread() && !sameFormats(formats, q.rowsAs, q.visible) {
		c.fail(wire.Errorf("0A000", "a cursor over several shards whose rows have been read ahead in one format cannot go on in another").
			WithHint("FETCH from it in one format, or declare it SCROLL."), nil, -1)
		return 0
	}
	q.rowsAs = append(q.rowsAs[:0], formats...)
	for max < 0 || n < max {
		left := max
		if max > 0 {
			left -= n
		}
		frames, rows, wants, err := q.pieces.Next(left)
		switch {
		case err == io.EOF:
			return n
		case err != nil:
			c.fail(wire.AsError(err), nil, -1)
			return n
		case wants >= 0:
			if !q.fetch(wants, left) {
				return n
			}
			continue
		}
		if q.records == nil && len(q.from) > 1 {
			q.records = checksRecords(readColumns(q.columns), formats)
		}
		if e := q.records.frames(frames); e != nil {
			c.fail(e, nil, -1)
			return n
		}
		if n += rows; give != nil {
			if err := give(frames); err != nil {
				return n
			}
		}
	}
	return n
}

// sameFormats reports whether formats mean the same for so many columns.
func sameFormats(a, b []byte, columns int) bool {
	return bytes.Equal(appendFormats(nil, a, columns, 1), appendFormats(nil, b, columns, 1))
}

// fetch asks a shard for its next rows, of which the client wants so many, and the others that are out of them if
// they will be needed soon.
func (q *openQuery) fetch(wants int, left int64) bool {
	c := q.c
	if c.unwanted.Load() {
		c.fail(errUserCancel(), nil, -1)
		return false
	}
	n := q.block
	if left >= 0 {
		n = min(n, max(left, blockLeast))
	}
	ask := make([]bool, len(q.from))
	for i := range ask {
		ask[i] = i == wants || q.pieces.Wants(i) && (!q.asked || left < 0 || left > q.block)
	}
	q.asked = true
	c.start(func(shard *scatterShard) []byte {
		if i := slices.Index(q.from, shard); i < 0 || !ask[i] {
			return nil
		}
		return q.more(c.s.closing(shard.index), n)
	}, nil)
	if c.err != nil {
		return false
	}
	var rows, size int64
	for i, shard := range q.from {
		if !ask[i] {
			continue
		}
		block, count, ok := q.take(shard)
		if !ok {
			return false
		}
		q.pieces.Feed(i, block, count < n)
		rows, size = rows+count, size+int64(len(block))
	}
	c.endStreams(nil)
	if rows > 0 {
		q.block = min(max(1, blockBytes*rows/max(1, size)), 4*q.block, blockMost)
	}
	return c.err == nil
}

// more is a request for the next rows of a shard's portal, behind frames.
func (q *openQuery) more(frames []byte, n int64) []byte {
	if sameFormats(q.rowsAs, q.formats, q.visible) {
		rows := []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		frames = wire.AppendFrame(frames, wire.MsgExecute, []byte(q.on), []byte{0}, rows)
		return wire.AppendEmpty(frames, wire.MsgSync)
	}
	return q.sql(frames, query.Fetch{Count: n}, appendFormats(nil, q.rowsAs, q.visible, q.hidden))
}

// sql is a FETCH or MOVE on a server's portal, behind frames.
func (q *openQuery) sql(frames []byte, f query.Fetch, formats []byte) []byte {
	frames = wire.AppendParse(frames, "", append(f.AppendTo(nil, q.on), 0, 0, 0))
	frames = wire.AppendFrame(frames, wire.MsgBind, []byte{0, 0, 0, 0, 0, 0}, formats)
	frames = wire.AppendFrame(frames, wire.MsgExecute, make([]byte, 5))
	return wire.AppendEmpty(wire.AppendClose(frames, 'P', ""), wire.MsgSync) // the client has none
}

// take reads what one shard gives.
func (q *openQuery) take(shard *scatterShard) (block []byte, rows int64, ok bool) {
	c := q.c
	for {
		frames, err := shard.stream.Next()
		if err == io.EOF {
			return block, rows, true
		}
		if err != nil {
			c.endStreams(&exec.SourceError{Source: slices.Index(c.started, slices.Index(c.shards, shard)), Err: err})
			return nil, 0, false
		}
		for len(frames) > 0 {
			size := frameSize(frames)
			if frames[0] == wire.MsgDataRow {
				block = append(block, frames[:size]...)
				rows++
			}
			frames = frames[size:]
		}
		if int64(q.pieces.Held()+len(block)) > c.s.db.Policy().GatherMax {
			c.fail(wire.Errorf("54000", "the rows of a cursor over several shards that are read ahead are more than %d bytes", c.s.db.Policy().GatherMax).
				WithHint("FETCH fewer rows at once, or raise limits.gather."), nil, -1)
			c.endStreams(nil)
			return nil, 0, false
		}
	}
}

// final runs frames on the server that finishes the query, and gives its rows to give. It returns how many
// these were.
func (q *openQuery) final(request []byte, give func(frames []byte) error) (n int64) {
	c := q.c
	first := c.shards[0]
	sources := c.start(func(shard *scatterShard) []byte {
		if shard != first {
			return nil
		}
		return append(c.s.closing(shard.index), request...)
	}, nil)
	if c.err != nil {
		return 0
	}
	n, err := exec.Merge(sources, exec.MergeOptions{Limit: -1}, give, nil)
	c.endStreams(err)
	return n
}

// execute reads the next rows as Execute does, max at most; all when it is 0. It returns whether there may be more.
func (q *openQuery) execute(limit int64) (suspended bool, err error) {
	c := q.c
	err = q.read(func() {
		if limit <= 0 {
			limit = query.FetchAll
		}
		if q.pieces != nil {
			c.rows = q.run(true, limit, q.formats, c.send)
			return
		}
		rows := limit
		if limit == query.FetchAll {
			rows = 0
		}
		request := wire.AppendFrame(nil, wire.MsgExecute, []byte(q.on), []byte{0, byte(rows >> 24), byte(rows >> 16), byte(rows >> 8), byte(rows)})
		c.rows = q.final(wire.AppendEmpty(request, wire.MsgSync), c.send)
	})
	return c.rows == limit, err
}
