package failover

import (
	"fmt"
	"slices"
	"time"
)

// Rules are the bounds by which State judges.
type Rules struct {
	// FailAfter is how many probes in a row have to fail before a node is down;
	// a node that is provably gone (connection refused, server shutting down)
	// is down at once.
	FailAfter int
	// RecoverAfter is how many probes in a row have to be answered before a node
	// that was down is used again, and before a replica that lagged is.
	RecoverAfter int
	// MaxLag is how old a replica's data may be; negative means no bound.
	MaxLag time.Duration
	// MaxLagBytes is how much WAL a replica may not have replayed; 0 means no bound.
	MaxLagBytes uint64
	// SwitchoverWait is how long a primary that turned read-only
	// (default_transaction_read_only) counts as being switched over: writes wait
	// for its successor that long and then meet the server's own error.
	SwitchoverWait time.Duration
}

// EventKind says what happened.
type EventKind uint8

// The kinds of events.
const (
	Tick      EventKind = iota // time has passed; no node is concerned
	Answered                   // a probe was answered; Observation and Lag are set
	Failed                     // a probe failed without proof that the node is gone
	Gone                       // a probe failed with that proof
	Saturated                  // the node has no connection left for the probe; it lives
	Suspected                  // the data path met an error that speaks against the node
)

// Event is one thing the monitor learnt.
type Event struct {
	Kind        EventKind
	Node        NodeID
	Observation Observation
	Lag         Lag           // of a replica
	Latency     time.Duration // of an answered probe
	Reason      string        // of a failure or suspicion
	Silent      bool          // of a failure: nothing at all came back
}

// ActionKind says what the driver has to do.
type ActionKind uint8

// The kinds of actions.
const (
	CloseGate ActionKind = iota // for Reason
	OpenGate
	ProbeNow  // ask Node at once
	ProbeSoon // ask Node again before its regular time
)

// Action is one thing the driver has to do.
type Action struct {
	Kind   ActionKind
	Node   NodeID
	Reason string
}

// node is what State knows of one node.
type node struct {
	address string

	probed bool // at least one probe has ended, whatever its outcome
	up     bool // by hysteresis
	oks    int  // answers in a row
	fails  int  // failures in a row

	seen bool        // at least one answer
	obs  Observation // the last answer
	// timeline is the highest seen since the server was started: a replica
	// whose receiver has stopped no longer tells.
	timeline      uint32
	wasWritable   bool      // seen as a primary that takes writes
	readOnlySince time.Time // zero unless a primary that was writable turned read-only
	// rival: claimed to be primary on the incumbent's timeline while the
	// incumbent did.
	rival bool

	lag              Lag
	lagging          bool
	lagBad, lagGoods int

	downReason  string
	health      Health
	reason      string
	since       time.Time
	latency     time.Duration
	lastError   string
	lastErrorAt time.Time
	silentSince time.Time // zero when something came back from the last probe
}

func (n *node) claims() bool { return n.seen && !n.obs.InRecovery }

// Verdict is what follows from all that is known: which node takes writes and
// why none does.
type Verdict struct {
	Primary   NodeID
	NoPrimary string
	Timeline  uint32 // the highest any node of the cluster has shown
}

// State is all that is known of a shard's nodes. It is a value: Step leaves
// the receiver as it was. Make one with NewState.
//
// Invariants:
//
//	at most one node is primary, and it claims to be, is up, is of the shard's
//	  system identifier and on the highest timeline seen
//	two nodes that claim on the same timeline: neither is primary
//	a rival is never primary before the incumbent has been seen giving up
type State struct {
	rules    Rules
	nodes    []node
	systemID uint64
	verdict  Verdict
	gateOpen bool
	// incumbent is the last node that was primary, on incumbentTimeline.
	incumbent         NodeID
	incumbentTimeline uint32
}

// notProbedYet is why there is no primary before the first verdict.
const notProbedYet = "not every node has been asked yet"

// NewState returns the state before anything is known: no primary, gate closed.
func NewState(rules Rules, nodes []NodeConfig, now time.Time) State {
	s := State{rules: rules, incumbent: NoNode}
	s.verdict = Verdict{Primary: NoNode, NoPrimary: notProbedYet}
	for _, c := range nodes {
		s.nodes = append(s.nodes, node{address: c.Address, since: now, reason: "not asked yet"})
	}
	return s
}

// Verdict returns the current verdict.
func (s State) Verdict() Verdict { return s.verdict }

// SystemID returns the shard's system identifier, 0 until it is known.
func (s State) SystemID() uint64 { return s.systemID }

// Step takes in one event at the time now and returns the next state and what
// is to be done, in order.
func (s State) Step(now time.Time, e Event) (State, []Action) {
	s.nodes = slices.Clone(s.nodes)
	var actions []Action
	if e.Kind != Tick {
		actions = s.learn(now, e)
	}
	s.adopt()
	before := s.verdict
	s.decide(now)
	s.judge(now)
	return s, append(actions, s.follow(before)...)
}

