package pool

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/wire"
)

// Policy holds the limits of one user's pools.
type Policy struct {
	Size               int           // connections per node
	Min                int           // kept open per node
	Reserve            int           // more, once somebody waited for ReserveAfter
	ReserveAfter       time.Duration //
	MaxDialing         int           // dials under way per node
	MaxWaiting         int           // queue length per node; 0: no limit
	MaxServers         int           // connections of the user to all nodes; 0: no limit
	IdleTimeout        time.Duration // 0: none
	LifeTime           time.Duration // at least a second
	PreparedStatements int           // per connection
}

// Options are what Pools needs from outside.
type Options struct {
	// Nodes are the addresses of the shard's nodes; a node is named by its index.
	Nodes []string
	// Target is the template of every connection; Address, User and Password are filled in.
	Target       Target
	Buffers      *wire.Buffers
	Logger       *slog.Logger
	ResetTimeout time.Duration // of ROLLBACK and DISCARD ALL; 5 s when zero
	// OnDialError is told of every failed dial; it must not block.
	OnDialError func(node int, err error)
	// MaxServers bounds the connections of all users to all nodes; 0: no limit.
	MaxServers int
	// AskSearchPath has each new connection asked for its search_path; see Reported.
	AskSearchPath bool
	// Enter is a query of one value that each new connection runs before it is used, and each that was reset; "" for none.
	// Entered judges what a new one answered: an error closes it.
	Enter   string
	Entered func(ctx context.Context, answer string) error
	// IDs numbers the connections of several Pools; nil: each numbers its own.
	IDs *atomic.Uint64
	Now func() time.Time
}

// Pools holds the server connections of one database: one pool for each user and node.
type Pools struct {
	opt    Options
	ctx    context.Context
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	closed atomic.Bool
	room   *room
	// pausing is nil unless Pause is in force.
	pausing  atomic.Pointer[pausing]
	returned signal // something came back while paused
	lastID   *atomic.Uint64
	stats    counters

	// mu guards users and reported. It is taken before a nodePool's mu,
	// never after.
	mu       sync.Mutex
	users    map[identity]*User
	reported []*Reported
}

type identity struct{ user, serverUser, password string }

// User is one client user's set of pools, one for each node.
type User struct {
	Name  string
	pools *Pools
	pol   atomic.Pointer[Policy]
	nodes []*nodePool
	// servers counts the connections to all nodes, dials included. It is
	// guarded by room.mu.
	servers int
}

