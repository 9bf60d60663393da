package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/ddl"
	"shardproxy/internal/pgtest"
)

// ddl runs one of ddl's commands on the configuration.
func (px *proxied) ddl(args ...string) (out string, code int) {
	px.t.Helper()
	c := ddlCommand()
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetErr(&b)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(append(args, "-c", px.path))
	err := c.ExecuteContext(within(px.t, time.Minute))
	var ee *exitError
	switch {
	case errors.As(err, &ee):
		return b.String() + ee.msg, ee.code
	case err != nil:
		px.t.Fatalf("ddl %v: %v\n%s", args, err, b.String())
	}
	return b.String(), 0
}

// resumes runs ddl resume, which must end with the code and have said the text.
func (px *proxied) resumes(id, want string, code int) {
	px.t.Helper()
	if out, got := px.ddl("resume", id); out != want || got != code {
		px.t.Errorf("resume %s: code %d\n%swant %d\n%s", id, got, out, code, want)
	}
}

var aTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// status compares what ddl status says with a part of testdata/ddl/status.txt.
func (px *proxied) status(part string, args ...string) {
	px.t.Helper()
	page, err := os.ReadFile("testdata/ddl/status.txt")
	if err != nil {
		px.t.Fatal(err)
	}
	_, want, _ := strings.Cut(string(page), "== "+part+"\n")
	want, _, _ = strings.Cut(want, "== ")
	got, code := px.ddl(append([]string{"status"}, args...)...)
	if got = aTime.ReplaceAllString(got, "(time)"); got != want {
		px.t.Errorf("%s:\n%swant\n%s", part, got, want)
	}
	if unfinished := !strings.HasPrefix(got, "no statement") && len(args) == 0; unfinished != (code == exitUnfinished) {
		px.t.Errorf("%s: code %d", part, code)
	}
}

const indexesSQL = `SELECT coalesce(string_agg(c.relname || CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END, ', ' ORDER BY c.relname), '')
	FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = 'orders'::regclass AND NOT i.indisprimary`

// indexes wants the shards to have these indexes of orders.
func (s *shardedProgram) indexes(want ...string) {
	s.t.Helper()
	if got := s.onEach(indexesSQL); strings.Join(got, "; ") != strings.Join(want, "; ") {
		s.t.Errorf("indexes %q, want %q", got, want)
	}
}

// TestConcurrently runs what PostgreSQL runs in several transactions on every shard.
func TestConcurrently(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s := startShards(t, 2, "runtime: {driver: "+driver+"}")
			c := s.connectLoaded()
			runsConcurrently(t, s, c)
			// A session that is tied to its connection runs them, too, and stays tied.
			must(t, c, "SELECT pg_advisory_lock(42)")
			must(t, c, "CREATE INDEX CONCURRENTLY tied ON orders (note)")
			fails(t, c, "CREATE INDEX CONCURRENTLY tied ON orders (note)", "42P07")
			s.indexes("tied", "tied")
			must(t, c, "DROP INDEX CONCURRENTLY tied")
			s.indexes("", "")
			if got := s.onEach("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42"); got[0]+got[1] != "10" {
				t.Errorf("locks: %v", got)
			}
			must(t, c, "SELECT pg_advisory_unlock(42)")
			s.status("none")
			s.journalled()
		})
	}
}

// journalled looks at what the statements of TestConcurrently have left in the journal.
func (s *shardedProgram) journalled() {
	out, _ := s.ddl("status", "--all", "--json")
	var all []ddl.Entry
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		s.t.Fatal(err)
	}
	for _, e := range all {
		want, state := "s0 done s1 done", "done"
		switch {
		case strings.Contains(e.Statement, "step"):
			want = "s0 done"
		case strings.Contains(e.Statement, "elsewhere"):
			want = "s1 done"
		case strings.Contains(e.Statement, "nothing"), strings.Contains(e.Statement, "pkey"):
			want, state = "s0 failed s1 pending", "undone"
		}
		var got []string
		for _, sh := range e.Shards {
			got = append(got, sh.Shard, sh.State)
		}
		if strings.Join(got, " ") != want || e.State != state || e.Ended == nil {
			s.t.Errorf("%s: %s, %q", e.Statement, e.State, got)
		}
	}
	if len(all) < 15 {
		s.t.Errorf("%d statements were journalled", len(all))
	}
}

