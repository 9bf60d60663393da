package pool

import (
	"sync/atomic"
	"time"

	"shardproxy/histogram"
)

type counters struct {
	assigned, opened, closed, dialErrors, resets, cancels, shed, waited atomic.Int64
	waits                                                               histogram.Durations
}

// Totals are counters since start.
type Totals struct {
	Assigned   int64 // connections lent
	Opened     int64
	Closed     int64
	DialErrors int64
	Resets     int64
	Cancels    int64
	Shed       int64 // refused because the queue was full
	WaitNanos  int64 // time that borrowers waited, in nanoseconds
	// Waits are these times one by one: of those who had to wait, and got a connection.
	Waits histogram.Counts
}

// Plus adds up the counters of several Pools.
func (t Totals) Plus(o Totals) Totals {
	return Totals{
		Assigned: t.Assigned + o.Assigned, Opened: t.Opened + o.Opened, Closed: t.Closed + o.Closed,
		DialErrors: t.DialErrors + o.DialErrors, Resets: t.Resets + o.Resets, Cancels: t.Cancels + o.Cancels,
		Shed: t.Shed + o.Shed, WaitNanos: t.WaitNanos + o.WaitNanos, Waits: t.Waits.Plus(o.Waits),
	}
}

// Totals returns the counters of all pools.
func (p *Pools) Totals() Totals {
	c := &p.stats
	return Totals{
		Assigned: c.assigned.Load(), Opened: c.opened.Load(), Closed: c.closed.Load(),
		DialErrors: c.dialErrors.Load(), Resets: c.resets.Load(), Cancels: c.cancels.Load(),
		Shed: c.shed.Load(), WaitNanos: c.waited.Load(), Waits: c.waits.Counts(),
	}
}

// Stat describes one user's pool to one node.
type Stat struct {
	User string
	// ServerUser is the role under which statements run.
	ServerUser string
	Node       int
	Address    string
	Size       int // allowed
	Total      int // all connections, dials under way included
	Idle       int
	Lent       int
	Dialling   int
	Parked     int // being reset, or waiting for a cancel request to land
	Waiting    int
	MaxWait    time.Duration // of the first in the queue
}

// Stats returns one Stat for each pool that was ever used.
func (p *Pools) Stats() []Stat {
	now := p.now()
	var all []Stat
	p.each(func(n *nodePool) {
		pol := n.user.policy()
		n.mu.Lock()
		s := Stat{
			User: n.user.Name, ServerUser: n.target.User, Node: n.node, Address: n.target.Address, Size: pol.Size, Total: n.total,
			Idle: len(n.idle), Lent: n.lent, Dialling: n.dialling, Waiting: n.waiting.n,
		}
		s.Parked = s.Total - s.Idle - s.Lent - s.Dialling
		if t := n.waiting.first; t != nil {
			s.MaxWait = now.Sub(t.since)
		}
		n.mu.Unlock()
		all = append(all, s)
	})
	return all
}

// ServerState says who has a connection.
type ServerState uint8

// The states of a connection.
const (
	ServerIdle   ServerState = iota // nobody
	ServerLent                      // a borrower
	ServerParked                    // it is being reset, or waits for a cancel request to land
)

// ServerStat describes one connection.
type ServerStat struct {
	ID        uint64
	PID       uint32
	User      string
	Node      int
	Address   string
	LocalAddr string // of the proxy's end
	State     ServerState
	TLS       bool
	Created   time.Time
	Used      time.Time // when it was last lent, or given back
	Prepared  int
	Retired   bool // it is closed as soon as nobody has it
}

// Servers lists all connections, those being dialled excluded.
func (p *Pools) Servers() []ServerStat {
	var all []ServerStat
	p.each(func(n *nodePool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, s := range n.idle {
			all = append(all, s.statLocked(ServerIdle))
		}
		idle := make(map[*Server]bool, len(n.idle))
		for _, s := range n.idle {
			idle[s] = true
		}
		for s := range n.servers {
			switch {
			case s.lent:
				all = append(all, s.statLocked(ServerLent))
			case !idle[s]:
				all = append(all, s.statLocked(ServerParked))
			}
		}
	})
	return all
}

func (s *Server) statLocked(st ServerState) ServerStat {
	return ServerStat{
		ID: s.id, PID: s.PID, User: s.pool.user.Name, Node: s.Node, Address: s.pool.target.Address,
		LocalAddr: s.localAddr, State: st, TLS: s.TLS() != nil,
		Created: s.created, Used: s.used, Prepared: int(s.count.Load()), Retired: s.Stale(),
	}
}

// Created returns when the connection was opened.
func (s *Server) Created() time.Time { return s.created }
