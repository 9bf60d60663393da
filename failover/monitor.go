package failover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/gate"
)

// Defaults of Options.
const (
	DefaultInterval       = time.Second
	DefaultFastInterval   = 15 * time.Millisecond
	DefaultRetryInterval  = 100 * time.Millisecond
	DefaultProbeTimeout   = time.Second
	DefaultFailAfter      = 3
	DefaultRecoverAfter   = 2
	DefaultMaxLag         = time.Second
	DefaultSwitchoverWait = 10 * time.Second
)

// wantLease is how long one call of Want keeps the sampler fast.
const wantLease = 100 * time.Millisecond

// noSample is the counter before the first sample. It is not 0, for a write that
// is acknowledged before then gets it as its mark, and mark 0 means no write.
const noSample = 1

// minGap is the least time between two probes of one node, however many errors
// the data path reports.
const minGap = 5 * time.Millisecond

// Prober asks nodes. Probe and Watch of one node are never called at the same
// time; those of different nodes are.
type Prober interface {
	// Probe asks the node what it is. It returns by the context's deadline.
	Probe(ctx context.Context, node NodeID) (Observation, error)
	// Watch returns an error as soon as the connection that answered the last
	// Probe breaks, and nil when the context ends.
	Watch(ctx context.Context, node NodeID) error
	// Close closes every connection. No other method is called any more.
	Close()
}

// Clock tells the time; the system's when nil.
type Clock interface{ Now() time.Time }

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

// Options say what a Monitor watches and how. Nodes, Prober and Gate are
// required; zero durations and counts mean the defaults.
type Options struct {
	Database, Shard string // names, for the log and for metrics
	Nodes           []NodeConfig
	Prober          Prober
	Gate            *gate.Gate
	Clock           Clock
	Logger          *slog.Logger          // discards when nil
	Registerer      prometheus.Registerer // no metrics when nil

	Interval      time.Duration // between two probes of a node
	FastInterval  time.Duration // between two samples while somebody waits for freshness
	RetryInterval time.Duration // between two probes while something is wrong
	ProbeTimeout  time.Duration // of one probe, connecting included

	Rules Rules

	// OnChange is told when primary, roles or healths have changed: after the
	// new snapshot was published and, if there is no primary, after the gate was
	// closed. It is called from one goroutine, in order, and must be quick.
	OnChange func(before, after *Snapshot)
}

// Monitor watches the nodes of one shard. Make one with New.
type Monitor struct {
	opts   Options
	prober Prober
	gate   *gate.Gate
	clock  Clock
	log    *slog.Logger

	snap    atomic.Pointer[Snapshot]
	turn    atomic.Uint64 // round robin
	started atomic.Uint64 // number of the last sample begun
	nodes   []live

	wantUntil atomic.Int64 // sampling is fast until then, in nanoseconds since epoch
	epoch     time.Time
	kick      chan struct{} // something for the loop to look at; capacity 1

	// gateMu makes the gate follow verdict and suspicion: who changes one of the
	// two calls syncGate afterwards, and the last caller sees both.
	gateMu sync.Mutex

	metrics *collector

	lifeMu sync.Mutex
	cancel context.CancelFunc // nil unless open
	closed bool
	done   sync.WaitGroup
}

// live is the part of a node that the statement path reads.
type live struct {
	// covers is the number of the newest sample the node has replayed.
	covers atomic.Uint64
	// suspected counts the suspicions, cleared is the count that the last answer
	// has settled. Unequal: the node is not used for reads.
	suspected atomic.Uint64
	cleared   atomic.Uint64
	_         [40]byte // a cache line each
}

func (l *live) isSuspect() bool { return l.suspected.Load() != l.cleared.Load() }

// New returns a monitor that has not started. It changes nothing and fails
// only on impossible options.
func New(opts Options) (*Monitor, error) {
	switch {
	case len(opts.Nodes) == 0:
		return nil, errors.New("failover: a shard needs at least one node")
	case len(opts.Nodes) > MaxNodes:
		return nil, fmt.Errorf("failover: a shard has at most %d nodes, not %d", MaxNodes, len(opts.Nodes))
	case opts.Prober == nil || opts.Gate == nil:
		return nil, errors.New("failover: options without prober or gate")
	}
	seen := map[string]bool{}
	for _, n := range opts.Nodes {
		if seen[n.Address] {
			return nil, fmt.Errorf("failover: node %s is listed twice", n.Address)
		}
		seen[n.Address] = true
	}
	opts.setDefaults()
	m := &Monitor{
		opts: opts, prober: opts.Prober, gate: opts.Gate, clock: opts.Clock,
		log:   opts.Logger.With("database", opts.Database, "shard", opts.Shard),
		nodes: make([]live, len(opts.Nodes)),
		kick:  make(chan struct{}, 1),
		epoch: opts.Clock.Now(),
	}
	m.started.Store(noSample)
	state := NewState(opts.Rules, opts.Nodes, m.epoch)
	m.snap.Store(state.snapshot(0, m.epoch))
	m.metrics = newCollector(m)
	return m, nil
}

