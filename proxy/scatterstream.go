package proxy

import (
	"encoding/binary"
	"errors"
	"sync"

	"shardproxy/exec"
	"shardproxy/wire"
)

// run runs f, up to the end of all answers.
func (c *scattering) run(f func()) {
	defer c.begins()()
	defer c.watched()()
	client := c.s.client.Socket()
	if c.gone = client.SetNonBlocking(false); c.gone != nil {
		return
	}
	f()
	c.endStreams(nil)
	if err := client.SetNonBlocking(true); c.gone == nil {
		c.gone = err
	}
}

// perform has the query done.
func (c *scattering) perform() {
	switch {
	case c.into != nil:
		c.into.read()
	case c.explain != "":
		c.explained()
	case c.way.Copy != nil:
		c.copyOut()
	case c.way.Merge != nil:
		c.merge()
	default:
		c.gather()
	}
}

// fail notes the first failure.
func (c *scattering) fail(e *wire.Error, raw []byte, shard int) {
	if c.err != nil {
		return
	}
	if own := c.s.deadlocked(e); own != nil {
		e, raw = own, own.Append(nil)[5:]
	}
	if shard >= 0 {
		c.s.notesSick(c.shards[shard].index, c.shards[shard].lease, e)
	}
	c.err, c.raw, c.failed = e, raw, shard
}

// endStreams waits for the end of all streams; when one has failed, err says so, the others are
// cancelled.
func (c *scattering) endStreams(err error) {
	first := -1
	var of *exec.SourceError
	if errors.As(err, &of) {
		first = c.started[of.Source]
	}
	stops := err != nil || c.err != nil || c.gone != nil
	if err != nil && of == nil && !errors.Is(err, errUnwanted) {
		c.fail(wire.AsError(err), nil, -1) // what a shard says then is that it was cancelled
	}
	var failed []int
	var cancels sync.WaitGroup
	defer cancels.Wait()
	ends := make([]chan struct{}, len(c.shards))
	for i, shard := range c.shards {
		if ends[i] = make(chan struct{}); stops && shard.stream != nil {
			cancels.Go(func() { cancelUntil(shard.lease, ends[i]) })
		}
	}
	for i, shard := range c.shards {
		if shard.stream == nil {
			continue
		}
		shard.answer, shard.err = shard.stream.End()
		from, to := shard.stream.Times()
		c.s.notesRun(shard.index, shard.lease, from, to, shard.err != nil)
		shard.stream = nil
		close(ends[i])
		switch {
		case shard.err == nil:
			c.notices = append(c.notices, newNotices(shard.answer.Frames, c.notices)...)
		case c.isMissing(shard.index):
		case i == first:
			failed = append([]int{i}, failed...)
		default:
			failed = append(failed, i)
		}
	}
	for _, i := range failed {
		c.fail(wire.AsError(c.shards[i].err), c.told(c.shards[i]), i)
	}
	if err != nil && !errors.Is(err, errUnwanted) {
		c.fail(wire.AsError(err), nil, -1)
	}
}

// told is a server's error as the client gets it: with the shard, and without a place in a
// text that is not the client's.
func (c *scattering) told(shard *scatterShard) []byte {
	if shard.answer.Error == nil {
		return nil
	}
	return onShard(withoutPosition(shard.answer.Error), c.s.db.Shards[shard.index].Name)
}

// onShard names the shard in the detail of an error.
func onShard(body []byte, name string) (out []byte) {
	detail := "Shard " + name + "."
	seen := false
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := wire.CString(body[1:])
		if !ok {
			return append(out, body...)
		}
		out = append(append(out, body[0]), value...)
		if body[0] == 'D' {
			seen = true
			out = append(append(out, ' '), detail...)
		}
		out, body = append(out, 0), rest
	}
	if !seen {
		out = append(append(append(out, 'D'), detail...), 0)
	}
	return append(out, 0)
}

// send gives the client frames, and waits until it takes them.
func (c *scattering) send(frames []byte) error {
	if c.into != nil {
		return c.into.take(frames)
	}
	if most := c.s.resultMax; most > 0 {
		if c.given += int64(len(frames)); c.given > most {
			c.fail(errResult(most), nil, -1)
			return errUnwanted
		}
	}
	client := c.s.client
	client.SetOutput(append(client.Output(), frames...))
	if client.Pending() < clientBatch {
		return nil
	}
	return c.flush()
}

// clientBatch is how much is written to the client at once, in bytes.
const clientBatch = 32 << 10

// errUnwanted says that the client wants no more, or cannot be reached.
var errUnwanted = errors.New("the client wants no more")

func (c *scattering) flush() error {
	c.flushed = true
	if err := c.s.client.Flush(); err != nil {
		c.gone = err
		return errUnwanted
	}
	c.s.slowsAside()
	return nil
}

// watched watches over the query until the function that it returns is called.
func (c *scattering) watched() (end func()) {
	w := watcher{s: c.s, giveUp: c.giveUp, leaves: true}
	for _, shard := range c.shards {
		w.leases = append(w.leases, shard.lease)
	}
	return w.begin()
}

// appendFormats appends result formats as Bind has them: the client's for its columns, and
// binary for so many behind them.
func appendFormats(dst, client []byte, columns, hidden int) []byte {
	if hidden == 0 {
		return append(dst, client...)
	}
	n := int(binary.BigEndian.Uint16(client))
	dst = binary.BigEndian.AppendUint16(dst, uint16(columns+hidden))
	for i := range columns {
		f := uint16(0)
		switch {
		case n == 1:
			f = binary.BigEndian.Uint16(client[2:])
		case i < n:
			f = binary.BigEndian.Uint16(client[2+2*i:])
		}
		dst = binary.BigEndian.AppendUint16(dst, f)
	}
	for range hidden {
		dst = binary.BigEndian.AppendUint16(dst, 1)
	}
	return dst
}
