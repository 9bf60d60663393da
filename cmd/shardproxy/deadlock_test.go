package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// deadlockRig is two proxies before some shards, whose rows are known.
type deadlockRig struct {
	*shardedProgram
	other *proxied
	// keys are customers, by their shard.
	keys [][]int64
}

// deadlockTimeout is that of the servers.
const deadlockTimeout = time.Second

// deadlockBound is how soon a deadlock is to be ended.
const deadlockBound = 2*deadlockTimeout + 300*time.Millisecond

func startDeadlocks(t *testing.T, shards int, o pgtest.Options) *deadlockRig {
	t.Helper()
	if o.Settings == nil {
		o.Settings = map[string]string{}
	}
	o.Settings["max_connections"] = "250"
	r := &deadlockRig{shardedProgram: startShardsOf(t, shards, o, "      checks: {key: id}", "    pool: {size: 100}")}
	for _, cl := range r.shards {
		must(t, pgtest.Connect(t, cl.Primary().DSN("app", "app")),
			"CREATE TABLE checks (id bigint, n int, late int, PRIMARY KEY (id, n), UNIQUE (id, late) DEFERRABLE INITIALLY DEFERRED)")
	}
	c := r.connectLoaded()
	r.other = r.beside()
	r.other.run()
	(&shardedProgram{proxied: r.other}).connectLoaded()
	var values []string
	for i := range 400 {
		values = append(values, fmt.Sprintf("(%d, 'x')", i+1))
	}
	must(t, c, "INSERT INTO customers VALUES "+strings.Join(values, ", "))
	r.know()
	eventually(t, "checks are known", func() bool {
		for _, px := range []*proxied{r.proxied, r.other} {
			if _, err := px.connect().Exec(context.Background(), "SELECT FROM checks WHERE id = 1"); err != nil {
				return false
			}
		}
		return true
	})
	return r
}

// know finds out where the customers are.
func (r *deadlockRig) know() {
	r.keys = nil
	for _, cl := range r.shards {
		rows, err := pgtest.Connect(r.t, cl.Primary().DSN("app", "app")).Query(within(r.t, 10*time.Second), "SELECT id FROM customers ORDER BY id")
		if err != nil {
			r.t.Fatal(err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil || len(ids) < 3 {
			r.t.Fatal(ids, err)
		}
		r.keys = append(r.keys, ids)
	}
}

// later runs a statement and gives its error.
func later(c *pgx.Conn, sql string) <-chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		defer cancel()
		_, err := c.Exec(ctx, sql)
		done <- err
	}()
	return done
}

// waits waits until so many processes wait for locks on a shard.
func (r *deadlockRig) waits(shard, count int) {
	r.t.Helper()
	c := pgtest.Connect(r.t, r.shards[shard].Primary().DSN("app", "postgres"))
	eventually(r.t, fmt.Sprint(count, " wait on shard ", shard), func() bool {
		var n int
		err := c.QueryRow(context.Background(), "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted").Scan(&n)
		return err == nil && n == count
	})
}

func renamed(id int64) string {
	return fmt.Sprintf("UPDATE customers SET name = name || 'y' WHERE id = %d", id)
}

// isDeadlock checks what the victim is told.
func isDeadlock(t *testing.T, err error, shards ...string) {
	t.Helper()
	pe, ok := err.(*pgconn.PgError)
	if !ok || pe.Code != "40P01" || pe.Message != "deadlock detected" || pe.Severity != "ERROR" || pe.Hint != "" {
		t.Errorf("the victim is told %#v", err)
		return
	}
	for _, sh := range shards {
		if !strings.Contains(pe.Detail, "Shard "+sh+": process ") {
			t.Errorf("detail %q does not name %s", pe.Detail, sh)
		}
	}
	for _, leak := range []string{"UPDATE", "customers", "checks"} {
		if strings.Contains(pe.Detail, leak) {
			t.Errorf("detail %q", pe.Detail)
		}
	}
}

