package main

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// writer inserts numbers one by one on one connection and remembers what was
// acknowledged and what it cannot know.
type writer struct {
	id             int
	acked, unknown map[int]bool
	conn           *pgx.Conn
	refused        map[string]int
}

func (w *writer) run(t testing.TB, stop <-chan struct{}, last *atomic.Int64) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		_, err := w.conn.Exec(ctx, "INSERT INTO written VALUES ($1, $2)", w.id, i)
		cancel()
		switch {
		case err == nil:
			w.acked[i] = true
			last.Store(time.Now().UnixNano())
		case w.conn.IsClosed():
			t.Errorf("writer %d lost its session: %v", w.id, err)
			return
		default:
			w.refused[sqlState(err)]++
			w.unknown[i] = sqlState(err) == "08007"
		}
	}
}

// reader reads all the time and must never see an error.
func reader(t testing.TB, c *pgx.Conn, stop <-chan struct{}, reads *atomic.Int64) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		var n int
		err := c.QueryRow(ctx, "SELECT count(*) FROM fixed").Scan(&n)
		cancel()
		if err != nil || n != 1000 {
			t.Errorf("read: %d rows, %v", n, err)
			return
		}
		reads.Add(1)
	}
}

const faultTables = `CREATE TABLE written (writer int, i int, PRIMARY KEY (writer, i));
CREATE TABLE fixed AS SELECT generate_series(1, 1000) AS id`

// knowsTables waits until reads of the tables run on replicas: the catalog has
// been read since they were made.
func (px *proxied) knowsTables(cl *pgtest.Cluster) {
	px.t.Helper()
	c := px.connect()
	eventually(px.t, "the proxy knows the tables", func() bool {
		var port, n int
		err := c.QueryRow(within(px.t, 10*time.Second), "SELECT inet_server_port(), count(*) FROM fixed").Scan(&port, &n)
		return err == nil && n == 1000 && port != cl.Primary().Port()
	})
}

func TestPrimaryDiesUnderLoad(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 2, Settings: map[string]string{"synchronous_commit": "remote_apply"}})
	// Only what a replica has confirmed is acknowledged: what the proxy must not
	// lose is then on the node that is promoted, which stands alone.
	cl.Primary().Set("synchronous_standby_names", "ANY 1 (*)")
	px := startProgram(t, cl, configText)
	if _, err := px.connect().Exec(within(t, 20*time.Second), faultTables, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	cl.CatchUp()
	px.knowsTables(cl)
	stop := make(chan struct{})
	var last, reads atomic.Int64
	var wg sync.WaitGroup
	writers := make([]*writer, 50)
	for i := range writers {
		writers[i] = &writer{id: i, acked: map[int]bool{}, unknown: map[int]bool{}, refused: map[string]int{}, conn: px.connect()}
		wg.Go(func() { writers[i].run(t, stop, &last) })
	}
	for range 8 {
		c := px.connect()
		wg.Go(func() { reader(t, c, stop, &reads) })
	}
	eventually(t, "writes flow", func() bool { return last.Load() != 0 })
	<-time.After(time.Second)

	// Both replicas confirm, so either may be ahead; ANY 1 means that only one
	// of them surely has a write: the one further ahead is promoted.
	cl.Primary().Kill9()
	during := reads.Load()
	<-time.After(1500 * time.Millisecond)
	if reads.Load() == during {
		t.Error("reads stopped while there was no primary")
	}
	heir, other := cl.Replicas()[0], cl.Replicas()[1]
	if heir.Value("app", "SELECT pg_last_wal_receive_lsn() >= '"+other.Value("app", "SELECT pg_last_wal_receive_lsn()")+"'") != "t" {
		heir, other = other, heir
	}
	heir.Promote()
	promoted := time.Now()
	eventually(t, "writes resume", func() bool { return last.Load() > promoted.UnixNano() })
	resumed := time.Unix(0, last.Load()).Sub(promoted)
	if resumed > 2*time.Second {
		t.Errorf("writes resumed %v after the promotion", resumed)
	}
	<-time.After(time.Second)
	close(stop)
	wg.Wait()

	lost, acked, unknown := 0, 0, 0
	refused := map[string]int{}
	for _, w := range writers {
		have := map[int]bool{}
		rows, err := w.conn.Query(within(t, 20*time.Second), "SELECT i FROM written WHERE writer = $1", w.id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range got {
			have[i] = true
			if !w.acked[i] && !w.unknown[i] {
				t.Errorf("writer %d: row %d exists although the client was told that it failed", w.id, i)
			}
		}
		for i := range w.acked {
			acked++
			if !have[i] {
				lost++
			}
		}
		unknown += len(w.unknown)
		for k, n := range w.refused {
			refused[k] += n
		}
	}
	t.Logf("acknowledged %d, lost %d, not known %d, refused %v, reads %d, writes resumed after %v", acked, lost, unknown, refused, reads.Load(), resumed)
	if lost > 0 {
		t.Errorf("%d acknowledged writes are lost", lost)
	}
	for code := range refused {
		if code != "08007" && code != "57P01" {
			t.Errorf("writers met SQLSTATE %q", code)
		}
	}
}

func TestReplicasFailUnderReads(t *testing.T) {
	cl := pgtest.Start(t, pgtest.Options{Replicas: 2})
	px := startProgram(t, cl, configText)
	if _, err := px.connect().Exec(within(t, 20*time.Second), faultTables, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	cl.CatchUp()
	px.knowsTables(cl)
	stop := make(chan struct{})
	var reads atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		c := px.connect()
		wg.Go(func() { reader(t, c, stop, &reads) })
	}
	goOn := func(what string) {
		t.Helper()
		n := reads.Load()
		eventually(t, "reads go on "+what, func() bool { return reads.Load() > n+200 })
	}
	a, b := cl.Replicas()[0], cl.Replicas()[1]
	goOn("at first")
	a.Kill9()
	goOn("after kill -9 of a replica")
	a.Start()
	goOn("after its return")
	b.Pause()
	goOn("while a replica is stopped")
	b.Resume()
	b.Restart()
	goOn("after a restart")
	a.Kill9()
	b.Kill9()
	goOn("without any replica")
	close(stop)
	wg.Wait()
	t.Logf("%d reads", reads.Load())
}
