package pool

import (
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"shardproxy/wire"
)

// Server is one connection to a node. Its borrower may use all of it until
// Release; the rest of the time it is the pool's.
type Server struct {
	*wire.Conn
	// Node is the index of the node in the shard.
	Node int
	// PID is the server process.
	PID uint32
	// Reported holds the parameters the server reported at login, shared by
	// all connections that reported the same; it must not be changed.
	Reported *Reported
	// Settings is what the server session has set by its borrowers.
	Settings *Settings
	// Unnamed is the borrowers' token of what the unnamed prepared statement
	// holds, 0 when it is not known.
	Unnamed uint64
	// Sequences is the borrower that last ran something that may have drawn from
	// a sequence; 0 when nobody has since the session state was discarded.
	Sequences uint64

	pool      *nodePool
	abandoned atomic.Bool // see Abandon
	prepared  *simplelru.LRU[*Statement, struct{}]
	count     atomic.Int64 // of prepared, for those who may not look into it
	key       wire.CancelKey
	created   time.Time
	localAddr string    // of the proxy's end: a detached socket does not tell
	used      time.Time // when it became idle
	lifetime  time.Duration
	gen       uint64
	lent      bool
	served    bool // has been lent before
	cancels   int  // cancel requests under way; guarded by pool.mu
	parked    bool
	fate      Fate
	id        uint64
}

// Reported is what a server says of itself at login.
type Reported struct {
	// Values are those of ParameterStatus.
	Values map[string]string
	// SearchPath is the connection's default search_path; "" unless
	// Options.AskSearchPath is set.
	SearchPath string
}

// Fate is what a borrower says of a connection that it gives back.
type Fate uint8

const (
	// Clean: idle, no replies owed, nothing left behind; lend it to the next.
	Clean Fate = iota
	// Dirty: idle or in a transaction without replies owed, but with session
	// state left behind; roll back and DISCARD ALL before the next borrower.
	Dirty
	// Dead: broken, out of step or owing replies; close it.
	Dead
)

// Has reports whether the server session has the statement prepared, and
// marks it as used.
func (s *Server) Has(st *Statement) bool {
	_, ok := s.prepared.Get(st)
	return ok
}

// Prepared records that the statement is being prepared. When that exceeds the
// connection's limit it returns the least recently used other one, which the
// borrower must close on the server, and forgets it.
func (s *Server) Prepared(st *Statement) (evicted *Statement) {
	if s.prepared.Len() >= s.pool.preparedMax() && !s.prepared.Contains(st) {
		evicted, _, _ = s.prepared.RemoveOldest()
	}
	s.prepared.Add(st, struct{}{})
	s.count.Store(int64(s.prepared.Len()))
	return evicted
}

// Forget records that the server session does not have the statement.
func (s *Server) Forget(st *Statement) {
	s.prepared.Remove(st)
	s.count.Store(int64(s.prepared.Len()))
}

// ForgetAll records that the server session has no prepared statement left.
func (s *Server) ForgetAll() {
	s.prepared.Purge()
	s.count.Store(0)
	s.Unnamed = 0
}

// PreparedCount returns how many statements the connection has prepared.
func (s *Server) PreparedCount() int { return s.prepared.Len() }

// Abandon says that the server is not to be waited for any more: a Run that is under way
// ends with an error, and others fail at once. Any goroutine may call it.
func (s *Server) Abandon() { s.abandoned.Store(true) }

// Abandoned reports whether Abandon was called.
func (s *Server) Abandoned() bool { return s.abandoned.Load() }

// ID returns a number unique among the server connections of Pools that share their IDs.
func (s *Server) ID() uint64 { return s.id }

// Address returns the node's address.
func (s *Server) Address() string { return s.pool.target.Address }

// User returns the role that the connection logged in as.
func (s *Server) User() string { return s.pool.target.User }

// Key returns the server's cancel key.
func (s *Server) Key() wire.CancelKey { return s.key }

// Release gives the connection back. The caller must not use it any more.
func (s *Server) Release(f Fate) { s.pool.release(s, f) }

// Stale reports whether the pool wants the connection back for good: its node
// has been retired or its configuration changed.
func (s *Server) Stale() bool { return s.gen != s.pool.gen.Load() }
