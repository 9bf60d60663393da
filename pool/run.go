package pool

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"shardproxy/wire"
)

// Answer is what a server said to a request.
type Answer struct {
	// Frames are the messages up to ReadyForQuery, without it and without what is
	// no part of the answer; nil unless they were asked for.
	Frames []byte
	// Error is the body of the first ErrorResponse, nil when there was none.
	Error []byte
	// Reported are the ParameterStatus messages that came with it, up to reportedMax bytes.
	Reported []byte
	// Tag is the last command tag.
	Tag string
	// Status is the transaction status behind it: 'I', 'T' or 'E'.
	Status byte
}

// Count returns the number of rows at the end of the last command tag, and what stands
// before it ("UPDATE ", "INSERT 0 "); false for a tag without a number.
func (a *Answer) Count() (command string, rows int, ok bool) {
	at := strings.LastIndexByte(a.Tag, ' ') + 1
	rows, err := strconv.Atoi(a.Tag[at:])
	return a.Tag[:at], rows, err == nil
}

// RunOptions say how a request is run.
type RunOptions struct {
	// Keep bounds the answer's Frames in bytes; 0: they are not kept.
	Keep int
	// Cancelled is asked now and then while the server works, until it says true;
	// the request is cancelled then, until it has ended. May be nil.
	Cancelled func() bool
}

// ErrAnswerTooLarge says that an answer is larger than RunOptions.Keep.
var ErrAnswerTooLarge = errors.New("pool: the answer is too large to be kept")

// errAbandoned ends what waits for a server that Server.Abandon was called for.
var errAbandoned = errors.New("pool: the node does not answer or is not the primary any more")

// Run sends frames, a request that ends with one ReadyForQuery, and waits for its
// end. Nothing may be owed to the connection, and nobody else may use it meanwhile; it
// blocks. A *wire.Error of severity ERROR, and ErrAnswerTooLarge, leave the connection
// as good as it was; after any other error it is lost.
func (s *Server) Run(ctx context.Context, frames []byte, o RunOptions) (Answer, error) {
	s.Unnamed = 0 // a query drops it, a Parse replaces it
	if s.Abandoned() {
		return Answer{}, errAbandoned
	}
	sock := s.Socket()
	if err := sock.SetNonBlocking(false); err != nil {
		return Answer{}, err
	}
	var w io.Writer = sock
	var r io.Reader = sock
	if t := s.TLS(); t != nil {
		w, r = t, t
	}
	if b := s.Buffered(); len(b) > 0 {
		r = io.MultiReader(bytes.NewReader(bytes.Clone(b)), r)
		s.Discard(len(b))
	}
	if _, err := w.Write(frames); err != nil {
		return Answer{}, fmt.Errorf("send: %w", err)
	}
	reader := &runner{wanted: wanted{server: s, ctx: ctx, isCancelled: o.Cancelled, asked: time.Now()}, from: r, o: o}
	a, err := reader.read()
	var we *wire.Error
	if err != nil && err != ErrAnswerTooLarge && (!errors.As(err, &we) || we.IsFatal()) {
		return a, err
	}
	if reader.taken != nil {
		<-reader.taken // or it would hit what runs next
	}
	if e := sock.SetNonBlocking(true); e != nil {
		return a, e
	}
	return a, err
}

// Exec runs SQL as Run does, and returns its error.
func (s *Server) Exec(ctx context.Context, sql string) error {
	_, err := s.Run(ctx, wire.AppendQuery(nil, sql), RunOptions{})
	return err
}

// runner reads one answer as it waits.
type runner struct {
	wanted
	from io.Reader
	o    RunOptions
}

// wanted knows whether an answer is still waited for.
type wanted struct {
	server      *Server
	ctx         context.Context
	isCancelled func() bool // may be nil
	told        func()      // is called when a cancel request has ended; may be nil
	cancelled   bool
	taken       chan struct{} // closed when no cancel request is under way; nil before the first
	asked       time.Time     // when it was last found out
}

// PollInterval is how often who waits for an answer is asked whether it is still wanted.
const PollInterval = 100 * time.Millisecond

