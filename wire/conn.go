package wire

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Sizes of a Conn's buffers, in bytes.
const (
	// readSize is what one read asks for, and the size of the buffers lent. Large pieces are what makes bulk
	// results cheap: PgBouncer's 4 KiB reads cost it a quarter of its CPU there.
	readSize = 64 << 10
	// directSize is the span from which Write bypasses the output buffer: one
	// copy less is worth more than one system call less only for large spans.
	directSize = 16 << 10
	headerSize = 5
)

// Buffers lends the buffers of connections that have bytes in flight; an idle
// connection holds none. Safe for concurrent use; the zero value is ready.
type Buffers struct{ free sync.Pool }

func (b *Buffers) get() []byte {
	if p, ok := b.free.Get().(*[readSize]byte); ok {
		return p[:]
	}
	return make([]byte, readSize)
}

// put takes back what get returned, and leaves any other buffer to the collector.
func (b *Buffers) put(p []byte) {
	if Checked {
		clear(p[:cap(p)])
	}
	if cap(p) == readSize {
		// A pointer to the array, for a slice would be copied to the heap each time.
		b.free.Put((*[readSize]byte)(p[:readSize]))
	}
}

// Conn is a Socket, perhaps under TLS, with a read buffer that can be looked
// into before it is consumed and an output buffer that gathers small pieces
// into one write. It never waits.
type Conn struct {
	socket  *Socket
	tls     *tls.Conn
	buffers *Buffers

	in    []byte // nil when nothing is buffered
	r, w  int    // in[r:w] is unread
	start int    // in[start:r] is kept for Rewind while held
	held  bool

	// more is set while the TLS layer may hold decrypted or raw bytes that no
	// wait on the socket would tell of.
	more bool

	out []byte // nil when empty
	tee *Tee   // nil: there is none

	received, sent uint64 // bytes, for statistics
}

// NewConn returns a Conn over socket, which must be in non-blocking mode by
// the first Fill or Write; tlsConn is the TLS layer over that socket or nil.
func NewConn(socket *Socket, tlsConn *tls.Conn, buffers *Buffers) *Conn {
	return &Conn{socket: socket, tls: tlsConn, buffers: buffers}
}

// Socket returns the socket below, for waiting on it.
func (c *Conn) Socket() *Socket { return c.socket }

// TLS returns the TLS layer, nil when the connection is not encrypted.
func (c *Conn) TLS() *tls.Conn { return c.tls }

// Received and Sent count the bytes read from and accepted for the peer.
func (c *Conn) Received() uint64 { return c.received }

// Sent returns how many bytes were accepted for the peer.
func (c *Conn) Sent() uint64 { return c.sent }

// Buffered returns the bytes read and not yet consumed. The slice is valid
// until the next Fill, Discard, Release or Rewind.
func (c *Conn) Buffered() []byte { return c.in[c.r:c.w] }

// Fill reads once from the peer into the buffer, which grows up to atLeast
// unread bytes when one frame needs that. It returns ErrWouldBlock when
// nothing is there and io.EOF at the end of the stream.
func (c *Conn) Fill(atLeast int) error {
	c.makeRoom(atLeast)
	var n int
	var err error
	if c.tls != nil {
		n, err = c.tls.Read(c.in[c.w:])
		c.more = n > 0
	} else {
		n, err = c.socket.Read(c.in[c.w:])
	}
	c.w += n
	c.received += uint64(n)
	if n > 0 {
		return nil
	}
	c.dropEmpty()
	return err
}

// More reports whether a Fill may find bytes although the socket has none: one
// that has not said ErrWouldBlock since the last bytes under TLS.
func (c *Conn) More() bool { return c.more }

// makeRoom makes sure that there is space behind w, and in all for atLeast
// unread bytes, moving or growing the buffer when needed.
func (c *Conn) makeRoom(atLeast int) {
	if c.in == nil {
		c.in = c.buffers.get()
		c.r, c.w, c.start = 0, 0, 0
	}
	keep := c.r
	if c.held {
		keep = c.start
	}
	if len(c.in)-c.r >= atLeast && c.w < len(c.in) {
		return
	}
	need := c.r - keep + max(atLeast, c.w-c.r+1)
	if need <= len(c.in) {
		copy(c.in, c.in[keep:c.w])
	} else {
		grown := make([]byte, max(need, 2*len(c.in))) // twice, so that what is copied stays in proportion
		copy(grown, c.in[keep:c.w])
		c.buffers.put(c.in)
		c.in = grown
	}
	c.r, c.w, c.start = c.r-keep, c.w-keep, 0
}

// Discard consumes n buffered bytes.
func (c *Conn) Discard(n int) {
	c.r += n
	c.dropEmpty()
}

func (c *Conn) dropEmpty() {
	if c.r == c.w && !c.held && c.in != nil {
		c.buffers.put(c.in)
		c.in = nil
		c.r, c.w = 0, 0
	}
}

// Consumed returns the place of the next buffered byte in what the peer sends: it
// grows by what is discarded, and only Rewind takes it back.
func (c *Conn) Consumed() uint64 { return c.received - uint64(c.w-c.r) }

// Replace puts p in the place of n buffered bytes, of which the first is at off. The
// bytes count as received.
func (c *Conn) Replace(off, n int, p []byte) {
	if grown := len(p) - n; grown > 0 {
		c.makeRoom(c.w - c.r + grown)
	}
	at := c.r + off
	copy(c.in[at+len(p):], c.in[at+n:c.w])
	copy(c.in[at:], p)
	c.w += len(p) - n
	c.received += uint64(len(p) - n)
}