func TestDeadlocks(t *testing.T) {
	r := startDeadlocks(t, 2, pgtest.Options{})
	direct := pgtest.Connect(t, r.shards[0].Primary().DSN("app", "postgres"))
	// meet has two sessions wait for each other, the second of them last.
	meet := func(t *testing.T, first, second *pgx.Conn, firstSQL, secondSQL string, shard int) (took time.Duration, one, two error) {
		t.Helper()
		r.waits(0, 0)
		r.waits(1, 0)
		a := later(first, firstSQL)
		r.waits(shard, 1)
		began := time.Now()
		b := later(second, secondSQL)
		select {
		case one = <-a:
			took = time.Since(began)
			a = nil
		case two = <-b:
			took = time.Since(began)
			b = nil
		}
		if a != nil {
			one = <-a
		} else {
			two = <-b
		}
		return took, one, two
	}
	inTime := func(t *testing.T, took time.Duration) {
		t.Helper()
		t.Logf("ended after %v", took)
		if took > 10*time.Second {
			t.Errorf("ended after %v", took)
		}
	}
	k := r.keys
	run := func(name string, f func(t *testing.T)) {
		if !t.Failed() { // or what it has left would be waited for
			t.Run(name, f)
		}
	}
	run("two", func(t *testing.T) {
		for _, c := range [][2]*pgx.Conn{{r.connect(), r.connect()}, {r.connect(), r.other.connect()}} {
			first, second := c[0], c[1]
			must(t, first, "BEGIN")
			must(t, first, renamed(k[0][0]))
			must(t, second, "BEGIN")
			must(t, second, renamed(k[1][0]))
			took, one, two := meet(t, first, second, renamed(k[1][0]), renamed(k[0][0]), 1)
			if one != nil {
				t.Error("the older one:", one)
			}
			isDeadlock(t, two, "s0", "s1")
			inTime(t, took)
			fails(t, second, "SELECT 1", "25P02")
			must(t, second, "ROLLBACK")
			must(t, second, "SELECT 1")
			must(t, first, "COMMIT")
		}
	})
	run("the older one closes it", func(t *testing.T) {
		first, second := r.connect(), r.other.connect()
		must(t, first, "BEGIN")
		must(t, first, renamed(k[0][0]))
		must(t, first, renamed(k[1][1])) // it is on both before the other begins
		must(t, second, "BEGIN")
		must(t, second, renamed(k[1][0]))
		took, one, two := meet(t, second, first, renamed(k[0][0]), renamed(k[1][0]), 0)
		if two != nil {
			t.Error("the older one:", two)
		}
		isDeadlock(t, one, "s0", "s1")
		inTime(t, took)
		must(t, second, "ROLLBACK")
		must(t, first, "COMMIT")
	})
	run("savepoints", func(t *testing.T) {
		// Its marks are taken behind a savepoint, and gone with it.
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			first, second := r.connect(), r.other.connect()
			do := func(sql string) {
				if _, err := first.Exec(within(t, 10*time.Second), sql, mode); err != nil {
					t.Fatal(err)
				}
			}
			do("BEGIN")
			do(renamed(k[0][0]))
			do("SAVEPOINT a")
			do(renamed(k[1][1]))
			do("ROLLBACK TO a")
			do(renamed(k[0][1]))
			do("ROLLBACK TO a")
			must(t, second, "BEGIN")
			must(t, second, renamed(k[1][0]))
			took, one, two := meet(t, first, second, renamed(k[1][0]), renamed(k[0][0]), 1)
			if one != nil {
				t.Error("the older one:", one)
			}
			isDeadlock(t, two, "s0", "s1")
			inTime(t, took)
			must(t, second, "ROLLBACK")
			must(t, first, "COMMIT")
		}
	})
	run("back to a savepoint", func(t *testing.T) {
		first, second := r.connect(), r.other.connect()
		must(t, first, "BEGIN")
		must(t, first, renamed(k[0][0]))
		must(t, second, "BEGIN")
		must(t, second, renamed(k[1][2]))
		must(t, second, "SAVEPOINT a")
		must(t, second, renamed(k[1][0]))
		// What the first waits for goes with the savepoint at once, and the second can go on.
		_, one, two := meet(t, first, second, renamed(k[1][0]), renamed(k[0][0]), 1)
		if one != nil {
			t.Error("the older one:", one)
		}
		isDeadlock(t, two, "s0", "s1")
		must(t, second, "ROLLBACK TO a")
		must(t, second, renamed(k[1][1]))
		must(t, second, renamed(k[0][1]))
		must(t, second, "COMMIT")
		must(t, first, "COMMIT")
	})
	run("reference table", func(t *testing.T) {
		first, second := r.connect(), r.other.connect()
		must(t, first, "BEGIN")
		must(t, first, renamed(k[1][0]))
		must(t, second, "BEGIN")
		must(t, second, "UPDATE products SET name = 'mine' WHERE id = 1")
		took, one, two := meet(t, second, first, renamed(k[1][0]), "UPDATE products SET name = 'yours' WHERE id = 1", 1)
		if one != nil {
			t.Error("the older one:", one)
		}
		isDeadlock(t, two, "s0", "s1")
		inTime(t, took)
		must(t, first, "ROLLBACK")
		must(t, second, "COMMIT")
	})
	run("a statement of its own", func(t *testing.T) {
		first, second := r.connect(), r.other.connect()
		must(t, first, "BEGIN")
		must(t, first, renamed(k[1][0]))
		must(t, first, fmt.Sprint("SELECT FROM customers WHERE id = ", k[0][0])) // it is on both
		took, one, two := meet(t, second, first, "UPDATE customers SET name = 'all'", renamed(k[0][0]), 1)
		if two != nil {
			t.Error("the older one:", two)
		}
		isDeadlock(t, one, "s0", "s1")
		inTime(t, took)
		must(t, second, "SELECT 1")
		must(t, first, "COMMIT")
	})
	run("a batch", func(t *testing.T) {
		first, second := r.connect(), r.other.connect()
		must(t, first, "BEGIN")
		must(t, first, renamed(k[0][0]))
		must(t, first, renamed(k[1][2]))
		must(t, second, "BEGIN")
		must(t, second, renamed(k[1][0]))
		told := make(chan error, 1)
		go func() {
			b := &pgx.Batch{}
			for _, id := range []int64{k[0][1], k[1][1], k[0][0], k[1][3]} {
				b.Queue("UPDATE customers SET name = 'batch' WHERE id = $1", id)
			}
			told <- second.SendBatch(within(t, 25*time.Second), b).Close()
		}()
		r.waits(0, 1)
		must(t, first, renamed(k[1][0]))
		isDeadlock(t, <-told, "s0", "s1")
		must(t, second, "ROLLBACK")
		must(t, first, "COMMIT")
	})
	run("copy", func(t *testing.T) {
		first, second := r.connect(), r.other.connect()
		must(t, first, "BEGIN")
		must(t, first, renamed(k[1][0]))
		must(t, first, fmt.Sprintf("INSERT INTO checks VALUES (%d, 0, 1)", k[0][0]))
		told := make(chan error, 1)
		must(t, second, "BEGIN")
		must(t, second, renamed(k[1][1]))
		go func() {
			_, err := second.CopyFrom(within(t, 25*time.Second), pgx.Identifier{"checks"}, []string{"id", "n", "late"}, pgx.CopyFromRows([][]any{{k[0][0], 0, 2}}))
			told <- err
		}()
		r.waits(0, 1)
		must(t, first, renamed(k[1][1]))
		isDeadlock(t, <-told, "s0", "s1")
		must(t, second, "ROLLBACK")
		must(t, first, "ROLLBACK")
	})
	run("three", func(t *testing.T) {
		// The second is on one shard only: no proxy knows more of it than its process.
		cs := []*pgx.Conn{r.connect(), r.other.connect(), r.connect()}
		hold := []int64{k[0][0], k[1][0], k[1][1]}
		want := []int64{k[1][0], k[1][1], k[0][0]}
		for i, c := range cs {
			must(t, c, "BEGIN")
			must(t, c, renamed(hold[i]))
		}
		a, b := later(cs[0], renamed(want[0])), later(cs[1], renamed(want[1]))
		r.waits(1, 2)
		isDeadlock(t, <-later(cs[2], renamed(want[2])), "s0", "s1")
		if err := <-b; err != nil {
			t.Error(err)
		}
		must(t, cs[1], "COMMIT")
		if err := <-a; err != nil {
			t.Error(err)
		}
		must(t, cs[0], "COMMIT")
		must(t, cs[2], "ROLLBACK")
	})
	run("a transaction that commits", func(t *testing.T) {
		// The first one has prepared on s0, and waits on s1 for the second, which waits on s0
		// for what is prepared. The first is the younger one, but what commits is not cancelled.
		first, second := r.connect(), r.other.connect()
		must(t, second, "BEGIN")
		must(t, second, fmt.Sprintf("INSERT INTO checks VALUES (%d, 1, 7)", k[1][0]))
		must(t, second, renamed(k[0][1]))
		must(t, first, "BEGIN")
		must(t, first, renamed(k[0][0]))
		must(t, first, fmt.Sprintf("INSERT INTO checks VALUES (%d, 2, 7)", k[1][0]))
		committed := later(first, "COMMIT")
		eventually(t, "it is prepared", func() bool {
			var n int
			err := direct.QueryRow(context.Background(), "SELECT count(*) FROM pg_prepared_xacts").Scan(&n)
			return err == nil && n == 1
		})
		began := time.Now()
		err := <-later(second, renamed(k[0][0]))
		inTime(t, time.Since(began))
		isDeadlock(t, err, "s0", "s1")
		if pe, ok := err.(*pgconn.PgError); !ok || !strings.Contains(pe.Detail, "blocked by prepared transaction shardproxy:") {
			t.Errorf("%#v", err)
		}
		if err := <-committed; err != nil {
			t.Error("COMMIT:", err)
		}
		must(t, second, "ROLLBACK")
	})
	run("seen", func(t *testing.T) {
		all := 0
		for _, px := range []*proxied{r.proxied, r.other} {
			all += int(px.sample("shardproxy_deadlocks_total"))
			if got := px.logged(); !strings.Contains(got, "deadlock over several shards") {
				t.Error("the log does not tell of deadlocks")
			}
		}
		if all < 10 {
			t.Errorf("%d deadlocks are counted", all)
		}
	})
}

