package metadata

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

// prompt is how soon a new epoch must be known.
const prompt = time.Second

// watch opens a Watcher and waits for its first confirmation.
func watch(t *testing.T, o WatcherOptions) *Watcher {
	t.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	w := NewWatcher(o)
	if err := w.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "confirmed", func() bool { return w.Stats().Connected })
	return w
}

// wantEpoch waits for the epoch and returns how long that took.
func wantEpoch(t *testing.T, w *Watcher, epoch int64) time.Duration {
	t.Helper()
	return eventually(t, "known", func() bool { return w.Current() != nil && w.Current().Epoch() == epoch })
}

// wantPrompt wants the epoch of one of a few rounds to be known in time: a
// machine busy with other things is late now and then, a Watcher that is
// always late is broken.
func wantPrompt(t *testing.T, w *Watcher, round func() (epoch int64)) {
	t.Helper()
	var took time.Duration
	for range 5 {
		if took = wantEpoch(t, w, round()); took <= prompt {
			return
		}
	}
	t.Errorf("the epoch was known after %v", took)
}

// bump changes the map through a connection.
func bump(t *testing.T, conn *pgx.Conn, shard string, slots ...int) *shardmap.Map {
	t.Helper()
	m, _ := mustLoad(t, conn)
	next := give(t, m, shard, slots...)
	if err := Change(t.Context(), conn, m.Epoch(), next); err != nil {
		t.Fatal(err)
	}
	return next
}

func TestWatcherHears(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	m, c := mustLoad(t, conn)
	var mu sync.Mutex
	var seen []int64
	// The interval is so long that nothing is seen by looking.
	w := watch(t, WatcherOptions{Connect: f.opts.Shards[0].Connect, Cluster: c.ID, Initial: m, Interval: time.Hour, Changed: func(m *shardmap.Map) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, m.Epoch())
	}})
	if w.Current() != m {
		t.Error("a map that holds was replaced")
	}
	for range 3 {
		next := bump(t, conn, "s1", 1, 2, 3)
		if took := wantEpoch(t, w, next.Epoch()); took > prompt {
			t.Logf("known after %v", took)
		}
		if d := next.Diff(w.Current()).String(); d != "" {
			t.Errorf("differs: %s", d)
		}
	}
	eventually(t, "confirmed", func() bool { return w.Stats().Epoch == 4 && w.Stats().Age < time.Minute })
	if s := w.Stats(); s.Notifications < 3 || s.Connects != 1 || s.Failures != 0 || s.Err != nil || s.Confirmed.IsZero() {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(seen, []int64{2, 3, 4}) {
		t.Errorf("told of %v", seen)
	}
}

// TestWatcherLooks lets epochs pass without a notification.
func TestWatcherLooks(t *testing.T) {
	f := madeFleet(t, 2)
	_, c := mustLoad(t, f.dbs[0].Connect("app"))
	w := watch(t, WatcherOptions{Connect: f.opts.Shards[0].Connect, Cluster: c.ID, Interval: prompt / 2})
	wantPrompt(t, w, func() int64 {
		epoch := w.Current().Epoch() + 1
		f.do(t, 0, "UPDATE shardproxy.epoch SET epoch = epoch + 1")
		return epoch
	})
	if s := w.Stats(); s.Notifications != 0 || s.Connects != 1 {
		t.Errorf("%+v", s)
	}
	looks := w.Stats().Looks
	before := w.Stats().Confirmed
	eventually(t, "confirmed again", func() bool { return w.Stats().Confirmed.After(before) && w.Stats().Looks > looks })
}

// TestWatcherKilled ends the connection that listens and changes the map at once.
func TestWatcherKilled(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	_, c := mustLoad(t, conn)
	p := faultproxy.Start(t, faultproxy.Options{Target: f.dbs[0].Node.Addr()})
	w := watch(t, WatcherOptions{Connect: through(t, f.dbs[0], p), Cluster: c.ID})
	for n := range 3 {
		wantPrompt(t, w, func() int64 {
			if p.KillAll() == 0 {
				t.Error("there is no connection")
			}
			return bump(t, conn, "s1", 1).Epoch()
		})
		if s := w.Stats(); s.Connects < uint64(n+2) {
			t.Errorf("%+v", s)
		}
	}
}

