package config

import "time"

// Database is one logical database.
type Database struct {
	// Name is what clients ask for; its key in the file.
	Name string `yaml:"-"`
	// Shards hold the rows, in the order of the file; the first is the home
	// shard. At least one is required.
	Shards []Shard `yaml:"shards" required:"true" apply:"restart"`
	// Server says how to connect to the nodes.
	Server Server `yaml:"server"`
	// Slots is how many buckets keys hash to, a power of two that is fixed when
	// the cluster is made. Default: 4096.
	Slots int `yaml:"slots" default:"4096" min:"1" max:"65536" apply:"restart"`
	// Tables are rules for tables, in the order of the file, where they are a
	// map from their names. A table that no rule is for is single.
	Tables []Table `yaml:"tables" form:"map" apply:"restart"`
	// Keys are columns that shard every table which has one of them and no rule
	// of its own, by the first that it has. Default: none.
	Keys []Identifier `yaml:"keys" form:"one" apply:"restart"`
	// Schemas are placed as a whole, in the order of the file, where they are a
	// map from their names. Default: none.
	Schemas []Schema `yaml:"schemas" form:"map" apply:"restart"`
	// Functions run where a row lies that their arguments name, in the order of
	// the file, where they are a map from their names. Default: none.
	Functions []Function `yaml:"functions" form:"map" apply:"restart"`
	// CrossShard is allow, warn or refuse: what becomes of queries that need rows of several
	// shards. Default: allow.
	CrossShard CrossShard `yaml:"cross_shard" enum:"allow|warn|refuse" default:"allow"`
	// Snapshot says what queries over several shards see of transactions over several shards:
	// transaction or statement, all of one or nothing of it, in a transaction under REPEATABLE READ
	// and in a statement under READ COMMITTED; or off. Default: statement.
	Snapshot Snapshot `yaml:"snapshot" enum:"transaction|statement|off" default:"statement"`
	// CrossShardQueries is how many such queries run at once outside of transactions; 0 is half
	// of pool.size, at least one. Default: 0.
	CrossShardQueries int `yaml:"cross_shard_queries" default:"0" min:"0" max:"100000"`
	// PartialResults has queries over several shards answered from those that can be reached, with a
	// warning, unless a session says otherwise. Default: false.
	PartialResults bool `yaml:"partial_results" default:"false"`
	// HotKeys has the keys counted that statements ask for most, and kept in memory, for admin users to see. Default: false.
	HotKeys bool `yaml:"hot_keys" default:"false"`
	// Blocks are statements that are refused, each a text, whose constants do not count, or a
	// fingerprint. Default: none.
	Blocks []string `yaml:"blocks" form:"one"`
	// StatementSize overrides limits.statement_size; 0 does not. Default: 0.
	StatementSize Size `yaml:"statement_size" default:"0" min:"0" max:"1GiB"`
	// ResultSize overrides limits.result_size; 0 does not. Default: 0.
	ResultSize Size `yaml:"result_size" default:"0" min:"0" max:"1TiB"`
	// Rates stand in place of limits.rates.database. Default: nil, they do not.
	Rates *Rate `yaml:"rates"`
	// Concurrent stands in place of limits.concurrent.database. Default: nil, it does not.
	Concurrent *Concurrent `yaml:"concurrent"`
	// Reads says which reads go to replicas.
	Reads Reads `yaml:"reads"`
	// Pool sizes the pools of server connections.
	Pool Pool `yaml:"pool"`
	// Failover says how nodes are watched and how long statements wait for one.
	Failover Failover `yaml:"failover"`
	// Breaker says when a shard is left alone that fails much of what it is asked.
	Breaker Breaker `yaml:"breaker"`
	// Cache says of which queries results are kept in the proxy.
	Cache Cache `yaml:"cache"`
	// Catalog says how the database's schema is followed.
	Catalog Catalog `yaml:"catalog"`
	// Moves bounds what moves of slots take of the shards, where this proxy carries them out.
	Moves Moves `yaml:"moves"`

	index ruleIndex // of Tables, Schemas and Functions; made by Load
}

