package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// fanRig is two shards with a replica each, and 100 customers.
type fanRig struct {
	*shardedProgram
	extra int // rows that were put on a primary behind the proxy's back
}

func startFanRig(t *testing.T, reads string) *fanRig {
	t.Helper()
	s := startShardsOf(t, 2, pgtest.Options{Replicas: 1, Settings: map[string]string{"max_prepared_transactions": "50"}},
		"    reads: {"+reads+"}", "    failover: {probe_interval: 100ms, recover_after: 1}")
	text := s.text()
	for _, cl := range s.shards {
		text = strings.Replace(text, fmt.Sprintf("[%q]", cl.Primary().Addr()), fmt.Sprintf("[%q, %q]", cl.Primary().Addr(), cl.Replicas()[0].Addr()), 1)
	}
	px := &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}
	px.write(strings.NewReplacer(s.addr, px.addr, adminOf(text), freeAddr(t)).Replace(text))
	px.run()
	s.proxied = px
	must(t, s.connectLoaded(), "INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 100) n")
	for _, cl := range s.shards {
		cl.CatchUp()
	}
	return &fanRig{shardedProgram: s}
}

// fanReads count the customers in each way.
var fanReads = map[string]string{
	"groups": "SELECT count(*) FROM customers", "gather": "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY id) n FROM customers) q",
	"merge": "SELECT id FROM customers", "ordered": "SELECT id FROM customers ORDER BY id", "rank": "SELECT name FROM customers ORDER BY name",
}

// sees returns how many customers a session sees, -1 when that depends on the way.
func (r *fanRig) sees(c *pgx.Conn, before string) int {
	r.t.Helper()
	n := map[string]int{}
	for way, sql := range fanReads {
		var err error
		if n[way], err = customersSeen(c, way, before+sql); err != nil {
			r.t.Fatal(way, err)
		}
	}
	for way := range n {
		if n[way] != n["groups"] {
			return -1
		}
	}
	return n["groups"]
}

func customersSeen(c *pgx.Conn, way, sql string) (n int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	rows, err := c.Query(ctx, sql)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for rows.Next() {
		if way != "groups" && way != "gather" {
			n++
		} else if err := rows.Scan(&n); err != nil {
			return 0, err
		}
	}
	return n, rows.Err()
}

// off is a session that wants no snapshot of one moment.
func (r *fanRig) off() *pgx.Conn {
	c := r.connectLoaded()
	must(r.t, c, "SET shardproxy.snapshot = off")
	return c
}

// behind puts a row on each primary that its replica does not have for now.
func (r *fanRig) behind() {
	for _, cl := range r.shards {
		cl.Replicas()[0].Exec("app", "SELECT pg_wal_replay_pause()")
		for cl.Replicas()[0].Value("app", "SELECT pg_get_wal_replay_pause_state()") != "paused" {
			<-time.After(5 * time.Millisecond)
		}
		r.extra++
		cl.Primary().Exec("app", "INSERT INTO customers VALUES ($1, 'behind')", 1000000+r.extra)
	}
}

func (r *fanRig) resume() {
	for _, cl := range r.shards {
		cl.Replicas()[0].Exec("app", "SELECT pg_wal_replay_resume()")
	}
}

// keyOn returns a key of a shard, from one on that nothing has.
func (r *fanRig) keyOn(t *testing.T, c *pgx.Conn, shard int, from int) int {
	for k := from; ; k++ {
		if strings.HasPrefix(asked(t, c, fmt.Sprintf("EXPLAIN (ROUTE) SELECT * FROM customers WHERE id = %d", k)), fmt.Sprintf("Route: shard s%d\n", shard)) {
			return k
		}
	}
}

// keysOn returns which of the 100 customers are on a shard.
func (r *fanRig) keysOn(t *testing.T, c *pgx.Conn, shard int) (keys []int) {
	for k := r.keyOn(t, c, shard, 1); k <= 100; k = r.keyOn(t, c, shard, k+1) {
		keys = append(keys, k)
	}
	return keys
}

