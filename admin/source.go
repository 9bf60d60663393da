package admin

import (
	"context"
	"errors"
	"time"

	"shardproxy/audit"
	"shardproxy/cache"
	"shardproxy/config"
	"shardproxy/failover"
	"shardproxy/gate"
	"shardproxy/metadata"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/shardmap"
	"shardproxy/tally"
	"shardproxy/twopc"
)

// Source gives what there is to see. Each call returns a fresh picture that
// the caller owns; it must be safe for concurrent use, must not wait for a
// server, and answers in any state of the process.
type Source interface {
	// Process describes the proxy as a whole.
	Process() Process
	// Databases lists the databases of the configuration in force.
	Databases() []Database
	// Pools lists the pools that were ever used: one for each database, user and
	// node, or more when a user's login on the servers has changed.
	Pools() []Pool
	// Clients lists the clients that are logged in to a database.
	Clients() []Client
	// Servers lists the connections to servers.
	Servers() []ServerConn
	// Events lists what has happened last, the oldest first.
	Events() []Event
	// Users lists the users of the configuration in force, in the order of the file.
	Users() []User
}

// Configuration gives the settings in force; (*config.Config).Settings does it.
type Configuration interface {
	Settings() []config.Setting
}

// Errors of a Steerer.
var (
	// ErrUnknownDatabase: the configuration has no such database.
	ErrUnknownDatabase = errors.New("admin: no such database")
	// ErrResumed: Resume ended a Pause that still waited.
	ErrResumed = errors.New("admin: resumed while pausing")
)

// Steerer carries out what operators order. Databases are named as clients name
// them; a name that is not there is ErrUnknownDatabase. Methods must be safe for
// concurrent use.
type Steerer interface {
	// Reload reads the configuration file and puts it in force, or changes
	// nothing and returns why, one problem per line.
	Reload(ctx context.Context) error
	// Pause lends no more connections of the database and waits until those on
	// loan have come back and all are closed. When ctx ends first, its error is
	// returned and the database stays paused; ErrResumed when Resume came first.
	Pause(ctx context.Context, database string) error
	// Resume undoes Pause and Kill.
	Resume(database string) error
	// Kill pauses the database without waiting, ends its clients and closes its
	// server connections. It returns how many clients it ended; who comes after
	// waits for Resume.
	Kill(database string) (clients int, err error)
	// Reconnect lets every server connection of the database end as soon as it
	// is not on loan; new ones take their place.
	Reconnect(database string) error
	// EndDoubt commits or rolls back a prepared part of a transaction over several shards, of any
	// database: see twopc.Resolver.EndByHand. by is who wants it.
	EndDoubt(ctx context.Context, by, name string, commit, force bool) error
	// Disable turns new clients of the database away, or lets them in again. A reload keeps that, a restart does not.
	Disable(database string, on bool) error
	// ResetQueries makes what Database.Statements returns 0.
	ResetQueries(database string) error
	// ResetCache drops all kept results of a database, in the other proxies too.
	ResetCache(database string) error
	// KillClient ends the client with this ID; found is false when there is none.
	KillClient(id uint64) (found bool)
	// Drain has this proxy say that it is not ready, so that no new clients are sent to it, or that it is.
	Drain(on bool)
	// BanNode keeps reads away from a node, known by its address as configured, or lets them come to it again: in one database, or in all when that is "". It returns in how many shards
	// there is such a node; an error when it takes writes in one of them.
	BanNode(database, node string, on bool) (shards int, err error)
	// OrderMoves asks something of the moves of a database of several shards, and returns what came of it, in words. What it changes can be seen when it returns.
	OrderMoves(ctx context.Context, o MoveOrder) (said string, err error)
	// PlanMoves plans moves of a database of several shards, and begins them when that is wanted and nothing is in the way; then it returns an error instead when something is. What it
	// changes can be seen when it returns. It takes as long as asking all shards does, and longer where shards join.
	PlanMoves(ctx context.Context, o PlanOrder, start bool) (*Plan, error)
	// Block refuses a statement in a database from now on. The error may be a *wire.Error.
	Block(database string, b proxy.Block) error
	// Unblock takes that back; found is false when it was not so.
	Unblock(database string, f uint64) (found bool, err error)
	// Shutdown begins to end the process and does not wait. A harder mode may
	// follow a milder one.
	Shutdown(mode proxy.ShutdownMode)
}

// MoveOrder is what is wanted of moves.
type MoveOrder struct {
	Database string
	Wanted   MoveWanted
	// IDs are the moves that MoveRollback and MoveComplete are about; none: all.
	IDs []int64
}

// MoveWanted says what is wanted of moves.
type MoveWanted string

