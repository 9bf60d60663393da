package proxy

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/cache"
	"shardproxy/catalog"
	"shardproxy/gate"
	"shardproxy/pool"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/tally"
	"shardproxy/wire"
)

// Nodes answers which node may serve what; failover.Monitor does.
type Nodes interface {
	// Primary returns the node that takes writes.
	Primary() (node int, ok bool)
	// PickRead returns the next replica that is healthy, within the lag bound,
	// not in the exclude set (bit i is node i) and, when consistent is set, has
	// replayed everything that was committed before the mark was taken.
	PickRead(mark uint64, consistent bool, exclude uint64) (node int, ok bool)
	// Mark returns the present moment in the primary's history.
	Mark() uint64
	// Want says that a read waits for a replica to become fresh.
	Want()
	// Suspect reports an error met on the data path; it must not block.
	Suspect(node int, err error)
}

// Planner turns statement texts into plans; router.Router does.
type Planner interface {
	Plan(sql []byte, ctx router.Context) *router.Plan
	// Cached returns what Plan would without taking long, nil when it would.
	Cached(sql []byte, ctx router.Context) *router.Plan
	// CustomSettings returns the names of the custom settings that functions may
	// set; complete is false when there may be others, loaded while it is not
	// known yet.
	CustomSettings() (names []string, complete, loaded bool)
	// SequenceUse returns which sequence a call of currval asks for; ok is false when
	// that is not certain.
	SequenceUse(read *query.SequenceRead, ctx router.Context) (use router.SequenceUse, ok bool)
	// Scatter says how a query is answered that needs rows of several shards.
	Scatter(sql string, ctx router.Context, o router.ScatterOptions) (*router.Scatter, error)
	// Guard returns a text as one that leaves out rows which a shard hides.
	Guard(sql string, ctx router.Context) (string, error)
	// Telling says how a plan that moves rows tells which rows it changes.
	Telling(sql string, p *router.Plan, slots int, ctx router.Context) (router.Telling, error)
}

// Mode says for how long a client keeps a server connection.
type Mode uint8

// The pool modes.
const (
	ModeTransaction Mode = iota
	ModeSession
	ModeStatement
)

// DatabasePolicy holds the settings of a database that a reload may change.
type DatabasePolicy struct {
	Consistent   bool // reads see the session's own writes
	Split        bool // reads may go to replicas
	WaitTimeout  time.Duration
	QueryTimeout time.Duration
	IdleInTx     time.Duration
	ClientIdle   time.Duration
	MaxClients   int // 0: no limit
	ParsedMax    int // longer texts are relayed unread
	MessageMax   int
	// ScatterMax bounds the queries over several shards that run at once outside of transactions.
	ScatterMax int
	// PartialResults has queries over several shards lack those that cannot be reached; a session may
	// say otherwise.
	PartialResults bool
	// GatherMax bounds the rows that one statement gathers from several shards, in bytes.
	GatherMax int64
	// Breaker says when a shard is left alone that fails much of what it is asked.
	Breaker gate.BreakerOptions
	// HotKeys has keys counted that statements ask for.
	HotKeys bool
	// SlowStatement is the time from which a request is logged; 0: none is.
	SlowStatement time.Duration
	// Tracing says which requests are told of; nil: none is.
	Tracing *Tracing
	// Cache keeps results; nil: none are kept.
	Cache *cache.Cache
	// SessionStatements bounds the named prepared statements one client may hold.
	SessionStatements int
	// SessionStatementBytes bounds their texts.
	SessionStatementBytes int
}

// Shard is one shard of a database as sessions use it.
type Shard struct {
	Name  string
	Pools *pool.Pools
	Nodes Nodes
	Gate  *gate.Gate
	// Breaker keeps statements from the primary; its zero value is ready.
	Breaker gate.Breaker
	// placed is the mark of what replicas must have replayed, 0 for nothing: see Placed.
	placed atomic.Uint64
}

// Placed notes that rows may have come to the shard, and left it, that belong to the slot map which is about to be used: no
// replica is read that has not replayed them, for it would miss rows, or have some that are another shard's by now.
func (sh *Shard) Placed() { sh.placed.Store(max(sh.Nodes.Mark(), 1)) }

