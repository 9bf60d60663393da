package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"
	"unique"

	"shardproxy/audit"
	"shardproxy/auth"
	"shardproxy/pool"
	"shardproxy/wire"
)

// stream is a client's connection while it is in blocking mode.
type stream struct {
	nc     net.Conn
	socket *wire.Socket
	tls    *tls.Conn
	cert   *x509.Certificate
	// Who it says it is, and the method by which it has proved that; "" while they are not known.
	user, database, application, method string
}

func (c *stream) Read(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(p)
	}
	return c.socket.Read(p)
}

func (c *stream) Write(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(p)
	}
	return c.socket.Write(p)
}

func (c *stream) SetReadDeadline(t time.Time) error { return c.socket.SetReadDeadline(t) }

// SetWriteDeadline implements Stream.
func (c *stream) SetWriteDeadline(t time.Time) error { return c.socket.SetWriteDeadline(t) }

// Send implements auth.Conversation.
func (c *stream) Send(frames []byte) error {
	_, err := c.Write(frames)
	return err
}

// ReadPassword implements auth.Conversation.
func (c *stream) ReadPassword(maxBytes int) ([]byte, error) {
	kind, body, err := wire.ReadMessage(c, maxBytes)
	if err != nil {
		return nil, err
	}
	if kind != wire.MsgPassword {
		return nil, wire.Fatal("08P01", "expected password response, got message type %d", kind)
	}
	return body, nil
}

// TLS implements auth.Conversation.
func (c *stream) TLS() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	st := c.tls.ConnectionState()
	return &st
}

// ServerCertificate implements auth.Conversation.
func (c *stream) ServerCertificate() *x509.Certificate { return c.cert }

// peer is a client's address as operators read it: host:port, or unix.
func peer(a net.Addr) string {
	if _, ok := a.(*net.UnixAddr); ok {
		return "unix"
	}
	return a.String()
}

// ownEnd is the end of ours: host:port, or nothing for a Unix-domain socket.
func ownEnd(a net.Addr) string {
	if _, ok := a.(*net.UnixAddr); ok {
		return ""
	}
	return a.String()
}

// RemoteAddr implements auth.Conversation.
func (c *stream) RemoteAddr() netip.AddrPort {
	if a, ok := c.socket.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// handle runs one connection from its first byte to its end.
func (srv *Server) handle(nc net.Conn) {
	defer nc.Close()
	var c *stream
	defer func() {
		if p := recover(); p != nil {
			// One client's input must never end the process.
			srv.opt.Logger.Error("login or console panicked", "client", nc.RemoteAddr().String(), "panic", p, "stack", string(debug.Stack()))
			if c != nil {
				c.lastWords(wire.Fatal("XX000", "internal error"))
			}
		}
	}()
	set := srv.settings.Load()
	if !srv.track(nc, set.MaxClients) {
		srv.refused.Add(1)
		_ = nc.SetDeadline(time.Now().Add(farewellTime))
		_, _ = nc.Write(tooMany(set.MaxClients).Append(nil)) // it may be gone
		return
	}
	defer srv.untrack(nc)
	socket, err := wire.NewSocket(nc)
	if err != nil {
		srv.opt.Logger.Error("connection refused", "error", err)
		return
	}
	if err := socket.SetDeadline(time.Now().Add(set.LoginTimeout)); err != nil {
		return
	}
	c = &stream{nc: nc, socket: socket}
	start, err := srv.negotiate(c, set)
	if err != nil {
		srv.turnAway(c, err)
		return
	}
	if start.Kind == wire.StartupCancel {
		srv.cancel(start.Cancel)
		return
	}
	if err := srv.login(c, start, set); err != nil {
		srv.turnAway(c, err)
	}
}

// spareLogins is how many connections more than there may be clients are heard
// out: of consoles, cancel requests, and of those who are then refused by name.
const spareLogins = 100

// track keeps the connections that Shutdown may close without harm; false when
// there are too many already.
func (srv *Server) track(nc net.Conn, maxClients int) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if maxClients > 0 && len(srv.pending)+len(srv.sessions) >= maxClients+spareLogins {
		return false
	}
	srv.pending[nc] = struct{}{}
	if srv.refusing {
		_ = nc.Close()
	}
	return true
}