// follow turns the change of the verdict into actions.
func (s *State) follow(before Verdict) []Action {
	var actions []Action
	v := s.verdict
	switch {
	case v.Primary == NoNode && (s.gateOpen || before.NoPrimary != v.NoPrimary):
		actions = append(actions, Action{Kind: CloseGate, Node: NoNode, Reason: v.NoPrimary})
		if s.gateOpen { // somebody may have been promoted meanwhile
			for i := range s.nodes {
				actions = append(actions, Action{Kind: ProbeNow, Node: NodeID(i)})
			}
		}
		s.gateOpen = false
	case v.Primary != NoNode && !s.gateOpen:
		s.gateOpen = true
		actions = append(actions, Action{Kind: OpenGate, Node: v.Primary})
	}
	return actions
}

// learn folds the event into its node.
func (s *State) learn(now time.Time, e Event) []Action {
	n := &s.nodes[e.Node]
	switch e.Kind {
	case Suspected:
		n.lastError, n.lastErrorAt = e.Reason, now
		return []Action{{Kind: ProbeNow, Node: e.Node}}
	case Saturated:
		// Too many connections is an answer: of a living server that says
		// nothing about its role. Nothing changes either way.
		n.probed, n.fails = true, 0
		n.lastError, n.lastErrorAt, n.silentSince = e.Reason, now, time.Time{}
		return nil
	case Failed, Gone:
		s.learnFailure(now, n, e)
		return nil
	}
	n.probed, n.latency = true, e.Latency
	n.fails, n.oks, n.silentSince = 0, n.oks+1, time.Time{}
	if !n.up && (!n.seen || n.oks >= s.rules.RecoverAfter) {
		n.up = true
	}
	if !n.seen || !n.obs.StartedAt.Equal(e.Observation.StartedAt) {
		n.timeline = 0
	}
	if n.seen && n.obs.InRecovery != e.Observation.InRecovery {
		n.since = now
	}
	n.seen, n.obs = true, e.Observation
	n.timeline = max(n.timeline, n.obs.Timeline)
	if n.obs.InRecovery {
		n.wasWritable, n.readOnlySince = false, time.Time{}
		return s.learnLag(n, e)
	}
	n.lag, n.lagging, n.lagBad, n.lagGoods = Lag{}, false, 0, 0
	switch {
	case !n.obs.ReadOnly:
		n.wasWritable, n.readOnlySince = true, time.Time{}
	case n.wasWritable && n.readOnlySince.IsZero():
		n.readOnlySince = now
	}
	return nil
}

func (s *State) learnFailure(now time.Time, n *node, e Event) {
	n.probed, n.oks, n.fails = true, 0, n.fails+1
	n.lastError, n.lastErrorAt = e.Reason, now
	switch {
	case !e.Silent:
		n.silentSince = time.Time{}
	case n.silentSince.IsZero():
		n.silentSince = now
	}
	if e.Kind == Gone || n.fails >= s.rules.FailAfter || !n.seen {
		n.up = false
	}
	if !n.up {
		n.downReason = e.Reason
	}
}

// learnLag counts how often in a row a replica was too far behind. Once is no
// reason to leave it out: between a commit and its replay there is always a
// moment; it is asked again soon.
func (s *State) learnLag(n *node, e Event) []Action {
	if s.verdict.Primary == NoNode && n.lag.Known {
		// What a dead primary had and nobody got makes no replica older: reads go
		// on where they could when it was lost.
		return nil
	}
	n.lag = e.Lag
	limit, limitBytes := s.rules.MaxLag, s.rules.MaxLagBytes
	tooMuch := limitBytes > 0 && n.lag.Bytes > limitBytes
	switch {
	case limit < 0 && limitBytes == 0:
		n.lagging, n.lagBad, n.lagGoods = false, 0, 0
	case !n.lag.Known || tooMuch || limit >= 0 && n.lag.Time > limit:
		n.lagBad, n.lagGoods = n.lagBad+1, 0
		if n.lagBad >= 2 {
			n.lagging = true
		} else if !n.lagging {
			return []Action{{Kind: ProbeSoon, Node: e.Node}}
		}
	case n.lagging && limit >= 0 && n.lag.Time > limit/5*4:
		// Between the two bounds it stays what it was.
		n.lagGoods = 0
	default:
		n.lagBad, n.lagGoods = 0, n.lagGoods+1
		if n.lagGoods >= s.rules.RecoverAfter {
			n.lagging = false
		}
	}
	return nil
}

// ours reports whether n is known to be of the shard's cluster.
func (s *State) ours(n *node) bool {
	return n.seen && s.systemID != 0 && n.obs.SystemID == s.systemID
}

// adopt finds the shard's system identifier: the one most nodes have. It waits
// until every node has been asked, so that a stray node that happens to answer
// first cannot take the shard. Once found it stays, unless every node has been
// seen with another.
func (s *State) adopt() {
	votes := map[uint64]int{}
	for i := range s.nodes {
		n := &s.nodes[i]
		if !n.probed || s.systemID != 0 && (!n.seen || n.obs.SystemID == s.systemID) {
			return
		}
		if n.seen {
			votes[n.obs.SystemID]++
		}
	}
	best, most, tie := uint64(0), 0, false
	for id, v := range votes {
		switch {
		case v > most:
			best, most, tie = id, v, false
		case v == most:
			tie = true
		}
	}
	if tie || best == s.systemID {
		return
	}
	s.systemID = best
	s.incumbent, s.incumbentTimeline = NoNode, 0
}

func (n *node) String() string { return fmt.Sprintf("%s (timeline %d)", n.address, n.timeline) }
