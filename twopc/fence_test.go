package twopc

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/metadata"
)

// fence returns one of the fleet's.
func (f *fleet) fence(change func(*FenceOptions)) *Fence {
	f.t.Helper()
	o := FenceOptions{Database: "shop", Cluster: f.cluster, Logger: slog.New(slog.DiscardHandler)}
	for _, s := range f.shards {
		o.Shards = append(o.Shards, Shard{Name: s.name, Connect: s.control()})
	}
	if change != nil {
		change(&o)
	}
	fence, err := NewFence(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(fence.Close)
	return fence
}

// bank is a table of one account on each shard.
func (f *fleet) bank() {
	for i := range f.shards {
		f.do(i, "CREATE TABLE account (balance int NOT NULL); INSERT INTO account VALUES (0); GRANT ALL ON account TO buyer")
	}
}

// transfers moves money between shards until ctx ends.
func (f *fleet) transfers(ctx context.Context, tellers *sync.WaitGroup, done *atomic.Int64) {
	clients := make([]*client, len(f.shards))
	for i := range clients {
		clients[i] = f.client(i)
	}
	tellers.Go(func() {
		for ctx.Err() == nil {
			shards := rand.Perm(len(clients))
			if len(shards) > 2 && rand.IntN(2) == 0 {
				shards = shards[:2]
			}
			slices.Sort(shards) // tellers wait for each other in one direction
			var parts []Part
			for n, i := range shards {
				amount := 1
				if n == 0 {
					amount = 1 - len(shards)
				}
				if err := clients[i].Exec(context.Background(), fmt.Sprintf("BEGIN; SET LOCAL lock_timeout = '300ms'; UPDATE account SET balance = balance + %d", amount)); err != nil {
					parts = append(parts, Part{f.shards[i].name, clients[i]})
					break // for the row of another shard is waited for: the rest rolls back
				}
				parts = append(parts, Part{f.shards[i].name, clients[i]})
			}
			if len(parts) < len(shards) || !f.healthy(parts) {
				for _, p := range parts {
					_ = p.Conn.Exec(context.Background(), "ROLLBACK")
				}
				continue
			}
			rand.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			outcome, err := Commit(context.Background(), Options{Cluster: f.cluster, Logger: slog.New(slog.DiscardHandler)}, parts)
			if outcome == Committed {
				done.Add(1)
			} else if err != nil {
				for _, p := range parts {
					_ = p.Conn.Exec(context.Background(), "ROLLBACK")
				}
			}
		}
	})
}

// healthy reports whether no part has failed.
func (f *fleet) healthy(parts []Part) bool {
	for _, p := range parts {
		if p.Conn.Exec(context.Background(), "SELECT 1") != nil {
			return false
		}
	}
	return true
}

// total reads all accounts, in snapshots that begin opens.
func total(ctx context.Context, conns []*pgx.Conn, window func(begin func() error) error) (sum int, err error) {
	err = window(func() error {
		var all sync.WaitGroup
		errs := make([]error, len(conns))
		for i, c := range conns {
			all.Go(func() {
				if _, errs[i] = c.PgConn().Exec(ctx, fmt.Sprintf("SELECT pg_sleep(%f)", rand.Float64()/500)).ReadAll(); errs[i] != nil {
					return
				}
				_, errs[i] = c.PgConn().Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").ReadAll()
			})
		}
		all.Wait()
		for _, e := range errs {
			if e != nil {
				return e
			}
		}
		return nil
	})
	for _, c := range conns {
		var one int
		if e := c.QueryRow(ctx, "SELECT balance FROM account", pgx.QueryExecModeExec).Scan(&one); e != nil && err == nil {
			err = e
		}
		sum += one
		if _, e := c.Exec(ctx, "ROLLBACK"); e != nil && err == nil {
			err = e
		}
	}
	return sum, err
}

// readers are connections for one reader.
func (f *fleet) readers() (conns []*pgx.Conn) {
	for i, s := range f.shards {
		c, err := s.control()(context.Background())
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { _ = c.Close(context.Background()) })
		if _, err := c.Exec(context.Background(), "SET ROLE NONE"); err != nil {
			f.t.Fatal(i, err)
		}
		conns = append(conns, c)
	}
	return conns
}

