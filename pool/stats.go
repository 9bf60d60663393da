package pool

import (
	"sync/atomic"
	"time"
)

type counters struct {
	assigned, opened, closed, dialErrors, resets, cancels, shed, waited atomic.Int64
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
}

// Totals returns the counters of all pools.
func (p *Pools) Totals() Totals {
	c := &p.stats
	return Totals{
		Assigned: c.assigned.Load(), Opened: c.opened.Load(), Closed: c.closed.Load(),
		DialErrors: c.dialErrors.Load(), Resets: c.resets.Load(), Cancels: c.cancels.Load(),
		Shed: c.shed.Load(), WaitNanos: c.waited.Load(),
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
			Idle: len(n.idle), Lent: n.lent, Dialling: n.dialling, Waiting: n.waiting.Len(),
		}
		s.Parked = s.Total - s.Idle - s.Lent - s.Dialling
		if e := n.waiting.Front(); e != nil {
			s.MaxWait = now.Sub(e.Value.(*Ticket).since)
		}
		n.mu.Unlock()
		all = append(all, s)
	})
	return all
}

// IdleServer describes a connection that nobody borrows.
type IdleServer struct {
	ID       uint64
	PID      uint32
	User     string
	Node     int
	Address  string
	TLS      bool
	Created  time.Time
	Used     time.Time
	Prepared int
}

// IdleServers lists the idle connections.
func (p *Pools) IdleServers() []IdleServer {
	var all []IdleServer
	p.each(func(n *nodePool) {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, s := range n.idle {
			all = append(all, IdleServer{
				ID: s.id, PID: s.PID, User: n.user.Name, Node: n.node, Address: n.target.Address,
				TLS: s.TLS() != nil, Created: s.created, Used: s.used, Prepared: s.prepared.Len(),
			})
		}
	})
	return all
}

// Created returns when the connection was opened.
func (s *Server) Created() time.Time { return s.created }