func runsConcurrently(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "CREATE INDEX CONCURRENTLY ON orders (note)")
	must(t, c, "create unique index /* on */ concurrently on only public.orders using btree (customer_id, id desc) where note = 'a on b';")
	s.indexes("orders_customer_id_id_idx, orders_note_idx", "orders_customer_id_id_idx, orders_note_idx")
	// The name is one that is free on all shards, and PostgreSQL's own otherwise.
	pgtest.Connect(t, s.shards[1].Primary().DSN("app", "app")).Exec(within(t, time.Minute), "CREATE SEQUENCE orders_note_idx1")
	must(t, c, "CREATE INDEX CONCURRENTLY ON orders (note)")
	must(t, c, `CREATE INDEX CONCURRENTLY ON "orders" (lower(note), (id + 1)) INCLUDE (customer_id)`)
	const made = "orders_customer_id_id_idx, orders_lower_expr_customer_id_idx, orders_note_idx, orders_note_idx2"
	s.indexes(made, made)
	must(t, c, "DROP INDEX CONCURRENTLY orders_lower_expr_customer_id_idx")
	must(t, c, "DROP INDEX CONCURRENTLY IF EXISTS public.orders_customer_id_id_idx")
	must(t, c, "DROP INDEX CONCURRENTLY IF EXISTS orders_note_idx2")
	must(t, c, "CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_note_idx ON orders (note)")
	must(t, c, "REINDEX INDEX CONCURRENTLY orders_note_idx")
	must(t, c, "REINDEX TABLE CONCURRENTLY orders")
	must(t, c, "REINDEX (VERBOSE, CONCURRENTLY) TABLE products")
	s.indexes("orders_note_idx", "orders_note_idx")
	r := c.PgConn().ExecParams(within(t, time.Minute), "CREATE INDEX CONCURRENTLY ON orders (note, id)", nil, nil, nil, nil).Read()
	if r.Err != nil || r.CommandTag.String() != "CREATE INDEX" {
		t.Errorf("by the extended protocol: %v, %v", r.CommandTag, r.Err)
	}
	s.indexes("orders_note_id_idx, orders_note_idx", "orders_note_id_idx, orders_note_idx")
	// An index of a single table is on the home shard.
	must(t, c, "CREATE TABLE steps (version int)")
	must(t, c, "CREATE INDEX CONCURRENTLY step ON steps (version)")
	must(t, c, "REINDEX INDEX CONCURRENTLY step")
	must(t, c, "DROP INDEX CONCURRENTLY step")
	refusesConcurrently(t, s, c)
	must(t, c, "DROP INDEX CONCURRENTLY orders_note_idx")
	must(t, c, "DROP INDEX CONCURRENTLY orders_note_id_idx")
	must(t, c, "SELECT * FROM customers WHERE id = 1")
}