// Database is one logical database as sessions use it.
type Database struct {
	Name string
	// Shards are in the order of the configuration; the first is the home shard.
	Shards     []*Shard
	Statements *pool.Statements
	Planner    Planner
	// Tally counts what statements cost; nil: nothing does.
	Tally *tally.Book
	// Owners returns who owns which slot now, nil while that is not known. It is
	// nil in a database of one shard.
	Owners func() *router.Owners
	// Slots holds writes of slots that are held. It is nil in a database of one shard.
	Slots *gate.Gate
	// Since returns the epoch of the slot map before which this proxy was, for a time, not waited for by moves: a statement that began by an older one must
	// not be sent, for rows may have moved that it would look for. nil in a database of one shard.
	Since func() int64
	// Unlike reports whether the shards may order text otherwise than each other. It is nil in
	// a database of one shard.
	Unlike func() bool
	// TwoPhase commits transactions that wrote on several shards.
	TwoPhase TwoPhase
	// Fence opens windows in which they are whole.
	Fence Fence
	// Draws gives the values that INSERTs leave to sequences, in a database of several
	// shards.
	Draws Draws
	// Journal notes what PostgreSQL runs in several transactions, in a database of
	// several shards.
	Journal Journal
	types   knownTypes
	turns   turns
	known   knownScatters
	// Refresh is poked after a statement that changed the catalog; may be nil.
	Refresh func()
	// Refreshed is called instead in a database of several shards: it returns when
	// plans know of what was committed before, or when that takes too long.
	Refreshed func()
	// News returns the command that tells other proxies of changed definitions, in a
	// transaction on the home shard, "" while it is not known; nil in a database of one
	// shard. Announce does the same for what has been committed, and does not wait.
	News     func() string
	Announce func()
	// Deadlocks looks for those of several shards; nil in a database of one.
	Deadlocks Deadlocks

	disabled atomic.Bool // new clients are turned away

	policy  atomic.Pointer[DatabasePolicy]
	clients atomic.Int64
	tokens  atomic.Uint64
	schema  atomic.Uint64 // see SchemaChanged
	// sequencesRead is set once a client has asked for currval or lastval.
	sequencesRead atomic.Bool
	stats         databaseStats
	errs          errorCounts
	slow          slowLog
	hot           tally.Hot
	blocks        blocks

	mu       sync.Mutex
	welcomes map[welcomeKey]*welcome
	// mentioned are names in texts of clients that may be custom settings.
	mentioned map[string]struct{}
}

// databaseStats are the counters of one database.
type databaseStats struct {
	statements, transactions, reads, replicaReads, errors, retries, pins, audits atomic.Int64
	received, sent                                                               atomic.Int64
	// refusals are counted by the places of their reasons in router.Reasons.
	refusals [reasonsMax]atomic.Int64
	// scatters are counted by the places of their ways in scatterWays.
	scatters             [4]atomic.Int64
	gathered, gatherHeld atomic.Int64
	deadlocks            atomic.Int64
	partials             atomic.Int64
	waitTimeouts         atomic.Int64
	// Named prepared statements: made by clients, made on servers, bound.
	clientParses, serverParses, binds atomic.Int64
	asked                             asked
	times                             times
}

// DatabaseTotals are counters since start.
type DatabaseTotals struct {
	Statements, Transactions int64
	Reads, ReplicaReads      int64 // proven reads; those of them sent to a replica
	Errors, Retries          int64 // errors that clients got; statements tried again unseen
	Pins, Audits             int64
	Received, Sent           int64 // bytes, clients' side, counted when a session rests or ends, and at one in eight requests
	Gathered                 int64 // bytes of rows that were gathered from several shards
	GatherHeld               int64 // of those, what is held now
	Deadlocks                int64 // over several shards, whose victims were statements of this process
	Partials                 int64 // answers that lacked shards
	WaitTimeouts             int64 // statements that got no server connection in time
	// Prepared statements with a name: those that clients have made, those made on servers for them, and how often one was bound.
	ClientParses, ServerParses, Binds int64
	// QueryTime and TransactionTime are what all requests and all transactions together have taken, as one in eight tells.
	QueryTime, TransactionTime time.Duration
}

// Totals returns the database's counters.
func (d *Database) Totals() DatabaseTotals {
	s := &d.stats
	return DatabaseTotals{
		Statements: s.statements.Load(), Transactions: s.transactions.Load(), Reads: s.reads.Load(),
		ReplicaReads: s.replicaReads.Load(), Errors: s.errors.Load(), Retries: s.retries.Load(),
		Pins: s.pins.Load(), Audits: s.audits.Load(), Received: s.received.Load(), Sent: s.sent.Load(),
		Gathered: s.gathered.Load(), GatherHeld: s.gatherHeld.Load(), Deadlocks: s.deadlocks.Load(),
		Partials: s.partials.Load(), WaitTimeouts: s.waitTimeouts.Load(),
		ClientParses: s.clientParses.Load(), ServerParses: s.serverParses.Load(), Binds: s.binds.Load(),
		QueryTime: s.times.queries(), TransactionTime: s.times.transactions(),
	}
}

// SchemaChanged says that names may mean other objects than before, or objects
// have other columns: statements prepared from now on share none that servers have.
func (d *Database) SchemaChanged() {
	d.schema.Add(1)
	if c := d.Policy().Cache; c != nil {
		c.Clear()
	}
}

// Disable turns new clients away, or lets them in again; those that are there are not touched.
func (d *Database) Disable(on bool) { d.disabled.Store(on) }

// Disabled reports whether new clients are turned away.
func (d *Database) Disabled() bool { return d.disabled.Load() }

// Clients returns the number of sessions logged in.
func (d *Database) Clients() int { return int(d.clients.Load()) }