// cycle has some sessions, of both proxies, wait in a circle: each holds a row and wants that
// of the next. It returns how soon after the last had asked one of them was told. One must be,
// and the others go on.
func (r *deadlockRig) cycle(rnd *rand.Rand, rows *[]int) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 28*time.Second) // less than lock_timeout
	defer cancel()
	parties := 2 + rnd.IntN(3)
	shards := make([]int, parties)
	for slices.Max(shards) == slices.Min(shards) {
		for i := range shards {
			shards[i] = rnd.IntN(len(r.keys))
		}
	}
	conns, ids := make([]*pgx.Conn, parties), make([]int64, parties)
	for i, shard := range shards {
		ids[i] = r.keys[shard][(*rows)[shard]]
		(*rows)[shard]++
		px := []*proxied{r.proxied, r.other}[rnd.IntN(2)]
		if conns[i], err = pgx.Connect(ctx, px.dsn()); err != nil {
			return 0, err
		}
		defer conns[i].Close(context.Background())
		for _, sql := range []string{"BEGIN", renamed(ids[i])} {
			if _, err := conns[i].Exec(ctx, sql); err != nil {
				return 0, err
			}
		}
	}
	type told struct {
		err  error
		when time.Time
	}
	all := make(chan told, parties)
	for _, i := range rnd.Perm(parties) {
		go func() {
			_, err := conns[i].Exec(ctx, renamed(ids[(i+1)%parties]))
			when := time.Now()
			if err == nil {
				_, err = conns[i].Exec(ctx, "COMMIT")
			}
			// The victim does not roll back: nobody waits for it longer nevertheless.
			all <- told{err, when}
		}()
		<-time.After(time.Duration(rnd.IntN(20)) * time.Millisecond)
	}
	asked := time.Now()
	victims := 0
	for range parties {
		one := <-all
		switch {
		case one.err == nil:
		case sqlState(one.err) == "40P01":
			victims++
			took = one.when.Sub(asked)
		default:
			err = one.err
		}
	}
	if err == nil && victims != 1 {
		err = fmt.Errorf("%d victims", victims)
	}
	return took, err
}

