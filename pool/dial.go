package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/wire"
)

// Target is where and as whom the connections of one pool log in.
type Target struct {
	Address        string // host:port, or the directory of a Unix-domain socket with its port
	Database       string
	User           string
	Password       string
	TLS            TLS
	ConnectTimeout time.Duration
}

// TLS says how server connections are encrypted, in libpq's terms.
type TLS struct {
	Mode        string // disable, allow, prefer, require, verify-ca, verify-full
	CA          string // files in PEM; empty for none
	Certificate string
	Key         string
}

// Config returns the pgconn configuration for the target; nothing of the
// process's PG* environment shows in it. It is also what control connections use.
func (t Target) Config() (*pgconn.Config, error) {
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil {
		return nil, fmt.Errorf("node address %q: %w", t.Address, err)
	}
	var b strings.Builder
	put := func(k, v string) {
		b.WriteString(k + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "' ")
	}
	put("host", host)
	put("port", port)
	put("user", t.User)
	put("dbname", t.Database)
	put("passfile", "/dev/null")
	put("connect_timeout", strconv.Itoa(max(1, int(t.ConnectTimeout/time.Second))))
	put("target_session_attrs", "any")
	mode := t.TLS.Mode
	if mode == "" {
		mode = "prefer"
	}
	put("sslmode", mode)
	for k, v := range map[string]string{"sslrootcert": t.TLS.CA, "sslcert": t.TLS.Certificate, "sslkey": t.TLS.Key} {
		if v != "" {
			put(k, v)
		}
	}
	c, err := pgconn.ParseConfig(b.String())
	if err != nil {
		return nil, err
	}
	c.Password = t.Password
	c.RuntimeParams = map[string]string{"application_name": "shardproxy"}
	return c, nil
}

// loginMax bounds what a server may say to a login, in bytes, and what one message
// of its may claim to have.
const loginMax = 1 << 20

// open dials and logs in, and takes the socket over from pgconn.
func (p *nodePool) open(ctx context.Context) (*Server, error) {
	cfg, err := p.target.Config()
	if err != nil {
		return nil, err
	}
	// A client that names no application has none, as with the server itself.
	delete(cfg.RuntimeParams, "application_name")
	cfg.MaxProtocolMessageBodyLen = loginMax
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(io.LimitReader(r, loginMax), w)
	}
	var socket *wire.Socket
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		// A retry without TLS dials again; the last socket is the one in use.
		socket, err = wire.NewSocket(nc)
		return socket, err
	}
	pc, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	path, err := p.introduce(ctx, pc)
	if err == nil {
		// Last of all: a write that took long has made pgconn read in the background, where
		// it would take the first answer away.
		err = pc.SyncConn(ctx)
	}
	if err != nil {
		_ = pc.Close(ctx)
		return nil, err
	}
	h, err := pc.Hijack()
	if err != nil {
		return nil, err
	}
	tlsConn, _ := h.Conn.(*tls.Conn)
	if err := socket.SetNonBlocking(true); err != nil {
		_ = h.Conn.Close()
		return nil, err
	}
	c := wire.NewConn(socket, tlsConn, p.pools.opt.Buffers)
	reported := p.pools.intern(h.ParameterStatuses, path)
	p.reported.Store(reported)
	return p.newServer(c, h.PID, h.SecretKey, reported), nil
}

// introduce runs what a new connection begins with, in one round trip. It returns what names are looked up by when no session
// has set it: the server's, the database's or the role's default; "" when nobody wants to know.
func (p *nodePool) introduce(ctx context.Context, pc *pgconn.PgConn) (path string, err error) {
	o := &p.pools.opt
	var queries []string
	if o.AskSearchPath {
		queries = append(queries, "SHOW search_path")
	}
	if o.Enter != "" {
		queries = append(queries, o.Enter)
	}
	if len(queries) == 0 {
		return "", nil
	}
	results, err := pc.Exec(ctx, strings.Join(queries, "; ")).ReadAll()
	if err != nil {
		return "", err
	}
	if o.AskSearchPath {
		path, results = string(results[0].Rows[0][0]), results[1:]
	}
	if o.Enter != "" && o.Entered != nil {
		err = o.Entered(ctx, string(results[0].Rows[0][0]))
	}
	return path, err
}

// discardAll rolls back whatever is open and discards the session's state, and enters anew. It
// blocks, up to the timeout; the connection is out of use after an error.
func (s *Server) discardAll(timeout time.Duration, enter string) error {
	sock := s.Socket()
	if err := sock.SetNonBlocking(false); err != nil {
		return err
	}
	if err := sock.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	// A Sync, for after an error in the extended protocol the server ignores all
	// else. Two queries: DISCARD ALL refuses to run in a transaction block, which
	// several commands in one query are.
	out := wire.AppendQuery(wire.AppendQuery(wire.AppendEmpty(nil, wire.MsgSync), "ROLLBACK"), "DISCARD ALL")
	answers := 3
	if enter != "" {
		out, answers = wire.AppendQuery(out, enter), 4
	}
	var w interface{ Write([]byte) (int, error) } = sock
	var r interface{ Read([]byte) (int, error) } = sock
	if t := s.TLS(); t != nil {
		w, r = t, t
	}
	if _, err := w.Write(out); err != nil {
		return err
	}
	if err := awaitIdle(r, answers); err != nil {
		return err
	}
	s.Settings, s.Sequences = nil, 0
	s.ForgetAll()
	return sock.SetNonBlocking(true)
}

// awaitIdle reads up to the n-th ReadyForQuery, which must say idle.
func awaitIdle(r interface{ Read([]byte) (int, error) }, n int) error {
	var failed error
	for {
		kind, body, err := wire.ReadMessage(r, 1<<20)
		if err != nil {
			return err
		}
		switch kind {
		case wire.MsgErrorResponse:
			failed = fmt.Errorf("server: %s (SQLSTATE %s)", wire.Field(body, 'M'), wire.Field(body, 'C'))
		case wire.MsgReadyForQuery:
			if n--; n > 0 {
				continue
			}
			if failed == nil && (len(body) != 1 || body[0] != 'I') {
				return errors.New("server: not idle after the reset")
			}
			return failed
		}
	}
}

// IsSaturated reports that a server refused a connection only because it has
// too many: an overload, not ill health.
func IsSaturated(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "53300"
}

// unreachable reports that no server answered at all, or one that is not ready.
func unreachable(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code == "57P03" || pe.Code == "57P01" || pe.Code == "57P02"
	}
	return true
}
