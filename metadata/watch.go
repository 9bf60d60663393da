package metadata

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/shardmap"
)

// Waits between attempts to connect: the first at once, since a connection
// that broke says nothing of the server, then from firstWait, doubling, to the
// interval.
const (
	firstWait   = 20 * time.Millisecond
	logInterval = time.Minute // of failures that go on
)

// run holds one connection after another until ctx ends.
func (w *Watcher) run(ctx context.Context, done chan struct{}) {
	defer close(done)
	streak := 0 // failures since a look succeeded
	var logged time.Time
	for ctx.Err() == nil {
		turn, end := context.WithCancel(ctx)
		w.turn.Store(&end)
		looked, err := w.hold(turn)
		if looked {
			streak = 0
		}
		if turn.Err() == nil {
			w.failed(err)
			if streak++; streak == 1 || time.Since(logged) >= logInterval {
				logged = time.Now()
				w.opts.Logger.Warn("cannot follow the slot map", "error", err, "failures", streak, "epoch", w.Stats().Epoch)
			}
			if streak > 1 {
				wait(turn, min(firstWait<<min(streak-2, 16), w.opts.Interval))
			}
		}
		end()
	}
}

// wait waits for the time, or half of it at least: proxies that lost the same
// server do not come back all at once.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// hold connects, and looks until the connection breaks or is not believed. It
// reports whether one look succeeded.
func (w *Watcher) hold(ctx context.Context) (looked bool, err error) {
	conn, err := w.connect(ctx)
	if err != nil {
		return false, err
	}
	defer closeConn(conn)
	for full := true; ; full = false {
		if err := w.look(ctx, conn, full); err != nil {
			return looked, err
		}
		looked = true
		if err := w.listen(ctx, conn); err != nil {
			return looked, err
		}
	}
}

// connect returns a connection that listens.
func (w *Watcher) connect(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	conn, err := w.opts.Connect(ctx)
	if err != nil {
		return nil, asked("", "connect to the home shard", err)
	}
	w.connects.Add(1)
	// Before the first look, so that nothing comes in between unheard.
	if _, err := conn.Exec(ctx, "LISTEN "+Channel); err != nil {
		closeConn(conn)
		return nil, asked("", "listen on the home shard", err)
	}
	w.news()
	return conn, nil
}

func (w *Watcher) news() {
	if w.opts.News != nil {
		w.opts.News()
	}
}

// listen waits for a notification or the interval. Its error ends the
// connection.
func (w *Watcher) listen(ctx context.Context, conn *pgx.Conn) error {
	waiting, cancel := context.WithTimeout(ctx, w.opts.Interval)
	defer cancel()
	n, err := conn.WaitForNotification(waiting)
	switch {
	case err == nil:
		w.notifications.Add(1)
		if from, ok := strings.CutPrefix(n.Payload, newsOf(w.opts.Cluster)); ok && from != w.opts.Self {
			w.news()
		}
		return nil
	case ctx.Err() == nil && waiting.Err() != nil && !conn.IsClosed():
		return nil // the interval is over
	}
	return asked("", "listen on the home shard", err)
}

// look asks for the epoch, and reads the map when it is new or full is set.
func (w *Watcher) look(ctx context.Context, conn *pgx.Conn, full bool) error {
	ctx, cancel := context.WithTimeout(ctx, w.opts.Timeout)
	defer cancel()
	w.looks.Add(1)
	began := time.Now()
	current := w.Current()
	if !full && current != nil {
		same, err := w.glance(ctx, conn, current)
		if err != nil {
			return err
		}
		if same {
			w.confirm(began)
			return nil
		}
	}
	m, c, err := Load(ctx, conn)
	if err != nil {
		return err
	}
	if err := w.believe(c, current, m); err != nil {
		return err
	}
	w.ruled(cmp.Or(c.Rules, w.opts.Rules))
	w.publish(current, m)
	w.confirm(began)
	return nil
}

// glance reports whether the home shard still has the epoch of current.
func (w *Watcher) glance(ctx context.Context, conn *pgx.Conn, current *shardmap.Map) (bool, error) {
	var id string
	var version int
	var epoch int64
	err := conn.QueryRow(ctx, "SELECT c.id::pg_catalog.text, c.schema_version, e.epoch FROM shardproxy.cluster c, shardproxy.epoch e", pgx.QueryExecModeExec).
		Scan(&id, &version, &epoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil // reading all says what is missing
	}
	if err != nil {
		return false, asked("", "read the epoch", err)
	}
	return id == w.opts.Cluster && version == Version && epoch == current.Epoch(), nil
}

// believe refuses what cannot be true of the cluster that is watched.
func (w *Watcher) believe(c *Cluster, current, m *shardmap.Map) error {
	switch {
	case c.ID != w.opts.Cluster:
		return &Problem{Shard: c.Shard, Kind: ErrOtherCluster, Reason: fmt.Sprintf("its server belongs to another cluster: %s (database %q), not %s", c.ID, c.Database, w.opts.Cluster),
			Hint: "see that the configuration names the right server"}
	case current == nil || m.Epoch() > current.Epoch():
		return nil
	case m.Epoch() < current.Epoch():
		return ahead(c.Shard, fmt.Sprintf("epoch %d was read before, now there is only %d", current.Epoch(), m.Epoch()))
	case !m.Equal(current) || !m.SameStates(current):
		return ahead(c.Shard, fmt.Sprintf("another map of epoch %d was read before (%s)", m.Epoch(), current.Diff(m)))
	}
	return nil
}

// ruled notes the rules that the cluster has.
func (w *Watcher) ruled(rules string) {
	if rules == *w.rules.Swap(&rules) || w.opts.Ruled == nil {
		return
	}
	w.opts.Ruled(rules)
}

// publish makes a newer map the current one.
func (w *Watcher) publish(current, m *shardmap.Map) {
	if current != nil && m.Epoch() == current.Epoch() {
		return
	}
	w.current.Store(m)
	if w.opts.Changed != nil {
		w.opts.Changed(m)
	}
}
