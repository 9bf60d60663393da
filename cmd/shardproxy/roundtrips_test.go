package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// farWire is a way to a server on which everything takes a while, however much is under way.
type farWire struct {
	target string
	delay  *atomic.Int64 // nanoseconds, from client to server
	listen net.Listener
	group  sync.WaitGroup
	mu     sync.Mutex
	conns  []net.Conn
}

func startFarWire(t *testing.T, target string, delay *atomic.Int64) *farWire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &farWire{target: target, delay: delay, listen: l}
	w.group.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.mu.Lock()
		for _, c := range w.conns {
			_ = c.Close()
		}
		w.mu.Unlock()
		w.group.Wait()
	})
	return w
}

func (w *farWire) accept() {
	for {
		client, err := w.listen.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.conns = append(w.conns, client, server)
		w.mu.Unlock()
		w.group.Go(func() { w.carry(server, client) })
		w.group.Go(func() {
			_, _ = io.Copy(client, server)
			_ = client.Close()
		})
	}
}

// piece is what was read at once, and when it is to arrive.
type piece struct {
	bytes []byte
	due   time.Time
}

// carry delivers each piece its delay after it was sent, whatever is still under way before it.
func (w *farWire) carry(to, from net.Conn) {
	pieces := make(chan piece, 1000)
	w.group.Go(func() {
		defer to.Close()
		for p := range pieces {
			<-time.After(time.Until(p.due))
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close()
			}
		}
	})
	defer close(pieces)
	for {
		b := make([]byte, 32<<10)
		n, err := from.Read(b)
		if n > 0 {
			pieces <- piece{b[:n], time.Now().Add(time.Duration(w.delay.Load()))}
		}
		if err != nil {
			return
		}
	}
}

// farStage is shards that are far away.
type farStage struct {
	*shardedProgram
	delay atomic.Int64
	on    [][]int // accounts, by shard
}

const farAway = 100 * time.Millisecond

func startFarStage(t *testing.T, shards int, more ...string) *farStage {
	t.Helper()
	f := &farStage{}
	f.shardedProgram = startShardsBehind(t, shards, pgtest.Options{}, func(addr string) string {
		return startFarWire(t, addr, &f.delay).listen.Addr().String()
	}, append([]string{accountsTable}, more...)...)
	c := f.connectLoaded()
	must(t, c, "CREATE TABLE accounts (id bigint PRIMARY KEY, balance int NOT NULL)")
	must(t, c, "INSERT INTO accounts VALUES (0, 100)"+values(1, accounts-1))
	for _, cl := range f.shards {
		var ids []int
		for _, row := range cl.Primary().Rows("app", "SELECT id FROM accounts ORDER BY id") {
			var id int
			_, _ = fmt.Sscan(row[0], &id)
			ids = append(ids, id)
		}
		f.on = append(f.on, ids)
	}
	return f
}

// values are rows of accounts with the numbers from first to last.
func values(first, last int) string {
	var b strings.Builder
	for id := first; id <= last; id++ {
		fmt.Fprintf(&b, ", (%d, 100)", id)
	}
	return b.String()
}

// trips returns how many round trips to servers, one after the other, f takes: the least of
// several tries, for a loaded machine only ever takes longer.
func (f *farStage) trips(want int, before, run, after func() error) (got int, err error) {
	got = 1000
	for range 5 {
		if err := before(); err != nil {
			return 0, err
		}
		f.delay.Store(int64(farAway))
		begun := time.Now()
		err := run()
		took := time.Since(begun)
		f.delay.Store(0)
		if err != nil {
			return 0, err
		}
		if err := after(); err != nil {
			return 0, err
		}
		if got = min(got, int(took/farAway)); got <= want {
			break
		}
	}
	return got, nil
}

// farStep is a step of which the round trips are counted.
type farStep struct {
	what   string
	before []string // what was sent before it, each on its own
	sql    []string // what is counted; several are sent as one pipeline
	want   int
}

