package pool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"shardproxy/wire"
)

// roomMin is how much of a block must be free for reading on in it, in bytes.
const roomMin = 4 << 10

// streamReader reads one answer into a ring. It looks at the headers of the messages only,
// but of those that are not handed on.
type streamReader struct {
	ring  *ring
	from  io.Reader
	limit int
	begun chan struct{} // see Stream.Begun; nil once closed

	b    *block
	p, w int // data[p:w] is not looked at yet, or an incomplete message
	skip int // bytes still to come of a message that is dropped

	answer Answer
	failed error
	rest   []byte
}

// errFound ends the scan: the answer is at its end.
var errFound = errors.New("pool: end of the answer")

// begin starts with what had been read already.
func (r *streamReader) begin(buffered []byte) {
	r.b = &block{data: make([]byte, max(firstBlockSize, len(buffered)+roomMin))}
	r.w = copy(r.b.data, buffered)
}

// run reads the answer to its end and returns the error of Stream.End, which Next has had
// before.
func (r *streamReader) run() error {
	for {
		err := r.scan()
		if err == nil {
			err = r.fill()
		}
		switch {
		case err == errFound:
			r.ring.publish(r.b, r.p, false)
			r.ring.finish(r.failed)
			return r.failed
		case err != nil:
			r.ring.finish(err)
			return err
		}
	}
}

// fill reads once, where there is room.
func (r *streamReader) fill() error {
	if err := r.makeRoom(); err != nil {
		return err
	}
	n, err := r.from.Read(r.b.data[r.w:])
	r.w += n
	if n > 0 || err == nil {
		return nil
	}
	return lostError(err)
}

// lostError is the error of a read that failed; that of a stream that ended must not be
// taken for the end of an answer.
func lostError(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the server's answer breaks off: %w", err)
}

// scan goes over the whole messages there are and hands them on.
func (r *streamReader) scan() error {
	data := r.b.data
	if r.skip > 0 {
		n := min(r.skip, r.w-r.p)
		r.skip -= n
		r.cut(n)
	}
	for r.w-r.p >= 5 {
		kind, n := data[r.p], int(binary.BigEndian.Uint32(data[r.p+1:]))
		if n < 4 || n-4 > r.limit {
			if err := r.refuse(kind, n); err != nil {
				return err
			}
			size := min(n+1, r.w-r.p)
			r.skip = n + 1 - size
			r.cut(size)
			continue
		}
		if r.w-r.p < n+1 {
			break
		}
		if handedOn(kind) {
			switch kind {
			case wire.MsgCommandComplete:
				r.answer.Tag = tagText(data[r.p+5 : r.p+1+n])
			case wire.MsgBindComplete, wire.MsgCopyOutResponse:
				r.begins()
			}
			r.p += n + 1
			continue
		}
		if err := r.keep(kind, data[r.p+5:r.p+1+n]); err != nil {
			if err == errFound {
				r.rest = bytes.Clone(data[r.p+1+n : r.w])
			}
			return err
		}
		r.cut(n + 1)
	}
	return nil
}

// begins says that the server has begun, or never will.
func (r *streamReader) begins() {
	if r.begun != nil {
		close(r.begun)
		r.begun = nil
	}
}

// cut takes n bytes at p out of the block: nobody is to see them.
func (r *streamReader) cut(n int) {
	copy(r.b.data[r.p:], r.b.data[r.p+n:r.w])
	r.w -= n
}

// refuse says what a message of an impossible length, or one over the limit, means. Nil
// lets it be dropped.
func (r *streamReader) refuse(kind byte, n int) error {
	if n < 4 || kind != wire.MsgDataRow && kind != wire.MsgCopyData && kind != wire.MsgRowDescription {
		return wire.Fatal("08P01", "invalid message length")
	}
	r.fail(wire.Errorf("54000", "a row of the answer is larger than the proxy takes").
		WithDetail("It has %d bytes; the limit is %d.", n-4, r.limit))
	return nil
}

// fail has Next return the error behind what has been handed on.
func (r *streamReader) fail(err error) {
	r.ring.publish(r.b, r.p, false)
	r.ring.finish(err)
	if r.failed == nil {
		r.failed = err
	}
}