// Shard is one PostgreSQL primary with its replicas.
type Shard struct {
	// Name is unique within the database.
	Name string `yaml:"name" required:"true" apply:"restart"`
	// Nodes are host:port pairs in any order, or the directory of a
	// Unix-domain socket with the port (/run/postgresql:5432); Load adds port
	// 5432 where the file gives none. Roles are found, not declared.
	Nodes []string `yaml:"nodes" form:"one" required:"true" apply:"restart"`
}

// Server says how to connect to a database's nodes.
type Server struct {
	// Database is the name on the servers. Default: the database's name, which
	// Load fills in.
	Database string `yaml:"database" apply:"restart"`
	// User logs in for every client user that has no ServerUser of its own.
	// Default: none; each client user logs in under its own name.
	User string `yaml:"user" apply:"restart"`
	// Password is User's.
	Password Secret `yaml:"password" apply:"restart"`
	// PasswordFile holds Password; Load reads it into Password.
	PasswordFile string `yaml:"password_file" path:"true" apply:"restart"`
	// Control is the login of the proxy's own connections; see
	// Config.ControlLogin for what holds without it.
	Control Login `yaml:"control"`
	// TLS encrypts the connections.
	TLS ClientTLS `yaml:"tls"`
	// ConnectTimeout bounds one dial with its login. Default: 5 s.
	ConnectTimeout time.Duration `yaml:"connect_timeout" default:"5s" min:"100ms" max:"5m" apply:"restart"`
}

// Login is a user of the servers.
type Login struct {
	// User is the role's name.
	User string `yaml:"user" apply:"restart"`
	// Password is empty when the servers do not ask for one.
	Password Secret `yaml:"password" apply:"restart"`
	// PasswordFile holds Password; Load reads it into Password.
	PasswordFile string `yaml:"password_file" path:"true" apply:"restart"`
}

// ClientTLS is the proxy as a TLS client of the servers.
type ClientTLS struct {
	// Mode is disable, allow, prefer, require, verify-ca or verify-full, as in
	// libpq. Default: prefer.
	Mode string `yaml:"mode" enum:"disable|allow|prefer|require|verify-ca|verify-full" default:"prefer" apply:"restart"`
	// CA is the PEM file of the authorities a server's certificate is checked
	// against. Default: none; verify-full takes the system's then.
	CA string `yaml:"ca" path:"true" apply:"restart"`
	// Certificate is the PEM file of the proxy's own certificate. Default: none.
	Certificate string `yaml:"certificate" path:"true" apply:"restart"`
	// Key is the PEM file of the certificate's key, not encrypted.
	Key string `yaml:"key" path:"true" apply:"restart"`
}

// Consistency of reads on replicas.
const (
	// ConsistencySession lets a session's reads see its own writes.
	ConsistencySession = "session"
	// ConsistencyEventual lets a read see any state within the lag bound.
	ConsistencyEventual = "eventual"
)

// Reads says which reads go to replicas.
type Reads struct {
	// MaxLag is the age from which a replica is not read from. Default: 1 s.
	MaxLag time.Duration `yaml:"max_lag" default:"1s" min:"10ms" max:"1d" apply:"restart"`
	// MaxLagBytes is the distance behind the primary, in bytes of WAL, from
	// which a replica is not read from. Default: 0, not looked at.
	MaxLagBytes Size `yaml:"max_lag_bytes" default:"0" min:"0" max:"1TiB" apply:"restart"`
	// Consistency is session or eventual. Default: session.
	Consistency string `yaml:"consistency" enum:"session|eventual" default:"session"`
	// Split sends proven reads to replicas. When false everything goes to the
	// primary, unless a hint says otherwise. Default: true.
	Split bool `yaml:"split" default:"true"`
	// ReadOnlyFunctions are volatile functions known to write nothing, with or
	// without their schema. Default: none.
	ReadOnlyFunctions []string `yaml:"read_only_functions" form:"one" apply:"restart"`
}

