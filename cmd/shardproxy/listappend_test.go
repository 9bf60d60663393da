package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/internal/listappend"
	"shardproxy/internal/pgtest"
)

// appending is a workload of transactions that append to lists and read them.
type appending struct {
	t       testing.TB
	dsn     func(client int) string
	keys    [][]int64 // by shard
	value   *atomic.Int64
	mode    string   // of transactions
	set     []string // what each client sets
	lonely  bool     // some transactions write on one shard only
	clients int
	seed    uint64

	mu sync.Mutex
	// whole are the transactions; statements the same in pieces: each statement that reads
	// several keys before anything was written is a transaction of its own there, and writers
	// have only written.
	whole, statements listappend.History
	states            map[string]int // how they ended
	slowest           time.Duration  // statement
}

// run has the clients at work until ctx ends.
func (a *appending) run(ctx context.Context) {
	var group sync.WaitGroup
	for i := range a.clients {
		w := &appender{appending: a, r: rand.New(rand.NewPCG(a.seed, uint64(i))), txClient: txClient{t: a.t, dsn: a.dsn(i), id: i, set: a.set}}
		group.Go(func() {
			defer w.drop()
			for w.connected(ctx) {
				w.one()
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			a.slowest = max(a.slowest, time.Duration(w.longest.Load()))
		})
	}
	group.Wait()
}

// hasDone says whether so many transactions were committed.
func (a *appending) hasDone(n int) func() bool {
	return func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.states["ok"] >= n
	}
}

// appender is one client.
type appender struct {
	*appending
	txClient
	r *rand.Rand

	txn   listappend.Txn
	reads listappend.History // statements of the transaction that read several keys
}

var clockZero = time.Now()

// now is a time for histories.
func now() int64 { return int64(time.Since(clockZero)) + 1 }

// someKeys returns different keys of those that are in use now, which lie on at least so
// many shards.
func (w *appender) someKeys(n, shards int) []int64 {
	era := int(w.value.Load()) / 160
	order := w.r.Perm(len(w.keys))
	for i := shards; i < n; i++ {
		order = append(order[:i], w.r.IntN(len(w.keys)))
	}
	// Who locks by shard and key waits for nobody in a circle.
	slices.Sort(order[:n])
	var all []int64
	for _, s := range order[:n] {
		of := w.keys[s]
		if k := of[(era*2+w.r.IntN(3))%len(of)]; !slices.Contains(all, k) {
			all = append(all, k)
		}
	}
	return all
}

// one runs one transaction and writes down what was seen.
func (w *appender) one() {
	w.txn, w.reads = listappend.Txn{Process: w.id, Begin: now()}, nil
	var err error
	switch n := w.r.IntN(20); {
	case n < 6 && w.mode == "":
		w.txn.Outcome, err = w.readAlone()
	case n < 7:
		w.txn.Outcome, err = w.appendAlone()
	case n < 9 && w.lonely:
		w.txn.Outcome, err = w.lonesome()
	default:
		w.txn.Outcome, err = w.transaction(w.mode, func() error { return w.steps(n < 13) })
	}
	w.txn.End = now()
	w.mu.Lock()
	defer w.mu.Unlock()
	state := w.txn.Outcome.String()
	if err != nil {
		if state += " " + sqlState(err); sqlState(err) == "" {
			state += "lost"
		}
	}
	w.states[state]++
	w.whole = append(w.whole, w.txn)
	w.statements = append(w.statements, w.reads...)
	only := w.txn
	only.Ops = slices.DeleteFunc(slices.Clone(w.txn.Ops), func(o listappend.Op) bool { return !o.Append })
	if len(only.Ops) > 0 {
		w.statements = append(w.statements, only)
	}
}

