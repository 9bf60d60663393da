package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/config"
	"shardproxy/ddl"
	"shardproxy/gate"
	"shardproxy/metadata"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/sequence"
	"shardproxy/shardmap"
	"shardproxy/twopc"
	"shardproxy/wire"
)

// cluster keeps the slot map of a database of several shards.
type cluster struct {
	db      *database
	log     *slog.Logger
	current atomic.Pointer[router.Owners]
	had     []atomic.Bool // by shard: it was of the cluster since this process began, or is leaving
	lost    atomic.Bool   // the map has had a shard that the configuration lacks
	moves   atomic.Pointer[config.Moves]
	// confirmedAt is the epoch at which this proxy last made sure that it is waited for; since is that before which it was not, for a time.
	confirmedAt, since atomic.Int64
	slots              *gate.Gate // closed while the map holds any
	acks               *acknowledger
	looks              *onlooker
	id                 atomic.Pointer[string] // of the cluster
	tasks              sync.WaitGroup
	stop               context.CancelFunc

	// said is poked when other proxies are to be told of changed definitions.
	said chan struct{}
	self string // tells its news from those of others
	// draws are values of the home shard's sequences.
	draws *sequence.Allocator
	// unlike is set when shards order text otherwise than each other.
	unlike atomic.Bool
	// journal notes what runs in no transaction.
	journal *ddl.Journal

	mu       sync.Mutex
	watcher  *metadata.Watcher // nil until the configuration was compared
	twoPhase atomic.Pointer[twopc.Resolver]
	fence    atomic.Pointer[twopc.Fence]
	detector atomic.Pointer[twopc.Detector]
}

func newCluster(db *database) *cluster {
	c := &cluster{db: db, log: db.deps.log.With("database", db.conf.Name), said: make(chan struct{}, 1), self: db.self,
		slots: gate.New(gateOptions(&db.conf.Failover)),
		had:   make([]atomic.Bool, len(db.conf.Shards))}
	c.moves.Store(&db.conf.Moves)
	c.acks = newAcknowledger(c)
	c.looks = newOnlooker(c)
	o := sequence.Options{Logger: c.log}
	for i := range db.conf.Shards {
		o.Shards = append(o.Shards, sequence.Shard{
			Name: db.conf.Shards[i].Name, Connect: c.reach(i),
		})
	}
	c.draws = sequence.New(o)
	c.journal = newJournal(&db.conf, c.log, c.reach, func() []int { return c.owners().All() })
	return c
}

// reach connects to a shard that is one of the cluster; the error is metadata.ErrSpare when it is none.
func (c *cluster) reach(i int) metadata.Connect {
	return func(ctx context.Context) (*pgx.Conn, error) {
		if c.spare(i) {
			return nil, fmt.Errorf("shard %s: %w", c.db.conf.Shards[i].Name, metadata.ErrSpare)
		}
		return c.db.shards[i].connect(ctx)
	}
}

// spare reports whether a shard is none of the cluster, and was none: one that has left may still have parts of transactions.
func (c *cluster) spare(i int) bool { return c.owners() != nil && !c.had[i].Load() }

// leaving notes shards that are leaving, of which the map says nothing any more.
func (c *cluster) leaving(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	home, err := c.db.shards[0].connect(ctx)
	if err != nil {
		return err
	}
	defer endConn(home)
	moves, err := metadata.Moves(ctx, home, false)
	for _, m := range moves {
		if i := slices.Index(c.names(), m.Source); m.Kind == metadata.MoveLeave && i >= 0 {
			c.had[i].Store(true)
		}
	}
	return err
}

// newJournal makes the journal of a database's definitions. members may be nil: all shards are of the cluster then.
func newJournal(conf *config.Database, log *slog.Logger, connect func(shard int) metadata.Connect, members func() []int) *ddl.Journal {
	o := ddl.Options{Database: conf.Name, Logger: log, Members: members}
	for i := range conf.Shards {
		o.Shards = append(o.Shards, ddl.Shard{Name: conf.Shards[i].Name, Connect: connect(i)})
	}
	return ddl.New(o)
}

