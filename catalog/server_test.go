package catalog

import (
	"fmt"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestRefresherWithTables notices a change of a column, which only LoadTables reads.
func TestRefresherWithTables(t *testing.T) {
	db := pgtest.Shared(t)
	other := connect(t, db.DSN("postgres"))
	exec := func(sql string) {
		t.Helper()
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE t (a int)")
	changed := make(chan *Catalog, 8)
	r := NewRefresher(Options{Source: connect(t, db.DSN("postgres")), Tables: true, Changed: func(c *Catalog) { changed <- c }})
	if err := r.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, column := range []string{"a", "b"} {
		select {
		case c := <-changed:
			if table, resolution := c.Table("public", "t", Path{}); resolution != Resolved || table.Column(column) == nil {
				t.Errorf("%s: %s %+v", column, resolution, table)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no catalog was loaded")
		}
		if column == "a" {
			exec("ALTER TABLE t RENAME a TO b")
			r.Poke()
		}
	}
}

// TestRefresherOnServer pokes a Refresher after a change.
func TestRefresherOnServer(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	other := connect(t, db.DSN("postgres"))
	changed := make(chan *Catalog, 8)
	r := NewRefresher(Options{Source: conn, Changed: func(c *Catalog) { changed <- c }})
	if err := r.Open(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := func() *Catalog {
		t.Helper()
		select {
		case c := <-changed:
			return c
		case <-time.After(30 * time.Second):
			t.Fatal("no catalog was loaded")
			return nil
		}
	}
	first := next()
	if v := first.Function("", "brand_new", 0, Path{}); v.Found {
		t.Error("found too early")
	}
	if _, err := other.Exec(t.Context(), "CREATE FUNCTION brand_new() RETURNS int STABLE LANGUAGE sql AS 'SELECT 1'"); err != nil {
		t.Fatal(err)
	}
	r.Poke()
	second := next()
	if v := second.Function("", "brand_new", 0, Path{}); !v.Found || v.Fitness != Anywhere {
		t.Errorf("after the poke: %+v", v)
	}
	if second.Version() != first.Version()+1 || r.Current() != second {
		t.Error(fmt.Sprint("versions ", first.Version(), second.Version()))
	}
}