// steps are the rows of the table in docs/design/twopc.md. a, b and c are accounts on three
// shards.
func (f *farStage) steps() []farStep {
	update := func(shard int) string {
		return fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = %d", f.on[shard][0])
	}
	read := func(shard int) string {
		return fmt.Sprintf("SELECT balance FROM accounts WHERE id = %d", f.on[shard][0])
	}
	a, b, c := update(0), update(1), update(2)
	return []farStep{
		{"a statement on one shard", nil, []string{a}, 1},
		{"BEGIN", nil, []string{"BEGIN"}, 0},
		{"the first statement of a transaction", []string{"BEGIN"}, []string{a}, 1},
		{"the second on the same shard", []string{"BEGIN", a}, []string{a}, 1},
		{"the first on another shard", []string{"BEGIN", a}, []string{b}, 2},
		{"COMMIT of one shard", []string{"BEGIN", a, a}, []string{"COMMIT"}, 1},
		{"COMMIT of two shards that were read", []string{"BEGIN", read(0), read(1)}, []string{"COMMIT"}, 1},
		{"COMMIT of one that was written and one that was read", []string{"BEGIN", a, read(1)}, []string{"COMMIT"}, 2},
		{"COMMIT of two that were written", []string{"BEGIN", a, b}, []string{"COMMIT"}, 3},
		{"COMMIT of three that were written", []string{"BEGIN", a, b, c}, []string{"COMMIT"}, 4},
		{"ROLLBACK of three that were written", []string{"BEGIN", a, b, c}, []string{"ROLLBACK"}, 1},
		{"SAVEPOINT on three", []string{"BEGIN", a, b, c}, []string{"SAVEPOINT x"}, 2},
		{"two statements of one shard in one pipeline", []string{"BEGIN", a, b}, []string{a, a}, 1},
		{"two statements of two shards in one pipeline", []string{"BEGIN", a, b}, []string{a, b}, 1},
		{"an UPDATE of three shards in a transaction that is there", []string{"BEGIN", a, b, c}, []string{"UPDATE accounts SET balance = balance"}, 3},
		{"an UPDATE of three shards on its own, with its commit", nil, []string{"UPDATE accounts SET balance = balance"}, 8},
		{"a query of three shards", []string{"SET shardproxy.snapshot = statement"}, []string{"SELECT id FROM accounts"}, 5},
		{"the same, shardproxy.snapshot off", []string{"SET shardproxy.snapshot = off"}, []string{"SELECT id FROM accounts"}, 3},
		{"a query that a server finishes, off", nil, []string{"SELECT sum(balance) FROM accounts"}, 4},
		{"a query of three shards in a transaction that is there, off", []string{"BEGIN", a, b, c}, []string{"SELECT id FROM accounts"}, 1},
	}
}

// TestRoundTrips counts on servers that are far away what transactions over several shards cost.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	f := startFarStage(t, 3)
	c := f.connect()
	run := func(sql []string) error {
		if len(sql) == 1 {
			_, err := c.Exec(within(t, time.Minute), sql[0], pgx.QueryExecModeSimpleProtocol)
			return err
		}
		var batch pgx.Batch
		for _, one := range sql {
			batch.Queue(one)
		}
		return c.SendBatch(within(t, time.Minute), &batch).Close()
	}
	var table strings.Builder
	for _, step := range f.steps() {
		before := func() error {
			for _, sql := range step.before {
				if err := run([]string{sql}); err != nil {
					return err
				}
			}
			return nil
		}
		after := func() error {
			if c.PgConn().TxStatus() == 'I' {
				return nil
			}
			return run([]string{"ROLLBACK"})
		}
		// What is asked for once, such as plans, is no part of it.
		if err := before(); err != nil {
			t.Fatal(step.what, err)
		}
		if err := run(step.sql); err != nil {
			t.Fatal(step.what, err)
		}
		if err := after(); err != nil {
			t.Fatal(step.what, err)
		}
		got, err := f.trips(step.want, before, func() error { return run(step.sql) }, after)
		if err != nil || got != step.want {
			t.Errorf("%s: %d round trips, want %d: %v", step.what, got, step.want, err)
		}
		fmt.Fprintf(&table, "| %s | %d |\n", step.what, got)
	}
	t.Log("\n" + table.String())
}