// Snapshot says what queries over several shards see of transactions over several shards.
type Snapshot string

// The ways to see them.
const (
	SnapshotTransaction Snapshot = "transaction"
	SnapshotStatement   Snapshot = "statement"
	SnapshotOff         Snapshot = "off"
)

// CrossShard says what becomes of queries that need rows of several shards.
type CrossShard string

// The ways to treat them.
const (
	CrossShardAllow  CrossShard = "allow"
	CrossShardWarn   CrossShard = "warn"   // they run, and the client gets a warning
	CrossShardRefuse CrossShard = "refuse" // they are an error
)

// PoolMode says when a server connection goes back to its pool.
type PoolMode string

// The pool modes.
const (
	PoolTransaction PoolMode = "transaction" // at the end of each transaction
	PoolSession     PoolMode = "session"     // when the client leaves
	PoolStatement   PoolMode = "statement"   // after each statement; no transaction blocks
)

// Pool sizes the pools of server connections, one for each user and node.
type Pool struct {
	// Mode is transaction, session or statement. Default: transaction.
	Mode PoolMode `yaml:"mode" enum:"transaction|session|statement" default:"transaction"`
	// Size is the number of connections for each user and node. Default: 20.
	Size int `yaml:"size" default:"20" min:"1" max:"100000"`
	// Min is how many of them are kept open. Default: 0.
	Min int `yaml:"min" default:"0" min:"0" max:"100000"`
	// Reserve is how many more are opened once somebody has waited for
	// ReserveAfter. Default: 0.
	Reserve int `yaml:"reserve" default:"0" min:"0" max:"100000"`
	// ReserveAfter is the wait that opens the reserve. Default: 5 s.
	ReserveAfter time.Duration `yaml:"reserve_after" default:"5s" min:"0" max:"1h"`
	// IdleTimeout closes a connection unused for so long. 0: never. Default: 10 min.
	IdleTimeout time.Duration `yaml:"idle_timeout" default:"10m" min:"0" max:"30d"`
	// LifeTime retires a connection of that age when it comes back. Default: 1 h.
	LifeTime time.Duration `yaml:"life_time" default:"1h" min:"1s" max:"30d"`
	// WaitTimeout bounds the wait for a connection; then the statement fails
	// with 53300. 0: no bound. Default: 30 s.
	WaitTimeout time.Duration `yaml:"wait_timeout" default:"30s" min:"0" max:"1d"`
	// MaxClients bounds the database's client connections, 0: no limit but
	// Limits.MaxClientsPerDatabase. Default: 0.
	MaxClients int `yaml:"max_clients" default:"0" min:"0" max:"1000000"`
	// MaxServers bounds the connections of all users to all nodes, 0: no
	// limit. Default: 0.
	MaxServers int `yaml:"max_servers" default:"0" min:"0" max:"1000000" apply:"restart"`
	// MaxWaiting bounds the queue of each user and node; who comes then fails
	// with 53300 at once. 0: no limit. Default: 0.
	MaxWaiting int `yaml:"max_waiting" default:"0" min:"0" max:"1000000"`
	// MaxDialing bounds the dials under way for each user and node. Default: 4.
	MaxDialing int `yaml:"max_dialing" default:"4" min:"1" max:"1000"`
	// PreparedStatements bounds those kept on each server connection; the
	// least recently used is closed for a new one. Default: 200.
	PreparedStatements int `yaml:"prepared_statements" default:"200" min:"1" max:"100000"`
}

