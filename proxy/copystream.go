package proxy

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"time"

	"shardproxy/exec"
	"shardproxy/wire"
)

// stream takes the client's data to the shards until they end, or fail, and waits for
// the shards' answers. Nothing else uses the connections meanwhile.
func (c *copyIn) stream() {
	defer c.watched()()
	socket := c.s.client.Socket()
	if c.gone == nil {
		c.gone = socket.SetNonBlocking(false)
	}
	for c.gone == nil && c.err == nil && !c.ended {
		c.frame()
	}
	c.end()
	if err := socket.SetNonBlocking(true); c.gone == nil {
		c.gone = err
	}
}

// watched watches over the copy until the function that it returns is called.
func (c *copyIn) watched() (end func()) {
	w := watcher{s: c.s, giveUp: func() { c.unwanted.Store(true) }}
	for _, shard := range c.shards {
		w.leases = append(w.leases, shard.lease)
	}
	return w.begin()
}

// fill reads from the client; it returns now and then without having read.
func (c *copyIn) fill() {
	client := c.s.client
	if c.unwanted.Load() {
		c.err = errUserCancel()
		if own := c.s.deadlocked(c.err); own != nil {
			c.err = own
		}
		return
	}
	if c.failedThere() {
		c.ended = true
		return
	}
	c.s.slowsAside()
	if err := client.Socket().SetReadDeadline(time.Now().Add(copyPoll)); err != nil {
		c.gone = err
		return
	}
	if err := client.Fill(0); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.gone = err
	}
}

// failedThere reports whether a shard has refused the copy.
func (c *copyIn) failedThere() bool {
	for _, shard := range c.shards {
		if shard.to.Failed() {
			return true
		}
	}
	return false
}

// frame deals with what has come of the client's next frame.
func (c *copyIn) frame() {
	client := c.s.client
	b := client.Buffered()
	if c.left > 0 && len(b) > 0 {
		n := min(c.left, len(b))
		c.feed(b[:n])
		client.Discard(n)
		c.left -= n
		return
	}
	if len(b) < 5 || b[0] != wire.MsgCopyData && len(b) < frameSize(b) && frameSize(b) <= smallMax+1 {
		c.fill()
		return
	}
	kind, size := b[0], frameSize(b)
	if size < 5 || kind == wire.MsgCopyData && int(binary.BigEndian.Uint32(b[1:])) > c.s.db.Policy().MessageMax || kind != wire.MsgCopyData && size > smallMax+1 {
		c.err = wire.Fatal("08P01", "invalid message length")
		return
	}
	switch kind {
	case wire.MsgCopyData:
		client.Discard(5)
		c.left = size - 5
	case wire.MsgFlush, wire.MsgSync:
		client.Discard(size) // as a server does
	case wire.MsgCopyDone:
		client.Discard(size)
		c.ended = true
		c.reader.Finish()
		c.rows()
	case wire.MsgCopyFail:
		c.err = wire.Errorf("57014", "%s%s", copyFailed, cut(b[5:size]))
		client.Discard(size)
		c.ended = true
	default:
		c.err = wire.Fatal("08P01", "unexpected message type 0x%02X during COPY from stdin", kind)
	}
}

// feed cuts a piece of the data into rows.
func (c *copyIn) feed(piece []byte) {
	c.reader.Feed(piece)
	c.rows()
}

// rows sends the rows that are whole to their shards.
func (c *copyIn) rows() {
	values := make([][]byte, len(c.plan.Keys))
	for c.err == nil {
		row, err := c.reader.Next()
		if err != nil {
			c.err, c.aborts = wire.AsError(err), "the data are wrong"
			return
		}
		if row == nil {
			return
		}
		if err := c.row(row, values); err != nil {
			c.err, c.aborts = wire.AsError(err), "the data are wrong"
			return
		}
		if row.Fault != nil {
			c.ended = true // a shard says what is wrong
			return
		}
	}
}

// row sends one row.
func (c *copyIn) row(row *exec.CopyRow, values [][]byte) error {
	var added []exec.CopyAdded
	if len(c.plan.Draws) > 0 {
		if row.Fault != nil {
			return row.Fault
		}
		var err error
		if added, err = c.draw(); err != nil {
			return err
		}
	}
	to := c.shards
	if !c.plan.Everywhere {
		shard, err := c.place(row, added, values)
		if err != nil {
			return err
		}
		at := c.at(shard)
		to = to[at : at+1]
	}
	for _, shard := range to {
		var err error
		if added == nil {
			err = shard.out.Write(row)
		} else {
			err = shard.out.WriteAdded(row, added...)
		}
		if err != nil {
			shard.err = err
			return wire.Fatal("08006", "the connection to a server was lost").WithCause(err)
		}
	}
	return nil
}