// TestDeadlockCycles has many circles end. SHARDPROXY_TEST_CYCLES is how many there are,
// SHARDPROXY_TEST_SEED which.
func TestDeadlockCycles(t *testing.T) {
	const lanes = 10
	count, seed := testNumber(t, "SHARDPROXY_TEST_CYCLES", 20), uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1))
	r := startDeadlocks(t, 2+int(seed%3), pgtest.Options{})
	var mu sync.Mutex
	var times []time.Duration
	var all sync.WaitGroup
	for lane := range lanes {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(lane)))
			for n := range (count + lanes - 1) / lanes {
				rows := make([]int, len(r.keys))
				for i := range rows {
					rows[i] = 4 * lane
				}
				took, err := r.cycle(rnd, &rows)
				if err != nil {
					t.Errorf("seed %d, lane %d, circle %d: %v", seed, lane, n, err)
					return
				}
				mu.Lock()
				times = append(times, took)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(times)
	if len(times) == 0 {
		t.Fatal("no circle has ended")
	}
	t.Logf("%d circles over %d shards: median %v, longest %v", len(times), len(r.keys), times[len(times)/2], times[len(times)-1])
	// A machine with other things to do may be late, but not as a rule.
	if times[len(times)/2] > deadlockBound {
		t.Errorf("half of them took longer than %v", deadlockBound)
	}
}