// handedOn reports whether messages of the kind are part of what Next returns.
func handedOn(kind byte) bool {
	switch kind {
	case wire.MsgDataRow, wire.MsgCopyData:
		return true
	case wire.MsgErrorResponse, wire.MsgReadyForQuery, wire.MsgParameterStatus, wire.MsgNotificationResponse,
		wire.MsgNoticeResponse, wire.MsgCopyInResponse, wire.MsgCopyBothResponse:
		return false
	}
	return true
}

// keep takes in what is not handed on, or not before it has been looked at. The error
// ends the reading.
func (r *streamReader) keep(kind byte, body []byte) error {
	a := &r.answer
	switch kind {
	case wire.MsgErrorResponse:
		body = bytes.Clone(body)
		e := wire.ReadError(body)
		if r.failed == nil || e.IsFatal() {
			a.Error = body
		}
		r.fail(e)
		r.begins()
		if e.IsFatal() {
			return e
		}
	case wire.MsgReadyForQuery:
		if !isStatus(body) {
			return wire.Fatal("08P01", "lost synchronization with the server").WithDetail("ReadyForQuery of unknown status")
		}
		a.Status = body[0]
		return errFound
	case wire.MsgParameterStatus:
		if len(a.Reported)+len(body)+5 <= reportedMax {
			a.Reported = wire.AppendFrame(a.Reported, kind, body)
		}
	case wire.MsgNoticeResponse:
		if len(a.Frames)+len(body)+5 <= noticesMax {
			a.Frames = wire.AppendFrame(a.Frames, kind, body)
		}
	case wire.MsgCopyInResponse, wire.MsgCopyBothResponse:
		return errors.New("the server asks for copy data")
	}
	return nil
}

// makeRoom hands on what is whole and sees to it that the block has room for the rest of
// the message that is not, and for more.
func (r *streamReader) makeRoom() error {
	r.ring.publish(r.b, r.p, false)
	size := 5 // of the incomplete message
	if r.w-r.p >= 5 {
		size = int(binary.BigEndian.Uint32(r.b.data[r.p+1:])) + 1
	}
	switch fits := r.p+size <= len(r.b.data); {
	case size > blockSize:
		return r.readLarge(size)
	case !r.b.queued && size <= len(r.b.data):
		r.w = copy(r.b.data, r.b.data[r.p:r.w])
		r.p = 0
	case !fits || len(r.b.data)-r.w < roomMin:
		r.moveOn(nil)
	}
	return nil
}

// moveOn hands on large behind what is in the block, if it is not nil, and goes on in
// another block unless this one is large enough and nobody has seen it.
func (r *streamReader) moveOn(large *block) {
	stay := !r.b.queued && len(r.b.data) >= blockSize // the block may be empty and free again at once
	r.ring.publish(r.b, r.p, true)
	if large != nil {
		r.ring.publish(large, len(large.data), true)
	}
	if stay {
		return
	}
	next := r.ring.fresh()
	if next == nil {
		next = &block{data: make([]byte, blockSize)} // of the reader alone: what comes is dropped
	}
	r.w = copy(next.data, r.b.data[r.p:r.w])
	r.b, r.p = next, 0
}

// readLarge reads the rest of a message that needs a block of its own, and nothing
// behind it.
func (r *streamReader) readLarge(size int) error {
	kind := r.b.data[r.p]
	var large *block
	if handedOn(kind) {
		if large = r.ring.freshLarge(size); large == nil {
			r.skip = size - (r.w - r.p)
			r.w, r.p = 0, 0 // nobody has use for what is in the block
			return nil
		}
	} else {
		large = &block{data: make([]byte, size)}
	}
	have := copy(large.data, r.b.data[r.p:r.w])
	r.w = r.p
	if _, err := io.ReadFull(r.from, large.data[have:size]); err != nil {
		return lostError(err)
	}
	if !handedOn(kind) {
		return r.keep(kind, large.data[5:size])
	}
	r.moveOn(large)
	return nil
}
