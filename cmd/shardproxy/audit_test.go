package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgcluster"
	"shardproxy/internal/pgtest"
)

// auditText has everything written down.
func auditText(path string) string {
	return fmt.Sprintf("audit: {file: %q, statements: [read, write, ddl, call, other]}", path)
}

// auditLine is a line of the audit log.
type auditLine struct {
	Event, User, Database, Client, Method, TLS, Application, Outcome, SQLState, Reason, By, Order, Said, Shards, Fingerprint, Statement string
	Session                                                                                                                             uint64
	Does                                                                                                                                []string
	Rows                                                                                                                                int64
	Console, Kept                                                                                                                       bool
}

// short is a statement's line in a few words.
func (l *auditLine) short() string {
	s := fmt.Sprintf("%s: %s %s %s", l.Statement, strings.Join(l.Does, "+"), l.Outcome, l.Shards)
	if l.SQLState != "" {
		s += " " + l.SQLState
	}
	if l.Rows != 0 {
		s += fmt.Sprintf(" %d", l.Rows)
	}
	if l.Kept {
		s += " kept"
	}
	return s
}

func auditLines(t testing.TB, path string) (all []auditLine) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var l auditLine
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", s.Bytes(), err)
		}
		all = append(all, l)
	}
	return all
}

// audited waits until there are n statements of a session, and returns them in few words.
func audited(t *testing.T, path string, session uint64, n int) (all []string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; <-time.After(5 * time.Millisecond) {
		all = nil
		for _, l := range auditLines(t, path) {
			if l.Event == "statement" && l.Session == session {
				all = append(all, l.short())
			}
		}
		if len(all) >= n || time.Now().After(end) {
			return all
		}
	}
}

// connectAudited returns a session, and its number.
func (s *shardedProgram) connectAudited(t *testing.T, path, name string) (c *pgx.Conn, number uint64) {
	t.Helper()
	c = s.connectTo(s.dsn() + "&application_name=" + name)
	eventually(t, "the login is written down", func() bool {
		for _, l := range auditLines(t, path) {
			if l.Event == "login" && l.Application == name {
				number = l.Session
			}
		}
		return number != 0
	})
	return c, number
}

