package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/audit"
	"shardproxy/auth"
	"shardproxy/pool"
	"shardproxy/wire"
)

// Authenticator lets clients in or not; auth.Authenticator does.
type Authenticator interface {
	Authenticate(ctx context.Context, c auth.Conversation, user, database string) (auth.Identity, error)
}

// Console runs the sessions of the virtual database; admin.Console does.
type Console interface {
	// Serve runs one session that has logged in, over a blocking stream, until
	// it ends. The caller closes the stream.
	Serve(ctx context.Context, rw Stream, id auth.Identity, start *wire.Startup) error
	// Cancel passes a cancel request on to a console session; false when the key
	// names none.
	Cancel(key wire.CancelKey) bool
}

// Stream is a client's connection in blocking mode.
type Stream interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	SetReadDeadline(time.Time) error
}

// Timeouts bound a client's statements and silences; 0 is no bound.
type Timeouts struct{ Query, IdleInTransaction, ClientIdle time.Duration }

// UserPolicy holds what a user may take of a database.
type UserPolicy struct {
	Pool       pool.Policy
	Mode       Mode
	MaxClients int // 0: no limit
	// StatementMax bounds a statement's text, and its parameters, in bytes; at least 64 KiB. 0: no limit.
	StatementMax int
	// ResultMax bounds what one statement gives, in bytes. 0: no limit.
	ResultMax  int64
	Timeouts   Timeouts
	CrossShard CrossShard
	Snapshots  Snapshots
}

// Settings is what a reload may change of a Server. It is read-only.
type Settings struct {
	// TLS returns what the next handshake shows; nil when clients cannot encrypt.
	TLS func() *auth.ServerTLS
	// RequireTLS refuses clients over TCP that do not encrypt.
	RequireTLS   bool
	StartupMax   int // bytes of the first packet
	LoginTimeout time.Duration
	MaxClients   int
	// Rates bound what is done in a second; nil: nothing does.
	Rates *Rates
	// Concurrency bounds what runs at a time; nil: nothing does.
	Concurrency *Concurrency
	Databases   map[string]*Database
	// Policy returns what the user may take of the database.
	Policy func(db, user string) UserPolicy
	// ConsoleNames are the names of the virtual database.
	ConsoleNames map[string]bool
}

// Options are what a Server needs from outside.
type Options struct {
	Auth    Authenticator
	Console Console // may be nil
	Logger  *slog.Logger
	Buffers *wire.Buffers
	// Driver says what runs the sessions.
	Driver Driver
	// Loops is the number of event loops; 0: one for four processors.
	Loops int
	// PlainWait has loops wait through the Go scheduler always.
	PlainWait bool
	// Peers are the other processes that clients may reach by our address; nil
	// when cancel requests are not passed on. The Server closes them.
	Peers *Peers
	// Audit is told who has done what; nil: nobody is.
	Audit *audit.Log
}

// Server accepts clients and runs their sessions.
type Server struct {
	opt      Options
	settings atomic.Pointer[Settings]
	ctx      context.Context
	stop     context.CancelFunc
	clock    atomic.Int64 // Unix nanoseconds, at most sweepInterval old
	draining atomic.Bool
	// momentMark stands for the time of a transaction in texts that wait for it.
	momentMark string
	tasks      sync.WaitGroup // accept loops and the sweeper
	clients    sync.WaitGroup // connections
	loops      []*loop        // set by the first Open; none when goroutines drive the sessions
	nextLoop   atomic.Uint32

	// mu guards what follows.
	mu        sync.Mutex
	listeners []net.Listener
	refusing  bool // a shutdown lets no more clients in
	sessions  map[uint32]*session
	perUser   map[string]int
	pending   map[net.Conn]struct{} // not logged in yet
	consoles  map[net.Conn]struct{} // on the console
	lastPID   uint32
	empty     chan struct{} // closed when the last session has gone while draining
	accepted  atomic.Int64
	refused   atomic.Int64
	rates     rateTable
	permits   permitTable
	logins    atomic.Int64
	cancels   cancelCounts
}

// New returns a Server that listens nowhere yet.
func New(opt Options, s *Settings) *Server {
	ctx, stop := context.WithCancel(context.Background())
	srv := &Server{opt: opt, ctx: ctx, stop: stop, sessions: map[uint32]*session{},
		perUser: map[string]int{}, pending: map[net.Conn]struct{}{}, consoles: map[net.Conn]struct{}{}, momentMark: newMomentMark()}
	srv.settings.Store(s)
	srv.clock.Store(time.Now().UnixNano())
	return srv
}

// Configure replaces the settings; sessions and logins see them from now on.
func (srv *Server) Configure(s *Settings) {
	old := srv.settings.Swap(s)
	if old.Rates != nil || s.Rates != nil || old.Concurrency != nil || s.Concurrency != nil {
		srv.each(srv.bound)
	}
}

// Open starts serving the listeners, which the Server owns from then on.
func (srv *Server) Open(listeners ...net.Listener) {
	srv.mu.Lock()
	first := len(srv.listeners) == 0
	srv.listeners = append(srv.listeners, listeners...)
	srv.mu.Unlock()
	if first {
		srv.openLoops()
	}
	for _, l := range listeners {
		srv.tasks.Go(func() { srv.accept(l) })
	}
	srv.tasks.Go(srv.sweep)
}

func (srv *Server) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || srv.ctx.Err() != nil {
				return
			}
			// Out of file descriptors, most likely: it passes, and the
			// listener must survive it.
			srv.opt.Logger.Warn("accept failed", "error", err)
			select {
			case <-srv.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		srv.accepted.Add(1)
		srv.clients.Go(func() { srv.handle(nc) })
	}
}