// Failover says how nodes are watched and how long statements wait for one.
type Failover struct {
	// ProbeInterval is the time between two probes of a node. Default: 1 s.
	ProbeInterval time.Duration `yaml:"probe_interval" default:"1s" min:"50ms" max:"1m" apply:"restart"`
	// ProbeTimeout bounds one probe. Default: 2 s.
	ProbeTimeout time.Duration `yaml:"probe_timeout" default:"2s" min:"50ms" max:"1m" apply:"restart"`
	// FailAfter is how many probes in a row must fail to leave a node out. Default: 3.
	FailAfter int `yaml:"fail_after" default:"3" min:"1" max:"100" apply:"restart"`
	// RecoverAfter is how many probes in a row must succeed to take it back. Default: 2.
	RecoverAfter int `yaml:"recover_after" default:"2" min:"1" max:"100" apply:"restart"`
	// HoldTimeout bounds the wait of a statement for a safe node, and that for the
	// answer of a primary that is down and silent. 0: no statement waits. Default: 10 s.
	HoldTimeout time.Duration `yaml:"hold_timeout" default:"10s" min:"0" max:"1h" apply:"restart"`
	// HoldStatements bounds how many wait for each shard. Default: 1000.
	HoldStatements int `yaml:"hold_statements" default:"1000" min:"0" max:"1000000" apply:"restart"`
}

// Breaker is the circuit breaker of each shard's primary: while too much fails there, clients are told so at once.
type Breaker struct {
	// Percent is how many of a hundred statements must have failed within Window; 0: a shard is never left alone. Default: 0.
	Percent int `yaml:"percent" default:"0" min:"0" max:"100"`
	// Least is how many must have failed. Default: 20.
	Least int `yaml:"least" default:"20" min:"1" max:"1000000"`
	// Window is the time that is looked back upon. Default: 10 s.
	Window time.Duration `yaml:"window" default:"10s" min:"1s" max:"10m"`
	// OpenFor is for how long the shard is left alone before it is tried with some statements. It doubles
	// each time that one of these fails. Default: 5 s.
	OpenFor time.Duration `yaml:"open_for" default:"5s" min:"100ms" max:"1h"`
	// OpenMax bounds what OpenFor becomes. Default: 1 min.
	OpenMax time.Duration `yaml:"open_max" default:"1m" min:"100ms" max:"1h"`
}

// Moves bounds what moves of slots take of the shards.
type Moves struct {
	// AtOnce is how many moves go on at once, each between other shards. Default: 2.
	AtOnce int `yaml:"at_once" default:"2" min:"1" max:"100"`
	// HoldLimit is for how long writes may be held at once; a move that needs longer tries again. Default: 500 ms.
	HoldLimit time.Duration `yaml:"hold_limit" default:"500ms" min:"50ms" max:"1m"`
	// CopyRate is how many bytes all moves together copy in a second; 0 does not bound. Default: 50 MiB.
	CopyRate Size `yaml:"copy_rate" default:"50MiB" min:"0" max:"1TiB"`
	// PurgeRows is how many rows that have moved are deleted in a second, of each move; 0 does not bound. Default: 20000.
	PurgeRows int `yaml:"purge_rows" default:"20000" min:"0" max:"1000000000"`
	// MaxLag is how far standbys of the shards of a move may be behind, in bytes, before copying and deleting
	// slow down; 0: it is not looked at. Default: 64 MiB.
	MaxLag Size `yaml:"max_lag" default:"64MiB" min:"0" max:"1TiB"`
	// MaxActive is how many sessions may run statements on a server of a move before copying and deleting
	// slow down; 0 is half of the server's max_connections. Default: 0.
	MaxActive int `yaml:"max_active" default:"0" min:"0" max:"1000000"`
	// MaxWAL is how much WAL a server may keep for a move; one that needs more is given up, or can no longer be
	// rolled back. 0 does not bound. Default: 16 GiB.
	MaxWAL Size `yaml:"max_wal" default:"16GiB" min:"0" max:"1024TiB"`
}

// Catalog says how a database's schema is followed.
type Catalog struct {
	// Refresh is the time between two looks at the schema; one that the proxy
	// sees changed is read at once. Default: 30 s.
	Refresh time.Duration `yaml:"refresh" default:"30s" min:"1s" max:"1d" apply:"restart"`
}