// TestAuditStatements: statements of all kinds and ways have the lines they should, once each, and no value is in any.
func TestAuditStatements(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.log")
			s := startShards(t, 2, "    cache: {size: 16MiB, tables: {public.products: 1h}}\n", "runtime: {driver: "+driver+"}", auditText(path))
			must(t, s.connect(), "INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(0, 19) n")
			console, _ := s.consoleOf()
			eventually(t, "results are kept", func() bool { return shownBy(t, console, "SHOW CACHE")[0]["state"] == "open" })
			c, number := s.connectAudited(t, path, "statements")
			three := s.shardOf(3)
			var want []string
			after := func(lines ...string) {
				t.Helper()
				want = append(want, lines...)
				if got := audited(t, path, number, len(want)); !slices.Equal(got, want) {
					from := 0
					for from < min(len(got), len(want)) && got[from] == want[from] {
						from++
					}
					t.Errorf("got\n%s\nwant\n%s", strings.Join(got[from:], "\n"), strings.Join(want[from:], "\n"))
					want = got
				}
			}
			for _, mode := range queryModes {
				must(t, c, "SELECT name FROM customers WHERE id = 3 AND name <> 'other secret'", mode)
				after("select name from customers where id = $1 and name <> $2: read done " + three + " 1")
				must(t, c, "SELECT count(*) FROM customers WHERE name <> 'secret'", mode)
				after("select count(*) from customers where name <> $1: read done s0,s1 1")
				must(t, c, "UPDATE customers SET name = 'secret' WHERE id = 3", mode)
				after("update customers set name = $1 where id = $2: write done " + three + " 1")
				must(t, c, "UPDATE customers SET name = 'secret' WHERE id < 10", mode)
				after("update customers set name = $1 where id < $2: write done s0,s1 10")
			}
			fails := func(sql string, args ...any) {
				t.Helper()
				if _, err := c.Exec(within(t, 20*time.Second), sql, args...); err == nil {
					t.Error("no error: ", sql)
				}
			}
			simple := pgx.QueryExecModeSimpleProtocol
			// Twice: the second answer is the first.
			must(t, c, "SELECT name FROM products WHERE id = 1", simple)
			must(t, c, "SELECT name FROM products WHERE id = 1", simple)
			lines := audited(t, path, number, len(want)+2)
			after(lines[len(lines)-2], "select name from products where id = $1: read done  kept")
			must(t, c, "CREATE TABLE notes (id bigint, customer_id bigint, note text DEFAULT 'secret')")
			after("create table notes(id bigint, customer_id bigint, note text default $1): ddl done s0")
			must(t, c, "ALTER TABLE orders ADD place text DEFAULT 'secret'")
			after("alter table orders add place text default $1: ddl done s0,s1")
			fails("CREATE ROLE auditor PASSWORD 'secret'") // the right is missing
			after("create role auditor password $1: ddl failed s0,s1 42501")
			fails("CREATE TABLE notes (id bigint)")
			after("create table notes(id bigint): ddl failed s0 42P07")
			fails("SELECT 1 / (id - id) FROM customers WHERE id = 3")
			after("select $1 / (id - id) from customers where id = $2: read failed " + three + " 22012")
			fails("SELECT 1 / (id - id) FROM customers WHERE id = 3", simple)
			after("select $1 / (id - id) from customers where id = $2: read failed " + three + " 22012")
			fails("UPDATE customers SET id = id + 1", simple)
			after("update customers set id = id + $1: write refused  0A000")
			fails("SELEC 'secret'", simple)
			after("selec $1: read+write+ddl+call+other refused  42601")
			fails("DO $$ BEGIN PERFORM 'secret'; END $$")
			after("do $1: call refused  0A000")
			// A text of several commands is one statement.
			must(t, c, "SELECT 1; SET work_mem = '4MB'", simple)
			lines = audited(t, path, number, len(want)+1)
			if last := lines[len(lines)-1]; !strings.Contains(last, ": read+other done") {
				t.Error(last)
			}
			after(lines[len(lines)-1])
			batch := &pgx.Batch{}
			batch.Queue("SELECT name FROM customers WHERE id = $1", 3)
			batch.Queue("UPDATE customers SET name = $2 WHERE id = $1", 3, "secret")
			if err := c.SendBatch(within(t, 20*time.Second), batch).Close(); err != nil {
				t.Fatal(err)
			}
			after("select name from customers where id = $1: read done "+three+" 1", "update customers set name = $2 where id = $1: write done "+three+" 1")
			if _, err := c.CopyFrom(within(t, 20*time.Second), pgx.Identifier{"customers"}, []string{"id", "name"}, pgx.CopyFromRows([][]any{{100, "secret"}, {101, "secret"}, {102, "secret"}, {103, "secret"}})); err != nil {
				t.Fatal(err)
			}
			after(`copy "customers"("id", "name") from stdin binary: write done s0,s1 4`)
			// In a transaction, and what is refused in a failed one.
			must(t, c, "BEGIN")
			must(t, c, "DELETE FROM customers WHERE id = 100", simple)
			fails("SELECT 1 / 0", simple)
			fails("SELECT name FROM customers WHERE id = 3", simple)
			must(t, c, "ROLLBACK")
			on := s.shardOf(100)
			after("delete from customers where id = $1: write done "+on+" 1", "select $1 / $2: read failed "+on+" 22012",
				"select name from customers where id = $1: read failed "+on+" 25P02", "rollback: other done "+on)

			if text, _ := os.ReadFile(path); strings.Contains(string(text), "secret") || !strings.Contains(string(text), "customers") {
				t.Error("a value is in the audit log, or no text")
			}
		})
	}
}