func (srv *Server) untrack(nc net.Conn) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.pending, nc)
}

func tooMany(limit int) *wire.Error {
	return wire.Fatal("53300", "sorry, too many clients already").WithDetail("The limit is %d.", limit)
}

// farewellTime bounds how long a refused client is waited for to take its error.
const farewellTime = time.Second

// lastWords tells a client why its connection ends, as far as it still listens:
// also when its time is over.
func (c *stream) lastWords(e *wire.Error) {
	if c.socket.SetDeadline(time.Now().Add(farewellTime)) == nil {
		_, _ = c.Write(e.Append(nil))
	}
}

// turnAway tells a client why it does not get in, as far as it still listens.
func (srv *Server) turnAway(c *stream, err error) {
	srv.refused.Add(1)
	var e *wire.Error
	var ne net.Error
	switch {
	case errors.As(err, &e):
		c.lastWords(e)
	case leaves(err):
		return
	case errors.As(err, &ne) && ne.Timeout():
		c.lastWords(wire.Fatal("57014", "canceling authentication due to timeout"))
	}
	srv.opt.Logger.Info("client refused", "client", peer(c.socket.RemoteAddr()), "error", err)
	srv.auditsRefusal(c, err)
}

// negotiate reads first packets until one asks for a session or a cancel,
// starting TLS when asked to.
func (srv *Server) negotiate(c *stream, set *Settings) (*wire.Startup, error) {
	gss := false
	for {
		start, err := wire.ReadStartup(c, set.StartupMax)
		if err != nil {
			return nil, err
		}
		switch start.Kind {
		case wire.StartupGSSENC:
			if gss || c.tls != nil {
				return nil, wire.Fatal("08P01", "unexpected GSSENCRequest")
			}
			gss = true
			if _, err := c.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		case wire.StartupSSL:
			if c.tls != nil {
				return nil, wire.Fatal("08P01", "unexpected SSLRequest")
			}
			if err := srv.answerSSL(c, set); err != nil {
				return nil, err
			}
		case wire.StartupDirectTLS:
			if c.tls != nil || set.TLS == nil {
				return nil, wire.Fatal("08P01", "received direct SSL connection request without SSL support")
			}
			c.socket.Unread(start.Head)
			if err := srv.startTLS(c, set, true); err != nil {
				return nil, err
			}
		default:
			return start, nil
		}
	}
}

func (srv *Server) answerSSL(c *stream, set *Settings) error {
	if set.TLS == nil {
		_, err := c.Write([]byte{'N'})
		return err
	}
	if c.socket.Readable() {
		// It would be taken for the beginning of the handshake.
		return wire.Fatal("08P01", "received unencrypted data after SSL request").
			WithDetail("This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.")
	}
	if _, err := c.Write([]byte{'S'}); err != nil {
		return err
	}
	return srv.startTLS(c, set, false)
}

// startTLS runs the handshake; a direct one must name the protocol by ALPN, so
// that no other protocol's traffic can be steered here.
func (srv *Server) startTLS(c *stream, set *Settings, direct bool) error {
	side := set.TLS()
	t := tls.Server(c.socket, side.Config)
	if err := t.HandshakeContext(srv.ctx); err != nil {
		return err
	}
	if direct && t.ConnectionState().NegotiatedProtocol != "postgresql" {
		return wire.Fatal("08P01", "received direct SSL connection request without ALPN protocol negotiation extension")
	}
	c.tls, c.cert = t, side.Certificate
	return nil
}

