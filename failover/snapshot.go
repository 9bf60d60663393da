package failover

import "time"

// NodeStatus is one node as SHOW NODES prints it.
type NodeStatus struct {
	ID      NodeID
	Address string
	Role    Role      // as the node last said
	Health  Health    // what the monitor makes of it
	Reason  string    // why it is not used; empty when it is
	Since   time.Time // when role or health last changed
	Lag     Lag       // of a replica
	// Timeline, SystemID and LSN are as last observed; zero before.
	Timeline uint32
	SystemID uint64
	LSN      LSN
	ReadOnly bool
	// ProbeLatency is how long the last answered probe took; LastError what the
	// last failed one met and LastErrorAt when, kept after it recovered.
	ProbeLatency time.Duration
	LastError    string
	LastErrorAt  time.Time
	// SilentSince is when the first probe failed of those since when nothing at
	// all has come back; zero when something has: an answer, if only a refusal.
	SilentSince time.Time
}

// Snapshot is the verdict on a shard at one moment. It never changes once
// published.
type Snapshot struct {
	Version uint64 // grows with each published snapshot
	At      time.Time
	// Primary is the node that takes writes, or NoNode; NoPrimary then says why.
	Primary   NodeID
	NoPrimary string
	Timeline  uint32 // of the primary, or the highest seen
	SystemID  uint64 // of the shard; 0 until known
	Nodes     []NodeStatus

	readable []NodeID // replicas with health Up, in the order of their numbers
}

// Differs reports whether primary, roles or healths differ from those of o:
// whether somebody who holds connections has to look. Lag, positions and
// latencies are not compared.
func (s *Snapshot) Differs(o *Snapshot) bool {
	if s.Primary != o.Primary || s.Timeline != o.Timeline || s.SystemID != o.SystemID || len(s.Nodes) != len(o.Nodes) {
		return true
	}
	for i := range s.Nodes {
		if s.Nodes[i].Role != o.Nodes[i].Role || s.Nodes[i].Health != o.Nodes[i].Health {
			return true
		}
	}
	return false
}
