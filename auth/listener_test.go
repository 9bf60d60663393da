package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"shardproxy/wire"
)

// testListener is the smallest server that real clients can log in to.
type testListener struct {
	t    testing.TB
	a    *Authenticator
	tls  *ServerTLS // nil: SSLRequest is refused
	addr string

	mu         sync.Mutex
	identities []Identity
	errs       []error
}

// listen serves logins on a TCP port or, when path is given, on a Unix-domain
// socket, until the test ends.
func listen(t testing.TB, a *Authenticator, side *ServerTLS, path string) *testListener {
	t.Helper()
	network, address := "tcp", "127.0.0.1:0"
	if path != "" {
		network, address = "unix", path
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	s := &testListener{t: t, a: a, tls: side, addr: l.Addr().String()}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { s.serve(nc) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return s
}

// result returns what the latest finished attempt came to.
func (s *testListener) result() (Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.errs)
	if n == 0 {
		return Identity{}, errors.New("no attempt")
	}
	return s.identities[n-1], s.errs[n-1]
}

// testConversation implements Conversation over a blocking connection.
type testConversation struct {
	net.Conn
	state *tls.ConnectionState
	cert  *x509.Certificate
}

func (c *testConversation) Send(b []byte) error                  { _, err := c.Write(b); return err }
func (c *testConversation) TLS() *tls.ConnectionState            { return c.state }
func (c *testConversation) ServerCertificate() *x509.Certificate { return c.cert }

func (c *testConversation) RemoteAddr() netip.AddrPort {
	ap, _ := netip.ParseAddrPort(c.Conn.RemoteAddr().String()) // invalid for Unix-domain sockets
	return ap
}

func (c *testConversation) ReadPassword(maxBytes int) ([]byte, error) {
	kind, body, err := readMessage(c.Conn, maxBytes)
	if err == nil && kind != wire.MsgPassword {
		return nil, wire.Fatal("08P01", "expected password response, got message type %d", kind)
	}
	return body, err
}

func readMessage(r io.Reader, maxBytes int) (kind byte, body []byte, err error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(h[1:])) - 4
	if n < 0 || n > maxBytes {
		return 0, nil, wire.Fatal("08P01", "invalid message length")
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return h[0], body, err
}

// startup reads untyped packets up to the StartupMessage, switching to TLS.
func (s *testListener) startup(c *testConversation) (parameters map[string]string, err error) {
	for {
		var h [8]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return nil, err
		}
		body := make([]byte, binary.BigEndian.Uint32(h[:])-8)
		if _, err := io.ReadFull(c, body); err != nil {
			return nil, err
		}
		const sslRequest, gssRequest = 80877103, 80877104
		code := binary.BigEndian.Uint32(h[4:])
		switch {
		case code == sslRequest && s.tls != nil:
			if _, err := c.Write([]byte("S")); err != nil {
				return nil, err
			}
			tc := tls.Server(c.Conn, s.tls.Config)
			if err := tc.Handshake(); err != nil {
				return nil, err
			}
			state := tc.ConnectionState()
			c.Conn, c.state, c.cert = tc, &state, s.tls.Certificate
		case code == sslRequest || code == gssRequest:
			if _, err := c.Write([]byte("N")); err != nil {
				return nil, err
			}
		default:
			parameters = map[string]string{}
			for {
				k, rest, ok := wire.CString(body)
				v, rest, ok2 := wire.CString(rest)
				if !ok || !ok2 {
					return parameters, nil
				}
				parameters[string(k)], body = string(v), rest
			}
		}
	}
}

func (s *testListener) serve(nc net.Conn) {
	c := &testConversation{Conn: nc}
	defer func() { _ = c.Close() }()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	p, err := s.startup(c)
	if err != nil {
		return // a client that tries out something else
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	id, err := s.a.Authenticate(ctx, c, p["user"], p["database"])
	s.mu.Lock()
	s.identities, s.errs = append(s.identities, id), append(s.errs, err)
	s.mu.Unlock()
	if err != nil {
		_ = c.Send(wire.AsError(err).Append(nil))
		return
	}
	out := wire.AppendParameterStatus(nil, "server_version", "15.0")
	out = wire.AppendParameterStatus(out, "client_encoding", "UTF8")
	out = wire.AppendBackendKeyData(out, 1, []byte{1, 2, 3, 4})
	_ = c.Send(wire.AppendReadyForQuery(out, 'I'))
	for {
		kind, _, err := readMessage(c, 1<<16)
		if err != nil || kind == wire.MsgTerminate {
			return
		}
		if kind == wire.MsgQuery {
			out := wire.AppendCommandComplete(nil, "SELECT 0")
			_ = c.Send(wire.AppendReadyForQuery(out, 'I'))
		}
	}
}
