package faultproxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Direction says who sends a message.
type Direction int

// The two directions.
const (
	FromClient Direction = iota
	FromServer
)

// String returns "client" or "server".
func (d Direction) String() string {
	if d == FromServer {
		return "server"
	}
	return "client"
}

// Kinds of messages are their type bytes. The messages that open a connection
// have none; these stand for them. Any stands for every message.
const (
	Any           byte = 0
	Startup       byte = 1
	SSLRequest    byte = 2
	GSSENCRequest byte = 3
	CancelRequest byte = 4
)

// Codes of the messages without a type byte (manual, "Message Formats").
const (
	cancelCode = 80877102
	sslCode    = 80877103
	gssCode    = 80877104
)

// prefixLimit is how much of a body rules can see; the rest is streamed.
const prefixLimit = 64 << 10

// startupLimit is the longest message without a type byte that is taken for
// one; PostgreSQL's own limit is 10,000 bytes.
const startupLimit = 1 << 20

// errNoFrame says that the bytes that follow are no frame; none was consumed.
var errNoFrame = errors.New("not a frame")

// message is one frame, its body up to prefixLimit in memory and the rest
// still in the reader.
type message struct {
	kind byte
	head []byte // type and length, as sent
	body []byte // at most prefixLimit bytes
	rest int64  // bytes of the body that are still to be read
}

// readMessage reads one typed frame. At a bad length word it returns
// errNoFrame; at the end of the stream io.EOF, with nothing consumed, or
// io.ErrUnexpectedEOF with what there was of the frame in m, so that it can be
// passed on.
func readMessage(r *bufio.Reader) (m message, err error) {
	head, err := r.Peek(5)
	if err != nil {
		return message{}, incomplete(r, len(head), err)
	}
	length := int64(binary.BigEndian.Uint32(head[1:]))
	if length < 4 || length > 1<<31-1 {
		return message{}, errNoFrame
	}
	m = message{kind: head[0], head: append([]byte(nil), head...)}
	_, _ = r.Discard(5) // peeked, so it is there
	return m.readBody(r, length-4)
}

// readOpening reads one message without a type byte.
func readOpening(r *bufio.Reader) (m message, err error) {
	head, err := r.Peek(8)
	if err != nil {
		return message{}, incomplete(r, len(head), err)
	}
	length := int64(binary.BigEndian.Uint32(head))
	if length < 8 || length > startupLimit {
		return message{}, errNoFrame
	}
	m = message{kind: Startup, head: append([]byte(nil), head...)}
	switch binary.BigEndian.Uint32(head[4:]) {
	case cancelCode:
		m.kind = CancelRequest
	case sslCode:
		m.kind = SSLRequest
	case gssCode:
		m.kind = GSSENCRequest
	}
	_, _ = r.Discard(8) // peeked, so it is there
	return m.readBody(r, length-8)
}

// incomplete says why a head could not be read: a few bytes before the end of
// the stream are relayed as they are.
func incomplete(r *bufio.Reader, got int, err error) error {
	if got > 0 && errors.Is(err, io.EOF) {
		return errNoFrame
	}
	return err
}

// readBody reads what rules may look at.
func (m message) readBody(r *bufio.Reader, length int64) (message, error) {
	m.body = make([]byte, min(length, prefixLimit))
	n, err := io.ReadFull(r, m.body)
	m.body = m.body[:n]
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	m.rest = length - int64(n)
	return m, err
}

// copyTo passes the whole frame on, the rest straight from the reader.
func (m message) copyTo(w io.Writer, r *bufio.Reader) error {
	if _, err := w.Write(append(m.head, m.body...)); err != nil {
		return err
	}
	return m.copyRest(w, r)
}

// copyRest copies what is still in the reader.
func (m message) copyRest(w io.Writer, r *bufio.Reader) error {
	if m.rest == 0 {
		return nil
	}
	_, err := io.CopyN(w, r, m.rest)
	return err
}

// copyPart passes the first n bytes of the frame on and no more.
func (m message) copyPart(w io.Writer, r *bufio.Reader, n int) error {
	start := append(m.head, m.body...)
	if n <= len(start) {
		_, err := w.Write(start[:n])
		return err
	}
	if _, err := w.Write(start); err != nil {
		return err
	}
	_, err := io.CopyN(w, r, min(m.rest, int64(n-len(start))))
	return err
}

// replaced returns the message with another text in the place of one.
func (m message) replaced(old, text string) message {
	body := bytes.ReplaceAll(m.body, []byte(old), []byte(text))
	at := len(m.head) - 4 // of the length word
	if m.kind < ' ' {
		at = 0 // of a message without a type byte
	}
	m.head = append([]byte(nil), m.head...)
	length := binary.BigEndian.Uint32(m.head[at:])
	binary.BigEndian.PutUint32(m.head[at:], length+uint32(len(body)-len(m.body)))
	m.body = body
	return m
}

// kindName prints a kind for messages to people.
func kindName(kind byte) string {
	switch kind {
	case Any:
		return "any message"
	case Startup:
		return "StartupMessage"
	case SSLRequest:
		return "SSLRequest"
	case GSSENCRequest:
		return "GSSENCRequest"
	case CancelRequest:
		return "CancelRequest"
	}
	return fmt.Sprintf("message %q", kind)
}