func refusesConcurrently(t *testing.T, s *shardedProgram, c *pgx.Conn) {
	must(t, c, "BEGIN")
	fails(t, c, "CREATE INDEX CONCURRENTLY ON orders (note)", "25001")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	fails(t, c, "DROP INDEX CONCURRENTLY orders_note_idx", "25001")
	must(t, c, "ROLLBACK")
	fails(t, c, "CREATE INDEX CONCURRENTLY a ON orders (note); CREATE INDEX CONCURRENTLY b ON orders (note)", "25001")
	fails(t, c, "CREATE INDEX CONCURRENTLY orders_note_idx ON orders (note)", "42P07")
	fails(t, c, "CREATE INDEX CONCURRENTLY ON orders (nothing)", "42703")
	fails(t, c, "CREATE INDEX CONCURRENTLY named ON orders (nothing)", "42703")
	fails(t, c, "DROP INDEX CONCURRENTLY nothing", "42704")
	fails(t, c, "REINDEX INDEX CONCURRENTLY nothing", "42P01")
	fails(t, c, "REINDEX SCHEMA CONCURRENTLY public", "0A000")
	fails(t, c, "DROP INDEX CONCURRENTLY orders_note_idx, orders_note_id_idx", "0A000")
	fails(t, c, "DROP INDEX CONCURRENTLY orders_pkey", "2BP01")
	for _, shard := range s.shards[1:] {
		shard.Primary().Exec("app", "CREATE INDEX elsewhere ON orders (id)")
	}
	fails(t, c, "CREATE INDEX CONCURRENTLY elsewhere ON orders (note)", "42P07")
	fails(t, c, "DROP INDEX CONCURRENTLY elsewhere", "42704")
	s.indexes("orders_note_id_idx, orders_note_idx", "elsewhere, orders_note_id_idx, orders_note_idx")
	must(t, c, "DROP INDEX CONCURRENTLY IF EXISTS elsewhere")
	s.indexes("orders_note_id_idx, orders_note_idx", "orders_note_id_idx, orders_note_idx")
}

// TestConcurrentlyDetaches detaches a partition that has a rule of its own, and no other.
func TestConcurrentlyDetaches(t *testing.T) {
	s := startShards(t, 2)
	for _, shard := range s.shards {
		must(t, pgtest.Connect(t, shard.Primary().DSN("app", "app")), `DROP TABLE order_items, orders;
			CREATE TABLE order_items (customer_id bigint, id bigint) PARTITION BY RANGE (id);
			CREATE TABLE orders PARTITION OF order_items FOR VALUES FROM (1) TO (100);
			CREATE TABLE items_old PARTITION OF order_items FOR VALUES FROM (100) TO (200)`)
	}
	c := s.connectLoaded()
	eventually(t, "the partitions are known", func() bool {
		_, err := c.Exec(within(t, time.Minute), "ALTER TABLE order_items DETACH PARTITION items_old CONCURRENTLY")
		return sqlState(err) == "0A000" && strings.Contains(err.Error(), "give it a rule")
	})
	must(t, c, "BEGIN")
	fails(t, c, "ALTER TABLE order_items DETACH PARTITION orders CONCURRENTLY", "25001")
	must(t, c, "ROLLBACK")
	must(t, c, "ALTER TABLE order_items DETACH PARTITION orders CONCURRENTLY")
	if got := s.onEach("SELECT string_agg(inhrelid::regclass::text, ' ') FROM pg_inherits WHERE inhparent = 'order_items'::regclass"); got[0]+got[1] != "items_olditems_old" {
		t.Errorf("partitions: %q", got)
	}
	must(t, c, "INSERT INTO orders (id, customer_id) VALUES (7, 7)")
	s.status("none")
}

// duplicated puts a row twice on the last shard: no unique index can be made there.
func (s *shardedProgram) duplicated() {
	s.shards[len(s.shards)-1].Primary().Exec("app", `ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_customer_id_fkey;
		INSERT INTO orders VALUES (1, 7, 'twice'), (2, 7, 'twice') ON CONFLICT DO NOTHING`)
}

