package faultproxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"shardproxy/wire"
)

// conn relays one client to one server.
type conn struct {
	proxy  *Proxy
	number int // in order of accepting, from 1
	client *net.TCPConn
	server *net.TCPConn
	expect *expectations
	over   chan struct{} // closed when the connection has ended

	once     sync.Once
	hanging  atomic.Bool // hangUp is at work: errors of the pumps are its doing
	toClient sync.Mutex  // held for a whole frame
}

// errOver ends a pump whose connection was ended on purpose.
var errOver = errors.New("connection ended by a rule")

// run relays until both sides have ended.
func (c *conn) run() {
	fromClient, fromServer := bufio.NewReader(c.client), bufio.NewReader(c.server)
	opened := make(chan bool, 1) // what the server pump has to do first
	var pumps sync.WaitGroup
	pumps.Go(func() { c.finish(c.pumpClient(fromClient, fromServer, opened), c.server) })
	pumps.Go(func() {
		framed, ok := <-opened
		if !ok {
			return
		}
		var err error
		if framed {
			err = c.pumpServer(fromServer)
		} else {
			err = c.relayBytes(c.client, fromServer)
		}
		c.finish(err, c.client)
		c.expect.end() // no answer will come any more
	})
	pumps.Wait()
	c.end(false)
}

// finish carries the end of one direction over to the other side.
func (c *conn) finish(err error, to *net.TCPConn) {
	switch {
	case c.hanging.Load():
	case err == nil || errors.Is(err, io.EOF):
		_ = to.CloseWrite() // the other direction may go on
	case errors.Is(err, errOver):
	default:
		c.end(true)
	}
}

// end closes both sides, with a reset when asked to.
func (c *conn) end(reset bool) {
	c.once.Do(func() {
		close(c.over)
		c.expect.end()
		for _, side := range []*net.TCPConn{c.client, c.server} {
			if reset {
				_ = side.SetLinger(0) // close then sends RST
			}
			_ = side.Close()
		}
	})
}

// hangUp closes both sides with FIN. A socket closed with unread bytes would
// send RST, so what still comes from the client is read until it has gone.
func (c *conn) hangUp() error {
	c.hanging.Store(true)
	_ = c.server.CloseWrite() // first: nothing more may reach it
	_ = c.client.CloseWrite()
	_, _ = io.Copy(io.Discard, c.client)
	c.end(false)
	return errOver
}

// pumpClient relays the client's messages. It says on opened whether the
// server's side is to be read as frames, and closes it when there is nothing
// to read.
func (c *conn) pumpClient(r, fromServer *bufio.Reader, opened chan<- bool) error {
	framed, err := c.open(r, fromServer)
	if err != nil {
		close(opened)
		if errors.Is(err, io.EOF) {
			c.end(false)
		}
		return err
	}
	opened <- framed
	if !framed {
		return c.relayBytes(c.server, r)
	}
	skip := false // up to Sync
	for {
		m, err := readMessage(r)
		if err != nil {
			return c.badFrame(err, m, c.server, r)
		}
		if skip && m.kind != 'S' && m.kind != 'X' {
			if err := m.copyRest(io.Discard, r); err != nil {
				return err
			}
			continue
		}
		skip = false
		if skip, err = c.handle(FromClient, m, r); err != nil {
			return err
		}
	}
}

// open relays the messages without a type byte. It reports whether frames
// follow, or bytes that cannot be understood.
func (c *conn) open(r, fromServer *bufio.Reader) (framed bool, err error) {
	for {
		m, err := readOpening(r)
		if errors.Is(err, errNoFrame) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if (m.kind == SSLRequest || m.kind == GSSENCRequest) && c.proxy.options.RefuseTLS {
			c.proxy.counts.add(FromClient, m.kind)
			if _, err := c.client.Write([]byte{'N'}); err != nil {
				return false, err
			}
			continue
		}
		if _, err := c.handle(FromClient, m, r); err != nil {
			return false, err
		}
		if m.kind == Startup || m.kind == CancelRequest {
			return true, nil
		}
		// The answer to SSLRequest and GSSENCRequest is a single byte, or an
		// ErrorResponse of a server that does not know them.
		answer, err := fromServer.ReadByte()
		if err != nil {
			return false, err
		}
		if _, err := c.client.Write([]byte{answer}); err != nil {
			return false, err
		}
		if answer != 'N' {
			return false, nil
		}
	}
}

// pumpServer relays the server's messages.
func (c *conn) pumpServer(r *bufio.Reader) error {
	for {
		m, err := readMessage(r)
		if err != nil {
			return c.badFrame(err, m, c.client, r)
		}
		if _, err := c.handle(FromServer, m, r); err != nil {
			return err
		}
	}
}