func (o *Options) setDefaults() {
	setDefault(&o.Interval, DefaultInterval)
	setDefault(&o.FastInterval, DefaultFastInterval)
	setDefault(&o.RetryInterval, DefaultRetryInterval)
	setDefault(&o.ProbeTimeout, DefaultProbeTimeout)
	setDefault(&o.Rules.FailAfter, DefaultFailAfter)
	setDefault(&o.Rules.RecoverAfter, DefaultRecoverAfter)
	setDefault(&o.Rules.MaxLag, DefaultMaxLag)
	setDefault(&o.Rules.SwitchoverWait, DefaultSwitchoverWait)
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnChange == nil {
		o.OnChange = func(_, _ *Snapshot) {}
	}
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Open closes the gate and starts watching. The gate opens when a primary is
// found. Open does not wait for that; the context bounds nothing but the call.
func (m *Monitor) Open(context.Context) error {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if m.closed || m.cancel != nil {
		return errors.New("failover: monitor opened twice or after Close")
	}
	if m.opts.Registerer != nil {
		if err := m.opts.Registerer.Register(m.metrics); err != nil {
			return fmt.Errorf("failover: register metrics: %w", err)
		}
	}
	m.gate.Close(notProbedYet)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	l := newLoop(m)
	for i := range l.asked {
		m.done.Go(func() { l.ask(ctx, NodeID(i)) })
	}
	m.done.Go(func() { l.run(ctx) })
	return nil
}

// Close stops watching, closes the control connections and waits for both. The
// gate is left as it is. Close is idempotent.
func (m *Monitor) Close() {
	m.lifeMu.Lock()
	defer m.lifeMu.Unlock()
	if m.closed {
		return
	}
	m.closed = true
	if m.cancel != nil {
		m.cancel()
		m.done.Wait()
		if m.opts.Registerer != nil {
			m.opts.Registerer.Unregister(m.metrics)
		}
	}
	m.prober.Close()
}

// Snapshot returns the current verdict; it is never nil.
func (m *Monitor) Snapshot() *Snapshot { return m.snap.Load() }

// Nodes returns the status of every node, in the configured order. The slice
// is shared and must not be changed.
func (m *Monitor) Nodes() []NodeStatus { return m.snap.Load().Nodes }

// Primary returns the node that takes writes. Who gets false waits at the gate.
func (m *Monitor) Primary() (NodeID, bool) {
	p := m.snap.Load().Primary
	return p, p != NoNode
}

// Mark returns the mark of a write that has just been acknowledged. It must be
// taken after the acknowledgement was received.
func (m *Monitor) Mark() Mark { return Mark(m.started.Load()) }

// Fresh reports whether node n has replayed every write acknowledged before
// mark was taken. The primary itself is always fresh, which is not asked here.
func (m *Monitor) Fresh(n NodeID, mark Mark) bool {
	l := &m.nodes[n]
	return l.covers.Load() > uint64(mark) && !l.isSuspect()
}

// PickRead returns the next replica in turn that is up, within the lag bound,
// not suspected, not in exclude and, if consistent is set, fresh for mark.
// False means: read from the primary. If that was for want of freshness, Want
// makes a replica fresh sooner.
func (m *Monitor) PickRead(mark Mark, consistent bool, exclude NodeSet) (NodeID, bool) {
	ids := m.snap.Load().readable
	if len(ids) == 0 {
		return NoNode, false
	}
	first := int(m.turn.Add(1) % uint64(len(ids)))
	for i := range ids {
		at := first + i
		if at >= len(ids) {
			at -= len(ids)
		}
		id := ids[at]
		if exclude.Has(id) {
			continue
		}
		l := &m.nodes[id]
		if consistent && mark != 0 && l.covers.Load() <= uint64(mark) {
			continue
		}
		if l.isSuspect() {
			continue
		}
		return id, true
	}
	return NoNode, false
}

// Want says that somebody waits for a replica to become fresh: for the next
// 100 ms samples are taken every FastInterval. Sessions call it when PickRead
// has refused them a replica after a write.
func (m *Monitor) Want() {
	now := m.sinceEpoch()
	until := m.wantUntil.Load()
	if until-now > int64(wantLease)/2 {
		return // fast for a while yet
	}
	if m.wantUntil.CompareAndSwap(until, now+int64(wantLease)) && until < now {
		m.wakeLoop()
	}
}

func (m *Monitor) sinceEpoch() int64 { return int64(m.clock.Now().Sub(m.epoch)) + 1 }

func (m *Monitor) wanted(now time.Time) bool {
	return m.wantUntil.Load() > int64(now.Sub(m.epoch))
}

func (m *Monitor) wakeLoop() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// Suspect tells the monitor of an error that the data path met on node n, from
// connecting or from a statement. Errors that say nothing about the node's
// health are ignored, so that every error may be passed. Otherwise the node
// takes no reads (and, if it is the primary, the gate is closed) until a probe
// that begins now has been answered.
func (m *Monitor) Suspect(n NodeID, err error) {
	if err == nil || !speaksAgainst(err) {
		return
	}
	l := &m.nodes[n]
	l.suspected.Add(1)
	l.covers.Store(0)
	m.syncGate()
	m.wakeLoop()
}

// syncGate makes the gate follow the published verdict and the suspicion
// against its primary.
func (m *Monitor) syncGate() {
	m.gateMu.Lock()
	defer m.gateMu.Unlock()
	snap := m.snap.Load()
	switch {
	case snap.Primary == NoNode:
		m.gate.Close(snap.NoPrimary)
	case m.nodes[snap.Primary].isSuspect():
		m.gate.Close("primary " + snap.Nodes[snap.Primary].Address + " met an error and is being asked")
	default:
		m.gate.Open()
	}
}