// New returns an empty Pools. It opens nothing.
func New(opt Options) *Pools {
	if opt.ResetTimeout == 0 {
		opt.ResetTimeout = 5 * time.Second
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.IDs == nil {
		opt.IDs = new(atomic.Uint64)
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Pools{opt: opt, ctx: ctx, stop: stop, users: map[identity]*User{}, room: newRoom(opt.MaxServers), lastID: opt.IDs}
}

// Owns reports whether a connection is one of these pools.
func (p *Pools) Owns(s *Server) bool { return s.pool.pools == p }

// Open starts the maintenance loop.
func (p *Pools) Open() {
	p.tasks.Go(func() {
		tick := time.NewTicker(time.Second / 2)
		defer tick.Stop()
		for {
			select {
			case <-p.ctx.Done():
				return
			case <-tick.C:
				p.each(func(n *nodePool) { n.maintain(p.now()) })
			case <-p.room.wake:
			}
			p.makeRoom()
		}
	})
}

// Close closes every connection that nobody borrows, fails those who wait, and
// waits for the pool's goroutines. Connections on loan are closed on release.
func (p *Pools) Close() {
	if p.closed.Swap(true) {
		return
	}
	p.stop()
	p.each(func(n *nodePool) {
		n.retire()
		n.mu.Lock()
		n.failWaitersLocked(ErrClosed, n.lastSeq)
		n.mu.Unlock()
	})
	p.tasks.Wait()
}

func (p *Pools) now() time.Time { return p.opt.Now() }

// each calls f for every node pool, outside the lock.
func (p *Pools) each(f func(*nodePool)) {
	p.mu.Lock()
	var all []*nodePool
	for _, u := range p.users {
		all = append(all, u.nodes...)
	}
	p.mu.Unlock()
	for _, n := range all {
		f(n)
	}
}

// For returns the pools in which the client user's statements run as
// serverUser, with the limits of pol from now on.
func (p *Pools) For(user, serverUser, password string, pol Policy) *User {
	id := identity{user, serverUser, password}
	p.mu.Lock()
	defer p.mu.Unlock()
	u, ok := p.users[id]
	if !ok {
		u = &User{Name: user, pools: p}
		for i, addr := range p.opt.Nodes {
			t := p.opt.Target
			t.Address, t.User, t.Password = addr, serverUser, password
			u.nodes = append(u.nodes, &nodePool{pools: p, user: u, target: t, node: i})
		}
		p.users[id] = u
	}
	if old := u.pol.Swap(&pol); old != nil && old.MaxServers != pol.MaxServers {
		p.room.kick()
	}
	return u
}

// SetPolicies gives every user's pools new limits.
func (p *Pools) SetPolicies(of func(user string) Policy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, u := range p.users {
		pol := of(u.Name)
		u.pol.Store(&pol)
	}
	p.room.kick()
}

// ServerUser returns the role under which the user's statements run.
func (u *User) ServerUser() string { return u.nodes[0].target.User }

// Reported returns what the newest connection to the node was told at login,
// nil when there was none.
func (u *User) Reported(node int) *Reported { return u.nodes[node].reported.Load() }

func (u *User) policy() Policy { return *u.pol.Load() }

// Acquire lends a connection to the node, or queues: then the Ticket tells the
// outcome after wake has been called (once, from any goroutine; it must not
// block or call back into the pool). ErrQueueFull and ErrClosed are returned at once.
//
// prefer, unless 0, is the ID of the connection to take if it is idle.
func (u *User) Acquire(node int, prefer uint64, wake func()) (*Server, *Ticket, error) {
	t := &Ticket{}
	s, queued, err := u.nodes[node].acquire(prefer, nil, wake, t)
	if !queued {
		t = nil
	}
	return s, t, err
}

// AcquireNear is Acquire for a borrower whose sockets near serves, called by the
// goroutine that runs its Wait. A connection that near serves already is
// preferred: it is known to be good, and need not change over. It reports whether
// it has queued, with t, which must be in no queue.
func (u *User) AcquireNear(node int, prefer uint64, near *wire.Poller, wake func(), t *Ticket) (s *Server, queued bool, err error) {
	return u.nodes[node].acquire(prefer, near, wake, t)
}

// Retire closes the idle connections to the node and lets the others end when
// they come back: the node changed its role, died, or is to be reconnected.
func (p *Pools) Retire(node int) {
	p.each(func(n *nodePool) {
		if n.node == node {
			n.retire()
		}
	})
}

// Abandon has nobody wait for what a node was asked: it does not answer, or is not the
// primary any more.
func (p *Pools) Abandon(node int) {
	p.each(func(n *nodePool) {
		if n.node != node {
			return
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		for s := range n.servers {
			if s.lent {
				s.Abandon()
			}
		}
	})
}

// Wake lets pools that wait for a node dial it again at once.
func (p *Pools) Wake(node int) {
	p.each(func(n *nodePool) {
		if n.node == node {
			n.mu.Lock()
			n.retryAt = time.Time{}
			n.growLocked(p.now())
			n.mu.Unlock()
		}
	})
}

// Lent returns how many connections are on loan, being reset or parked.
func (p *Pools) Lent() int {
	total := 0
	p.each(func(n *nodePool) {
		n.mu.Lock()
		total += n.total - n.dialling - len(n.idle)
		n.mu.Unlock()
	})
	return total
}

// intern returns a Reported that all connections with equal values share.
func (p *Pools) intern(values map[string]string, searchPath string) *Reported {
	// Differs between primary and replica without meaning anything to a client
	// of the proxy.
	delete(values, "in_hot_standby")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.reported {
		if r.SearchPath == searchPath && maps.Equal(r.Values, values) {
			return r
		}
	}
	r := &Reported{Values: values, SearchPath: searchPath}
	// Servers report one of very few sets; the cap only guards against one
	// that never repeats itself.
	if len(p.reported) < 64 {
		p.reported = append(p.reported, r)
	}
	return r
}