// Begin implements proxy.Journal.
func (c *cluster) Begin(ctx context.Context, st proxy.JournalStatement) (proxy.JournalRun, error) {
	r, err := c.journal.Begin(ctx, ddl.Statement(st))
	if err != nil {
		return nil, err
	}
	return r, nil
}

// owners returns who owns which slot, nil while that is not known.
func (c *cluster) owners() *router.Owners { return c.current.Load() }

// options describe the cluster as the configuration has it.
func clusterOptions(conf *config.Database, connect func(shard int) metadata.Connect) metadata.Options {
	o := metadata.Options{Database: conf.Name, Slots: conf.Slots, Rules: conf.Rules()}
	for i := range conf.Shards {
		o.Shards = append(o.Shards, metadata.Shard{Name: conf.Shards[i].Name, Connect: connect(i)})
	}
	return o
}

// checkTimeout bounds one comparison of the configuration with the servers.
const checkTimeout = 10 * time.Second

// open compares the configuration with what the shards hold. What they disagree
// on keeps the database from being served; a home shard that cannot be reached is
// asked again until it can.
func (c *cluster) open(ctx context.Context) error {
	ctx, c.stop = context.WithCancel(ctx)
	c.tasks.Go(func() { c.tell(ctx) })
	c.tasks.Go(func() { c.looks.run(ctx) })
	defer func() { c.tasks.Go(func() { c.followCollations(ctx) }) }() // what the comparison finds comes first
	st, err := c.check(ctx)
	switch {
	case err == nil:
		c.watch(ctx, st)
		return nil
	case !errors.Is(err, metadata.ErrUnreachable):
		return err
	}
	c.log.Warn("the home shard cannot be asked for the slot map yet", "error", err)
	c.tasks.Go(func() { c.checkLater(ctx) })
	return nil
}

func (c *cluster) check(ctx context.Context) (*metadata.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	// Before the map is read: who moves slots waits for this proxy from now on.
	untold := c.acks.first(ctx)
	st, err := metadata.Check(ctx, clusterOptions(&c.db.conf, func(i int) metadata.Connect { return c.db.shards[i].connect }))
	if err != nil && !errors.Is(err, metadata.ErrUnreachable) {
		c.acks.leave() // nothing is served
	}
	if err == nil && untold != nil {
		return nil, &metadata.Problem{Shard: c.db.conf.Shards[0].Name, Kind: metadata.ErrUnreachable, Cause: untold,
			Reason: "cannot tell that this proxy serves the cluster: " + untold.Error(), Hint: "see that the home shard's primary is up"}
	}
	return st, err
}

// checkLater checks again until there is an answer.
func (c *cluster) checkLater(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st, err := c.check(ctx)
		if err == nil {
			c.watch(ctx, st)
			return
		}
		if ctx.Err() == nil {
			c.log.Error("the slot map is not known: keyed statements are refused", "error", err)
		}
	}
}

// watch follows the slot map from the one that was found.
func (c *cluster) watch(ctx context.Context, st *metadata.Status) {
	for _, w := range st.Warnings {
		c.log.Warn("cluster", "shard", w.Shard, "problem", w.Reason, "hint", w.Hint)
		if w.Kind == metadata.ErrUnalike {
			c.unlike.Store(true)
		}
	}
	c.id.Store(&st.Cluster.ID)
	if err := c.leaving(ctx); err != nil {
		c.log.Warn("it is not known which shards are leaving", "error", err)
	}
	c.adopt(st.Map)
	c.tasks.Go(func() { c.acks.run(ctx) })
	w := metadata.NewWatcher(metadata.WatcherOptions{
		Connect: func(ctx context.Context) (*pgx.Conn, error) { return c.db.shards[0].connect(ctx) },
		Cluster: st.Cluster.ID, Initial: st.Map, Logger: c.log, Rules: c.db.conf.Rules(), Ruled: c.ruled, Changed: c.adopt, News: c.db.catalog.Poke, Self: c.self,
		Database: c.db.conf.Name, Registerer: c.db.deps.registry,
	})
	if err := w.Open(ctx); err != nil {
		c.log.Error("the slot map is not followed", "error", err)
		return
	}
	c.mu.Lock()
	c.watcher = w
	c.mu.Unlock()
	c.resolve(st.Cluster.ID)
	c.detect(st.Cluster.ID)
	c.tasks.Go(func() { c.move(ctx, st.Cluster.ID, w.RulesDiffer) })
}