// badFrame relays the rest of a stream as bytes when it is no longer frames.
func (c *conn) badFrame(err error, m message, to net.Conn, r *bufio.Reader) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		if _, err := c.gated(to).Write(append(m.head, m.body...)); err != nil {
			return err
		}
		return nil
	}
	if errors.Is(err, errNoFrame) {
		return c.relayBytes(to, r)
	}
	return err
}

func (c *conn) relayBytes(to net.Conn, r *bufio.Reader) error {
	_, err := io.Copy(c.gated(to), r)
	return err
}

// handle applies the rules to one message and passes it on, or not. It
// reports whether the client's messages are to be swallowed up to Sync.
func (c *conn) handle(from Direction, m message, r *bufio.Reader) (skip bool, err error) {
	triggers := c.proxy.judge(from, c.number, m)
	for _, t := range triggers {
		if t.rule.After {
			continue
		}
		if t.rule.Do.what == deedReplace {
			m = m.replaced(t.rule.Text, t.rule.Do.text)
			continue
		}
		done, skip, err := c.act(t, from, m, r)
		if done || err != nil {
			return skip, err
		}
	}
	if err := c.pass(from, m, r); err != nil {
		return false, err
	}
	for _, t := range triggers {
		if !t.rule.After {
			continue
		}
		if _, _, err := c.act(t, from, message{}, r); err != nil {
			return false, err
		}
	}
	return false, nil
}

// pass relays one message.
func (c *conn) pass(from Direction, m message, r *bufio.Reader) error {
	if from == FromClient {
		c.expect.sent(m.kind) // before the server can answer
		return m.copyTo(c.gated(c.server), r)
	}
	c.toClient.Lock()
	err := m.copyTo(c.gated(c.client), r)
	c.toClient.Unlock()
	c.expect.received(m)
	return err
}

// act carries out a rule at a message. It reports whether the message is
// done with, and whether the client's messages are to be skipped up to Sync.
func (c *conn) act(t *Trigger, from Direction, m message, r *bufio.Reader) (done, skip bool, err error) {
	switch a := t.rule.Do; a.what {
	case deedKill:
		c.end(true)
		return true, false, errOver
	case deedClose:
		return true, false, c.hangUp()
	case deedHold:
		select {
		case <-t.free:
		case <-c.over:
			return true, false, errOver
		}
	case deedTruncate:
		if err := m.copyPart(c.gated(c.to(from)), r, a.length); err != nil {
			return true, false, err
		}
		return true, false, c.hangUp()
	case deedDrop:
		return true, false, m.copyRest(io.Discard, r)
	case deedAnswer:
		if err := m.copyRest(io.Discard, r); err != nil {
			return true, false, err
		}
		if from == FromServer {
			return true, false, c.replace(m, a.err)
		}
		return c.answer(m, a.err)
	case deedCall:
		a.call()
	}
	return false, false, nil
}

func (c *conn) to(from Direction) *net.TCPConn {
	if from == FromClient {
		return c.server
	}
	return c.client
}

// replace sends the client an error in the place of the server's message.
func (c *conn) replace(m message, e *wire.Error) error {
	if err := c.tell(e.Append(nil)); err != nil {
		return err
	}
	if e.IsFatal() {
		return c.hangUp()
	}
	// For the client the statement is over; the server's own messages go on.
	c.expect.received(m)
	return nil
}

// answer sends the client an error for its own message m.
func (c *conn) answer(m message, e *wire.Error) (done, skip bool, err error) {
	if m.kind == Startup {
		if err := c.tell(e.Append(nil)); err != nil {
			return true, false, err
		}
		return true, false, c.hangUp()
	}
	if c.expect.owed() {
		// Without Sync a server keeps its answers until it is asked.
		if _, err := c.gated(c.server).Write([]byte{'H', 0, 0, 0, 4}); err != nil {
			return true, false, err
		}
	}
	status, skipping, ok := c.expect.waitQuiet()
	if !ok {
		return true, false, errOver
	}
	if skipping {
		return true, true, nil // the server would not have answered either
	}
	reply := e.Append(nil)
	simple := m.kind == 'Q' || m.kind == 'F'
	if simple && !e.IsFatal() {
		reply = append(reply, 'Z', 0, 0, 0, 5, status)
	}
	if err := c.tell(reply); err != nil {
		return true, false, err
	}
	if e.IsFatal() {
		return true, false, c.hangUp()
	}
	return true, !simple, nil
}

// tell sends whole frames of ours to the client.
func (c *conn) tell(frames []byte) error {
	c.toClient.Lock()
	defer c.toClient.Unlock()
	_, err := c.gated(c.client).Write(frames)
	return err
}

// gated returns a writer that waits while the proxy is stalled.
func (c *conn) gated(w io.Writer) io.Writer { return gatedWriter{c, w} }

type gatedWriter struct {
	c *conn
	w io.Writer
}

func (g gatedWriter) Write(b []byte) (int, error) {
	select {
	case <-g.c.proxy.flowing():
	case <-g.c.over:
		return 0, errOver
	}
	return g.w.Write(b)
}