// TestFanOutOnReplicas reads over several shards on replicas that lag, which shows in what is read: where no snapshot of one moment
// is wanted, and by the rules of reads on one shard.
func TestFanOutOnReplicas(t *testing.T) {
	r := startFanRig(t, "max_lag: 1h")
	c, whole := r.off(), r.connectLoaded()
	eventually(t, "both replicas are read", func() bool { r.resume(); return r.sees(c, "") == 100 })
	r.behind()
	expect := func(what string, c *pgx.Conn, before string, want int) {
		t.Helper()
		if got := r.sees(c, before); got != want {
			t.Errorf("%s: %d rows, not %d", what, got, want)
		}
	}
	eventually(t, "both replicas are read", func() bool { return r.sees(c, "") == 100 })
	expect("snapshot of one moment", whole, "", 102)
	expect("a hint for the primary", c, "/* shardproxy: route=primary */ ", 102)
	must(t, c, "SET shardproxy.route = 'primary'")
	expect("a setting for the primary", c, "", 102)
	must(t, c, "RESET shardproxy.route")
	expect("the replicas again", c, "", 100)
	must(t, c, "BEGIN")
	expect("a transaction block", c, "", 102)
	must(t, c, "COMMIT")
	must(t, c, "SET default_transaction_isolation = 'repeatable read'")
	expect("another isolation level of the session", c, "", 100)

	route := "EXPLAIN (ROUTE) SELECT id FROM customers"
	if got := asked(t, c, route); !strings.HasSuffix(got, "\nNode: primary or replica") {
		t.Error(got)
	}
	if got := asked(t, whole, route); !strings.HasSuffix(got, "\nNode: primary (rows of several shards are read)") {
		t.Error(got)
	}

	// What the session has written it sees, and only for that shard the primary is asked.
	writer := r.off()
	must(t, writer, "INSERT INTO customers VALUES ($1, 'own')", r.keyOn(t, writer, 0, 10000))
	expect("written on s0", writer, "", 102)
	must(t, writer, fmt.Sprintf("INSERT INTO customers VALUES (%d, 'own'), (%d, 'own')", r.keyOn(t, writer, 0, 20000), r.keyOn(t, writer, 1, 20000)))
	expect("written on both", writer, "", 105)
	expect("written by another", c, "", 100)
	r.resume()
	eventually(t, "the replicas have it all", func() bool { return r.sees(c, "") == 105 })
}

// TestFanOutLeavesLaggingReplicas: a replica that is too far behind is not read for its shard.
func TestFanOutLeavesLaggingReplicas(t *testing.T) {
	r := startFanRig(t, "max_lag: 500ms")
	c := r.off()
	eventually(t, "both replicas are read", func() bool { return r.countsReads(c) })
	r.behind()
	eventually(t, "the primaries are read", func() bool {
		r.shards[0].Primary().Exec("app", "SELECT pg_logical_emit_message(false, 'tick', '')")
		r.shards[1].Primary().Exec("app", "SELECT pg_logical_emit_message(false, 'tick', '')")
		return r.sees(c, "") == 102
	})
	for range 20 {
		if n := r.sees(c, ""); n != 102 {
			t.Fatal(n, "rows: a replica was read that lags")
		}
	}
	r.resume()
	eventually(t, "the replicas are read again", func() bool { return r.countsReads(c) })
}

// countsReads reports whether a query was counted as a read on replicas.
func (r *fanRig) countsReads(c *pgx.Conn) bool {
	before := r.p.state.Load().databases["app"].proxy.Totals().ReplicaReads
	r.sees(c, "")
	return r.p.state.Load().databases["app"].proxy.Totals().ReplicaReads-before == int64(len(fanReads))
}