// Insert puts p ahead of the unread bytes, as if the peer had sent it there. It ends a
// hold. The caller keeps p.
func (c *Conn) Insert(p []byte) {
	c.held = false
	unread := c.w - c.r
	switch {
	case len(p) <= c.r:
		c.r -= len(p)
		copy(c.in[c.r:], p)
		return
	case c.in == nil:
		c.in = c.buffers.get()
	}
	if need := len(p) + unread; need > len(c.in) {
		grown := make([]byte, max(need, 2*len(c.in)))
		copy(grown[len(p):], c.in[c.r:c.w])
		c.buffers.put(c.in)
		c.in = grown
	} else {
		copy(c.in[len(p):], c.in[c.r:c.w])
	}
	copy(c.in, p)
	c.r, c.w, c.start = 0, len(p)+unread, 0
}

// Hold keeps the bytes consumed from now on, so that Rewind can bring them back.
func (c *Conn) Hold() {
	c.held = true
	c.start = c.r
}

// Held returns the number of consumed bytes that are being kept.
func (c *Conn) Held() int {
	if !c.held {
		return 0
	}
	return c.r - c.start
}

// Rewind makes the kept bytes unread again and ends the hold.
func (c *Conn) Rewind() {
	if c.held {
		c.r, c.held = c.start, false
	}
}

// Release forgets the kept bytes.
func (c *Conn) Release() {
	c.held = false
	c.dropEmpty()
}

// Header looks at the next frame. ok is false when fewer than five bytes are
// buffered; size is the whole frame's length with its header. A length word
// under 4 or a frame over limit bytes is a protocol violation (08P01).
func (c *Conn) Header(limit int) (kind byte, size int, ok bool, err error) {
	b := c.in[c.r:c.w]
	if len(b) < headerSize {
		return 0, 0, false, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || uint64(n)+1 > uint64(limit) {
		return b[0], 0, false, Fatal("08P01", "invalid message length").
			WithDetail("Message type %q claims %d bytes; the limit is %d.", b[0], n, limit)
	}
	return b[0], int(n) + 1, true, nil
}

// Queue appends p to the output; Flush sends it. A large p may be written at
// once. The caller keeps p.
func (c *Conn) Queue(p []byte) error {
	if len(p) < directSize {
		c.SetOutput(append(c.Output(), p...))
		if len(c.out) < readSize-directSize {
			return nil
		}
		return c.drainOut()
	}
	c.sent += uint64(len(p))
	if c.tee != nil {
		c.tee.add(p)
	}
	if err := c.drainOut(); err != nil {
		return err
	}
	return c.write(p)
}

// Output returns the output buffer for appending whole frames to it; the
// result of appending must be given back with SetOutput at once.
func (c *Conn) Output() []byte {
	if c.out == nil {
		c.out = c.buffers.get()[:0]
	}
	return c.out
}

// SetOutput gives back what Output returned, with frames appended, or without the last of them.
func (c *Conn) SetOutput(p []byte) {
	c.sent += uint64(len(p) - len(c.out))
	if c.tee != nil {
		c.tee.given(p, len(c.out))
	}
	if cap(p) != cap(c.out) {
		c.buffers.put(c.out) // outgrown
	}
	c.out = p
}

// Flush offers all output to the kernel without waiting.
func (c *Conn) Flush() error {
	if err := c.drainOut(); err != nil {
		return err
	}
	if c.socket.Pending() > 0 {
		return c.socket.Flush()
	}
	return nil
}

// Unflushed reports whether output waits for a Flush.
func (c *Conn) Unflushed() bool { return len(c.out) > 0 }

// Pending returns the bytes that wait for the peer to read.
func (c *Conn) Pending() int { return len(c.out) + c.socket.Pending() }

func (c *Conn) drainOut() error {
	if c.out == nil {
		return nil
	}
	err := c.write(c.out)
	c.dropOut()
	return err
}

func (c *Conn) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	var err error
	if c.tls != nil {
		_, err = c.tls.Write(p)
	} else {
		_, err = c.socket.Write(p)
	}
	return err
}

// DropOutput forgets what waits for a peer that takes no more.
func (c *Conn) DropOutput() {
	c.dropOut()
	c.socket.pending, c.socket.sent = nil, 0
}

// IsReset reports whether a write failed for the peer has closed its side of the
// connection. What it sent before can still be read, up to an error or the end.
func IsReset(err error) bool {
	return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}

func (c *Conn) dropOut() {
	if c.out != nil {
		c.buffers.put(c.out)
		c.out = nil
	}
}

// Shrink gives back the output buffer of a connection that goes idle. That is of
// use only after an Output to which nothing was appended: a Flush does the same.
func (c *Conn) Shrink() {
	if len(c.out) == 0 {
		c.dropOut()
	}
}

// Close closes the socket, telling a TLS peer first. Pending output is lost.
func (c *Conn) Close() error {
	if c.tls != nil && c.socket.Pending() == 0 {
		// The alert is a courtesy; the socket is closed either way.
		_ = c.tls.CloseWrite()
	}
	if err := c.socket.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Drop gives back the buffers; for a connection that is not used again.
func (c *Conn) Drop() {
	c.held = false
	c.dropOut()
	if c.in != nil {
		c.buffers.put(c.in)
		c.in, c.r, c.w = nil, 0, 0
	}
}
