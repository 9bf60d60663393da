package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"shardproxy/wire"
)

// The table "bulk", and what a COPY IN sends.
const (
	bulkRows     = 100_000
	bulkRowBytes = 100
)

// bulkKinds names the rows of the bulk table, in order.
func bulkKinds() []string { return []string{"SELECT", "COPY OUT", "COPY IN, 8 KiB", "COPY IN, a row"} }

// measureBulk moves large results and copies through each side.
func (m *measurement) measureBulk(ctx context.Context) error {
	m.bulk = rounds{}
	uploads := map[string][]byte{"COPY IN, 8 KiB": copyFrames(8 << 10), "COPY IN, a row": copyFrames(1)}
	sides := m.sides(func(e *endpoint) bool { return e.plain })
	return m.inTurns(ctx, m.stage.options.rounds, "bulk", bulkKinds(), sides, func(row string, e *endpoint) error {
		c, err := m.stage.login.dial(ctx, e.port, database)
		if err != nil {
			return err
		}
		defer c.close()
		c.readSize = largeRead
		var moved int
		var took time.Duration
		used, err := e.during(ctx, func() (err error) {
			moved, took, err = c.bulkFor(m.stage.options.each, row, uploads[row])
			return err
		})
		if err != nil {
			return err
		}
		m.bulk.add(row, e.name, "speed", float64(moved)/1e6/took.Seconds())
		cpu := math.NaN()
		if e.process != nil {
			cpu = used.cpu.Seconds() / (float64(moved) / 1e9)
		}
		m.bulk.add(row, e.name, "cpu", cpu)
		return nil
	})
}

// bulkFor repeats a statement for a time and returns the bytes moved.
func (c *client) bulkFor(each time.Duration, kind string, upload []byte) (moved int, took time.Duration, err error) {
	begun, before := time.Now(), c.received
	for took < each {
		switch {
		case upload != nil:
			err = c.copyIn("COPY sink FROM STDIN WHERE v IS NULL", upload, "COPY 0")
			moved += len(upload)
		case kind == "SELECT":
			err = c.ask("SELECT v FROM bulk", fmt.Sprintf("SELECT %d", bulkRows))
		default:
			err = c.ask("COPY bulk TO STDOUT", fmt.Sprintf("COPY %d", bulkRows))
		}
		if err != nil {
			return 0, 0, err
		}
		took = time.Since(begun)
	}
	if upload == nil {
		moved = c.received - before
	}
	return moved, took, nil
}

// copyIn sends the frames of a COPY and checks the tag of its answer.
func (c *client) copyIn(sql string, frames []byte, tag string) error {
	if err := c.send(wire.AppendQuery(nil, sql)); err != nil {
		return err
	}
	if err := c.frames(nil); err != nil {
		return err
	}
	if c.tag != "" {
		return errors.New("the server did not ask for copy data")
	}
	if err := c.send(frames); err != nil {
		return err
	}
	defer func() { c.tag = "" }()
	return c.finish(tag)
}

// copyFrames returns the rows of the bulk part, which its COPY does not keep, in
// frames of at least so many bytes, and the end.
func copyFrames(least int) []byte {
	row := append(bytes.Repeat([]byte{'x'}, bulkRowBytes), '\n')
	return framesOf(bulkRows, least, func(to []byte, _ int) []byte { return append(to, row...) })
}

// framesOf returns rows, numbered from 1, in frames of at least so many bytes,
// and the end.
func framesOf(rows, least int, row func(to []byte, n int) []byte) []byte {
	var frames, frame []byte
	for i := range rows {
		frame = row(frame, i+1)
		if len(frame) >= least {
			frames = wire.AppendFrame(frames, wire.MsgCopyData, frame)
			frame = frame[:0]
		}
	}
	if len(frame) > 0 {
		frames = wire.AppendFrame(frames, wire.MsgCopyData, frame)
	}
	return wire.AppendEmpty(frames, wire.MsgCopyDone)
}