// steps are those of a transaction that reads, and writes on several shards unless it is
// only to read.
func (w *appender) steps(only bool) error {
	for range w.r.IntN(3) {
		if err := w.readMany(); err != nil {
			return err
		}
	}
	if only {
		for _, k := range w.someKeys(2+w.r.IntN(3), 2) {
			if err := w.readOne(k); err != nil {
				return err
			}
		}
		return w.readMany()
	}
	keys := w.someKeys(2+w.r.IntN(2), 2)
	if w.r.IntN(20) == 0 {
		w.r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	}
	if w.r.IntN(4) == 0 {
		err := w.appendMany(keys, func(sql string, args ...any) error {
			_, _, err := w.query(sql, args...)
			return err
		})
		if err != nil || w.r.IntN(2) == 0 {
			return err
		}
	}
	for _, k := range keys {
		if w.r.IntN(3) == 0 {
			if err := w.readOne(k); err != nil {
				return err
			}
		}
		if err := w.appendOne(k); err != nil {
			return err
		}
		if w.r.IntN(6) == 0 {
			if err := w.readOne(k); err != nil {
				return err
			}
		}
	}
	return nil
}

// lonesome reads a key of one shard, and appends to one of another, by a transaction
// that so writes on one shard.
func (w *appender) lonesome() (listappend.Outcome, error) {
	keys := w.someKeys(2, 2)
	return w.transaction(w.mode, func() error {
		if err := w.readOne(keys[0]); err != nil {
			return err
		}
		return w.appendOne(keys[len(keys)-1])
	})
}

// appendOne appends to one list.
func (w *appender) appendOne(k int64) error {
	v := w.value.Add(1)
	w.txn.Ops = append(w.txn.Ops, listappend.Append(k, v))
	rows, _, err := w.query("UPDATE lists SET vals = vals || $1::bigint WHERE k = $2 RETURNING k", v, k)
	if err == nil && len(rows) != 1 {
		w.appending.t.Errorf("an UPDATE of key %d finds %d rows", k, len(rows))
	}
	return err
}

// appendMany appends one value to several lists, by one statement that run runs.
func (w *appender) appendMany(keys []int64, run func(sql string, args ...any) error) error {
	v := w.value.Add(1)
	for _, k := range keys {
		w.txn.Ops = append(w.txn.Ops, listappend.Append(k, v))
	}
	return run("UPDATE lists SET vals = vals || $1::bigint WHERE k = ANY($2)", v, keys)
}

// appendAlone does so outside of transactions.
func (w *appender) appendAlone() (o listappend.Outcome, err error) {
	err = w.appendMany(w.someKeys(2, 2), func(sql string, args ...any) error {
		_, o, err = w.alone(sql, args...)
		return err
	})
	return o, err
}

// readOne reads one list.
func (w *appender) readOne(k int64) error {
	rows, _, err := w.query("SELECT k, vals FROM lists WHERE k = $1", k)
	if err == nil {
		w.note([]int64{k}, rows)
	}
	return err
}

// readMany reads lists of several shards by one statement, in one of the ways in which
// such statements are answered.
func (w *appender) readMany() error {
	keys := w.someKeys(2+w.r.IntN(4), 2)
	text := strings.Trim(strings.ReplaceAll(fmt.Sprint(keys), " ", ", "), "[]")
	sql := [...]string{
		"SELECT k, vals FROM lists WHERE k IN (" + text + ")",
		"SELECT k, vals FROM lists WHERE k IN (" + text + ") ORDER BY k DESC",
		"SELECT k, vals, count(*) OVER () FROM lists WHERE k IN (" + text + ")",
		"SELECT k, max(vals) FROM lists WHERE k IN (" + text + ") GROUP BY k",
	}[w.r.IntN(4)]
	before := now()
	rows, _, err := w.query(sql)
	if err != nil {
		return err
	}
	first := len(w.txn.Ops)
	written := slices.ContainsFunc(w.txn.Ops, func(o listappend.Op) bool { return o.Append })
	w.note(keys, rows)
	if !written {
		if w.mode != "" {
			before = w.txn.Begin // when its snapshot may have been taken
		}
		// A client of its own: it overlaps with the transaction that it is a part of.
		client := -int(w.value.Add(1))
		w.reads = append(w.reads, listappend.Txn{Process: client, Begin: before, End: now(), Ops: slices.Clone(w.txn.Ops[first:])})
	}
	return nil
}

