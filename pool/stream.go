package pool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"shardproxy/wire"
)

// Stream is a request that runs on a connection and whose answer is read as it comes.
// A goroutine reads ahead, up to four blocks of 64 KiB and one message that is larger, beside one that was taken;
// when nobody calls Next it stops, and the server waits for the socket. One
// goroutine uses a Stream, but for Break and Ready, which any may call until End is called.
//
// Nobody asks here whether the answer is still wanted: the borrower does, now and then,
// in another goroutine (a context, Server.Abandoned, the client's cancel request), and
// calls Server.Cancel or Break, after which Next and End return soon.
type Stream struct {
	server *Server
	ring   *ring
	ended  chan struct{} // closed when the answer is there
	sent   chan struct{} // closed when the request is written, or could not be
	begun  chan struct{} // closed when the server has begun to run it, or never will
	to     io.Writer

	asked time.Time // when it was sent
	// Written before ended is closed.
	over   time.Time
	answer Answer
	err    error
	rest   []byte // what came behind the answer

	sendErr error // written before sent is closed
}

// StreamOptions say how an answer is streamed.
type StreamOptions struct {
	// MessageMax bounds one message of the answer, in bytes behind its type; 0: 64 MiB.
	MessageMax int
}

// sendAtOnce is what a borrower writes itself, in bytes: the kernel takes as much without
// waiting. Of more the server may answer before it has read all.
const sendAtOnce = 16 << 10

// Stream sends frames, a request that ends with one ReadyForQuery (or the beginning of one that
// ends with Flush: see Stream.More), and returns at once;
// the answer is read as it comes. Nothing may be owed to the connection, and nobody else
// may use it, nor change frames, until End has returned, which must be called. After an
// error the connection is lost and there is nothing to end.
func (s *Server) Stream(frames []byte, o StreamOptions) (*Stream, error) {
	s.Unnamed = 0 // a query drops it, a Parse replaces it
	if s.Abandoned() {
		return nil, errAbandoned
	}
	sock := s.Socket()
	if err := sock.SetNonBlocking(false); err != nil {
		return nil, err
	}
	if o.MessageMax == 0 {
		o.MessageMax = messageMax
	}
	t := &Stream{server: s, ring: newRing(), ended: make(chan struct{}), sent: make(chan struct{}), begun: make(chan struct{}), to: sock, asked: time.Now()}
	from := &streamReader{ring: t.ring, from: sock, limit: o.MessageMax, begun: t.begun}
	if l := s.TLS(); l != nil {
		t.to, from.from = l, l
	}
	from.begin(s.Buffered())
	s.Discard(len(s.Buffered()))
	if len(frames) > sendAtOnce {
		s.pool.pools.tasks.Go(func() { t.send(frames) })
	} else {
		if _, err := t.to.Write(frames); err != nil {
			return nil, fmt.Errorf("send: %w", err)
		}
		close(t.sent)
	}
	s.pool.pools.tasks.Go(func() { t.listen(from) })
	return t, nil
}

// send writes a large request.
func (t *Stream) send(frames []byte) {
	defer close(t.sent)
	if _, err := t.to.Write(frames); err != nil {
		t.sendErr = fmt.Errorf("send: %w", err)
		t.Break() // or the server would be waited for that waits for the rest
	}
}

// listen reads the answer.
func (t *Stream) listen(from *streamReader) {
	defer close(t.ended)
	t.err = from.run()
	from.begins()
	t.answer, t.rest, t.over = from.answer, from.rest, time.Now()
	if isLost(t.err) {
		t.Break() // a request that is being written is of no use either
	}
}

// isLost reports whether a connection is of no more use after the error.
func isLost(err error) bool {
	var we *wire.Error
	return err != nil && (!errors.As(err, &we) || we.IsFatal())
}

// Next waits for the next messages of the answer and returns them: one or more, each
// whole, without ReadyForQuery and without what may come at any time (notices and
// parameters, which End returns, and notifications, which are dropped). They are the
// caller's, to change too, until the next call of Next or End. At the end of the answer the error is
// io.EOF; what the server failed with is its *wire.Error, and a message over the limit one of
// code 54000; any other says that the connection is lost. An error stays.
func (t *Stream) Next() ([]byte, error) { return t.ring.take() }

// Ready returns a channel that gives a token when Next would not wait. Who takes the
// token calls Next before waiting for another; Next by itself needs none. It is closed
// when the answer is at its end or has failed.
func (t *Stream) Ready() <-chan struct{} { return t.ring.ready }

// Ended returns a channel that is closed when the answer has been read up to its end, or as far as it
// comes: End would not wait then.
func (t *Stream) Ended() <-chan struct{} { return t.ended }

// Begun returns a channel that is closed when the server has begun to run the statement, whose
// snapshot is fixed then: it has bound a portal, or begun a COPY. It is closed, too, when the
// answer is at its end or has failed, or the connection is lost.
func (t *Stream) Begun() <-chan struct{} { return t.begun }

// More sends the rest of a request that was begun without its end, which is small. It is to be
// called once, after Begun and before Next; when it fails the connection is lost, as Next and End say.
func (t *Stream) More(frames []byte) {
	if _, err := t.to.Write(frames); err != nil {
		t.Break()
	}
}

// Break ends the connection: what waits for the server waits no more.
func (t *Stream) Break() { _ = t.server.Socket().Shutdown() } // it is lost either way

// End reads what is left and throws it away, and returns what Run does, the notices in
// Frames. The connection is as good as it was unless the error says, as that of Run
// would, that it is lost. To have what is left not be sent, cancel first.
func (t *Stream) End() (Answer, error) {
	t.ring.discard()
	<-t.ended
	<-t.sent
	if isLost(t.err) {
		var we *wire.Error
		if t.sendErr != nil && !errors.As(t.err, &we) {
			return t.answer, t.sendErr
		}
		return t.answer, t.err
	}
	if t.sendErr != nil {
		return t.answer, t.sendErr
	}
	if err := t.server.Socket().SetNonBlocking(true); err != nil {
		return t.answer, err
	}
	if len(t.rest) > 0 {
		t.server.Insert(t.rest)
	}
	return t.answer, t.err
}

// Times returns when the request was sent, and when its answer was there, which is to be asked for behind End.
func (t *Stream) Times() (asked, over time.Time) { return t.asked, t.over }

// isStatus reports whether the body is that of a ReadyForQuery.
func isStatus(body []byte) bool {
	return len(body) == 1 && bytes.IndexByte([]byte("ITE"), body[0]) >= 0
}
