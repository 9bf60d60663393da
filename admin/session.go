package admin

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/auth"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// session is one client of the console. One goroutine serves it; another only
// reads, so that a client that goes is noticed while a command waits.
type session struct {
	console *Console
	rw      proxy.Stream
	id      auth.Identity
	number  uint64
	key     wire.CancelKey
	addr    string // host:port, "unix"
	// database is the console's name that the client asked for.
	database string
	tls      string
	started  time.Time

	serverCtx context.Context // ends with the proxy
	ctx       context.Context // ends with the client, too
	gone      context.CancelFunc

	settings map[string]setting
	first    map[string]string // values at login
	tx       byte              // 'I', 'T' or 'E'
	out      []byte
	after    func() // when the client has been answered

	// Extended protocol.
	statements map[string]*prepared
	portals    map[string]*portal
	skipping   bool // an error was sent; everything up to Sync is dropped

	// mu guards cancel, which ends the running command.
	mu     sync.Mutex
	cancel context.CancelFunc
}

// frame is one message of the client, or why there is none.
type frame struct {
	kind byte
	body []byte
	err  error
}

// flushSize is how much output gathers before it is written.
const flushSize = 64 << 10

// errGone ends a session whose client cannot be reached.
var errGone = errors.New("admin: client has gone")

// describePeer notes what the stream can tell about the client.
func (s *session) describePeer() {
	s.addr = "unix"
	if p, ok := s.rw.(interface{ RemoteAddr() netip.AddrPort }); ok && p.RemoteAddr().IsValid() {
		s.addr = p.RemoteAddr().String()
	}
	if p, ok := s.rw.(interface{ TLS() *tls.ConnectionState }); ok {
		if st := p.TLS(); st != nil {
			s.tls = tls.VersionName(st.Version) + "/" + tls.CipherSuiteName(st.CipherSuite)
		}
	}
}

// serve greets the client and answers it until it leaves.
func (s *session) serve() {
	if s.greet() != nil {
		return
	}
	frames := make(chan frame, readAhead)
	done := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() { s.read(frames, done) })
	interrupt := func() { _ = s.rw.SetReadDeadline(time.Unix(1, 0)) }
	stop := context.AfterFunc(s.serverCtx, interrupt)
	defer func() {
		stop()
		close(done)
		interrupt()
		reader.Wait()
	}()
	for f := range frames {
		if err := s.handle(f); err != nil {
			s.farewell(err)
			break
		}
	}
	if s.serverCtx.Err() != nil {
		s.farewell(wire.Fatal("57P01", "terminating connection due to administrator command"))
	}
	s.finish()
}

// read passes the client's messages on until there are no more.
func (s *session) read(frames chan<- frame, done <-chan struct{}) {
	defer close(frames)
	defer s.gone()
	r := bufio.NewReader(s.rw)
	for {
		kind, body, err := wire.ReadMessage(r, maxMessage)
		var werr *wire.Error
		if err != nil && !errors.As(err, &werr) {
			return
		}
		select {
		case frames <- frame{kind, body, err}:
		case <-done:
			return
		}
		if err != nil || kind == wire.MsgTerminate {
			return
		}
	}
}

// greet tells the settings and the cancel key.
func (s *session) greet() error {
	for _, set := range s.settings {
		if set.reported {
			s.out = wire.AppendParameterStatus(s.out, set.name, set.value)
		}
	}
	s.out = wire.AppendBackendKeyData(s.out, s.key.PID, []byte(s.key.Secret))
	return s.ready()
}

// ready ends an answer. Portals end with their transaction.
func (s *session) ready() error {
	if s.tx == 'I' {
		clear(s.portals)
	}
	s.out = wire.AppendReadyForQuery(s.out, s.tx)
	if err := s.flush(); err != nil {
		return err
	}
	s.finish()
	return nil
}

// finish does what had to wait until the client was answered.
func (s *session) finish() {
	if f := s.after; f != nil {
		s.after = nil
		f()
	}
}

func (s *session) flush() error {
	if d, ok := s.rw.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = d.SetWriteDeadline(time.Now().Add(writeTimeout))
	}
	_, err := s.rw.Write(s.out)
	s.out = s.out[:0]
	if cap(s.out) > 2*flushSize {
		s.out = nil
	}
	if err != nil {
		return errGone
	}
	return nil
}

// send appends a message and writes when much has gathered.
func (s *session) send(m pgproto3.BackendMessage) error {
	out, err := m.Encode(s.out)
	if err != nil {
		return wire.Fatal("54000", "the console's answer is too large").WithCause(err)
	}
	s.out = out
	return s.spill()
}

func (s *session) spill() error {
	if len(s.out) < flushSize {
		return nil
	}
	return s.flush()
}

// farewell tells the client why its session ends.
func (s *session) farewell(err error) {
	var e *wire.Error
	if errors.As(err, &e) {
		s.out = e.Append(s.out)
		_ = s.flush() // it may have gone
	}
}

// handle serves one message. An error ends the session.
func (s *session) handle(f frame) error {
	if f.err != nil {
		return f.err
	}
	if s.skipping && f.kind != wire.MsgSync && f.kind != wire.MsgTerminate {
		return nil
	}
	switch f.kind {
	case wire.MsgQuery:
		var q pgproto3.Query
		if err := decode(&q, f); err != nil {
			return err
		}
		return s.query(q.String)
	case wire.MsgSync:
		return s.sync()
	case wire.MsgFlush:
		return s.flush()
	case wire.MsgTerminate:
		return nil // the reader has stopped
	case wire.MsgCopyData, wire.MsgCopyDone, wire.MsgCopyFail:
		return nil // as PostgreSQL when no COPY is under way
	case wire.MsgFunctionCall:
		s.fail(wire.Errorf("0A000", "the console has no functions"))
		return s.ready()
	}
	return s.extended(f)
}

// decode reads the body of a message.
func decode(m pgproto3.FrontendMessage, f frame) error {
	if err := m.Decode(f.body); err != nil {
		return wire.Fatal("08P01", "malformed message of type %q", f.kind).WithCause(err)
	}
	return nil
}

// fail tells the client of an error in a statement.
func (s *session) fail(e *wire.Error) {
	if s.tx == 'T' {
		s.tx = 'E'
	}
	s.out = e.Append(s.out)
}

// query answers a simple Query.
func (s *session) query(sql string) error {
	delete(s.portals, "")
	st, e := s.compile(sql)
	if e == nil && st.command == nil {
		s.out = wire.AppendEmpty(s.out, wire.MsgEmptyQueryResponse)
		return s.ready()
	}
	var res result
	if e == nil {
		res, e = s.run(st)
	}
	if e != nil {
		s.fail(e)
		return s.ready()
	}
	if st.command.columns != nil {
		if err := s.send(&pgproto3.RowDescription{Fields: fields(st.command.columns, nil)}); err != nil {
			return err
		}
	}
	for _, row := range res.rows {
		if err := s.send(&pgproto3.DataRow{Values: encodeRow(st.command.columns, row, nil)}); err != nil {
			return err
		}
	}
	s.complete(res)
	return s.ready()
}

// complete sends what follows the rows.
func (s *session) complete(res result) {
	if res.notice != nil {
		s.out = res.notice.AppendNotice(s.out)
	}
	for _, p := range res.reported {
		s.out = wire.AppendParameterStatus(s.out, p.Name, p.Value)
	}
	s.out = wire.AppendCommandComplete(s.out, res.tag)
	if res.after != nil {
		s.after = res.after
	}
}