// readAlone does so outside of transactions.
func (w *appender) readAlone() (listappend.Outcome, error) {
	if err := w.readMany(); err != nil {
		return listappend.Failed, err // nothing was written
	}
	return listappend.OK, nil
}

// note writes down what was read.
func (w *appender) note(keys []int64, rows [][]any) {
	if len(rows) != len(keys) {
		w.appending.t.Errorf("of the lists %v there are %d", keys, len(rows))
	}
	for _, row := range rows {
		var list []int64
		for _, v := range row[1].([]any) {
			list = append(list, v.(int64))
		}
		w.txn.Ops = append(w.txn.Ops, listappend.Read(row[0].(int64), list...))
	}
}

// last adds what is on the servers in the end to both histories.
func (a *appending) last(nodes ...*pgtest.Node) {
	t := listappend.Txn{Process: -1, Begin: now()}
	used := map[int64]bool{}
	for i := range a.whole {
		for _, op := range a.whole[i].Ops {
			used[op.Key] = true
		}
	}
	for _, n := range nodes {
		c := pgtest.Connect(a.t, n.DSN("app", "app"))
		rows, err := c.Query(within(a.t, time.Minute), "SELECT k, vals FROM lists")
		if err != nil {
			a.t.Fatal(err)
		}
		for rows.Next() {
			var k int64
			var list []int64
			if err := rows.Scan(&k, &list); err != nil {
				a.t.Fatal(err)
			}
			if used[k] || len(list) > 0 {
				t.Ops = append(t.Ops, listappend.Read(k, list...))
			}
		}
		if err := rows.Err(); err != nil {
			a.t.Fatal(err)
		}
	}
	t.End = now()
	a.whole, a.statements = append(a.whole, t), append(a.statements, t)
}

// check judges a history and says what it found.
func (a *appending) check(what string, h listappend.History) *listappend.Report {
	a.t.Helper()
	began := time.Now()
	r, err := listappend.Check(h, listappend.Options{Process: true, Realtime: true, Limit: 3})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Logf("%s: %d transactions, %d committed, %d edges, judged in %v: %s", what, len(h), r.Committed, r.Edges, time.Since(began).Round(time.Millisecond), r.Summary())
	return r
}

// none fails the test when a report of a history has anomalies that a level forbids.
func (a *appending) none(what string, h listappend.History, r *listappend.Report, l listappend.Level, orders ...listappend.Order) {
	a.t.Helper()
	for _, bad := range r.Forbidden(l, orders...) {
		a.t.Errorf("%s: %v", what, bad)
		for _, i := range bad.Txns {
			if t := h[i]; len(t.Ops) < 50 {
				a.t.Logf("T%d: client %d, %v to %v, %v: %+v", i, t.Process, time.Duration(t.Begin), time.Duration(t.End), t.Outcome, t.Ops)
			}
		}
	}
}

// ends returns how the transactions ended, in one line.
func (a *appending) ends() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(a.states)) {
		all = append(all, fmt.Sprintf("%s %d", k, a.states[k]))
	}
	return strings.Join(all, ", ")
}

// txSeconds is how long histories are made: SHARDPROXY_TEST_SOAK seconds.
func txSeconds(t testing.TB) time.Duration {
	return time.Duration(testNumber(t, "SHARDPROXY_TEST_SOAK", 4)) * time.Second
}

const repeatable = "ISOLATION LEVEL REPEATABLE READ"