// TestAuditUnknown: what was under way when its session or server went has a line, and one only.
func TestAuditUnknown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	s := startShards(t, 2, auditText(path))
	must(t, s.connect(), "INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(0, 19) n")
	for what, c := range map[string]struct {
		name, sql, outcome string
		end                func(c *pgx.Conn)
	}{
		"a client that hangs up":                {"one", "SELECT pg_sleep(60), name FROM customers WHERE id = 3", "unknown", hangsUp},
		"a client that hangs up, on all shards": {"all", "SELECT count(*), max(pg_sleep(60)::text) FROM customers", "failed", hangsUp},
		"a backend that is ended": {"ended", "UPDATE customers SET name = 'x' WHERE id = 3 AND (SELECT true FROM pg_sleep(60))", "unknown", func(*pgx.Conn) {
			for shard := range s.shards {
				s.direct(shard, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'UPDATE%pg_sleep%' AND pid <> pg_backend_pid()")
			}
		}},
		"a session that is killed": {"killed", "UPDATE customers SET name = 'x' WHERE id = 4 AND (SELECT true FROM pg_sleep(60))", "unknown", func(*pgx.Conn) {
			console, _ := s.consoleOf()
			for _, row := range shownBy(t, console, "SHOW CLIENTS") {
				if row["database"] == "app" && row["state"] == "active" {
					must(t, console, "KILL_CLIENT "+row["id"])
				}
			}
		}},
	} {
		t.Run(what, func(t *testing.T) {
			conn, number := s.connectAudited(t, path, c.name)
			done := make(chan error, 1)
			go func() {
				_, err := conn.Exec(within(t, time.Minute), c.sql, pgx.QueryExecModeSimpleProtocol)
				done <- err
			}()
			eventually(t, "it runs", func() bool {
				return slices.ContainsFunc(s.shards, func(cl *pgtest.Cluster) bool {
					return cl.Primary().Value("app", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()") != "0"
				})
			})
			c.end(conn)
			if err := <-done; err == nil {
				t.Error("no error")
			}
			_ = conn.Close(within(t, time.Second))
			eventually(t, "the session has ended", func() bool {
				return slices.ContainsFunc(auditLines(t, path), func(l auditLine) bool { return l.Event == "logout" && l.Session == number })
			})
			if got := audited(t, path, number, 1); len(got) != 1 || !strings.Contains(got[0], " "+c.outcome+" ") {
				t.Error(got)
			}
		})
	}
}

func hangsUp(c *pgx.Conn) { _ = c.PgConn().Conn().Close() }

// TestAuditPeople: logins and orders are written down, with who and why not, whatever way they come.
func TestAuditPeople(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "audit.log")
	s := startShards(t, 2, auditText(path))
	for _, dsn := range []string{
		strings.Replace(s.dsn(), pgcluster.AppPassword, "guess", 1), strings.Replace(s.dsn(), "/app?", "/nothing?", 1), strings.Replace(s.dsn(), "//app:", "//eve:", 1),
	} {
		if c, err := pgconn.Connect(within(t, 20*time.Second), dsn); err == nil {
			_ = c.Close(within(t, time.Second))
			t.Error("no error: ", dsn)
		}
	}
	c := s.connectTo(s.dsn() + "&application_name=cart")
	must(t, c, "SELECT 1")
	_ = c.Close(within(t, 5*time.Second))
	console, _ := s.consoleOf()
	must(t, console, "PAUSE app")
	must(t, console, "RESUME app")
	if _, err := console.Exec(within(t, 20*time.Second), "KILL nothing"); err == nil {
		t.Error("no error")
	}
	if code := s.asksAdmin("http", "/api/v1/session", "app", pgcluster.AppPassword); code != http.StatusOK {
		t.Error(code)
	}
	if code := s.asksAdmin("http", "/api/v1/session", "app", pgcluster.AppPassword); code != http.StatusOK {
		t.Error(code)
	}
	if code := s.asksAdmin("http", "/api/v1/session", "app", "guess"); code != http.StatusUnauthorized {
		t.Error(code)
	}
	s.p.ordered("reload", s.p.reload)
	must(t, console, "PAUSE app") // it is told of in the same file
	var got []string
	tell := func() []string {
		got = nil
		for _, l := range auditLines(t, path) {
			switch l.Event {
			case "login":
				got = append(got, fmt.Sprintf("login %s@%s %s %s %s app=%s console=%v", l.User, l.Database, l.Method, l.Outcome, l.SQLState, l.Application, l.Console))
			case "logout":
				got = append(got, "logout "+l.User+"@"+l.Database)
			case "order":
				got = append(got, fmt.Sprintf("order %s by %s %s %s", l.Order, strings.TrimSpace(l.By+" "+l.User), l.Outcome, l.SQLState))
			}
			if l.Outcome == "refused" && (l.Reason == "" || l.Client == "") {
				t.Error("no reason or address:", l)
			}
		}
		return got
	}
	want := []string{
		"order start " + buildVersion() + " by program begun ",
		"login app@app  refused 28P01 app= console=false",
		"login app@nothing scram-sha-256 refused 3D000 app= console=false",
		"login eve@app  refused 28P01 app= console=false",
		"login app@app scram-sha-256 done  app=cart console=false",
		"logout app@app",
		"login app@shardproxy scram-sha-256 done  app= console=true",
		"order pause app by console app begun ",
		"order pause app by console app done ",
		"order resume app by console app begun ",
		"order resume app by console app done ",
		"order kill nothing by console app begun ",
		"order kill nothing by console app failed 3D000",
		"login app@ http done  app= console=true",
		"login app@ http refused 28P01 app= console=true",
		"order reload by signal begun ",
		"order reload by signal done ",
		"order pause app by console app begun ",
		"order pause app by console app done ",
	}
	eventually(t, "all is written", func() bool { return len(tell()) >= len(want) })
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	samples := s.scrape()
	if f := samples["shardproxy_audit_lines_total"]; f == nil {
		t.Error("no metric")
	}
}