// TestNoFalseDeadlock has many transactions lock the same rows in the same order: they wait
// for long, and for each other, but never in a circle. SHARDPROXY_TEST_CONTENTION is for how
// many seconds.
func TestNoFalseDeadlock(t *testing.T) {
	r := startDeadlocks(t, 3, pgtest.Options{Settings: map[string]string{"deadlock_timeout": "20ms"}})
	for _, px := range []*proxied{r.proxied, r.other} {
		eventually(t, "the servers' deadlock_timeout is known", func() bool {
			return px.p.state.Load().databases["app"].cluster.After() == 20*time.Millisecond
		})
	}
	var hot []int64
	for _, ids := range r.keys {
		hot = append(hot, ids[:2]...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(testNumber(t, "SHARDPROXY_TEST_CONTENTION", 6))*time.Second)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for w := range 16 {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			c, err := pgx.Connect(context.Background(), []*proxied{r.proxied, r.other}[w%2].dsn())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close(context.Background())
			for ctx.Err() == nil {
				if err := r.orderly(c, rnd, hot); err != nil {
					t.Errorf("worker %d: %v", w, err)
					return
				}
				mu.Lock()
				done++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	looks := uint64(0)
	for _, px := range []*proxied{r.proxied, r.other} {
		looks += px.p.state.Load().databases["app"].cluster.detector.Load().Looks()
	}
	t.Logf("%d transactions, %d looks", done, looks)
	if looks < 20 || done < 20 {
		t.Errorf("%d transactions, %d looks at the shards", done, looks)
	}
}

// orderly is one transaction that takes its locks in the order that all do.
func (r *deadlockRig) orderly(c *pgx.Conn, rnd *rand.Rand, hot []int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if rnd.IntN(8) == 0 {
		_, err := c.Exec(ctx, "UPDATE products SET name = name WHERE id = 1")
		return err
	}
	if _, err := c.Exec(ctx, "BEGIN"); err != nil {
		return err
	}
	for _, ids := range r.keys[1:] { // it is on several shards before it waits
		if _, err := c.Exec(ctx, "SELECT FROM customers WHERE id = $1", ids[3]); err != nil {
			return err
		}
	}
	for _, id := range hot {
		if rnd.IntN(2) == 0 {
			continue
		}
		if _, err := c.Exec(ctx, "UPDATE customers SET name = 'z' WHERE id = $1", id); err != nil {
			return err
		}
		<-time.After(time.Duration(rnd.IntN(60)) * time.Millisecond)
	}
	_, err := c.Exec(ctx, []string{"COMMIT", "ROLLBACK"}[rnd.IntN(2)])
	return err
}

// TestNoDeadlockNoLooks: while nothing waits no server is asked anything, and nobody who waits
// for what is locked on one shard is a suspect.
func TestNoDeadlockNoLooks(t *testing.T) {
	r := startDeadlocks(t, 2, pgtest.Options{})
	looks := func() uint64 { return r.p.state.Load().databases["app"].cluster.detector.Load().Looks() }
	eventually(t, "the time-outs are known", func() bool { return looks() == 1 })
	first, second := r.connect(), r.connect()
	must(t, first, "BEGIN")
	must(t, first, renamed(r.keys[0][0]))
	must(t, first, renamed(r.keys[1][0]))
	must(t, second, "BEGIN")
	told := later(second, renamed(r.keys[0][0]))
	r.waits(0, 1)
	<-time.After(2 * deadlockTimeout)
	if n := looks(); n != 1 {
		t.Errorf("%d looks while nothing over several shards waits", n)
	}
	must(t, first, "COMMIT")
	if err := <-told; err != nil {
		t.Error(err)
	}
	must(t, second, "ROLLBACK")
	if n := r.onEach("SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND classid NOT IN (1936744304, 1936744289)"); !slices.Equal(n, []string{"0", "0"}) {
		t.Errorf("marks that are left: %v", n)
	}
}

// sample returns the sum of a family's samples.
func (px *proxied) sample(name string) float64 {
	px.t.Helper()
	return sampleSum(px.t, px.metricsText(), name)
}

// sampleSum returns the sum of a family's samples in a page of metrics.
func sampleSum(t testing.TB, page, family string) (sum float64) {
	t.Helper()
	for _, m := range regexp.MustCompile(`(?m)^`+family+`(?:\{.*\})? (.*)$`).FindAllStringSubmatch(page, -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// metricsText returns what the admin address exports.
func (px *proxied) metricsText() string {
	px.t.Helper()
	req, err := http.NewRequestWithContext(within(px.t, 10*time.Second), http.MethodGet, "http://"+px.p.http.Addr().String()+"/metrics", nil)
	if err != nil {
		px.t.Fatal(err)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		px.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		px.t.Fatal(err)
	}
	return string(b)
}