// place finds the shard of a row.
func (c *copyIn) place(row *exec.CopyRow, added []exec.CopyAdded, values [][]byte) (int, error) {
	wanted := 0
	for i, k := range c.plan.Keys {
		if n := k - len(c.plan.Columns); n >= 0 {
			values[i] = added[n].Value
			continue
		}
		v := &row.Values[wanted]
		wanted++
		switch {
		case v.Missing:
			return 0, nil // any shard says that it is
		case v.Default:
			return 0, c.reader.RowError(wire.Errorf("0A000", "the key of table %s is left to its default", c.plan.Table))
		case v.Null:
			values[i] = nil
		default:
			values[i] = v.Bytes
		}
	}
	shard, err := c.plan.Place(c.owners, &c.s.values, values, c.dialect.Format == exec.CopyBinary)
	if err != nil && row.Fault != nil {
		return 0, nil
	}
	if err != nil && wanted == 1 {
		return 0, c.reader.ValueError(wire.AsError(err), 0)
	}
	if err != nil {
		return 0, c.reader.RowError(wire.AsError(err))
	}
	return shard, nil
}

// draw draws what a row is given.
func (c *copyIn) draw() ([]exec.CopyAdded, error) {
	added := make([]exec.CopyAdded, len(c.plan.Draws))
	for i := range added {
		d := &c.plan.Draws[i]
		added[i].Name = d.Column
		if d.OfChance() {
			id := randomUUID()
			if added[i].Value = id[:]; d.Text || c.dialect.Format != exec.CopyBinary {
				added[i].Value = id.text()
			}
			continue
		}
		if len(c.drawn[i]) == 0 {
			var err error
			if c.drawn[i], err = c.s.drawMore(d, c.drawNext); err != nil {
				return nil, err
			}
			c.drawNext = min(2*c.drawNext, copyDrawMax)
		}
		if c.last == nil {
			c.last = make([]int64, len(c.plan.Draws))
		}
		v := c.drawn[i][0]
		c.last[i] = v
		c.drawn[i] = c.drawn[i][1:]
		if c.dialect.Format != exec.CopyBinary {
			added[i].Value = strconv.AppendInt(nil, v, 10)
			continue
		}
		var err error
		if added[i].Value, err = binaryInt(d.Type, v); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// OIDs of the integer types.
const (
	oidInt8 = 20
	oidInt2 = 21
	oidInt4 = 23
)

// binaryInt is a number as the type's receive function takes it.
func binaryInt(oid uint32, v int64) ([]byte, error) {
	switch {
	case oid == oidInt8:
		return binary.BigEndian.AppendUint64(nil, uint64(v)), nil
	case oid == oidInt4 && v == int64(int32(v)):
		return binary.BigEndian.AppendUint32(nil, uint32(v)), nil
	case oid == oidInt2 && v == int64(int16(v)):
		return binary.BigEndian.AppendUint16(nil, uint16(v)), nil
	case oid == oidInt4:
		return nil, wire.Errorf("22003", "integer out of range")
	case oid == oidInt2:
		return nil, wire.Errorf("22003", "smallint out of range")
	}
	return nil, wire.Errorf("0A000", "values of a sequence cannot be given to a column of this type in the binary format").
		WithHint("Use the text format.")
}

// copyDrawMax bounds how many values are drawn ahead for one COPY.
const copyDrawMax = 1000

// end ends the copy on every shard and finds out what the client is told.
func (c *copyIn) end() {
	fails := c.aborts
	switch {
	case c.gone != nil:
		fails = "the client has gone"
	case c.err != nil && fails == "":
		fails = c.err.Message
	}
	for _, shard := range c.shards {
		if fails == "" && shard.err == nil {
			shard.err = shard.out.Close()
		} else if shard.err == nil {
			shard.err = shard.out.Fail(fails)
		}
	}
	for _, shard := range c.shards {
		lost := shard.err
		if lost != nil {
			shard.to.Break()
		}
		shard.answer, shard.err = shard.to.Wait()
		shard.err = c.s.ofVictim(&shard.answer, shard.err)
		if lost != nil {
			shard.err = lost
		}
	}
	c.judge(fails != "")
	if c.err != nil && !c.err.IsFatal() && c.s.lease != nil && c.shards[c.at(c.s.index)].err == nil {
		_ = c.s.lease.Exec(c.s.server.ctx, failing) // for the client's next statement fails as this one did
	}
}

// judge takes the error that one server would have said: that of the first line.
func (c *copyIn) judge(failed bool) {
	var first int64
	for _, shard := range c.shards {
		if shard.err == nil || isLost(shard.err) {
			continue
		}
		e := wire.AsError(shard.err)
		if failed && e.Code == "57014" {
			continue // as it was told to
		}
		line, ok := shard.lines.ErrorLine(e.Where)
		if c.err == nil || ok && (first == 0 || line < first) {
			c.raw = shard.lines.AppendFields(nil, shard.answer.Error)
			c.err = wire.ReadError(c.raw)
			if ok {
				first = line
			}
		}
	}
}
