package pool

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"shardproxy/wire"
)

// Running is a request whose answer is read as it comes, by a goroutine that has other things to do
// than to wait for it. Only its owner uses it.
type Running struct {
	wanted
	collector
	skip  int // bytes of a row that is not kept, still to come
	need  int // size of the message that has begun to come, 0 when that is not known
	ended bool
	err   error
}

// Begin sends frames as Run does, and waits for nothing: Go reads the answer. The connection must be
// in non-blocking mode, and is the Running's until that has ended. told is called, by any goroutine or by Go, when
// Go may go on although no socket says so.
func (s *Server) Begin(ctx context.Context, frames []byte, o RunOptions, told func()) *Running {
	s.Unnamed = 0 // a query drops it, a Parse replaces it
	r := &Running{wanted: wanted{server: s, ctx: ctx, isCancelled: o.Cancelled, told: told, asked: time.Now()}, collector: collector{keep: o.Keep}}
	if s.Abandoned() {
		r.end(errAbandoned)
	} else if err := errors.Join(s.Queue(frames), s.Flush()); err != nil {
		r.end(fmt.Errorf("send: %w", err))
	}
	return r
}

// Go reads what has come. It reports whether the request has ended; else it is to be called again
// when the socket is readable, or writable while Pending says so, and each PollInterval.
func (r *Running) Go() (ended bool) {
	if !r.ended {
		if err := r.step(); err != nil {
			r.end(err)
		}
	}
	return r.ended && !r.cancelling()
}

// Pending reports whether the request is not sent yet, in part.
func (r *Running) Pending() bool { return r.server.Pending() > 0 }

// Answer returns what Run returns, when the request has ended.
func (r *Running) Answer() (Answer, error) { return r.answer, r.err }

func (r *Running) end(err error) { r.ended, r.err = true, err }

// step reads until nothing more is there, or the answer is at its end.
func (r *Running) step() error {
	if err := r.look(); err != nil {
		return err
	}
	if r.Pending() {
		if err := r.server.Flush(); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	for range fillsMax {
		if err := r.collect(); err != nil || r.ended {
			return err
		}
		switch err := r.server.Fill(r.need); {
		case errors.Is(err, wire.ErrWouldBlock):
			return nil
		case err != nil:
			return err
		}
	}
	r.told() // there may be more, of which no socket tells
	return nil
}

// fillsMax is how often one call of Go reads: others want to go on too.
const fillsMax = 16

// collect takes the messages that are there.
func (r *Running) collect() error {
	for !r.ended {
		if r.skip > 0 {
			n := min(r.skip, len(r.server.Buffered()))
			r.server.Discard(n)
			if r.skip -= n; r.skip > 0 {
				return nil
			}
			continue
		}
		r.need = 0
		kind, size, ok, err := r.server.Header(math.MaxInt32)
		if err != nil || !ok {
			return err
		}
		isRow := kind == wire.MsgDataRow || kind == wire.MsgCopyData || kind == wire.MsgRowDescription
		switch {
		case isRow && size-5 > r.room():
			r.drop()
			r.server.Discard(5)
			r.skip = size - 5
			continue
		case size > messageMax:
			return wire.Fatal("08P01", "invalid message length")
		case len(r.server.Buffered()) < size:
			r.need = size
			return nil
		}
		done, err := r.take(kind, r.server.Buffered()[5:size])
		r.server.Discard(size)
		if done {
			r.end(err)
		}
	}
	return nil
}