// resolve finishes transactions that their coordinators have left.
func (c *cluster) resolve(id string) {
	o := twopc.ResolverOptions{Database: c.db.conf.Name, Cluster: id, Logger: c.log, Registerer: c.db.deps.registry, Finished: c.db.distrusts}
	for i, sh := range c.db.shards {
		o.Shards = append(o.Shards, twopc.Shard{Name: sh.conf.Name, Connect: c.reach(i)})
	}
	r, err := twopc.NewResolver(o)
	if err == nil {
		err = r.Open(context.Background())
	}
	if err != nil {
		c.log.Error("transactions in doubt are not finished by this proxy", "error", err)
		return
	}
	c.twoPhase.Store(r)
	f, err := twopc.NewFence(twopc.FenceOptions{Database: o.Database, Cluster: id, Shards: o.Shards, Waited: r.Poke, Logger: c.log, Registerer: o.Registerer})
	if err != nil {
		c.log.Error("queries over several shards are refused unless shardproxy.snapshot is off", "error", err)
		return
	}
	c.fence.Store(f)
}

// enterWait is how long a new connection to a shard may wait for the slot map that the shard knows.
const enterWait = 5 * time.Second

// entered judges a new connection to a shard that knows this epoch: with an older map it is not used.
func (c *cluster) entered(ctx context.Context, answer string) error {
	epoch, err := strconv.ParseInt(answer, 10, 64)
	if err != nil {
		return fmt.Errorf("the shard knows no epoch of the slot map: %w", err)
	}
	if err := c.knows(ctx, epoch); err != nil {
		return err
	}
	return c.confirmed(ctx)
}

// knows waits until this proxy knows the map of an epoch.
func (c *cluster) knows(ctx context.Context, epoch int64) error {
	for end := time.Now().Add(enterWait); c.owners() != nil && c.owners().Epoch() < epoch; {
		if time.Now().After(end) {
			return fmt.Errorf("the shard knows epoch %d of the slot map, this proxy %d only", epoch, c.owners().Epoch())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// confirmed returns when this proxy is known to the home shard, and has the map that the home shard has now. While slots move, and when the map is another
// than the last time, no session is used before: a proxy that was cut off, for it was not heard of, is waited for again from then on, and knows that it was.
func (c *cluster) confirmed(ctx context.Context) error {
	owners := c.owners()
	if owners == nil || owners.HiddenSlots() == 0 && !owners.Closed() && owners.Epoch() == c.confirmedAt.Load() {
		return nil
	}
	epoch, err := c.acks.confirm(ctx)
	if err != nil {
		return fmt.Errorf("slots move or have moved, and the home shard cannot be asked whether this proxy may use another session: %w", err)
	}
	if err := c.knows(ctx, epoch); err != nil {
		return err
	}
	c.confirmedAt.Store(epoch)
	return nil
}

// Enter implements proxy.Fence.
func (c *cluster) Enter(ctx context.Context, shards []int) (proxy.Window, error) {
	f := c.fence.Load()
	if f == nil {
		return nil, wire.Errorf("57P03", "the cluster is not known yet: several shards cannot be read at one moment").WithHint("The statement was not executed and may be tried again.")
	}
	w, err := f.Enter(ctx, shards)
	switch {
	case errors.Is(err, twopc.ErrClosed):
		return nil, wire.Fatal("57P01", "the database is no longer served")
	case err != nil:
		return nil, err
	}
	return w, nil
}

// news implements proxy.Database.News.
func (c *cluster) news() string {
	id := c.id.Load()
	if id == nil {
		return ""
	}
	return metadata.News(*id, c.self)
}

// announce implements proxy.Database.Announce.
func (c *cluster) announce() {
	select {
	case c.said <- struct{}{}:
	default: // what is to be told yet tells of this too
	}
}

// tell tells other proxies of changed definitions, from connections of its own. What
// cannot be told they find by themselves, later.
func (c *cluster) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.said:
		}
		if err := c.tellNow(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("other proxies are not told of changed definitions: they see them with their catalog's refresh", "error", err)
		}
	}
}