// TestWatcherStalled cuts the network without closing anything: the look that
// gets no answer ends the connection, and Close does not wait for it.
func TestWatcherStalled(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	_, c := mustLoad(t, conn)
	p := faultproxy.Start(t, faultproxy.Options{Target: f.dbs[0].Node.Addr()})
	var stalled atomic.Bool
	bad, good := through(t, f.dbs[0], p), f.opts.Shards[0].Connect
	connect := func(ctx context.Context) (*pgx.Conn, error) {
		if stalled.Load() {
			return good(ctx)
		}
		return bad(ctx)
	}
	w := watch(t, WatcherOptions{Connect: connect, Cluster: c.ID, Interval: 100 * time.Millisecond, Timeout: 200 * time.Millisecond})
	p.Stall()
	stalled.Store(true)
	next := bump(t, conn, "s1", 1)
	wantEpoch(t, w, next.Epoch())
	if s := w.Stats(); s.Connects != 2 || s.Failures == 0 {
		t.Errorf("%+v", s)
	}
	p.Close()
}

// TestWatcherReconnect leaves a connection that works.
func TestWatcherReconnect(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	_, c := mustLoad(t, conn)
	w := watch(t, WatcherOptions{Connect: f.opts.Shards[0].Connect, Cluster: c.ID, Interval: time.Hour})
	for n := range uint64(3) {
		before := w.Stats().Confirmed
		w.Reconnect()
		eventually(t, "connected again", func() bool { s := w.Stats(); return s.Connects >= n+2 && s.Confirmed.After(before) })
		wantEpoch(t, w, bump(t, conn, "s1", 1).Epoch())
	}
	if s := w.Stats(); s.Failures != 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
}

// TestWatcherNeverGoesBack shows a Watcher what a home shard that has lost
// changes would say.
func TestWatcherNeverGoesBack(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	_, c := mustLoad(t, conn)
	bump(t, conn, "s1", 1)
	bump(t, conn, "s1", 2)
	w := watch(t, WatcherOptions{Connect: f.opts.Shards[0].Connect, Cluster: c.ID, Interval: 20 * time.Millisecond})
	wantEpoch(t, w, 3)
	held := w.Current()
	wantAhead := func(text string) {
		t.Helper()
		eventually(t, text, func() bool {
			err := w.Stats().Err
			return errors.Is(err, ErrAhead) && strings.Contains(err.Error(), text)
		})
		confirmed := w.Stats().Confirmed
		failures := w.Stats().Failures
		eventually(t, "tried again", func() bool { return w.Stats().Failures > failures+2 })
		if s := w.Stats(); w.Current() != held || !s.Confirmed.Equal(confirmed) || s.Age < time.Since(confirmed)-time.Second || s.Connected {
			t.Errorf("%s: %+v", text, s)
		}
	}
	f.do(t, 0, "UPDATE shardproxy.epoch SET epoch = 2")
	wantAhead("epoch 3 was read before, now there is only 2")
	other, mine := "s0", held.Owner(5)
	if mine == "s0" {
		other = "s1"
	}
	f.do(t, 0, "UPDATE shardproxy.epoch SET epoch = 3; UPDATE shardproxy.slots SET shard = '"+other+"' WHERE slot = 5")
	wantAhead("another map of epoch 3 was read before (slot 5 from")
	f.do(t, 0, "UPDATE shardproxy.slots SET shard = '"+mine+"' WHERE slot = 5")
	eventually(t, "confirmed", func() bool { return w.Stats().Err == nil && w.Stats().Connected })
	if w.Current() != held {
		t.Error("a map that holds was replaced")
	}
	// Whatever else the home shard may say, the last map stays.
	for _, test := range []struct {
		do, undo string
		kind     error
	}{
		{"UPDATE shardproxy.cluster SET schema_version = schema_version + 1", "UPDATE shardproxy.cluster SET schema_version = schema_version - 1", ErrVersion},
		{"UPDATE shardproxy.cluster SET id = gen_random_uuid()", "UPDATE shardproxy.cluster SET id = '" + c.ID + "'", ErrOtherCluster},
		{"UPDATE shardproxy.epoch SET epoch = 9; DELETE FROM shardproxy.slots WHERE slot = 1", "UPDATE shardproxy.epoch SET epoch = 3; INSERT INTO shardproxy.slots VALUES (1, 's1')", ErrInconsistent},
		{"DELETE FROM shardproxy.epoch", "INSERT INTO shardproxy.epoch VALUES (true, 3)", ErrInconsistent},
		{"ALTER SCHEMA shardproxy RENAME TO elsewhere", "ALTER SCHEMA elsewhere RENAME TO shardproxy", ErrNotInitialised},
	} {
		f.do(t, 0, test.do)
		eventually(t, test.kind.Error(), func() bool { return errors.Is(w.Stats().Err, test.kind) })
		f.do(t, 0, test.undo)
		eventually(t, "confirmed", func() bool { return w.Stats().Err == nil })
		if w.Current() != held {
			t.Errorf("%v: the map was replaced", test.kind)
		}
	}
}

