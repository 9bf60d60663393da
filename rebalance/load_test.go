package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

const loadSlots = 64

// loadServer is one shard with tables.
type loadServer struct {
	t    *testing.T
	db   *pgtest.Database
	conn *pgx.Conn
}

func newLoadServer(t *testing.T, schema string) *loadServer {
	t.Helper()
	db := pgtest.Shared(t)
	db.Exec(schema)
	return &loadServer{t, db, db.Connect("postgres")}
}

// table returns a table by its name and its key's columns.
func (s *loadServer) table(name string, key ...string) *Table {
	s.t.Helper()
	c, err := catalog.LoadTables(s.t.Context(), s.conn)
	if err != nil {
		s.t.Fatal(err)
	}
	of, res := c.Table("public", name, c.SystemPath())
	if res != catalog.Resolved {
		s.t.Fatalf("no table %s", name)
	}
	table, err := NewTable(of, key, loadSlots)
	if err != nil {
		s.t.Fatal(err)
	}
	return table
}

func (s *loadServer) read(conn *pgx.Conn, own *Set, exact bool, tables ...*Table) *ShardLoad {
	s.t.Helper()
	l, err := ReadLoad(s.t.Context(), conn, "s1", tables, own, LoadOptions{Exact: exact})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func (s *loadServer) notes(l *ShardLoad, want ...string) {
	s.t.Helper()
	var got []string
	for _, n := range l.Notes {
		got = append(got, fmt.Sprintf("%s %s: %s; %s", n.Shard, n.Table, n.Text, n.Hint))
	}
	if len(got) != len(want) {
		s.t.Fatalf("%q, want %q", got, want)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			s.t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}

func loadSum(list []int64) (n int64) {
	for _, x := range list {
		n += x
	}
	return n
}

func loadHeaviest(list []int64) (slot int) {
	for s := range list {
		if list[s] > list[slot] {
			slot = s
		}
	}
	return slot
}

// loadSlotsUntil are the slots below n.
func loadSlotsUntil(n int) *Set {
	var all []shardmap.Slot
	for s := range n {
		all = append(all, shardmap.Slot(s))
	}
	return NewSet(all, loadSlots)
}

// TestLoadHotKeys finds the slot of a frequent value by statistics, for each type of key, where counting finds it.
func TestLoadHotKeys(t *testing.T) {
	s := newLoadServer(t, `CREATE DOMAIN short AS varchar(40) CHECK (value <> '')`)
	all := loadSlotsUntil(loadSlots)
	for _, c := range []struct{ kind, value, hot string }{
		{"bigint", "i", "42"}, {"int", "i", "42"}, {"smallint", "i", "42"},
		{"text", "'tenant ' || i", `'hot, "tenant" {é}'`}, {"short", "'tenant ' || i", `E'hot\\tenant'`},
		{"uuid", "md5(i::text)::uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"},
		{"numeric(12,3)", "i * 1.5", "42.500"}, {"date", "date '2000-01-01' + i", "'0044-03-15 BC'"},
		{"timestamp(3)", "timestamp '2000-01-01' + i * interval '1 hour'", "'2024-02-29 12:34:56.789'"},
		{"timestamptz", "timestamptz '2000-01-01 UTC' + i * interval '1 hour'", "'2024-02-29 12:34:56.789123+02'"},
		{"bytea", "int4send(i)", `'\x00ff5c22'`}, {"boolean", "i % 20 = 0", "false"},
	} {
		s.db.Exec(fmt.Sprintf(`DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, k %[1]s, note text) WITH (autovacuum_enabled = off);
			INSERT INTO t SELECT i, CASE WHEN i %% 3 = 0 THEN (%[2]s)::%[1]s ELSE %[3]s END, repeat('x', 50) FROM generate_series(1, 9000) i; ANALYZE t`, c.kind, c.hot, c.value))
		table := s.table("t", "k")
		estimate, exact := s.read(s.conn, all, false, table), s.read(s.conn, all, true, table)
		s.notes(estimate)
		s.notes(exact)
		if a, b := loadHeaviest(estimate.Load.Rows), loadHeaviest(exact.Load.Rows); a != b {
			t.Errorf("%s: slot %d, counted: %d", c.kind, a, b)
		}
		for slot, n := range exact.Load.Rows {
			if off := estimate.Load.Rows[slot] - n; off < -400 || off > 400 {
				t.Errorf("%s: slot %d: %d rows, counted: %d", c.kind, slot, estimate.Load.Rows[slot], n)
			}
			if off := estimate.Load.Bytes[slot] - exact.Load.Bytes[slot]; off < -60_000 || off > 60_000 {
				t.Errorf("%s: slot %d: %d bytes, counted: %d", c.kind, slot, estimate.Load.Bytes[slot], exact.Load.Bytes[slot])
			}
		}
		for _, l := range []*ShardLoad{estimate, exact} {
			if rows, bytes := loadSum(l.Load.Rows), loadSum(l.Load.Bytes); rows != 9000 || bytes != l.Tables[0].Bytes || l.Tables[0].Rows != 9000 || bytes < 9000*80 {
				t.Errorf("%s: %d rows and %d bytes in slots, %+v", c.kind, rows, bytes, l.Tables[0])
			}
		}
		slot, err := SlotOfValue(t.Context(), s.conn, table, s.db.Value("SELECT k::text FROM t WHERE id = 3"))
		if err != nil || int(slot) != loadHeaviest(exact.Load.Rows) {
			t.Errorf("%s: slot %d, %v", c.kind, slot, err)
		}
	}
}

// TestLoadOwnSlots: what lies in other slots, or in none, is not counted to the shard's.
func TestLoadOwnSlots(t *testing.T) {
	s := newLoadServer(t, `CREATE TABLE t (id int PRIMARY KEY, k int) WITH (autovacuum_enabled = off); INSERT INTO t SELECT i, nullif(i, 7) FROM generate_series(1, 5000) i;
		CREATE TABLE p (a int, b text, PRIMARY KEY (b, a)) WITH (autovacuum_enabled = off); INSERT INTO p SELECT i % 10, i FROM generate_series(1, 1000) i;
		CREATE TABLE empty (id int PRIMARY KEY); ANALYZE`)
	tables := []*Table{s.table("t", "k"), s.table("p", "b", "a"), s.table("empty", "id")}
	own := loadSlotsUntil(16)
	l := s.read(s.conn, own, true, tables...)
	s.notes(l, `"public"."t": 37`, `"public"."t": 1 rows lie in no slot`, `"public"."p": 7`)
	if sum := loadSum(l.Load.Rows); sum < 1200 || sum > 1800 || l.Load.Rows[16] != 0 || l.Load.Bytes[16] != 0 {
		t.Errorf("%d rows in own slots, %+v", sum, l.Load)
	}
	l = s.read(s.conn, own, false, tables...)
	s.notes(l)
	if sum := loadSum(l.Load.Rows); sum != 5999 || l.Load.Rows[16] != 0 {
		t.Errorf("estimated: %d rows, %+v", sum, l.Load)
	}
	if l = s.read(s.conn, NewSet(nil, loadSlots), false, tables...); loadSum(l.Load.Rows) != 0 || l.Tables[0].Rows != 5000 {
		t.Errorf("a shard without slots: %+v", l)
	}
}

// TestLoadWide: rows of few keys whose large values are kept outside of them have the bytes.
func TestLoadWide(t *testing.T) {
	s := newLoadServer(t, `CREATE TABLE t (id int PRIMARY KEY, k int, v text); ALTER TABLE t ALTER v SET STORAGE EXTERNAL;
		INSERT INTO t SELECT i, i, CASE WHEN i = 42 THEN repeat('x', 3000000) END FROM generate_series(1, 2000) i; ANALYZE t`)
	l := s.read(s.conn, loadSlotsUntil(loadSlots), true, s.table("t", "k"))
	if slot := loadHeaviest(l.Load.Bytes); l.Load.Bytes[slot] < 2_500_000 || l.Load.Rows[slot] > 100 || loadSum(l.Load.Bytes) != l.Tables[0].Bytes {
		t.Errorf("%d bytes, %d rows of %+v", l.Load.Bytes[slot], l.Load.Rows[slot], l.Tables[0])
	}
}

// TestLoadWithout says what estimates lack, and what fails.
func TestLoadWithout(t *testing.T) {
	s := newLoadServer(t, `CREATE TABLE fresh (id int PRIMARY KEY) WITH (autovacuum_enabled = off); INSERT INTO fresh SELECT generate_series(1, 3000);
		CREATE TABLE hidden (id int PRIMARY KEY) WITH (autovacuum_enabled = off); INSERT INTO hidden SELECT generate_series(1, 3000);
		CREATE TABLE policed (id int PRIMARY KEY) WITH (autovacuum_enabled = off); INSERT INTO policed SELECT generate_series(1, 3000);
		CREATE TABLE gone (id int PRIMARY KEY); ANALYZE hidden; ANALYZE policed;
		GRANT SELECT ON fresh, policed TO app; ALTER TABLE policed ENABLE ROW LEVEL SECURITY`)
	fresh, hidden, policed, gone := s.table("fresh", "id"), s.table("hidden", "id"), s.table("policed", "id"), s.table("gone", "id")
	s.db.Exec("DROP TABLE gone")
	own := loadSlotsUntil(loadSlots)
	app := s.db.Connect("app")
	l := s.read(app, own, false, fresh, hidden, policed, gone)
	s.notes(l, `"public"."fresh": `, `"public"."hidden": which keys have many rows is not known: the control user may not read its statistics; GRANT SELECT`,
		`"public"."policed": which keys have many rows is not known: the control user may not`)
	if len(l.Blockers) != 1 || l.Blockers[0].Error() != `s1, "public"."gone": the shard does not have it` {
		t.Errorf("%v", l.Blockers)
	}
	if sum := loadSum(l.Load.Rows); sum < 6000 {
		t.Errorf("%d rows", sum)
	}
	for table, want := range map[*Table]string{hidden: "42501", policed: "42501"} {
		_, err := ReadLoad(t.Context(), app, "s1", []*Table{table}, own, LoadOptions{Exact: true})
		if !loadSays(err, want) || !strings.Contains(err.Error(), "table "+table.String()+": ") || !strings.Contains(err.Error(), "GRANT SELECT ON "+table.String()) {
			t.Errorf("%v", err)
		}
	}
	// It is usable behind an error, and a table that is locked is not waited for without end.
	blocker := s.db.Connect("postgres")
	tx, err := blocker.Begin(t.Context())
	if err == nil {
		_, err = tx.Exec(t.Context(), "LOCK TABLE fresh")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = ReadLoad(t.Context(), app, "s1", []*Table{fresh}, own, LoadOptions{LockTimeout: 50 * time.Millisecond})
	if !loadSays(err, "55P03") {
		t.Errorf("%v", err)
	}
	if _, err := SlotOfValue(t.Context(), app, hidden, "abc"); !loadSays(err, "22P02") {
		t.Errorf("%v", err)
	}
}

// loadSays reports whether an error is the server's, of this SQLSTATE.
func loadSays(err error, code string) bool {
	var said *pgconn.PgError
	return errors.As(err, &said) && said.Code == code
}
