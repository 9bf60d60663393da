package catalog

import (
	"context"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

var update = flag.Bool("update", false, "write the goldens of testdata/tables again")

// loadSchema makes a database with the schema and loads it.
func loadSchema(t *testing.T, schemaSQL string) (*Catalog, *pgx.Conn) {
	t.Helper()
	conn := connect(t, pgtest.Shared(t).DSN("postgres"))
	if _, err := conn.Exec(t.Context(), schemaSQL); err != nil {
		t.Fatal(err)
	}
	return reload(t, conn), conn
}

func reload(t *testing.T, conn *pgx.Conn) *Catalog {
	t.Helper()
	c, err := LoadTables(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// golden compares with a file, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(readFile(t, name), got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", name, d)
	}
}

// TestTables loads a schema that has something of everything, under settings that
// change what the server prints.
func TestTables(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	if _, err := conn.Exec(t.Context(), readFile(t, "testdata/tables/schema.sql")); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Exec(t.Context(), `SET DateStyle = 'German'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'Asia/Tokyo';
		SET bytea_output = 'escape'; SET quote_all_identifiers = on; SET search_path = app, public`)
	if err != nil {
		t.Fatal(err)
	}
	all := printTables(reload(t, conn))
	golden(t, "testdata/tables/schema.golden", all)
	// A role without rights reads the same.
	if d := cmp.Diff(all, printTables(reload(t, connect(t, db.DSN("app"))))); d != "" {
		t.Errorf("as another role (-superuser +role):\n%s", d)
	}
}

// TestConstantDefaults checks on the server that what is told as a constant is
// what a row gets.
func TestConstantDefaults(t *testing.T) {
	c, conn := loadSchema(t, readFile(t, "testdata/tables/schema.sql"))
	if _, err := conn.Exec(t.Context(), "SET TimeZone = 'UTC'; ALTER TABLE app.defaults ALTER v DROP DEFAULT; INSERT INTO app.defaults DEFAULT VALUES"); err != nil {
		t.Fatal(err)
	}
	constants := 0
	table, _ := c.Table("app", "defaults", Path{})
	for _, col := range table.Columns {
		if col.Default.Kind != DefaultConstant || col.Name == "v" {
			continue
		}
		constants++
		var same bool
		// Read by the column's type without its modifier, then assigned.
		err := conn.QueryRow(t.Context(), "SELECT "+pgx.Identifier{col.Name}.Sanitize()+" = CAST($1::text AS "+col.TypeName+") FROM app.defaults",
			col.Default.Value).Scan(&same)
		if err != nil || !same {
			t.Errorf("%s: %q is not what a row gets (%v)", col.Name, col.Default.Value, err)
		}
	}
	if constants < 10 {
		t.Errorf("only %d constants", constants)
	}
}

// TestViewsGiveTheirLocksBack loads more views than are locked at one time.
func TestViewsGiveTheirLocksBack(t *testing.T) {
	conn := connect(t, pgtest.Shared(t).DSN("postgres"))
	_, err := conn.Exec(t.Context(), `DO $$ BEGIN
		FOR i IN 1..450 LOOP
			EXECUTE format('CREATE TABLE t%s (a int)', i);
			EXECUTE format('CREATE VIEW v%s AS SELECT a FROM t%s', i, i);
		END LOOP; END $$`)
	if err != nil {
		t.Fatal(err)
	}
	var most int
	c, err := LoadTables(t.Context(), watchedLocks{conn, &most})
	if err != nil {
		t.Fatal(err)
	}
	v, r := c.Table("public", "v450", Path{})
	if r != Resolved || v.View.Definition == "" {
		t.Errorf("v450: %s", r)
	}
	if most == 0 || most > 2*viewsAtOnce+50 { // a view and its table
		t.Errorf("%d relations were locked at one time", most)
	}
}

// watchedLocks counts, before each query, the tables that its session holds locks on.
type watchedLocks struct {
	*pgx.Conn
	most *int
}

func (w watchedLocks) BeginTx(ctx context.Context, options pgx.TxOptions) (pgx.Tx, error) {
	tx, err := w.Conn.BeginTx(ctx, options)
	return watchedTx{tx, w.most}, err
}

type watchedTx struct {
	pgx.Tx
	most *int
}

func (w watchedTx) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := w.Tx.Begin(ctx)
	return watchedTx{tx, w.most}, err
}

func (w watchedTx) Rollback(ctx context.Context) error {
	var n int
	if w.Tx.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384").Scan(&n) == nil {
		*w.most = max(*w.most, n)
	}
	return w.Tx.Rollback(ctx)
}

// TestLoadTablesWaits checks that a table changed by a transaction that is not over yet
// is waited for, and then read.
func TestLoadTablesWaits(t *testing.T) {
	db := pgtest.Shared(t)
	conn, other := connect(t, db.DSN("postgres")), connect(t, db.DSN("postgres"))
	for _, sql := range []string{"CREATE TABLE t (a int DEFAULT 1); CREATE VIEW v AS SELECT a FROM t", "BEGIN; ALTER TABLE t ADD b int"} {
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	loaded := make(chan *Catalog, 1)
	go func() {
		c, err := LoadTables(context.Background(), conn)
		if err != nil {
			t.Error(err)
		}
		loaded <- c
	}()
	for waits := ""; waits != "1"; {
		if len(loaded) > 0 {
			t.Fatal("loading did not wait")
		}
		waits = db.Value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
	}
	if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if c := <-loaded; c != nil {
		if v, r := c.Table("public", "v", Path{}); r != Resolved || v.View.Definition == "" {
			t.Errorf("the view: %s", r)
		}
	}
}