// SetPolicy replaces the settings; sessions see it at their next statement.
func (d *Database) SetPolicy(p DatabasePolicy) {
	d.policy.Store(&p)
	d.hot.KeepKeys(p.HotKeys)
}

// Policy returns the settings in force.
func (d *Database) Policy() *DatabasePolicy { return d.policy.Load() }

// welcomeKey names what a login's ParameterStatus values depend on.
type welcomeKey struct{ user, settings string }

// mentionedMax bounds how many names of possible custom settings are remembered.
const mentionedMax = 500

// mention remembers the names in a text that may be custom settings; false when
// there are too many.
func (d *Database) mention(text string) bool {
	names := catalog.DottedNames(text)
	if len(names) == 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mentioned == nil {
		d.mentioned = map[string]struct{}{}
	}
	for _, n := range names {
		if _, known := d.mentioned[n]; !known && len(d.mentioned) >= mentionedMax {
			return false
		}
		d.mentioned[n] = struct{}{}
	}
	return true
}

// customNames returns all names that statements of unknown effect may have set;
// complete is false when there may be others, loaded while it is not known yet.
func (d *Database) customNames() (names []string, complete, loaded bool) {
	names, complete, loaded = d.Planner.CustomSettings()
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.AppendSeq(slices.Clone(names), maps.Keys(d.mentioned)), complete, loaded
}

// loaded reports whether the catalog is known.
func (d *Database) loaded() bool {
	_, _, is := d.Planner.CustomSettings()
	return is
}

// settingsKey names settings with their values.
func settingsKey(s *pool.Settings) string {
	var b strings.Builder
	for _, it := range s.All() {
		for _, part := range [...]string{it.Name, it.Text, it.Encoding} {
			b.WriteString(part)
			b.WriteByte(0)
		}
	}
	return b.String()
}

// routeOf returns the route that settings ask for.
func routeOf(s *pool.Settings) query.Route {
	it, ok := s.Get(routeSetting)
	if !ok {
		return query.RouteUnset
	}
	if r := routeNamed(it.Text); r != query.RouteInvalid {
		return r
	}
	return query.RouteAuto // set where nobody could check it, as in a function
}

// routeNamed returns the route that a setting's value, in quotes or not, stands for.
func routeNamed(value string) query.Route {
	return query.RouteOf(strings.Trim(strings.ToLower(value), "'\" "))
}

const (
	// ownPrefix begins the names of our settings, which servers take for custom ones.
	ownPrefix = "shardproxy."
	// routeSetting is that by which a session chooses its node.
	routeSetting = ownPrefix + "route"
)

// routeWords is what the setting and the hint may say.
const routeWords = "Available values: auto, primary, replica."

// refusedSetting returns why one of our settings cannot have the value; nil when
// it can, and for all other settings.
func refusedSetting(name, value string) *wire.Error {
	switch {
	case !strings.HasPrefix(name, ownPrefix):
		return nil
	case name == crossShardSetting:
		if _, ok := crossShardNamed(value); !ok {
			return wire.Errorf("22023", "invalid value for parameter \"%s\": \"%s\"", name, value).WithHint("Available values: allow, warn, refuse.")
		}
		return nil
	case name == snapshotSetting:
		if _, ok := snapshotNamed(value); !ok {
			return wire.Errorf("22023", "invalid value for parameter \"%s\": \"%s\"", name, value).WithHint("Available values: transaction, statement, off.")
		}
		return nil
	case name == partialSetting:
		if _, ok := partialNamed(value); !ok {
			return wire.Errorf("22023", "parameter \"%s\" requires a Boolean value", name)
		}
		return nil
	case name != routeSetting:
		return wire.Errorf("42704", "unrecognized configuration parameter \"%s\"", name).
			WithHint("The proxy's settings are shardproxy.route, shardproxy.cross_shard, shardproxy.snapshot and shardproxy.partial_results.")
	case routeNamed(value) == query.RouteInvalid:
		return wire.Errorf("22023", "invalid value for parameter \"%s\": \"%s\"", name, value).WithHint(routeWords)
	}
	return nil
}

// refusedRoute returns why a statement must not run for what it, or its leading
// comment, says of the route.
func refusedRoute(p *router.Plan) *wire.Error {
	if p == nil || p.Statement == nil {
		return nil
	}
	if p.Statement.Hint == query.RouteInvalid {
		return wire.Errorf("22023", "the comment that begins with \"shardproxy:\" is no hint").
			WithDetail("A hint is /* shardproxy: route=... */.").WithHint(routeWords)
	}
	if p.Effects&query.EffectSetting == 0 {
		return nil
	}
	for i := range p.Statement.Commands {
		for _, set := range p.Statement.Commands[i].Settings {
			if !set.IsLiteral || set.Default || set.ResetAll {
				continue
			}
			if e := refusedSetting(set.Name, set.Literal); e != nil {
				return e
			}
		}
	}
	return nil
}