// What can be wanted; see metadata.PauseMoves, AbortMoves, RollBackMoves and CompleteMoves.
const (
	MovePause    MoveWanted = "pause"
	MoveResume   MoveWanted = "resume"
	MoveAbort    MoveWanted = "abort"
	MoveRollback MoveWanted = "rollback"
	MoveComplete MoveWanted = "complete"
)

// Process is the proxy as a whole.
type Process struct {
	Started   time.Time
	Listening bool // for clients
	Draining  bool // a shutdown has begun
	Drained   bool // an operator wants no new clients sent here
	LoggingIn int  // clients that have not logged in yet
	// MaxClients is limits.max_clients, MaxClientsPerUser limits.max_clients_per_user; 0 is no bound.
	MaxClients, MaxClientsPerUser int
	Totals                        proxy.Totals
	// Peers are the other processes of the machine that cancel requests are passed on to.
	Peers []proxy.Peer
	// Limited counts what rates have held back.
	Limited []proxy.Limited
	// Crowded counts what bounds on what runs at a time have held back.
	Crowded []proxy.Crowded
	// ConfiguredAt is when the configuration in force was loaded; zero when
	// none is yet.
	ConfiguredAt time.Time
	// Spans counts the spans of requests that a collector has taken, SpansDropped the requests that it was not told of,
	// SpanFailures the messages to it that failed.
	Spans, SpansDropped, SpanFailures int64
	// Audit is what has been written down of who has done what.
	Audit audit.Counts
	// Reloads and ReloadFailures count since start, whoever asked for them;
	// ReloadError is why the last reload failed, empty when it did not.
	Reloads, ReloadFailures int64
	ReloadError             string
}

// Event is something that has happened to the proxy or its servers, as it was logged.
type Event struct {
	ID    int64 // counts from 1
	At    time.Time
	Level string // INFO, WARN or ERROR
	What  string
	// Database, Shard and Node are what it is about; "" for none of its own.
	Database, Shard, Node string
	Detail                string // the rest, as key=value
}

// User is one user of the configuration.
type User struct {
	Name string
	// PoolSize is 0, and Mode empty, where databases say it.
	PoolSize int
	Mode     string
	// MaxServers bounds its server connections in each database, MaxClients its clients; 0 is no bound.
	MaxServers, MaxClients int
}

// Database is one logical database.
type Database struct {
	Name string
	// ServerName is the database's name on the servers, ServerUser the login
	// that every client gets there; empty when each has its own.
	ServerName, ServerUser string
	// Pool holds the limits of a user's pool without overrides, Mode the pool
	// mode: transaction, session or statement.
	Pool pool.Policy
	Mode string
	// MaxServers and MaxClients bound all users together; 0 is no bound.
	MaxServers, MaxClients int
	Clients                int // logged in
	Paused                 bool
	Disabled               bool // new clients are turned away
	Totals                 proxy.DatabaseTotals
	// Refusals counts requests that no shard could be found for, by the reason.
	Refusals map[router.Reason]int64
	// Scatters counts queries over several shards, by how they were answered.
	Scatters map[string]int64
	// Cache is what it keeps of results; nil for nothing.
	Cache      *cache.Stats
	PoolTotals pool.Totals
	// Asked are the requests, by kind and scope.
	Asked  []proxy.Asked
	Shards []Shard
	// Doubts are the transactions over several shards that are in doubt, the oldest first.
	Doubts []twopc.Doubt
	// Tables lists the tables of a database of several shards, none while they are not
	// known; nil for a database of one.
	Tables func() []router.PlacedTable
	// Slots is the gate at which writes of slots wait that are held; nil for a database of one shard.
	Slots *gate.Stats
	// Prepared lists the statements that clients have prepared by name.
	Prepared func() []pool.StatementStat
	// Statements returns what statements have cost, in no order; nil when limits.statements is 0.
	Statements func() ([]tally.Statement, tally.State)
	// StatementState is the second of these.
	StatementState tally.State
	// Errors are those that clients were told of, in no order.
	Errors []proxy.ErrorCount
	// Slow counts the requests that took as long as log.slow_statement, SlowUnlogged those of them that have no line.
	Slow, SlowUnlogged int64
	// HotSlots returns the most slots that were asked for most lately, at a time in Unix nanoseconds; nil for a database of one shard.
	// HotKeys does so of keys, none unless the configuration has them counted.
	HotSlots func(most int, now int64) []tally.HotSlot
	HotKeys  func(most int) []tally.HotKey
	// Plans returns what the plan cache holds, in no order.
	Plans func() []router.PlanKept
	// Route says where a statement would go, as EXPLAIN (ROUTE) does for a session with PostgreSQL's
	// default search_path and no role; it runs nothing, and asks no server. The error is a *wire.Error.
	Route func(sql string) (lines []string, err error)
	// Blocks are the statements that are refused.
	Blocks []proxy.Block
	// Cluster returns what is known of the shards together; nil for a database of one. It does not
	// wait: its being called has moves and proxies read, in the background, for some time from then on.
	Cluster func() *Cluster
}