// register gives a session its cancel key and counts it; an error when a limit is reached.
func (srv *Server) register(s *session, limit, userLimit int) error {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.refusing {
		return wire.Fatal("57P01", "the proxy is shutting down")
	}
	if s.db.Disabled() {
		return wire.Fatal("55000", "database %q is not currently accepting connections", s.db.Name).WithDetail("An operator has disabled it.")
	}
	if limit > 0 && len(srv.sessions) >= limit {
		return tooMany(limit)
	}
	if userLimit > 0 && srv.perUser[s.userName] >= userLimit {
		return wire.Fatal("53300", "too many connections for user %q", s.userName).WithDetail("The limit is %d.", userLimit)
	}
	if limit := s.db.Policy().MaxClients; limit > 0 && s.db.Clients() >= limit {
		return wire.Fatal("53300", "too many connections for database %q", s.db.Name).WithDetail("The limit is %d.", limit)
	}
	for {
		srv.lastPID = srv.lastPID%(1<<31-1) + 1
		if _, used := srv.sessions[srv.lastPID]; !used {
			break
		}
	}
	secret := make([]byte, 4)
	if s.protocol >= wire.Protocol32 {
		secret = make([]byte, 32)
	}
	rand.Read(secret) // never fails
	s.key = wire.CancelKey{PID: srv.lastPID, Secret: string(secret)}
	s.id = uint64(srv.logins.Add(1))
	srv.sessions[s.key.PID] = s
	srv.perUser[s.userName]++
	s.db.clients.Add(1)
	return nil
}

// forget removes an ended session.
func (srv *Server) forget(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s.key.PID)
	if srv.perUser[s.userName]--; srv.perUser[s.userName] == 0 {
		delete(srv.perUser, s.userName)
	}
	s.db.clients.Add(-1)
	s.unbound()
	if srv.empty != nil && len(srv.sessions) == 0 {
		close(srv.empty)
		srv.empty = nil
	}
}

// wake wakes a session unless it has ended.
func (srv *Server) wake(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.sessions[s.key.PID] == s {
		s.task.wake()
	}
}

// Sessions calls f for every session.
func (srv *Server) each(f func(*session)) {
	srv.mu.Lock()
	all := make([]*session, 0, len(srv.sessions))
	for _, s := range srv.sessions {
		all = append(all, s)
	}
	srv.mu.Unlock()
	for _, s := range all {
		f(s)
	}
}

// ShutdownMode says what a shutdown waits for, as PgBouncer's SHUTDOWN does.
type ShutdownMode uint8

const (
	// ShutdownNow closes everything at once.
	ShutdownNow ShutdownMode = iota
	// WaitForServers ends each client as soon as its transaction is over.
	WaitForServers
	// WaitForClients serves the clients there are until they leave.
	WaitForClients
)

// Shutdown stops accepting clients, waits as the mode says or until ctx ends,
// and then ends every session that is left. It may be called again with a
// harder mode while it waits. After it, Close returns quickly.
func (srv *Server) Shutdown(ctx context.Context, mode ShutdownMode) {
	srv.draining.Store(true)
	if mode != ShutdownNow {
		srv.handOver(ctx)
	}
	srv.mu.Lock()
	srv.refusing = true
	for _, l := range srv.listeners {
		_ = l.Close() // accept ends; a second close does no harm
	}
	for nc := range srv.pending {
		_ = nc.Close() // a login under way has nothing to lose
	}
	empty := make(chan struct{})
	if len(srv.sessions) == 0 {
		close(empty)
	} else if srv.empty != nil {
		empty = srv.empty
	} else {
		srv.empty = empty
	}
	srv.mu.Unlock()
	if mode == WaitForServers {
		srv.each(func(s *session) { s.signal(controlDrain) })
	}
	if mode != ShutdownNow {
		select {
		case <-empty:
			return
		case <-ctx.Done():
		}
	}
	srv.each(func(s *session) { s.signal(controlKill) })
	select {
	case <-empty:
	case <-time.After(5 * time.Second):
	}
}

// Close ends what Shutdown left and waits for every goroutine of the Server.
func (srv *Server) Close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	srv.Shutdown(ctx, ShutdownNow)
	srv.stop()
	srv.mu.Lock()
	for nc := range srv.consoles {
		_ = nc.Close() // its session ends with the error
	}
	srv.mu.Unlock()
	srv.clients.Wait()
	if srv.opt.Peers != nil {
		srv.opt.Peers.close()
	}
	for _, l := range srv.loops {
		l.stop()
	}
	srv.tasks.Wait()
}

// LoggingIn returns how many connections have not logged in yet.
func (srv *Server) LoggingIn() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.pending)
}

// Draining reports whether Shutdown was called.
func (srv *Server) Draining() bool { return srv.draining.Load() }

// Kill ends every session of the database, "" for all, with 57P01.
func (srv *Server) Kill(database string) (ended int) {
	srv.each(func(s *session) {
		if database == "" || s.db.Name == database {
			s.signal(controlKill)
			ended++
		}
	})
	return ended
}

// KillClient ends the session with this ID with 57P01. found is false when there is none.
func (srv *Server) KillClient(id uint64) (found bool) {
	srv.each(func(s *session) {
		if s.id == id {
			s.signal(controlKill)
			found = true
		}
	})
	return found
}

// Totals are counters since start.
type Totals struct {
	Accepted, Refused, Logins int64
	Cancels                   Cancels
}

// Totals returns the server's counters.
func (srv *Server) Totals() Totals {
	return Totals{srv.accepted.Load(), srv.refused.Load(), srv.logins.Load(), srv.cancelled()}
}
