package admin

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"shardproxy/failover"
	"shardproxy/gate"
)

// What is noted of what happens: the proxy is looked at once a second, and the
// last 200 events are kept. What came and went between two looks is not seen.
const (
	eventEach  = time.Second
	eventsKept = 200
)

// apiEvents is the contract of /api/v1/events.
type apiEvents struct {
	Events []apiEvent `json:"events" doc:"the newest first, at most 200, since the start of the process"`
}

type apiEvent struct {
	At       time.Time `json:"at" doc:"when it was, or was seen, to within a second"`
	Class    string    `json:"class" doc:"good: something came back; warn or bad: as in the verdict"`
	Database string    `json:"database" doc:"the database; empty for the process"`
	Shard    string    `json:"shard" doc:"the shard; empty where it is no shard's"`
	Text     string    `json:"text" doc:"what happened"`
}

// chronicle notes what differs from one look to the next. It is safe for concurrent use.
type chronicle struct {
	// mu guards what follows.
	mu     sync.Mutex
	events []apiEvent // the newest last
	last   *seen
}

// seen is what is compared of a look.
type seen struct {
	process   Process
	databases map[string]bool // whether it is paused
	shards    map[[2]string]*Shard
}

func seenOf(p Process, databases []Database) *seen {
	s := &seen{process: p, databases: map[string]bool{}, shards: map[[2]string]*Shard{}}
	for i := range databases {
		d := &databases[i]
		s.databases[d.Name] = d.Paused
		for j := range d.Shards {
			s.shards[[2]string{d.Name, d.Shards[j].Name}] = &d.Shards[j]
		}
	}
	return s
}

// look compares with the look before; the first one is only remembered.
func (c *chronicle) look(p Process, databases []Database, now time.Time) {
	current := seenOf(p, databases)
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.last
	if c.last = current; before == nil {
		return
	}
	known := len(c.events)
	add := func(at time.Time, class, database, shard, format string, args ...any) {
		c.events = append(c.events, apiEvent{at.UTC(), class, database, shard, fmt.Sprintf(format, args...)})
	}
	processEvents(&before.process, &p, now, add)
	for i := range databases {
		d := &databases[i]
		switch paused, known := before.databases[d.Name]; {
		case !known:
			add(now, classGood, d.Name, "", "the database came with a reload")
		case d.Paused && !paused:
			add(now, classWarn, d.Name, "", "paused")
		case !d.Paused && paused:
			add(now, classGood, d.Name, "", "resumed")
		}
		for j := range d.Shards {
			sh := &d.Shards[j]
			if was := before.shards[[2]string{d.Name, sh.Name}]; was != nil {
				shardEvents(d.Name, was, sh, now, add)
			}
		}
	}
	slices.SortStableFunc(c.events[known:], func(a, b apiEvent) int { return a.At.Compare(b.At) })
	if over := len(c.events) - eventsKept; over > 0 {
		c.events = slices.Delete(c.events, 0, over)
	}
}

// adder notes an event.
type adder func(at time.Time, class, database, shard, format string, args ...any)

func processEvents(was, is *Process, now time.Time, add adder) {
	if is.Draining && !was.Draining {
		add(now, classBad, "", "", "a shutdown has begun")
	}
	switch {
	case is.ReloadFailures > was.ReloadFailures:
		add(now, classWarn, "", "", "a reload failed: %s", is.ReloadError)
	case is.Reloads > was.Reloads:
		add(now, classGood, "", "", "the configuration was reloaded")
	}
}

func shardEvents(database string, was, is *Shard, now time.Time, add adder) {
	before, after := was.Primary(), is.Primary()
	switch {
	case after == nil && before != nil:
		add(changedAt(was, is, before.Address, now), classBad, database, is.Name, "no primary: %s", is.Nodes.NoPrimary)
	case after != nil && before == nil:
		add(changedAt(was, is, after.Address, now), classGood, database, is.Name, "%s is the primary, on timeline %d", after.Address, is.Nodes.Timeline)
	case after != nil && after.Address != before.Address:
		add(now, classWarn, database, is.Name, "the primary is %s instead of %s, on timeline %d", after.Address, before.Address, is.Nodes.Timeline)
	}
	if is.Gate.Closed != was.Gate.Closed && after != nil && before != nil {
		if is.Gate.Closed {
			add(now, classWarn, database, is.Name, "statements are held: %s", is.Gate.Reason)
		} else {
			add(now, classGood, database, is.Name, "held statements go on")
		}
	}
	switch opened := is.Breaker.Opened > was.Breaker.Opened; {
	case opened && is.Breaker.State != gate.BreakerClosed:
		add(is.Breaker.Since, classBad, database, is.Name, "left alone: %s", brokenBy(&is.Breaker))
	case is.Breaker.State == gate.BreakerClosed && (opened || was.Breaker.State != gate.BreakerClosed):
		add(is.Breaker.Since, classGood, database, is.Name, "the circuit breaker is closed")
	}
	for i := range is.Nodes.Nodes {
		n := &is.Nodes.Nodes[i]
		k := slices.IndexFunc(was.Nodes.Nodes, func(o failover.NodeStatus) bool { return o.Address == n.Address })
		if k < 0 {
			continue
		}
		nodeEvents(database, is.Name, &was.Nodes.Nodes[k], n, changedAt(was, is, n.Address, now), add)
	}
}

// changedAt returns when a node has changed from one look to the next; now when it has not.
func changedAt(was, is *Shard, address string, now time.Time) time.Time {
	at := func(o failover.NodeStatus) bool { return o.Address == address }
	before, after := slices.IndexFunc(was.Nodes.Nodes, at), slices.IndexFunc(is.Nodes.Nodes, at)
	if before >= 0 && after >= 0 && is.Nodes.Nodes[after].Since.After(was.Nodes.Nodes[before].Since) {
		return is.Nodes.Nodes[after].Since
	}
	return now
}

func nodeEvents(database, shard string, was, is *failover.NodeStatus, at time.Time, add adder) {
	if is.Role != was.Role && is.Role != failover.RoleUnknown && was.Role != failover.RoleUnknown {
		add(at, classWarn, database, shard, "%s is a %s, was a %s", is.Address, is.Role, was.Role)
	}
	switch {
	case is.Health == was.Health:
	case is.Health == failover.Up:
		add(at, classGood, database, shard, "%s is up, was %s", is.Address, was.Health)
	case is.Health == failover.Unknown:
	default:
		add(at, classWarn, database, shard, "%s is %s: %s", is.Address, is.Health, is.Reason)
	}
}

// page returns the events, the newest first.
func (c *chronicle) page() *apiEvents {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &apiEvents{Events: make([]apiEvent, 0, len(c.events))}
	for _, e := range slices.Backward(c.events) {
		out.Events = append(out.Events, e)
	}
	return out
}
