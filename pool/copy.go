package pool

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"shardproxy/wire"
)

// Copying is a COPY FROM STDIN that runs on a connection. One goroutine uses it, but for
// Failed and Break, which any may call.
type Copying struct {
	server *Server
	to     io.Writer
	header []byte

	asked chan struct{} // closed when the server asks for data, or has ended
	ended chan struct{} // closed when the answer is there

	mu     sync.Mutex
	answer Answer
	err    error
	failed bool
}

// StartCopy sends text, which is one COPY FROM STDIN, as a simple query and waits until
// the server asks for the data. Nothing may be owed to the connection, and nobody else
// may use it until Wait, or Fail, has returned. An error is as that of Run: then there is nothing
// to wait for.
func (s *Server) StartCopy(text string) (*Copying, Answer, error) {
	s.Unnamed = 0
	if s.Abandoned() {
		return nil, Answer{}, errAbandoned
	}
	sock := s.Socket()
	if err := sock.SetNonBlocking(false); err != nil {
		return nil, Answer{}, err
	}
	c := &Copying{server: s, to: sock, asked: make(chan struct{}), ended: make(chan struct{})}
	var from io.Reader = sock
	if t := s.TLS(); t != nil {
		c.to, from = t, t
	}
	if _, err := c.to.Write(wire.AppendQuery(nil, text)); err != nil {
		return nil, Answer{}, fmt.Errorf("send: %w", err)
	}
	s.pool.pools.tasks.Go(func() { c.listen(from) })
	<-c.asked
	if c.header == nil {
		a, err := c.Wait()
		if err == nil {
			err = errors.New("the server did not ask for copy data")
		}
		return nil, a, err
	}
	return c, Answer{}, nil
}

// listen reads what the server says, all the while: of an error it tells before the
// data are at their end.
func (c *Copying) listen(from io.Reader) {
	defer close(c.ended)
	asked := false
	defer func() {
		if !asked {
			close(c.asked)
		}
	}()
	var a Answer
	var failed error
	for {
		kind, body, err := wire.ReadMessage(from, messageMax)
		if err != nil {
			c.end(a, err)
			return
		}
		switch kind {
		case wire.MsgErrorResponse:
			e := wire.ReadError(body)
			if failed == nil || e.IsFatal() {
				failed, a.Error = e, body
			}
			c.mu.Lock()
			c.failed = true
			c.mu.Unlock()
			if e.IsFatal() {
				c.end(a, failed)
				return
			}
		case wire.MsgReadyForQuery:
			if len(body) == 1 {
				a.Status = body[0]
			}
			c.end(a, failed)
			return
		case wire.MsgNoticeResponse:
			if len(a.Frames) < noticesMax {
				a.Frames = wire.AppendFrame(a.Frames, kind, body)
			}
		case wire.MsgCommandComplete:
			a.Tag = tagText(body)
		case wire.MsgCopyInResponse:
			if !asked {
				asked, c.header = true, body
				close(c.asked)
			}
		}
	}
}

// noticesMax bounds the notices of a COPY that are kept, in bytes.
const noticesMax = 64 << 10

func (c *Copying) end(a Answer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer, c.err, c.failed = a, err, c.failed || err != nil
}

// Header returns the body of the server's CopyInResponse.
func (c *Copying) Header() []byte { return c.header }

// Failed reports whether the copy has failed already: nothing more need be sent.
func (c *Copying) Failed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

// Write sends whole CopyData frames; it waits while the server does not read. After an
// error the connection is lost.
func (c *Copying) Write(frames []byte) (int, error) { return c.to.Write(frames) }

// Fail makes the copy fail, for a reason without zero bytes, and returns the server's
// answer as Wait does.
func (c *Copying) Fail(reason string) (Answer, error) {
	if _, err := c.to.Write(wire.AppendFrame(nil, wire.MsgCopyFail, append([]byte(reason), 0))); err != nil {
		c.Break()
		_, _ = c.Wait()
		return Answer{}, fmt.Errorf("send: %w", err)
	}
	return c.Wait()
}

// Break ends the connection: what waits for the server waits no more.
func (c *Copying) Break() { _ = c.server.Socket().Shutdown() } // it is lost either way

// Wait returns the server's answer as Run does, once CopyDone, or CopyFail, has been
// written or the connection is broken. Notices are in Frames.
func (c *Copying) Wait() (Answer, error) {
	<-c.ended
	c.mu.Lock()
	defer c.mu.Unlock()
	var we *wire.Error
	if c.err != nil && (!errors.As(c.err, &we) || we.IsFatal()) {
		return c.answer, c.err
	}
	if err := c.server.Socket().SetNonBlocking(true); err != nil {
		return c.answer, err
	}
	return c.answer, c.err
}