// TestConcurrentlyFails fails on one shard, shows it, and ends it when its cause is gone.
func TestConcurrentlyFails(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	s.duplicated()
	_, err := c.Exec(within(t, time.Minute), "CREATE UNIQUE INDEX CONCURRENTLY ON orders (customer_id, note)")
	var e *pgconn.PgError
	if !errors.As(err, &e) || e.Code != "23505" || !strings.Contains(e.Detail, "Shard s1; done on: s0.") || !strings.Contains(e.Hint, "shardproxy ddl resume 1") {
		t.Errorf("the client is told %+v", e)
	}
	s.indexes("orders_customer_id_note_idx", "orders_customer_id_note_idx invalid")
	s.status("failed")
	fails(t, c, "CREATE UNIQUE INDEX CONCURRENTLY orders_customer_id_note_idx ON orders (customer_id, note)", "42P07")
	s.resumes("1", "s1: failed: could not create unique index \"orders_customer_id_note_idx\" (23505): Key (customer_id, note)=(7, twice) is duplicated.\n", exitUnfinished)
	s.status("failed")
	s.indexes("orders_customer_id_note_idx", "orders_customer_id_note_idx invalid")
	s.shards[1].Primary().Exec("app", "DELETE FROM orders WHERE id = 2")
	s.resumes("1", "s1: dropped the invalid index and made it anew\nstatement 1 is done on all shards\n", 0)
	s.indexes("orders_customer_id_note_idx", "orders_customer_id_note_idx")
	s.status("none")
	s.status("ended", "--all")
	s.resumes("1", ddl.ErrEnded.Error(), exitProblems)
	s.resumes("7", ddl.ErrNone.Error(), exitProblems)

	// What fails before it changes anything is not left unfinished.
	fails(t, c, "CREATE INDEX CONCURRENTLY wrong ON orders (note int4_ops)", "42804")
	s.status("none")

	// What is given up stays as it is; what somebody else has made is left alone.
	must(t, c, "DROP INDEX CONCURRENTLY orders_customer_id_note_idx")
	s.duplicated()
	fails(t, c, "CREATE UNIQUE INDEX CONCURRENTLY given ON orders (customer_id, note)", "23505")
	s.shards[1].Primary().Exec("app", "DELETE FROM orders WHERE id = 2; DROP INDEX given; CREATE INDEX given ON orders (id)")
	s.resumes("4", "s1: failed: \"public\".\"given\" is there, and is not what the statement makes\n", exitUnfinished)
	if out, code := s.ddl("abandon", "4"); code != 0 {
		t.Error(out)
	}
	s.status("none")
	s.indexes("given", "given")
	// Made by hand as it should be, it is found.
	must(t, c, "DROP INDEX CONCURRENTLY given")
	s.duplicated()
	fails(t, c, "CREATE UNIQUE INDEX CONCURRENTLY given ON orders (customer_id, note)", "23505")
	s.shards[1].Primary().Exec("app", "DELETE FROM orders WHERE id = 2; DROP INDEX given; CREATE UNIQUE INDEX given ON public.orders USING btree (customer_id, note)")
	s.resumes("6", "s1: the index is there\nstatement 6 is done on all shards\n", 0)

	// So is what its client cancels.
	release := s.blocked(1)
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "CREATE INDEX CONCURRENTLY cancelled ON orders (note)")
		done <- err
	}()
	s.waiting(1, "CREATE INDEX")
	if err := c.PgConn().CancelRequest(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; sqlState(err) != "57014" {
		t.Errorf("cancelled: %v", err)
	}
	release()
	s.resumes("7", "s1: dropped the invalid index and made it anew\nstatement 7 is done on all shards\n", 0)
	must(t, c, "SELECT * FROM customers WHERE id = 1")
}

// blocked makes statements with CONCURRENTLY on orders of a shard wait until the
// function that it returns is called.
func (s *shardedProgram) blocked(shard int) (release func()) {
	c := pgtest.Connect(s.t, s.shards[shard].Primary().DSN("app", "app"))
	must(s.t, c, "BEGIN")
	must(s.t, c, "LOCK TABLE orders IN ROW EXCLUSIVE MODE")
	return func() { must(s.t, c, "ROLLBACK") }
}

// waiting waits until a statement that begins with the text waits for a lock.
func (s *shardedProgram) waiting(shard int, text string) {
	s.t.Helper()
	s.waitsFor(shard, "wait_event_type = 'Lock'", text)
}