// Cluster is what a proxy knows of the shards of a database together.
type Cluster struct {
	// Epoch is that of the slot map that the proxy works by; 0 while it knows none, and what is said of the map is empty then.
	Epoch int64
	Slots int // how many there are
	// Owners are ascending; neighbours of one shard and state are joined.
	Owners []SlotRange
	// Guarded is set while shards may hold rows that are not theirs, Closed while writes that concern all shards wait.
	Guarded, Closed bool
	// Members are the shards of the map; those of the configuration that are none own nothing and are asked nothing.
	Members []string
	// Self names this proxy among Proxies.
	Self string
	// Moves are those that have not ended, and the last 100 at all, by their IDs.
	Moves []metadata.Move
	// Proxies are those that serve the cluster. Their Age is that at the time At.
	Proxies []metadata.Acknowledgement
	// At is when Moves and Proxies were read; zero when not yet.
	At time.Time
	// Error is why the last reading failed, or why there is no map for good; "" for neither. What was read before is kept.
	Error string
}

// SlotRange is slots that follow each other and have one owner and state.
type SlotRange struct {
	From, To shardmap.Slot // both included
	Shard    string
	Held     bool // their writes wait
}

// Shard is one shard of a database.
type Shard struct {
	Name  string
	Nodes *failover.Snapshot // never nil
	// Banned are nodes that operators keep reads away from: bit i is node i.
	Banned  uint64
	Gate    gate.Stats
	Breaker gate.BreakerStatus
}

// Primary returns the node that takes writes, nil when there is none.
func (s *Shard) Primary() *failover.NodeStatus {
	if s.Nodes.Primary == failover.NoNode {
		return nil
	}
	return &s.Nodes.Nodes[s.Nodes.Primary]
}

// Pool is one user's pool to one node.
type Pool struct {
	Database, Shard string
	// ServerUser is the role on the server, Mode the user's pool mode.
	ServerUser, Mode string
	pool.Stat
}

// ClientState says what a client does.
type ClientState uint8

// The states of a client.
const (
	ClientIdle     ClientState = iota // no statement and no transaction
	ClientActive                      // a statement runs
	ClientWaiting                     // a statement waits for a server connection
	ClientHeld                        // a statement waits at the gate for a safe node
	ClientIdleInTx                    // no statement, in a transaction
)

// String returns the state as SHOW CLIENTS and the state label print it.
func (s ClientState) String() string {
	return [...]string{"idle", "active", "waiting", "held", "idle_in_transaction"}[s]
}

// Client is one client that is logged in.
type Client struct {
	ID  uint64
	PID uint32 // as the client knows it from BackendKeyData
	// User and Database are what it logged in as and to.
	User, Database  string
	ApplicationName string
	State           ClientState
	// Addr and LocalAddr are host:port pairs; of a Unix-domain socket "unix" or empty.
	Addr, LocalAddr string
	Connected       time.Time
	Since           time.Time // when State was entered
	// TLS names version and cipher suite; empty without.
	TLS string
	// Server is the ID of the server connection it holds, ServerPID the process
	// there; 0 for none.
	Server    uint64
	ServerPID uint32
	Prepared  int    // its named prepared statements
	Pinned    string // why it keeps its server connection; empty when it does not
}

// ServerState says what a server connection does.
type ServerState uint8

// The states of a server connection.
const (
	ServerIdle   ServerState = iota // nobody borrows it
	ServerActive                    // on loan
	ServerParked                    // being reset, or waiting for a cancel request to land
	ServerLogin                     // being dialled
)

// String returns the state as SHOW SERVERS and the state label print it.
func (s ServerState) String() string {
	return [...]string{"idle", "active", "parked", "login"}[s]
}

// ServerConn is one connection to a server.
type ServerConn struct {
	ID             uint64
	PID            uint32
	User, Database string // of the pool
	// Node is the address as configured, LocalAddr the near end, where known.
	Node, LocalAddr string
	State           ServerState
	Created         time.Time
	Used            time.Time // when it was last lent or given back
	TLS             string    // version and cipher suite where known, "on" where not; empty without
	Client          uint64    // the ID of the client that holds it; 0 for none
	Prepared        int
	ApplicationName string
	// Closing is set when it is to be closed as soon as it is not on loan.
	Closing bool
}
