package catalog

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestFence knows the trigger of a move by what it calls: also when the move takes it away while the catalog is read, whose text is then
// not to be had.
func TestFence(t *testing.T) {
	db := pgtest.Shared(t)
	conn := connect(t, db.DSN("postgres"))
	exec := func(sql string) {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE SCHEMA shardproxy;
		CREATE FUNCTION shardproxy.fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE FUNCTION fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TABLE moving (id int);
		CREATE TRIGGER shardproxy_fence_m1_i AFTER INSERT ON moving FOR EACH ROW EXECUTE FUNCTION shardproxy.fence('m1');
		CREATE TRIGGER shardproxy_fence_other AFTER INSERT ON moving FOR EACH ROW EXECUTE FUNCTION public.fence('m1');
		CREATE TRIGGER other AFTER INSERT ON moving FOR EACH ROW EXECUTE FUNCTION shardproxy.fence('m1')`)
	for _, q := range []Querier{conn, dropping{connect(t, db.DSN("postgres")), func() { exec("DROP TRIGGER shardproxy_fence_m1_i ON moving") }}} {
		c, err := LoadTables(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		is := map[string]bool{}
		table, _ := c.Table("public", "moving", Path{})
		for _, g := range table.Triggers {
			is[g.Name] = g.Fence()
		}
		if len(is) != 3 || !is["shardproxy_fence_m1_i"] || is["shardproxy_fence_other"] || is["other"] {
			t.Errorf("%T: %v", q, is)
		}
	}
}

// dropping does something once its transactions have their snapshots.
type dropping struct {
	conn *pgx.Conn
	what func()
}

func (d dropping) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	tx, err := d.conn.BeginTx(ctx, o)
	if err == nil {
		_, err = tx.Exec(ctx, "SELECT 1")
		d.what()
	}
	return tx, err
}
