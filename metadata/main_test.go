package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// patience bounds how long a fact is waited for.
const patience = 20 * time.Second

// eventually waits for a fact and returns how long that took.
func eventually(t *testing.T, what string, fact func() bool) time.Duration {
	t.Helper()
	began, tick, deadline := time.Now(), time.NewTicker(time.Millisecond), time.After(patience)
	defer tick.Stop()
	for !fact() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("in %v: not %s", patience, what)
		}
	}
	return time.Since(began)
}

// to connects to a DSN.
func to(dsn string) Connect {
	return func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, dsn) }
}

// asApp leads to a database as the role "app", without SCRAM: its many rounds
// would be most of what the tests do.
func asApp(db *pgtest.Database) string { return db.DSN("postgres") + "&role=app" }

// fleet is databases of the shared server as shards s0, s1, ..., with "app",
// their owner, as control user.
type fleet struct {
	dbs  []*pgtest.Database
	opts Options
	root []*pgx.Conn // of superusers
}

func newFleet(t *testing.T, shards int) *fleet {
	t.Helper()
	f := &fleet{opts: Options{Database: "shop", Slots: 64}}
	for i := range shards {
		db := pgtest.Shared(t)
		f.dbs = append(f.dbs, db)
		f.root = append(f.root, db.Connect("postgres"))
		f.opts.Shards = append(f.opts.Shards, Shard{Name: fmt.Sprintf("s%d", i), Connect: to(asApp(db))})
	}
	return f
}

// madeFleet is newFleet with a cluster.
func madeFleet(t *testing.T, shards int) *fleet {
	t.Helper()
	f := newFleet(t, shards)
	mustInit(t, f.opts)
	return f
}

func mustInit(t *testing.T, o Options) *Report {
	t.Helper()
	r, err := Init(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantProblem wants an error with exactly one problem, of a shard and a kind,
// whose reason holds the text, and with a hint.
func wantProblem(t *testing.T, err error, shard string, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v, want kind %q", err, kind)
	}
	var p *Problem
	var all *CheckError
	if errors.As(err, &all) {
		if len(all.Problems) != 1 {
			t.Errorf("%v, want one problem: %q", err, text)
		}
		p = all.Problems[0]
	} else if !errors.As(err, &p) {
		t.Fatalf("error %v is no Problem", err)
	}
	if p.Shard != shard || p.Kind != kind || !strings.Contains(p.Reason, text) || p.Hint == "" || p.Warning {
		t.Errorf("problem %+v, want shard %q, kind %q, %q and a hint", p, shard, kind, text)
	}
}

// state prints all rows of the schema, for comparing.
func (f *fleet) state() string {
	var b strings.Builder
	for i, db := range f.dbs {
		fmt.Fprintln(&b, f.opts.Shards[i].Name, db.Rows("SELECT * FROM shardproxy.cluster"), db.Rows("SELECT * FROM shardproxy.epoch"))
	}
	fmt.Fprintln(&b, f.dbs[0].Rows("SELECT * FROM shardproxy.shards ORDER BY position"), f.dbs[0].Rows("SELECT * FROM shardproxy.slots ORDER BY slot"))
	return b.String()
}

// drop removes the schema from all shards.
func (f *fleet) drop() {
	for _, conn := range f.root {
		if _, err := conn.Exec(context.Background(), "SET client_min_messages = error; DROP SCHEMA IF EXISTS shardproxy CASCADE"); err != nil {
			panic(err)
		}
	}
}

// value is Database.Value over a connection that is kept.
func (f *fleet) value(shard int, sql string) (v string) {
	err := f.root[shard].QueryRow(context.Background(), "SELECT coalesce(("+sql+")::text, 'NULL')", pgx.QueryExecModeExec).Scan(&v)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", sql, err))
	}
	return v
}
