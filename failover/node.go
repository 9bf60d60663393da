package failover

import (
	"fmt"
	"math/bits"
	"time"
)

// NodeID is the index of a node among the shard's configured nodes.
type NodeID int

// NoNode stands where there is no node.
const NoNode NodeID = -1

// MaxNodes is how many nodes one shard may have.
const MaxNodes = 64

// NodeSet is a set of nodes of one shard. The zero value is empty.
type NodeSet uint64

// With returns the set with n added.
func (s NodeSet) With(n NodeID) NodeSet { return s | 1<<uint(n) }

// Has reports whether n is in the set.
func (s NodeSet) Has(n NodeID) bool { return s>>uint(n)&1 != 0 }

// Len returns how many nodes are in the set.
func (s NodeSet) Len() int { return bits.OnesCount64(uint64(s)) }

// NodeConfig is one configured node.
type NodeConfig struct {
	Address string // host:port, as configured; the node's name in messages
}

// Mark is the number of a sample of the primary's write position; see the
// package comment. The zero Mark is that of a session that never wrote.
type Mark uint64

// LSN is a position in the write-ahead log.
type LSN uint64

// String returns the position as PostgreSQL prints it.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// Role is what a node said it is.
type Role uint8

// The roles.
const (
	RoleUnknown Role = iota
	RolePrimary
	RoleReplica
)

var roleNames = [...]string{"unknown", "primary", "replica"}

// String returns the role in lower case.
func (r Role) String() string { return roleNames[r] }

// Health is what the monitor makes of a node.
type Health uint8

// The healths. Only Up is used: for writes if the node is the shard's primary,
// for reads if it is a replica.
const (
	Unknown Health = iota // no verdict yet
	Up
	Lagging // a replica further behind than allowed
	Refused // answers, but cannot be vouched for; the reason says why
	Down    // does not answer
)

var healthNames = [...]string{"unknown", "up", "lagging", "refused", "down"}

// String returns the health in lower case.
func (h Health) String() string { return healthNames[h] }

// Observation is what one node answered to one probe.
type Observation struct {
	InRecovery bool
	SystemID   uint64
	// Timeline is the timeline a primary writes, or the newest one that a
	// replica is known to receive or to have replayed: a lower bound.
	Timeline uint32

	Insert LSN // primary: end of the WAL inserted so far, page headers not counted
	Flush  LSN // primary: end of the WAL on disk
	Replay LSN // replica: end of the last record replayed
	// Receive is a replica's end of the WAL received; 0 when it receives none.
	Receive LSN

	// ReplayedAt is the commit time (the primary's clock) of the last
	// transaction a replica replayed; zero when there was none.
	ReplayedAt time.Time
	ServerTime time.Time // the node's clock
	StartedAt  time.Time // when the server was started
	ReadOnly   bool      // default_transaction_read_only is on

	// Connection names the control connection that was asked, never 0. The same
	// number twice proves that the server has not restarted in between.
	Connection uint64
}

// Role returns the role that was observed.
func (o *Observation) Role() Role {
	if o.InRecovery {
		return RoleReplica
	}
	return RolePrimary
}

// LSN returns the position that says how far the node is: insert on a primary,
// replay on a replica.
func (o *Observation) LSN() LSN {
	if o.InRecovery {
		return o.Replay
	}
	return o.Insert
}

// Lag is how far a replica is behind.
type Lag struct {
	Known bool
	Bytes uint64 // WAL that the primary has on disk and the replica has not replayed
	// Time bounds how old the replica's data may be: every commit acknowledged
	// longer ago than Time is there. Zero when everything is there.
	Time time.Duration
}