// TestListAppendControl makes histories on one PostgreSQL: the judge finds nothing there.
func TestListAppendControl(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"", repeatable} {
		t.Run("mode "+mode, func(t *testing.T) {
			cl := pgtest.Start(t, pgtest.Options{})
			node := cl.Primary()
			must(t, pgtest.Connect(t, node.DSN("app", "app")), txStageSchema+"INSERT INTO lists SELECT k, '{}' FROM generate_series(1, 400) k")
			a := &appending{t: t, dsn: func(int) string { return node.DSN("app", "app") }, mode: mode, lonely: true, clients: 8, value: &atomic.Int64{},
				states: map[string]int{}, seed: uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1))}
			for k := range int64(listKeys) {
				if k%100 == 0 {
					a.keys = append(a.keys, nil)
				}
				a.keys[k/100] = append(a.keys[k/100], k+1)
			}
			ctx, cancel := lasting(t, txSeconds(t), 0, a.hasDone(200))
			defer cancel()
			a.run(ctx)
			a.last(node)
			t.Log(a.ends())
			level := listappend.ReadCommitted
			if mode != "" {
				level = listappend.SnapshotIsolation
			}
			a.none("transactions", a.whole, a.check("transactions", a.whole), level, listappend.Process, listappend.Realtime)
			a.none("statements", a.statements, a.check("statements", a.statements), listappend.SnapshotIsolation, listappend.Process, listappend.Realtime)
		})
	}
}

// TestListAppend makes histories on four shards through two proxies, whose connections
// are cut, and one of which is killed.
func TestListAppend(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 4)
	for _, mode := range []string{"", repeatable} {
		t.Run("mode "+mode, func(t *testing.T) {
			for _, lonely := range []bool{false, true} {
				t.Run(fmt.Sprintf("lonely %t", lonely), func(t *testing.T) { s.appends(t, mode, lonely) })
			}
		})
	}
}

// newAppending empties the lists for a workload.
func (s *txStage) newAppending(t testing.TB, mode string) *appending {
	t.Helper()
	for _, n := range s.nodes() {
		n.Exec("app", "UPDATE lists SET vals = '{}' WHERE vals <> '{}'")
	}
	return &appending{t: t, dsn: s.dsn, keys: s.keys, mode: mode, clients: 8, value: &s.value, states: map[string]int{},
		seed: uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1))}
}

// appends makes one history and judges it.
func (s *txStage) appends(t *testing.T, mode string, lonely bool) {
	a := s.newAppending(t, mode)
	a.lonely = lonely
	ctx, cancel := lasting(t, txSeconds(t), 0, a.hasDone(100))
	defer cancel()
	done := make(chan struct{})
	go func() { a.run(ctx); close(done) }()
	harmed := s.harm(ctx, rand.New(rand.NewPCG(a.seed, 99)), 1, cutWires(), cutWires(), cutWires(), killProxy())
	<-done
	took := s.settled()
	a.last(s.nodes()...)
	t.Logf("%s; settled after %v, the longest statement took %v", harmed, took.Round(time.Millisecond), a.slowest.Round(time.Millisecond))
	t.Log(a.ends())
	// A statement, or a transaction of REPEATABLE READ, sees each transaction that writes on
	// several shards wholly or not at all. Where all who write do so, that is one snapshot of
	// all shards; one that writes on a single shard may be seen later than what came after it.
	moment, each := listappend.SnapshotIsolation, listappend.ReadCommitted
	if lonely {
		moment = listappend.ReadAtomic
	}
	if mode != "" {
		each = moment
	}
	whole, statements := a.check("transactions", a.whole), a.check("statements", a.statements)
	for _, h := range []struct {
		name   string
		h      listappend.History
		r      *listappend.Report
		moment listappend.Level
	}{{"transactions", a.whole, whole, each}, {"statements", a.statements, statements, moment}} {
		a.none(h.name, h.h, h.r, h.moment)
		for _, bad := range h.r.Forbidden(listappend.ReadCommitted, listappend.Process, listappend.Realtime) {
			if bad.Order != listappend.Data {
				t.Errorf("%s: %v", h.name, bad)
			}
		}
	}
	if n := whole.Count(listappend.LostUpdate, listappend.Data); mode != "" && n > 0 {
		t.Errorf("%d lost updates, which each shard's REPEATABLE READ forbids", n) // whatever the others' snapshots are
	}
}
