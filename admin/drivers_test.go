package admin

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/lib/pq"
)

func connect(t *testing.T, s *site, user string, mode pgx.QueryExecMode) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(s.dsn(user))
	if err != nil {
		t.Fatal(err)
	}
	cfg.DefaultQueryExecMode = mode
	cfg.RuntimeParams["application_name"] = "a test"
	cfg.RuntimeParams["search_path"] = "nowhere" // passed over, as PgBouncer does
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// TestPgx runs every SHOW in every mode: text and binary values, described and
// not, are the same.
func TestPgx(t *testing.T) {
	s := newSite(t)
	var first map[string][][]any
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		t.Run(mode.String(), func(t *testing.T) {
			c := connect(t, s, "ops", mode)
			all := map[string][][]any{}
			for _, v := range views() {
				if v.name == "CLIENTS" {
					continue // shows the session itself, which differs
				}
				for range 2 { // the second time by the statement cache
					rows, err := c.Query(t.Context(), "SHOW "+v.name+";")
					if err != nil {
						t.Fatal(err)
					}
					all[v.name] = nil
					for rows.Next() {
						values, err := rows.Values()
						if err != nil {
							t.Fatal(v.name, err)
						}
						all[v.name] = append(all[v.name], values)
					}
					if rows.Err() != nil || rows.CommandTag().String() != "SHOW" {
						t.Fatalf("SHOW %s: %v, %q", v.name, rows.Err(), rows.CommandTag())
					}
				}
			}
			if first == nil {
				first = all
			}
			for name, rows := range all {
				if strings.HasSuffix(name, "SOCKETS") {
					continue // has the console's own sessions, of which one may be ending
				}
				if len(rows) != len(first[name]) {
					t.Errorf("SHOW %s has %d rows, not %d", name, len(rows), len(first[name]))
				}
			}
			var id int64
			var wait int32
			var addr string
			var local *string
			err := c.QueryRow(t.Context(), "show servers where id > 0").Scan(nil, nil, nil, nil, nil, &addr, nil, &local, nil, nil, nil, &wait, nil, nil,
				nil, nil, nil, nil, nil, nil, &id, nil)
			if err != nil || id != 30 || addr != "10.0.0.2" || local == nil {
				t.Errorf("typed values: %v, %d, %s", err, id, addr)
			}
			var received int64 // numeric
			err = c.QueryRow(t.Context(), "show stats_totals").Scan(nil, nil, nil, nil, &received, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil)
			if err != nil || received != 123456789012 {
				t.Errorf("a numeric: %v, %d", err, received)
			}
			if err := c.Ping(t.Context()); err != nil { // "-- ping", an empty query
				t.Error(err)
			}
			_, err = c.Exec(t.Context(), "SHOW nothing")
			if pe := new(pgconn.PgError); !errors.As(err, &pe) || pe.Code != "42601" || !strings.Contains(pe.Hint, "SHOW HELP") {
				t.Errorf("an unknown command: %v", err)
			}
			if err := c.Ping(t.Context()); err != nil {
				t.Error("the session does not go on:", err)
			}
			if got := c.PgConn().ParameterStatus("application_name"); got != "a test" {
				t.Errorf("application_name is %q", got)
			}
		})
	}
}

func TestPgxSteers(t *testing.T) {
	s := newSite(t)
	c := connect(t, s, "admin", pgx.QueryExecModeCacheStatement)
	for _, sql := range []string{"PAUSE shop", "RESUME shop", `RECONNECT "My-Db.2";`, "kill", "RESUME", "RELOAD", "PAUSE", "resume My-Db.2"} {
		tag, err := c.Exec(t.Context(), sql)
		word, _, _ := strings.Cut(strings.ToUpper(sql), " ")
		if err != nil || tag.String() != strings.Trim(word, ";") {
			t.Errorf("%s: %q, %v", sql, tag, err)
		}
	}
	s.world.mu.Lock()
	got := s.world.steered
	s.world.mu.Unlock()
	sortRun(got, 8, 10) // the two databases of PAUSE, at the same time
	if want := "pause shop, resume shop, reconnect My-Db.2, kill shop, kill My-Db.2, resume shop, resume My-Db.2, reload, " +
		"pause My-Db.2, pause shop, resume My-Db.2"; strings.Join(got, ", ") != want {
		t.Errorf("ordered: %v", got)
	}
	if !s.world.isPaused("shop") || s.world.isPaused("My-Db.2") {
		t.Error("RESUME of one database did not leave the other paused")
	}
	log := s.log.String()
	for _, want := range []string{`msg="console command" user=admin client=127.0.0.1:`, `command="pause shop"`, `msg="console command done"`, `msg="clients killed"`, "clients=3"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s:\n%s", want, log)
		}
	}
}