// TestFence reads totals over three shards under transfers between two of them and between all.
// Without the fence they are wrong now and then, with it never: of two processes' fences.
func TestFence(t *testing.T) {
	f := newFleet(t, 3)
	f.bank()
	ctx, stop := context.WithCancel(t.Context())
	var tellers sync.WaitGroup
	defer func() { // also when the test fails: the clients are closed behind it
		stop()
		tellers.Wait()
	}()
	var done atomic.Int64
	for range 4 {
		f.transfers(ctx, &tellers, &done)
	}
	plain := f.readers()
	wrong, deadline := 0, time.Now().Add(patience)
	for wrong == 0 {
		sum, err := total(ctx, plain, func(begin func() error) error { return begin() })
		if err != nil || time.Now().After(deadline) {
			t.Fatal("no total was wrong without the fence: the test shows nothing", err)
		}
		if sum != 0 {
			wrong++
		}
	}
	fences := []*Fence{f.fence(nil), f.fence(nil)}
	var reads sync.WaitGroup
	var right atomic.Int64
	before := done.Load()
	for i := range 4 {
		conns := f.readers()
		reads.Go(func() {
			for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
				sum, err := total(ctx, conns, func(begin func() error) error {
					w, err := fences[i%2].Enter(ctx, []int{0, 1, 2})
					if err != nil {
						return err
					}
					err = begin()
					if left := w.Leave(); err == nil {
						err = left
					}
					return err
				})
				switch {
				case err != nil:
					t.Error(err)
					return
				case sum != 0:
					t.Errorf("a total of %d", sum)
					return
				}
				right.Add(1)
			}
		})
	}
	reads.Wait()
	t.Logf("%d totals, all right, under %d transfers", right.Load(), done.Load()-before)
	if right.Load() < 20 || done.Load() == before {
		t.Error("readers or tellers did not come on")
	}
}

// TestFenceDeadCoordinator: a transaction that is decided and not finished keeps windows shut until
// recovery has finished it.
func TestFenceDeadCoordinator(t *testing.T) {
	f := newFleet(t, 2)
	parts, clients := f.begin(1)
	clients[1].before = func(sql string) error {
		if stepOf(sql) == "commit prepared" {
			clients[1].cut()
			return io.ErrUnexpectedEOF
		}
		return nil
	}
	if outcome, _ := f.commit(t.Context(), nil, parts); outcome != Committed {
		t.Fatal(outcome)
	}
	var waited atomic.Int64
	fence := f.fence(func(o *FenceOptions) { o.Wait = 200 * time.Millisecond; o.Waited = func() { waited.Add(1) } })
	if _, err := fence.Enter(t.Context(), []int{0, 1}); err == nil || waited.Load() == 0 {
		t.Fatalf("a window over half a transaction: %v, %d waits", err, waited.Load())
	}
	if w, err := fence.Enter(t.Context(), []int{0}); err != nil {
		t.Fatal(err) // its part there is whole
	} else if err := w.Leave(); err != nil {
		t.Fatal(err)
	}
	f.resolver(f.options())
	eventually(t, "a window", func() bool {
		w, err := fence.Enter(t.Context(), []int{0, 1})
		return err == nil && w.Leave() == nil
	})
	if on := f.where(1); on != "11" {
		t.Error(on)
	}
}

// TestFenceLost: a window whose lock was lost, or that was open for too long, counts for nothing.
func TestFenceLost(t *testing.T) {
	f := newFleet(t, 2)
	fence := f.fence(func(o *FenceOptions) { o.Window = 300 * time.Millisecond })
	w, err := fence.Enter(t.Context(), []int{0, 1})
	if err != nil {
		t.Fatal(err)
	}
	f.do(1, fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %d AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", metadata.FenceClass))
	if err := w.Leave(); err == nil {
		t.Error("the lock was lost, and nobody was told")
	}
	if w, err = fence.Enter(t.Context(), []int{0, 1}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the window is shut", func() bool {
		return f.value(0, fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %d AND database = (SELECT oid FROM pg_database WHERE datname = current_database())", metadata.FenceClass)) == "0"
	})
	if err := w.Leave(); err == nil {
		t.Error("a window was open for longer than it may")
	}
	if w, err = fence.Enter(t.Context(), []int{1}); err != nil {
		t.Fatal(err)
	}
	if err := w.Leave(); err != nil {
		t.Error(err)
	}
}

// TestFenceUnseen: what was committed behind a snapshot is known.
func TestFenceUnseen(t *testing.T) {
	f := newFleet(t, 2)
	fence := f.fence(nil)
	snapshots := make([]string, 2)
	for i := range snapshots {
		snapshots[i] = f.value(i, "SELECT pg_current_snapshot()")
	}
	unseen := func(shard int) bool {
		t.Helper()
		w, err := fence.Enter(t.Context(), []int{0, 1})
		if err != nil {
			t.Fatal(err)
		}
		is, err := w.Unseen(t.Context(), shard, snapshots[shard])
		if left := w.Leave(); err != nil || left != nil {
			t.Fatal(err, left)
		}
		return is
	}
	f.do(0, "INSERT INTO t VALUES (100)")
	if unseen(0) || unseen(1) {
		t.Error("a transaction of one shard is none over several")
	}
	parts, _ := f.begin(1)
	if outcome, err := f.commit(t.Context(), nil, parts); outcome != Committed {
		t.Fatal(err)
	}
	if !unseen(0) || !unseen(1) {
		t.Error("nobody knows of the transaction that came behind the snapshots")
	}
	for i := range snapshots {
		snapshots[i] = f.value(i, "SELECT pg_current_snapshot()")
	}
	if unseen(0) || unseen(1) {
		t.Error("the snapshots see the transaction")
	}
}