func (c *cluster) tellNow(ctx context.Context) error {
	news := c.news()
	if news == "" {
		return errors.New("the cluster is not known yet")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	conn, err := c.db.shards[0].connect(ctx)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, news)
	return errors.Join(err, conn.Close(ctx))
}

// names are those of the configuration's shards, in order.
func (c *cluster) names() []string {
	names := make([]string, len(c.db.conf.Shards))
	for i := range names {
		names[i] = c.db.conf.Shards[i].Name
	}
	return names
}

// ruled takes note of the rules that the cluster has now. While they are others than those of the configuration the database serves what both place alike.
func (c *cluster) ruled(stored string) {
	own := c.db.conf.Rules()
	if stored == own {
		c.log.Warn("the cluster has the rules of this proxy again")
		c.db.router.Overrule(nil)
		return
	}
	rules, err := c.db.conf.WithRules(stored)
	if err != nil {
		rules = &config.Database{Shards: c.db.conf.Shards} // what this proxy places is refused
	}
	c.log.Error("the cluster has other rules now than this proxy: definitions, and statements about tables that they place otherwise, are refused until it is started with them",
		"differences", strings.Join(metadata.RulesDiffer(own, stored), "; "), "error", err)
	c.db.router.Overrule(rules)
}

// placed has replicas replay what has moved by a new map before they are read. By the first map of a cluster nothing has.
func (c *cluster) placed(o *router.Owners) {
	before := c.current.Load()
	if o == nil || before == nil && o.Epoch() <= 1 || before != nil && before.Epoch() == o.Epoch() {
		return
	}
	for _, sh := range c.db.shards {
		sh.proxy.Placed()
	}
}

// adopt makes a map the one in force. One with a shard that the configuration does
// not have cannot be: what is known stays.
func (c *cluster) adopt(m *shardmap.Map) {
	o, ok := router.NewOwners(m, c.names())
	if !ok && !c.lost.Swap(true) {
		c.log.Error("the new slot map has a shard that the configuration lacks: statements are refused until the proxy is started with it", "epoch", m.Epoch())
	}
	if c.lost.Load() {
		o = nil // and for good: nobody waits for this proxy any more
	} else {
		o.After(c.current.Load())
	}
	for _, i := range o.All() {
		c.had[i].Store(true)
	}
	c.placed(o)
	c.current.Store(o)
	if o.Holding() {
		c.slots.Close("slots are moving")
	} else {
		c.slots.Open()
	}
	select {
	case c.acks.poke <- struct{}{}:
	default:
	}
	c.looks.wake()
}

// Commit implements proxy.TwoPhase.
func (c *cluster) Commit(ctx context.Context, parts proxy.CommitParts) (left []string, err error) {
	id := c.id.Load()
	if id == nil {
		return nil, wire.Errorf("57P03", "the cluster is not known yet: nothing can be committed on several shards")
	}
	all := make([]twopc.Part, len(parts.Shards))
	for i, shard := range parts.Shards {
		all[i].Shard = shard
	}
	outcome, err := twopc.Commit(ctx, twopc.Options{
		Cluster: *id, Run: parts.Run, Resolver: c.twoPhase.Load(), Logger: c.log, Left: func(shard string) { left = append(left, shard) },
	}, all)
	if outcome == twopc.Committed {
		return left, nil
	}
	return nil, err
}

// reconnect leaves the old primary of the home shard.
func (c *cluster) reconnect() {
	c.draws.Moved()
	c.looks.moved.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watcher != nil {
		c.watcher.Reconnect()
	}
}

func (c *cluster) close() {
	if c.stop != nil {
		c.stop()
	}
	c.tasks.Wait()
	c.acks.end()
	c.draws.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watcher != nil {
		_ = c.watcher.Close() // never fails
	}
	if f := c.fence.Load(); f != nil {
		f.Close()
	}
	if r := c.twoPhase.Load(); r != nil {
		_ = r.Close() // what is in doubt is left to others
	}
	if d := c.detector.Load(); d != nil {
		_ = d.Close() // never fails
	}
}