// waitsFor returns when a statement waits on a shard for what a condition of pg_stat_activity says.
func (s *shardedProgram) waitsFor(shard int, on, text string) {
	s.t.Helper()
	eventually(s.t, text+" waits", func() bool {
		return s.shards[shard].Primary().Value("app", "SELECT count(*) FROM pg_stat_activity WHERE "+on+" AND query LIKE '"+text+"%'") == "1"
	})
}

// TestConcurrentlyLost loses the connection to a shard in the middle.
func TestConcurrentlyLost(t *testing.T) {
	s := startShards(t, 2)
	c := s.connectLoaded()
	for n, test := range []struct{ sql, resumed string }{
		{"CREATE INDEX CONCURRENTLY lost ON orders (note)", "s1: dropped the invalid index and made it anew\n"},
		{"REINDEX INDEX CONCURRENTLY lost", "s1: dropped what was half built and rebuilt\n"},
		{"REINDEX TABLE CONCURRENTLY orders", "s1: dropped what was half built and rebuilt\n"},
		{"DROP INDEX CONCURRENTLY lost", "s1: dropped the index\n"},
	} {
		id := string(rune('1' + n))
		release := s.blocked(1)
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(within(t, time.Minute), test.sql)
			done <- err
		}()
		s.waiting(1, strings.Split(test.sql, " ")[0])
		s.shards[1].Primary().Exec("app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
		if err := <-done; sqlState(err) != "08007" {
			t.Errorf("%s: %v", test.sql, err)
		}
		if n == 0 {
			s.status("lost")
		}
		resumed := make(chan string)
		go func() {
			out, _ := s.ddl("resume", id)
			resumed <- out
		}()
		s.waiting(1, "%INDEX")
		s.resumes(id, ddl.ErrBusy.Error(), exitProblems)
		release()
		if out := <-resumed; out != test.resumed+"statement "+id+" is done on all shards\n" {
			t.Errorf("%s: %s", test.sql, out)
		}
		want := "lost"
		if n == 3 {
			want = ""
		}
		s.indexes(want, want)
	}
}

// TestConcurrentlyKilled kills the proxy in the middle.
func TestConcurrentlyKilled(t *testing.T) {
	s := startShards(t, 2)
	s.connectLoaded()
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	ps := newProcess(t, "app", nil, regexp.MustCompile(`(?m)^(listen|admin)(: +{address: )"[^"]*"`).ReplaceAllString(string(text), `$1$2"%$1%"`))
	ps.write(strings.NewReplacer("%listen%", ps.addr, "%admin%", ps.admin).Replace(ps.text()))
	ps.start()
	ps.logged("msg=listening")
	release := s.blocked(1)
	c := ps.connect()
	eventually(t, "the catalog is there", func() bool {
		_, err := c.Exec(within(t, 10*time.Second), "SELECT * FROM customers WHERE id = 0")
		return err == nil
	})
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "CREATE INDEX CONCURRENTLY ON orders (note)")
		done <- err
	}()
	s.waiting(1, "CREATE INDEX")
	s.status("running")
	ps.signal(syscall.SIGKILL)
	if err := <-done; err == nil {
		t.Error("the client got an answer from the dead")
	}
	eventually(t, "the lock is gone", func() bool {
		out, _ := s.ddl("status", "--json")
		var all []ddl.Entry
		return json.Unmarshal([]byte(out), &all) == nil && len(all) == 1 && all[0].State == "interrupted"
	})
	s.status("killed")
	// The server goes on with what its client has left: resume waits for it.
	resumed := make(chan string)
	go func() {
		out, _ := s.ddl("resume", "1")
		resumed <- out
	}()
	eventually(t, "resume looks again and again", func() bool {
		return s.shards[1].Primary().Value("app", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres' AND query = 'rollback'") == "1"
	})
	release()
	if out := <-resumed; out != "s1: the index is there\nstatement 1 is done on all shards\n" {
		t.Error(out)
	}
	s.indexes("orders_note_idx", "orders_note_idx")
	s.status("none")
}