// login authenticates the client, makes its session and runs it.
func (srv *Server) login(c *stream, start *wire.Startup, set *Settings) error {
	if start.Negotiate {
		if _, err := c.Write(start.AppendNegotiate(nil)); err != nil {
			return err
		}
	}
	c.user, _ = start.Get("user")
	c.database, _ = start.Get("database")
	c.application, _ = start.Get("application_name")
	if set.RequireTLS && c.tls == nil && c.RemoteAddr().IsValid() {
		return wire.Fatal("28000", "connection requires TLS").WithHint("Use sslmode=require.")
	}
	user, _ := start.Get("user")
	name, ok := start.Get("database")
	if !ok || name == "" {
		name = user
	}
	c.database = name
	if v, ok := start.Get("replication"); ok && !isFalse(v) {
		return wire.Fatal("0A000", "replication connections are not supported").
			WithHint("Connect to the server itself for replication.")
	}
	if len(user) > 63 {
		user = user[:63]
	}
	ctx, cancel := context.WithTimeout(srv.ctx, set.LoginTimeout)
	defer cancel()
	var err error
	if !set.ConsoleNames[name] { // where operators must get in
		if err = srv.mayLogIn(ctx, set, "", "", c.RemoteAddr().Addr()); err != nil {
			return err
		}
	}
	id, err := srv.opt.Auth.Authenticate(ctx, c, user, name)
	if err != nil {
		return err
	}
	c.method = string(id.Method)
	if set.ConsoleNames[name] {
		cancel()
		return srv.console(c, id, start)
	}
	db := set.Databases[name]
	if db == nil {
		return wire.Fatal("3D000", "database %q does not exist", name)
	}
	base, err := baseSettings(start)
	if err != nil {
		return err
	}
	// Only who has proved who it is takes of what the user may.
	if err := srv.mayLogIn(ctx, set, id.User, name, netip.Addr{}); err != nil {
		return err
	}
	cancel()
	return srv.run(c, start, set, db, id, base)
}

func (srv *Server) console(c *stream, id auth.Identity, start *wire.Startup) error {
	if srv.opt.Console == nil || (!id.Admin && !id.Monitor) {
		return wire.Fatal("42501", "user %q may not use the console", id.User)
	}
	if err := c.socket.SetDeadline(time.Time{}); err != nil {
		return err
	}
	// Shutdown spares it to the end: operators watch the drain from here.
	srv.mu.Lock()
	delete(srv.pending, c.nc)
	srv.consoles[c.nc] = struct{}{}
	srv.mu.Unlock()
	defer func() {
		srv.mu.Lock()
		delete(srv.consoles, c.nc)
		srv.mu.Unlock()
	}()
	who, began := audit.Session{User: id.User, Database: c.database, Client: peer(c.socket.RemoteAddr())}, time.Now()
	srv.auditsLogin(c, who, true)
	defer func() { srv.opt.Audit.Logout(&who, time.Since(began)) }()
	return srv.opt.Console.Serve(srv.ctx, c, id, start)
}

// run makes the session and serves it, or hands it to a loop.
func (srv *Server) run(c *stream, start *wire.Startup, set *Settings, db *Database, id auth.Identity, base *pool.Settings) error {
	pol := set.Policy(db.Name, id.User)
	s := &session{
		server: srv, db: db, userName: id.User, mode: pol.Mode, statementMax: pol.StatementMax, resultMax: pol.ResultMax, addr: peer(c.socket.RemoteAddr()), address: c.RemoteAddr().Addr(),
		localAddr: unique.Make(ownEnd(c.socket.LocalAddr())), tlsName: unique.Make(tlsName(c.tls)),
		started: time.Now(), protocol: start.Protocol, timeouts: pol.Timeouts, crossShard: pol.CrossShard, snapshots: pol.Snapshots, tx: 'I', resting: true,
		base: base,
	}
	s.settleIn(id, pol.Pool)
	s.userName = s.user.Name // the string is shared
	driver := srv.driver(s)
	s.wake = s.task.wake
	s.setSettings(base)
	s.txBase = base
	s.since.Store(srv.clock.Load())
	if err := srv.register(s, set.MaxClients, pol.MaxClients); err != nil {
		return err
	}
	srv.bound(s)
	s.asking = askingOf(s.id)
	if err := c.socket.SetNonBlocking(true); err != nil {
		srv.forget(s)
		return err
	}
	srv.untrack(c.nc) // from here on Shutdown treats it as a session
	s.client = wire.NewConn(c.socket, c.tls, srv.opt.Buffers)
	srv.opt.Logger.Debug("client logged in", "session", s.id, "client", s.addr, "user", id.User, "database", db.Name)
	srv.auditsLogin(c, s.auditsAs(), false)
	driver()
	return nil
}

func isFalse(v string) bool {
	switch strings.ToLower(v) {
	case "false", "off", "no", "0", "":
		return true
	}
	return false
}
