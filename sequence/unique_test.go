package sequence_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
	"shardproxy/sequence"
	"shardproxy/wire"
)

// uniqueShards makes a cluster.
func uniqueShards(t *testing.T, n int) (dbs []*pgtest.Database, o sequence.Options) {
	t.Helper()
	m := metadata.Options{Database: "shop", Slots: 64}
	for i := range n {
		db := pgtest.Shared(t)
		connect := func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.DSN("postgres")) }
		name := fmt.Sprint("s", i)
		dbs = append(dbs, db)
		m.Shards = append(m.Shards, metadata.Shard{Name: name, Connect: connect})
		o.Shards = append(o.Shards, sequence.Shard{Name: name, Connect: connect})
	}
	if _, err := metadata.Init(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return dbs, o
}

// TestUnique makes millions of ids in several proxies, which come and go, and on several shards at once. All are different,
// and those of one maker grow.
func TestUnique(t *testing.T) {
	dbs, o := uniqueShards(t, 3)
	var mu sync.Mutex
	var all []int64
	add := func(ids []int64) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, ids...)
	}
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for range 3 {
				a := sequence.New(o)
				var mine []int64
				for len(mine) < 150_000 {
					n := 1 + len(mine)%7
					ids, ok := a.TakeUnique(n)
					if !ok {
						var err error
						if ids, err = a.DrawUnique(t.Context(), n); err != nil {
							t.Error(err)
							return
						}
					}
					mine = append(mine, ids...)
				}
				a.Close()
				if !slices.IsSorted(mine) {
					t.Error("the ids of one proxy do not grow")
				}
				add(mine)
			}
		})
	}
	for _, db := range dbs {
		for range 2 {
			work.Go(func() {
				conn := db.Connect("postgres")
				for range 10 {
					rows, _ := conn.Query(t.Context(), "SELECT shardproxy.unique_id() FROM generate_series(1, 4000)")
					ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
					if err != nil || !slices.IsSorted(ids) {
						t.Errorf("%d ids of a shard, %v", len(ids), err)
					}
					add(ids)
				}
			})
		}
	}
	work.Wait()
	slices.Sort(all)
	if n := len(all); n < 2_000_000 || len(slices.Compact(all)) != n {
		t.Errorf("%d ids, %d different", n, len(slices.Compact(all)))
	}
	now := time.Now().UnixMilli() - metadata.UniqueEpoch
	for _, id := range []int64{all[0], all[len(all)/2]} {
		if at := id >> 22; id < 0 || at < now-60_000 || at > now+60_000 {
			t.Errorf("id %d is of %d ms from now", id, at-now)
		}
	}
}

// TestUniqueShard looks at the function's ids: their time, their maker, and what becomes of them when the sequence is behind the clock,
// or ahead.
func TestUniqueShard(t *testing.T) {
	dbs, _ := uniqueShards(t, 2)
	at := func(i int, sql string) (ms int64) {
		var id, now int64
		if err := dbs[i].Connect("postgres").QueryRow(t.Context(), "SELECT "+sql+", (extract(epoch FROM clock_timestamp()) * 1000)::bigint").Scan(&id, &now); err != nil {
			t.Fatal(err)
		}
		if maker := id >> 12 & 1023; maker != int64(metadata.UniqueProxies+i) {
			t.Errorf("maker %d of shard %d", maker, i)
		}
		return id>>22 - (now - metadata.UniqueEpoch)
	}
	for i := range dbs {
		for range 3 {
			if d := at(i, "shardproxy.unique_id()"); d < -1000 || d > 100 {
				t.Errorf("an id of %d ms from now", d)
			}
			dbs[i].Exec("SELECT setval('shardproxy.unique_ids', last_value - 4096 * 5000) FROM shardproxy.unique_ids")
		}
		dbs[i].Exec("SELECT setval('shardproxy.unique_ids', last_value + 4096 * 90000) FROM shardproxy.unique_ids")
		if d := at(i, "shardproxy.unique_id()"); d < 80_000 {
			t.Errorf("the sequence was set back: %d ms from now", d)
		}
		if got := dbs[i].Value("SELECT count(*) FROM pg_locks WHERE relation = 'shardproxy.maker'::regclass AND mode LIKE 'Share%Row%'"); got != "0" {
			t.Error("the lock was kept")
		}
	}
	// Who may connect may call it, and do nothing else.
	conn := dbs[1].Connect("postgres")
	if _, err := conn.Exec(t.Context(), "CREATE ROLE nobody_unique; SET ROLE nobody_unique"); err != nil {
		t.Fatal(err)
	}
	defer dbs[1].Exec("DROP ROLE nobody_unique")
	if _, err := conn.Exec(t.Context(), "SELECT shardproxy.unique_id()"); err != nil {
		t.Error(err)
	}
	for _, sql := range []string{"SELECT nextval('shardproxy.unique_ids')", "SELECT shardproxy.advance_unique_ids(1)", "SELECT * FROM shardproxy.maker"} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s was allowed", sql)
		}
	}
	_, _ = conn.Exec(t.Context(), "RESET ROLE")
}

// TestUniqueAlone cuts a proxy off: what was granted is made, and then nothing.
func TestUniqueAlone(t *testing.T) {
	dbs, o := uniqueShards(t, 1)
	var cut atomic.Bool
	connect := o.Shards[0].Connect
	o.Shards[0].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		if cut.Load() {
			return nil, errors.New("cut off")
		}
		return connect(ctx)
	}
	a := sequence.New(o)
	defer a.Close()
	first, err := a.DrawUnique(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	cut.Store(true)
	dbs[0].Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	left := 0
	for {
		ids, ok := a.TakeUnique(1 << 20)
		if !ok {
			break
		}
		if left += len(ids); ids[0] <= first[0] {
			t.Fatal("it does not grow")
		}
	}
	if left == 0 || left > 10_000<<12 {
		t.Errorf("%d ids were made of 10 s", left)
	}
	_, err = a.DrawUnique(t.Context(), 1)
	var we *wire.Error
	if !errors.As(err, &we) || we.Code != "57P03" {
		t.Errorf("cut off: %v", err)
	}
	// Its number is another's meanwhile: it gets another one.
	dbs[0].Exec("UPDATE shardproxy.proxies SET holder = 'another', until = until + 100000")
	cut.Store(false)
	again, err := a.DrawUnique(t.Context(), 1)
	if err != nil || again[0]>>12&1023 == first[0]>>12&1023 || again[0] <= first[0] {
		t.Errorf("%d, %v; before it %d", again, err, first)
	}
}

// TestUniqueNumbers leaves no number free: a proxy gets one that was not renewed for long, behind what may have been made with it.
func TestUniqueNumbers(t *testing.T) {
	dbs, o := uniqueShards(t, 1)
	dbs[0].Exec("INSERT INTO shardproxy.proxies (number, holder, until) SELECT n, 'x', 1 FROM generate_series(0, 767) n")
	a := sequence.New(o)
	defer a.Close()
	if _, err := a.DrawUnique(t.Context(), 1); err == nil {
		t.Error("there was no number")
	}
	dbs[0].Exec("UPDATE shardproxy.proxies SET renewed_at = now() - interval '1 hour', until = 1000000000000 WHERE number = 5")
	ids, err := a.DrawUnique(t.Context(), 1)
	if err != nil || ids[0]>>12&1023 != 5 || ids[0]>>22 < 1000000000000 {
		t.Errorf("%v, %v", ids, err)
	}
}
