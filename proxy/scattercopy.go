package proxy

import (
	"bytes"
	"errors"
	"io"

	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/wire"
)

// copyOut gives the client the data of a COPY TO STDOUT, those of one shard behind those of
// another: all shards read ahead meanwhile as far as the sockets hold it.
func (c *scattering) copyOut() {
	if c.moment(); c.err != nil {
		return
	}
	text := []byte(c.way.Merge.Before)
	if m := c.values.Moment; m != "" {
		text, _ = query.ReplaceMoment(nil, text, m)
	}
	frames := wire.AppendQuery(nil, string(text))
	c.start(func(*scatterShard) []byte { return frames }, nil)
	if c.err != nil {
		return
	}
	for i, shard := range c.shards {
		if err := c.copyFrom(shard.stream, i == 0); err != nil {
			c.endStreams(err)
			return
		}
	}
	var last []byte
	if c.way.Copy.Binary {
		last = wire.AppendFrame(last, wire.MsgCopyData, binaryEnd)
	}
	if err := c.send(wire.AppendEmpty(last, wire.MsgCopyDone)); err != nil {
		c.endStreams(err)
		return
	}
	c.endStreams(nil)
	for _, shard := range c.shards {
		_, n, _ := shard.answer.Count()
		c.rows += int64(n)
	}
}

// binaryEnd ends binary data; binaryHead is the size of what begins them, without extensions.
var binaryEnd = []byte{0xff, 0xff}

const binaryHead = 19

// copyFrom gives the client the data of one shard.
func (c *scattering) copyFrom(from *pool.Stream, first bool) error {
	begun := false
	for {
		b, err := from.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		for ; len(b) > 0; b = b[frameSize(b):] {
			frame := b[:frameSize(b)]
			switch frame[0] {
			case wire.MsgCopyOutResponse:
				if !first {
					continue
				}
			case wire.MsgCopyData:
				frame = c.copied(frame, first, !begun)
				begun = true
			default:
				continue
			}
			if err := c.send(frame); err != nil {
				return err
			}
		}
	}
}

// copied is a frame of data as the client gets it: heads come from the first shard only, and
// what ends binary data comes at the end of all.
func (c *scattering) copied(frame []byte, first, begins bool) []byte {
	data := frame[5:]
	switch {
	case c.way.Copy.Binary && begins && len(data) >= binaryHead:
		head, rest := data[:binaryHead], data[binaryHead:]
		if bytes.Equal(rest, binaryEnd) {
			rest = nil
		}
		if first {
			rest = append(bytes.Clone(head), rest...)
		}
		if len(rest) == 0 {
			return nil
		}
		return wire.AppendFrame(nil, wire.MsgCopyData, rest)
	case c.way.Copy.Binary && bytes.Equal(data, binaryEnd), c.way.Copy.Header && begins && !first:
		return nil
	}
	return frame
}