// TestFanOutReplicaDies kills a replica, and starts it again, under queries over several shards: none fails, or is wrong.
func TestFanOutReplicaDies(t *testing.T) {
	r := startFanRig(t, "max_lag: 1h")
	stop := make(chan struct{})
	var all sync.WaitGroup
	var reads atomic.Int64
	for i := range 4 {
		c := r.off()
		all.Go(func() {
			for {
				for way, sql := range fanReads {
					select {
					case <-stop:
						return
					default:
					}
					n, err := customersSeen(c, way, sql)
					if err != nil || n != 100 {
						t.Error(i, way, n, err)
						return
					}
					reads.Add(1)
				}
			}
		})
	}
	goOn := func(what string) {
		t.Helper()
		from := reads.Load()
		eventually(t, "reads go on "+what, func() bool { return reads.Load() > from+200 })
	}
	goOn("at first")
	for range 3 {
		victim := r.shards[1].Replicas()[0]
		victim.Kill9()
		goOn("after kill -9")
		victim.Start()
		goOn("with it again")
		r.shards[0].Replicas()[0].Restart()
		goOn("after a restart")
	}
	close(stop)
	all.Wait()
	if got := r.p.state.Load().databases["app"].proxy.Totals().ReplicaReads; got < 500 {
		t.Error(got, "reads were on replicas: nothing is tested")
	}
}

// TestMovedRowsOnReplicas moves slots to a shard whose replica does not replay what comes: neither queries over several shards nor those
// of one key miss rows there, or see any twice, while the move runs and when it has ended.
func TestMovedRowsOnReplicas(t *testing.T) {
	for _, late := range []int{0, 1} {
		t.Run(fmt.Sprint("replica of s", late), func(t *testing.T) {
			r := startFanRig(t, "max_lag: 1h")
			c := r.off()
			eventually(t, "both replicas are read", func() bool { return r.countsReads(c) })
			home := r.shards[0].Primary()
			before := r.keysOn(t, c, 0)
			open := r.connectLoaded() // a transaction on the replica of s0
			must(t, open, "BEGIN READ ONLY")
			must(t, open, "SELECT FROM customers WHERE id = $1", before[0])
			replica := r.shards[late].Replicas()[0]
			replica.Exec("app", "SELECT pg_wal_replay_pause()")
			slots := home.Value("app", "SELECT string_agg(slot::text, ',') FROM shardproxy.slots WHERE shard = 's1' AND slot % 2 = 0")
			if o := call(t, "", "rebalance", "start", "-c", r.path, "--slots", slots, "--to", "s0", "--step-slots", "4096"); o.code != 0 {
				t.Fatalf("%+v", o)
			}
			soon(t, 2*time.Minute, "the move has ended", func() bool { return home.Value("app", "SELECT string_agg(phase, ' ') FROM shardproxy.moves") == "done" })
			eventually(t, "the proxy knows it", func() bool { return r.p.state.Load().databases["app"].cluster.owners().HiddenSlots() == 0 })
			whole := func(what string) {
				t.Helper()
				for range 10 {
					if n := r.sees(c, ""); n != 100 {
						t.Fatal(what, n, "rows")
					}
				}
				for id := 1; id <= 100; id++ {
					var n int
					if err := c.QueryRow(within(t, 20*time.Second), "SELECT count(*) FROM customers WHERE id = $1", id).Scan(&n); err != nil || n != 1 {
						t.Fatal(what, id, n, err)
					}
				}
			}
			whole("with a replica that is late:")
			moved := slices.DeleteFunc(r.keysOn(t, c, 0), func(k int) bool { return slices.Contains(before, k) })
			_, err := open.Exec(within(t, 20*time.Second), "SELECT FROM customers WHERE id = $1", moved[0])
			if pe := (*pgconn.PgError)(nil); !errors.As(err, &pe) || pe.Code != "40001" {
				t.Error("a transaction that began on the replica before the move:", err)
			}
			must(t, open, "ROLLBACK")
			replica.Exec("app", "SELECT pg_wal_replay_resume()")
			whole("with one that comes up:")
			eventually(t, "both replicas are read", func() bool { return r.countsReads(c) && r.readsOnBoth(c) })
			whole("with both replicas:")
		})
	}
}

// readsOnBoth reports whether both replicas are read: while they do not replay, a row that their primaries have got is not seen.
func (r *fanRig) readsOnBoth(c *pgx.Conn) bool {
	r.behind()
	n := r.sees(c, "")
	for _, cl := range r.shards {
		cl.Primary().Exec("app", "DELETE FROM customers WHERE id >= 1000000")
	}
	r.resume()
	for _, cl := range r.shards {
		cl.CatchUp()
	}
	return n == 100
}