func sortRun(s []string, from, to int) {
	if len(s) >= to && s[from] > s[to-1] {
		s[from], s[to-1] = s[to-1], s[from]
	}
}

// TestLibPQ: the driver of the exporters that read PgBouncer's console.
func TestLibPQ(t *testing.T) {
	s := newSite(t)
	db, err := sql.Open("postgres", s.dsn("ops")+"&application_name=exporter")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, v := range views() {
		rows, err := db.QueryContext(t.Context(), "SHOW "+v.name+";")
		if err != nil {
			t.Fatal(v.name, err)
		}
		types, err := rows.ColumnTypes()
		if err != nil || len(types) != len(v.columns) {
			t.Fatal(v.name, err)
		}
		for i, ct := range types {
			if ct.Name() != v.columns[i].name || !strings.EqualFold(ct.DatabaseTypeName(), v.columns[i].typ.name) {
				t.Errorf("SHOW %s: column %s is %s", v.name, ct.Name(), ct.DatabaseTypeName())
			}
		}
		for rows.Next() {
		}
		if rows.Err() != nil {
			t.Error(v.name, rows.Err())
		}
	}
	// Prepared, and inside a transaction, as database/sql does it.
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	st, err := tx.PrepareContext(t.Context(), "SHOW LISTS")
	if err != nil {
		t.Fatal(err)
	}
	var list string
	var items int
	if err := st.QueryRowContext(t.Context()).Scan(&list, &items); err != nil || list != "databases" || items != 2 {
		t.Errorf("%s %d, %v", list, items, err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
}

// TestPsql runs the console as an operator does.
func TestPsql(t *testing.T) {
	s := newSite(t)
	psql := func(user string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "psql", append([]string{"-X", s.dsn(user)}, args...)...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		return out.String(), err
	}
	out, err := psql("ops", "-At", "-c", "show databases", "-c", "SHOW HELP;", "-c", "SHOW client_encoding", "-c", ";")
	if err != nil {
		t.Fatal(err, out)
	}
	for _, want := range []string{"shop|10.0.0.1|5432|shopdb||20|2|1|3600|transaction||100|17|500|4|0|0|", "Console usage", "PAUSE [database]", "UTF8"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if out, err := psql("ops", "-v", "VERBOSITY=verbose", "-c", "RELOAD"); err == nil || !strings.Contains(out, "42501") {
		t.Errorf("a monitor user reloads: %v\n%s", err, out)
	}
	if out, err := psql("admin", "-c", "RELOAD"); err != nil || out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:] != "RELOAD\n" {
		t.Errorf("%v\n%s", err, out)
	}
	s.world.mu.Lock()
	s.world.reload = errors.New("a.yaml:3: no such key\na.yaml:9: out of range")
	s.world.mu.Unlock()
	out, err = psql("admin", "-v", "VERBOSITY=verbose", "-c", "RELOAD")
	if err == nil || !strings.Contains(out, "F0000") || !strings.Contains(out, "a.yaml:9: out of range") {
		t.Errorf("a failed reload: %v\n%s", err, out)
	}
	if out, err := psql("nobody", "-c", "SHOW POOLS"); err == nil || !strings.Contains(out, "may not use the console") {
		t.Errorf("nobody gets in: %v\n%s", err, out)
	}
	if s.world.orders() != "reload, reload" {
		t.Errorf("ordered: %s", s.world.orders())
	}
}

// TestPsycopg: Datadog's and pgwatch's way in, psycopg2, and psycopg 3, which
// prepares what it runs often.
func TestPsycopg(t *testing.T) {
	s := newSite(t)
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/console.py", s.dsn("admin"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v (Debian packages python3-psycopg2 and python3-psycopg)\n%s", err, out)
	}
	if want := "pause shop, resume shop, pause shop, resume shop"; s.world.orders() != want {
		t.Errorf("ordered: %s\n%s", s.world.orders(), out)
	}
}