// TestWatcherFailover kills the home shard's primary and promotes its replica.
func TestWatcherFailover(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{Replicas: 1})
	f := newFleet(t, 2)
	var primary atomic.Pointer[pgtest.Node]
	primary.Store(c.Primary())
	f.opts.Shards[0].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		return pgx.Connect(ctx, primary.Load().DSN("app", "app"))
	}
	r := mustInit(t, f.opts)
	w := watch(t, WatcherOptions{Connect: f.opts.Shards[0].Connect, Cluster: r.Cluster.ID, Interval: 200 * time.Millisecond})
	old := pgtest.Connect(t, primary.Load().DSN("app", "app"))
	wantEpoch(t, w, bump(t, old, "s1", 1).Epoch())
	c.CatchUp()
	c.Primary().Kill9()
	eventually(t, "seen", func() bool { return w.Stats().Err != nil && !w.Stats().Connected })
	primary.Store(c.Replicas()[0]) // not promoted yet: it refuses to listen
	eventually(t, "refused", func() bool { return errors.Is(w.Stats().Err, ErrStandby) })
	if w.Current().Epoch() != 2 {
		t.Errorf("epoch %d", w.Current().Epoch())
	}
	c.Replicas()[0].Promote()
	eventually(t, "connected", func() bool { return w.Stats().Connected })
	conn := pgtest.Connect(t, primary.Load().DSN("app", "app"))
	wantEpoch(t, w, bump(t, conn, "s1", 2).Epoch())
	if err := SpreadEpoch(t.Context(), &r.Cluster, f.opts.Shards, 3); err != nil {
		t.Error(err)
	}
	if s, err := Check(t.Context(), f.opts); err != nil || s.Map.Epoch() != 3 || len(s.Behind) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestWatcherLife opens and closes in every order, also while nothing answers.
func TestWatcherLife(t *testing.T) {
	hang := func(ctx context.Context) (*pgx.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	w := NewWatcher(WatcherOptions{Connect: hang})
	if s := w.Stats(); w.Current() != nil || s.Age != 0 || s.Connected {
		t.Errorf("%+v", s)
	}
	w.Reconnect()
	for range 2 {
		if err := w.Open(t.Context()); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "growing old", func() bool { return w.Stats().Age > 0 })
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			w.Reconnect()
			w.Current()
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if err := w.Open(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	never := NewWatcher(WatcherOptions{Connect: hang})
	if err := errors.Join(never.Close(), never.Close()); err != nil {
		t.Error(err)
	}
	// Close waits for what the goroutine is in.
	var entered, left atomic.Bool
	slow := NewWatcher(WatcherOptions{Connect: func(ctx context.Context) (*pgx.Conn, error) {
		entered.Store(true)
		<-ctx.Done()
		<-time.After(50 * time.Millisecond)
		left.Store(true)
		return nil, ctx.Err()
	}})
	if err := slow.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "connecting", entered.Load)
	if err := slow.Close(); err != nil || !left.Load() {
		t.Errorf("Close did not wait: %v", err)
	}
	// The context of Open ends it too.
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int32
	w = NewWatcher(WatcherOptions{Logger: slog.New(slog.DiscardHandler), Interval: time.Millisecond, Connect: func(context.Context) (*pgx.Conn, error) {
		asked.Add(1)
		return nil, errors.New("away")
	}})
	if err := w.Open(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "asked again and again", func() bool { return asked.Load() > 5 })
	if s := w.Stats(); !errors.Is(s.Err, ErrUnreachable) || s.Failures < 5 {
		t.Errorf("%+v", s)
	}
	cancel()
	<-w.done
}

// TestWatcherNews: what another proxy tells is heard, in whatever transaction it stands,
// and what may have been missed is taken for told.
func TestWatcherNews(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	m, c := mustLoad(t, conn)
	var heard atomic.Int64
	watch(t, WatcherOptions{Connect: f.opts.Shards[0].Connect, Cluster: c.ID, Initial: m, Interval: time.Hour, Self: "me", News: func() { heard.Add(1) }})
	if heard.Load() != 1 {
		t.Errorf("a new connection that listens: %d news", heard.Load())
	}
	do := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	do("BEGIN; " + News(c.ID, "other") + "; ROLLBACK")
	do(News(c.ID, "me"))
	do(News("another cluster", "other"))
	do(News(c.ID, "o'ther"))
	eventually(t, "heard", func() bool { return heard.Load() >= 2 })
	do(News(c.ID, "other"))
	eventually(t, "heard", func() bool { return heard.Load() >= 3 })
	if heard.Load() != 3 {
		t.Errorf("%d news", heard.Load())
	}
}
