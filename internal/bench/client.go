package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/xdg-go/scram"

	"shardproxy/wire"
)

// Read sizes: small, because thousands of clients log in; large, so that bulk
// results do not wait for the client.
const (
	smallRead = 8 << 10
	largeRead = 256 << 10
)

// patience bounds every answer; a side that hangs is a failure, not a number.
const patience = time.Minute

// login is the user's half of SCRAM. It derives the keys once, so that a
// thousand logins cost the sides that are measured and not their clients. It
// may be used by several goroutines.
type login struct{ scram *scram.Client }

func newLogin() (*login, error) {
	c, err := scram.SHA256.NewClient(userName, password, "")
	return &login{c}, err
}

// client is a connection that walks frame headers and decodes next to nothing.
type client struct {
	conn     net.Conn
	readSize int
	buf      []byte // nil while nothing is expected
	r, w     int
	received int       // bytes, in all
	tag      string    // of the last CommandComplete
	firstRow time.Time // when it came, if it was not set before
}

// dial connects and logs in; it returns when the client may ask.
func (l *login) dial(ctx context.Context, port int, database string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address(port))
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, readSize: smallRead}
	if err := c.authenticate(l.scram.NewConversation(), database); err != nil {
		return nil, errors.Join(fmt.Errorf("log in: %w", err), conn.Close())
	}
	return c, nil
}

func (c *client) close() { _ = c.conn.Close() } // nothing is owed to anybody

// authenticate sends the start-up packet and follows until ReadyForQuery.
func (c *client) authenticate(conversation *scram.ClientConversation, database string) error {
	packet := []byte{0, 0, 0, 0, 0, 3, 0, 0}
	packet = append(packet, "user\x00"+userName+"\x00database\x00"+database+"\x00\x00"...)
	binary.BigEndian.PutUint32(packet, uint32(len(packet)))
	if err := c.send(packet); err != nil {
		return err
	}
	return c.frames(func(kind byte, body []byte) error {
		if kind != wire.MsgAuthentication || len(body) < 4 {
			return nil
		}
		answer, err := saslAnswer(conversation, binary.BigEndian.Uint32(body), body[4:])
		if err != nil || answer == nil {
			return err
		}
		return c.send(answer)
	})
}

// saslAnswer returns the frame that follows a frame of the server's
// authentication, nil for none.
func saslAnswer(conversation *scram.ClientConversation, code uint32, body []byte) ([]byte, error) {
	const ok, sasl, saslContinue, saslFinal = 0, 10, 11, 12
	switch code {
	case ok:
		return nil, nil
	case sasl:
		first, err := conversation.Step("")
		if err != nil {
			return nil, err
		}
		size := binary.BigEndian.AppendUint32(nil, uint32(len(first)))
		return wire.AppendFrame(nil, 'p', []byte("SCRAM-SHA-256\x00"), size, []byte(first)), nil
	case saslContinue:
		final, err := conversation.Step(string(body))
		return wire.AppendFrame(nil, 'p', []byte(final)), err
	case saslFinal:
		_, err := conversation.Step(string(body))
		return nil, err
	}
	return nil, fmt.Errorf("asked for authentication %d, not SCRAM", code)
}

// ask runs one simple query and checks the tag of its answer.
func (c *client) ask(sql, tag string) error {
	if err := c.send(wire.AppendQuery(nil, sql)); err != nil {
		return err
	}
	return c.finish(tag)
}

// finish reads up to ReadyForQuery and checks the tag of the answer.
func (c *client) finish(tag string) error {
	c.tag = ""
	if err := c.frames(nil); err != nil {
		return err
	}
	if c.tag != tag {
		return fmt.Errorf("the answer is %q, not %q", c.tag, tag)
	}
	return nil
}

func (c *client) send(p []byte) error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := c.conn.Write(p)
	return err
}

// frames reads frames up to ReadyForQuery, or up to CopyInResponse. Rows and
// copy data are stepped over, errors are returned; see, if given, gets the rest.
func (c *client) frames(see func(kind byte, body []byte) error) error {
	if c.buf == nil {
		c.buf = make([]byte, c.readSize)
		c.r, c.w = 0, 0
	}
	for {
		if err := c.need(5); err != nil {
			return err
		}
		kind, size := c.buf[c.r], int(binary.BigEndian.Uint32(c.buf[c.r+1:]))+1
		if kind == wire.MsgDataRow || kind == wire.MsgCopyData {
			if c.firstRow.IsZero() {
				c.firstRow = time.Now()
			}
			if err := c.skip(size); err != nil {
				return err
			}
			continue
		}
		if err := c.need(size); err != nil {
			return err
		}
		body := c.buf[c.r+5 : c.r+size]
		c.r += size
		switch kind {
		case wire.MsgErrorResponse:
			return errors.New(strings.ReplaceAll(string(body), "\x00", " "))
		case wire.MsgCommandComplete:
			c.tag = string(bytes.TrimRight(body, "\x00"))
		case wire.MsgReadyForQuery, wire.MsgCopyInResponse:
			if c.r == c.w {
				c.buf = nil // idle clients are to be many
			}
			return nil
		default:
			if see != nil {
				if err := see(kind, body); err != nil {
					return err
				}
			}
		}
	}
}

// need reads until n bytes are buffered.
func (c *client) need(n int) error {
	for c.w-c.r < n {
		if err := c.fill(n); err != nil {
			return err
		}
	}
	return nil
}

// skip steps over n bytes, buffered or not.
func (c *client) skip(n int) error {
	for c.w-c.r < n {
		n -= c.w - c.r
		c.r = c.w
		if err := c.fill(1); err != nil {
			return err
		}
	}
	c.r += n
	return nil
}

// fill reads once, having made room for n unread bytes.
func (c *client) fill(n int) error {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	if len(c.buf)-c.r < n || c.w == len(c.buf) {
		target := c.buf
		if len(target) < n {
			target = make([]byte, n)
		}
		c.w = copy(target, c.buf[c.r:c.w])
		c.buf, c.r = target, 0
	}
	got, err := c.conn.Read(c.buf[c.w:])
	c.w += got
	c.received += got
	if got > 0 {
		return nil
	}
	if err == io.EOF {
		return errors.New("the connection was closed")
	}
	return err
}