// Read reads on until there is something, and looks now and then whether the answer is
// still wanted, also when there always is something.
func (r *runner) Read(p []byte) (int, error) {
	for {
		if err := r.look(); err != nil {
			return 0, err
		}
		if err := r.server.Socket().SetReadDeadline(time.Now().Add(PollInterval)); err != nil {
			return 0, err
		}
		n, err := r.from.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

// look finds out, now and then, whether the answer is still wanted. An error ends the wait.
func (w *wanted) look() error {
	now := time.Now()
	if now.Sub(w.asked) < PollInterval {
		return nil
	}
	w.asked = now
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.server.Abandoned() {
		return errAbandoned
	}
	w.cancel()
	return nil
}

// cancel has the server's work cancelled if the answer is not wanted any more, again and
// again: a request that comes before the statement has begun is lost.
func (w *wanted) cancel() {
	w.cancelled = w.cancelled || w.isCancelled != nil && w.isCancelled()
	if !w.cancelled || w.cancelling() {
		return
	}
	taken := make(chan struct{})
	w.taken = taken
	w.server.Cancel(func() {
		close(taken)
		if w.told != nil {
			w.told()
		}
	})
}

// cancelling reports whether a cancel request is under way, which would hit what runs next.
func (w *wanted) cancelling() bool {
	if w.taken == nil {
		return false
	}
	select {
	case <-w.taken:
		return false
	default:
		return true
	}
}

// messageMax bounds the messages of an answer that are read whole, in bytes; rows are
// bounded by what is kept.
const messageMax = 64 << 20

// reportedMax bounds Answer.Reported, in bytes.
const reportedMax = 64 << 10

// message reads one message. A row of more than room bytes is dropped as it comes.
func (r *runner) message(room int) (kind byte, body []byte, dropped bool, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, false, err
	}
	kind = head[0]
	n := int(binary.BigEndian.Uint32(head[1:])) - 4
	isRow := kind == wire.MsgDataRow || kind == wire.MsgCopyData || kind == wire.MsgRowDescription
	switch {
	case n < 0 || n > messageMax && !isRow:
		return kind, nil, false, wire.Fatal("08P01", "invalid message length")
	case n > room && isRow:
		_, err = io.CopyN(io.Discard, r, int64(n))
		return kind, nil, true, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return kind, body, false, err
}

func (r *runner) read() (Answer, error) {
	c := collector{keep: r.o.Keep}
	for {
		kind, body, dropped, err := r.message(c.room())
		if err != nil {
			return c.answer, err
		}
		if dropped {
			c.drop()
		} else if done, err := c.take(kind, body); done {
			return c.answer, err
		}
	}
}

// collector makes an answer of messages.
type collector struct {
	keep   int // bounds the answer's Frames in bytes
	answer Answer
	failed error
}

// room is how long a row's message may be that is kept, in bytes behind its length.
func (c *collector) room() int { return max(c.keep-len(c.answer.Frames)-5, 0) }

// drop notes a row that was not kept.
func (c *collector) drop() {
	if c.keep > 0 && c.failed == nil {
		c.failed = ErrAnswerTooLarge
	}
}

// take takes a message, whose body it copies. At the answer's end done is set; the error is Run's.
func (c *collector) take(kind byte, body []byte) (done bool, err error) {
	a := &c.answer
	switch kind {
	case wire.MsgErrorResponse:
		e := wire.ReadError(body)
		if c.failed == nil || e.IsFatal() {
			c.failed, a.Error = e, bytes.Clone(body)
		}
		return e.IsFatal(), c.failed
	case wire.MsgReadyForQuery:
		if len(body) != 1 || bytes.IndexByte([]byte("ITE"), body[0]) < 0 {
			return true, wire.Fatal("08P01", "lost synchronization with the server").WithDetail("ReadyForQuery of unknown status")
		}
		a.Status = body[0]
		return true, c.failed
	case wire.MsgParameterStatus:
		if len(a.Reported)+len(body)+5 <= reportedMax {
			a.Reported = wire.AppendFrame(a.Reported, kind, body)
		}
		return false, nil
	case wire.MsgNotificationResponse:
		return false, nil
	case wire.MsgNoticeResponse:
		if c.failed == nil && len(a.Frames)+len(body)+5 <= c.keep {
			a.Frames = wire.AppendFrame(a.Frames, kind, body)
		}
		return false, nil
	case wire.MsgCommandComplete:
		a.Tag = tagText(body)
	case wire.MsgCopyInResponse, wire.MsgCopyBothResponse:
		return true, errors.New("the server asks for copy data")
	}
	if c.keep > 0 && c.failed == nil {
		if len(a.Frames)+len(body)+5 > c.keep {
			c.failed = ErrAnswerTooLarge
			return false, nil
		}
		a.Frames = wire.AppendFrame(a.Frames, kind, body)
	}
	return false, nil
}

func tagText(body []byte) string { return string(bytes.TrimRight(body, "\x00")) }
