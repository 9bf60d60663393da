package twopc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/histogram"
	"shardproxy/metadata"
)

// Defaults of ResolverOptions.
const (
	DefaultInterval        = 5 * time.Second
	DefaultMinAge          = 3 * time.Second
	DefaultKeep            = time.Hour
	DefaultResolverTimeout = 5 * time.Second
)

// maxAbandoned bounds how many transactions are known to need no waiting for.
// Those beyond it are found when they are MinAge old.
const maxAbandoned = 10_000

// ErrClosed is returned by Resolver.Open after Close.
var ErrClosed = errors.New("twopc: resolver is closed")

// Shard is one of the cluster's shards.
type Shard struct {
	Name string
	// Connect leads to the shard's primary, as the control user. That is a
	// superuser, or a member of every role that clients act as.
	Connect metadata.Connect
}

// ResolverOptions say whose transactions are finished. Database, Cluster and
// Shards are required; zero durations mean the defaults.
type ResolverOptions struct {
	Database string // its name, for the log and for metrics
	Cluster  string // metadata.Cluster.ID
	// Shards are all of the cluster's shards.
	Shards []Shard
	// Interval is the time between two looks at all shards; while something is in
	// doubt or a shard cannot be asked, a fifth of it.
	Interval time.Duration
	// MinAge is how long a prepared transaction is left to a coordinator that may
	// be at work in another process. A commit that takes longer may fail.
	MinAge time.Duration
	// Keep is how long decisions are kept after nobody needs them; tombstones 24
	// times as long.
	Keep time.Duration
	// Timeout bounds each statement, and each attempt to connect.
	Timeout time.Duration
	// Finished is told of each part of a transaction that is committed; nil: nobody is.
	Finished   func()
	Logger     *slog.Logger          // slog.Default when nil
	Registerer prometheus.Registerer // no metrics when nil
}

// Resolver finishes the transactions of one database that their coordinators
// have left. Any number of them, in any processes, may work at once.
type Resolver struct {
	opts   ResolverOptions
	words  map[string]int // shards by their words in gids
	kick   chan struct{}  // capacity 1
	metric *collector
	// durations are how long commits of this process took.
	durations [Committed + 1]histogram.Durations

	sessions []*session // by shard, nil when there is none; the loop's
	logged   map[string]time.Time

	mu        sync.Mutex
	live      map[string]struct{}  // transactions being committed by this process
	abandoned map[string]time.Time // those it has left, and when
	stats     Stats

	lifeMu sync.Mutex
	cancel context.CancelFunc // nil unless open
	done   chan struct{}
	closed bool
}

// Stats is what a Resolver has seen and done.
type Stats struct {
	// Shards are in the order of the options.
	Shards []ShardStats
	// Doubts are the parts in doubt, the oldest first; at most 100 of each shard.
	Doubts []Doubt
	// Rounds are looks at all shards, Committed and RolledBack the parts that were
	// finished so, Tombstones the transactions kept from committing, Removed the
	// old rows deleted.
	Rounds, Committed, RolledBack, Tombstones, Removed uint64
	// Commits counts the transactions over several shards of this process, by
	// Outcome.
	Commits [Committed + 1]uint64
}

// ShardStats is about one shard.
type ShardStats struct {
	Shard string
	// Err is why the shard could not be asked in the last round; nil when it was.
	// The figures are then those of the round before.
	Err error
	// Looked is when it was last asked and answered.
	Looked time.Time
	// Prepared are all prepared parts of the cluster's transactions, those being
	// committed included.
	Prepared int
	// InDoubt are those of them whose coordinator is gone, and which could not be
	// finished yet. Oldest is the age of the oldest.
	InDoubt int
	Oldest  time.Duration
	// Failures are the rounds in which the shard could not be asked.
	Failures uint64
}

// Doubt is a prepared transaction that could not be finished yet.
type Doubt struct {
	Shard string
	// Name is that of the prepared transaction on the shard.
	Name string
	// Owner is the role that prepared it.
	Owner string
	Age   time.Duration
	// Reason is why, as a clause.
	Reason string
}

// NewResolver returns a Resolver that does nothing yet. It fails only on
// impossible options.
func NewResolver(o ResolverOptions) (*Resolver, error) {
	if !validCluster(o.Cluster) {
		return nil, fmt.Errorf("twopc: %q is no cluster", o.Cluster)
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&o.Interval, DefaultInterval}, {&o.MinAge, DefaultMinAge}, {&o.Keep, DefaultKeep}, {&o.Timeout, DefaultResolverTimeout}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Logger = o.Logger.With("database", o.Database)
	r := &Resolver{opts: o, words: map[string]int{}, kick: make(chan struct{}, 1), sessions: make([]*session, len(o.Shards)),
		logged: map[string]time.Time{}, live: map[string]struct{}{}, abandoned: map[string]time.Time{}}
	for i, s := range o.Shards {
		if _, twice := r.words[shardWord(s.Name)]; twice || s.Connect == nil {
			return nil, fmt.Errorf("twopc: shard %q is listed twice, or without a way to connect", s.Name)
		}
		r.words[shardWord(s.Name)] = i
		r.stats.Shards = append(r.stats.Shards, ShardStats{Shard: s.Name})
	}
	r.metric = newCollector(r)
	return r, nil
}

// Open starts looking, at once and then each Interval. It waits for nothing; ctx
// bounds nothing but the call.
func (r *Resolver) Open(context.Context) error {
	r.lifeMu.Lock()
	defer r.lifeMu.Unlock()
	if r.closed {
		return ErrClosed
	}
	if r.cancel != nil {
		return nil
	}
	if r.opts.Registerer != nil {
		if err := r.opts.Registerer.Register(r.metric); err != nil {
			return fmt.Errorf("twopc: register metrics: %w", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.done = cancel, make(chan struct{})
	go r.run(ctx, r.done)
	return nil
}

// Close ends the work, closes the connections and waits for both. What is in
// doubt then is left to others.
func (r *Resolver) Close() error {
	r.lifeMu.Lock()
	defer r.lifeMu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if r.cancel != nil {
		r.cancel()
		<-r.done
		if r.opts.Registerer != nil {
			r.opts.Registerer.Unregister(r.metric)
		}
	}
	return nil
}

// Poke makes the Resolver look now. It does not wait. Pokes while it looks make
// it look once more.
func (r *Resolver) Poke() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Stats returns what was seen and done until now.
func (r *Resolver) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Shards, s.Doubts = slices.Clone(s.Shards), slices.Clone(s.Doubts)
	return s
}

// begin notes that this process commits a transaction; end, that it no longer
// does, and whether something of it is left.
func (r *Resolver) begin(gid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live[gid] = struct{}{}
}

func (r *Resolver) end(gid string, left bool) {
	r.mu.Lock()
	delete(r.live, gid)
	if left && len(r.abandoned) < maxAbandoned {
		r.abandoned[gid] = time.Now()
	}
	r.mu.Unlock()
	if left {
		r.Poke()
	}
}

// count counts the end of a commit.
func (r *Resolver) count(o Outcome, took time.Duration) {
	r.durations[o].Observe(took)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Commits[o]++
}

// forget drops what was abandoned so long ago that its age says enough. A
// PREPARE that was under way when the connection broke has landed by then.
func (r *Resolver) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.abandoned, func(_ string, when time.Time) bool { return time.Since(when) > 2*r.opts.MinAge })
}
