package admin

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq"
)

// TestPgbouncerExporter does what prometheus-community/pgbouncer_exporter does, with its driver: the queries of its collector, what it demands
// of their columns, and the types it converts.
func TestPgbouncerExporter(t *testing.T) {
	s := newSite(t)
	db, err := sql.Open("postgres", s.dsn("ops"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	rows := func(query string) (names []string, all [][]any) {
		t.Helper()
		r, err := db.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(query, err)
		}
		defer r.Close()
		names, _ = r.Columns()
		for r.Next() {
			values := make([]any, len(names))
			into := make([]any, len(names))
			for i := range values {
				into[i] = &values[i]
			}
			if err := r.Scan(into...); err != nil {
				t.Fatal(query, err)
			}
			all = append(all, values)
		}
		if r.Err() != nil || len(all) == 0 {
			t.Fatal(query, r.Err(), len(all))
		}
		return names, all
	}
	rows("SHOW STATS;") // its ping
	var banner string
	if err := db.QueryRowContext(t.Context(), "SHOW VERSION;").Scan(&banner); err != nil || regexp.MustCompile(`\d+\.\d+\.\d+`).FindString(banner) != bouncerVersion {
		t.Error(banner, err)
	}
	if names, all := rows("SHOW LISTS;"); len(names) != 2 {
		t.Error(names)
	} else {
		for _, row := range all {
			if _, is := row[1].(int64); !is {
				t.Errorf("%v is a %T", row[0], row[1])
			}
		}
	}
	found := 0
	names, all := rows("SHOW CONFIG;")
	for _, row := range all {
		if row[0] == "max_client_conn" || row[0] == "max_user_connections" {
			if _, err := strconv.ParseFloat(row[1].(string), 64); err == nil {
				found++
			}
		}
	}
	if len(names) != 4 || found != 2 {
		t.Error(names, found)
	}
	for query, want := range map[string]string{
		"SHOW DATABASES;": "name host port database force_user pool_mode / pool_size reserve_pool_size max_connections current_connections paused disabled",
		"SHOW STATS_TOTALS;": "database / query_count query_time bytes_received bytes_sent wait_time xact_count xact_time client_parse_count server_parse_count bind_count " +
			"server_assignment_count",
		"SHOW POOLS;": "database user / cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested " +
			"sv_login maxwait",
	} {
		names, all := rows(query)
		labels, figures, _ := strings.Cut(want, " / ")
		for _, row := range all {
			of := map[string]any{}
			for i, n := range names {
				of[n] = row[i]
			}
			for _, n := range strings.Fields(labels) {
				switch of[n].(type) {
				case string, int64, nil:
				default:
					t.Errorf("%s %s is a %T", query, n, of[n])
				}
			}
			for _, n := range strings.Fields(figures) {
				v, there := of[n]
				switch x := v.(type) {
				case int64, nil: // nil is NaN to it
				case []byte: // a numeric
					if _, err := strconv.ParseFloat(string(x), 64); err != nil {
						t.Error(query, n, err)
					}
				default:
					there = false
				}
				if !there {
					t.Errorf("%s %s is a %T", query, n, v)
				}
			}
		}
	}
}

// bouncerBinary is where a PgBouncer of the version that the console follows may be.
const bouncerBinary = "/opt/pgbouncer-1.25/bin/pgbouncer"

// TestColumnsOfPgBouncer compares names and types of columns with those of PgBouncer itself, where it is installed.
func TestColumnsOfPgBouncer(t *testing.T) {
	if _, err := os.Stat(bouncerBinary); err != nil {
		t.Log("not compared: there is no", bouncerBinary) // TestPgBouncerColumns has them as they were
		return
	}
	real := startBouncer(t)
	wider := map[string]bool{"MEM memtotal": true, "CLIENTS id": true, "SERVERS id": true, "SOCKETS id": true, "ACTIVE_SOCKETS id": true} // ours are int8
	for _, v := range views() {
		r, err := real.Query(t.Context(), "SHOW "+v.name)
		if err == nil {
			r.Close()
			err = r.Err()
		}
		if err != nil {
			if !strings.Contains(v.doc, "PgBouncer has no such command") {
				t.Errorf("SHOW %s: %v", v.name, err)
			}
			continue
		}
		fields := r.FieldDescriptions()
		for i, f := range fields {
			switch {
			case i >= len(v.columns):
				t.Errorf("SHOW %s lacks %s", v.name, f.Name)
			case v.columns[i].name != f.Name:
				t.Errorf("SHOW %s: %s, not %s", v.name, v.columns[i].name, f.Name)
			case v.columns[i].typ.oid != f.DataTypeOID && !wider[v.name+" "+f.Name]:
				t.Errorf("SHOW %s: %s has type %d, not %d", v.name, f.Name, v.columns[i].typ.oid, f.DataTypeOID)
			}
		}
	}
}

// startBouncer runs PgBouncer without a server, and logs in to its console.
func startBouncer(t *testing.T) *pgx.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ini := fmt.Sprintf("[databases]\nshop = host=127.0.0.1 port=1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = any\nadmin_users = ops\n", port)
	path := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(path, []byte(ini), 0o644); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", path}
	if os.Geteuid() == 0 { // which it refuses to be
		args = []string{"-q", "-u", "nobody", path}
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bouncerBinary, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(); _ = cmd.Wait() })
	cfg, err := pgx.ParseConfig(fmt.Sprintf("postgres://ops@127.0.0.1:%d/pgbouncer?sslmode=disable&default_query_exec_mode=simple_protocol", port))
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		if err == nil {
			t.Cleanup(func() { _ = c.Close(context.Background()) })
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-time.After(20 * time.Millisecond)
	}
}
