package admin

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/audit"
	"shardproxy/auth"
	"shardproxy/config"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// Bounds of the console.
const (
	// maxSessions bounds the console sessions at a time.
	maxSessions = 64
	// maxMessage bounds one message of a client, in bytes.
	maxMessage = 16 << 10
	// readAhead is how many messages are read before they are served: while
	// PAUSE waits, somebody must be reading to see the client go.
	readAhead = 16
	// maxStatements bounds the named statements, and the portals, of a session.
	maxStatements = 128
	// writeTimeout bounds the wait for a client that does not read.
	writeTimeout = 30 * time.Second
	// firstPID keeps the cancel keys of the console apart from those of the
	// proxy's sessions, which count from 1.
	firstPID = 1 << 30
)

// ConsoleOptions are what a Console needs; Source, Configuration and Steerer
// are required.
type ConsoleOptions struct {
	Source        Source
	Configuration Configuration
	Steerer       Steerer
	Version       string                // of the program, such as 1.2.3
	Logger        *slog.Logger          // discards when nil
	Registerer    prometheus.Registerer // no metrics when nil
	Clock         func() time.Time      // time.Now when nil
	Audit         *audit.Log            // is told what is ordered; nil: nobody is
}

// Console runs the sessions of the virtual database shardproxy, which is also
// called pgbouncer. It implements proxy.Console and starts nothing by itself.
type Console struct {
	opt      ConsoleOptions
	commands *commands
	metrics  *consoleMetrics
	periods  periods

	// mu guards what follows.
	mu       sync.Mutex
	sessions map[uint32]*session
	lastPID  uint32
	lastID   uint64
}

// NewConsole returns a Console, or an error when options are missing or the
// metrics cannot be registered.
func NewConsole(o ConsoleOptions) (*Console, error) {
	if o.Source == nil || o.Configuration == nil || o.Steerer == nil {
		return nil, errors.New("admin: console options without source, configuration or steerer")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	c := &Console{opt: o, commands: newCommands(), sessions: map[uint32]*session{}, lastPID: firstPID - 1}
	c.metrics = newConsoleMetrics(c)
	if o.Registerer != nil {
		if err := c.metrics.register(o.Registerer); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Serve runs one session over a client's stream: the client has logged in and
// been told so, and start is its start-up packet. It returns when the client
// has gone, has said goodbye, or ctx has ended; the caller then closes the
// stream. An error is returned only when the session is refused: a *wire.Error
// that the client has not been told yet.
//
// Where the stream has them, its methods RemoteAddr (netip.AddrPort), TLS
// (*tls.ConnectionState) and SetWriteDeadline are used: for the log and SHOW
// CLIENTS, and to end sessions whose client does not read.
func (c *Console) Serve(ctx context.Context, rw proxy.Stream, id auth.Identity, start *wire.Startup) error {
	if !mayLook.heldBy(id) {
		return wire.Fatal("42501", "user %q may not use the console", id.User)
	}
	s, err := c.enter(ctx, rw, id, start)
	if err != nil {
		return err
	}
	defer c.leave(s)
	s.serve()
	return nil
}

// Cancel deals with a cancel request that no session of the proxy has the key
// for: a command that waits ends with 57014. It reports whether the key is one
// of the console's.
func (c *Console) Cancel(key wire.CancelKey) bool {
	c.mu.Lock()
	s := c.sessions[key.PID]
	c.mu.Unlock()
	if s == nil || subtle.ConstantTimeCompare([]byte(s.key.Secret), []byte(key.Secret)) != 1 {
		return false
	}
	s.cancelCommand()
	return true
}

// enter makes a session and counts it.
func (c *Console) enter(ctx context.Context, rw proxy.Stream, id auth.Identity, start *wire.Startup) (*session, *wire.Error) {
	secret := make([]byte, 4)
	if start.Protocol >= wire.Protocol32 {
		secret = make([]byte, 32)
	}
	rand.Read(secret) // never fails
	s := &session{
		console: c, rw: rw, id: id, tx: 'I', started: c.opt.Clock(),
		statements: map[string]*prepared{}, portals: map[string]*portal{}, database: config.ConsoleDatabase,
	}
	if name, given := start.Get("database"); given && name == config.ConsoleAlias {
		s.database = name // tools that know PgBouncer leave its console's sessions out by this name
	}
	s.describePeer()
	s.startSettings(start)
	s.ctx, s.gone = context.WithCancel(ctx)
	s.serverCtx = ctx

	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) >= maxSessions {
		s.gone()
		return nil, wire.Fatal("53300", "too many connections to the console").WithDetail("The limit is %d.", maxSessions)
	}
	for {
		if c.lastPID++; c.lastPID >= 1<<31-1 {
			c.lastPID = firstPID
		}
		if c.sessions[c.lastPID] == nil {
			break
		}
	}
	c.lastID++
	s.number = c.lastID
	s.key = wire.CancelKey{PID: c.lastPID, Secret: string(secret)}
	c.sessions[s.key.PID] = s
	return s, nil
}

func (c *Console) leave(s *session) {
	s.gone()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s.key.PID)
}

// clients returns the console's own sessions in the order of their logins.
func (c *Console) clients() []Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Client, 0, len(c.sessions))
	for _, s := range slices.SortedFunc(maps.Values(c.sessions), func(a, b *session) int { return int(a.number) - int(b.number) }) {
		all = append(all, Client{
			ID: s.number, PID: s.key.PID, User: s.id.User, Database: s.database,
			ApplicationName: s.first["application_name"], State: ClientIdle, Addr: s.addr, TLS: s.tls,
			Connected: s.started, Since: s.started,
		})
	}
	return all
}

// serverVersion is what ParameterStatus says; libpq and the drivers read the
// number before the slash.
func serverVersion(version string) string { return bouncerVersion + "/shardproxy " + version }

// bouncerVersion is the PgBouncer whose commands and columns the console has;
// tools choose by it what they ask for.
const bouncerVersion = "1.25.1"
