package verify

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/config"
	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is databases that stand for shards s0, s1, ...
type fleet struct {
	t     testing.TB
	dbs   []*pgtest.Database
	rules *config.Database
	home  *Session
}

// newFleet makes databases that hold the same, and rules; they are YAML.
func newFleet(t testing.TB, n int, schema, rules string) *fleet {
	t.Helper()
	f := &fleet{t: t}
	text := "databases:\n  app:\n    shards:\n"
	for i := range n {
		db := pgtest.Shared(t)
		db.Exec("CREATE SCHEMA shardproxy; " + schema)
		f.dbs = append(f.dbs, db)
		text += fmt.Sprintf("      - {name: s%d, nodes: [\"127.0.0.1:1%d\"]}\n", i, i)
	}
	text += "    server: {control: {user: postgres}}\n" + rules
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.rules = cfg.Database("app")
	return f
}

// open connects to all shards.
func (f *fleet) open() (all []*Session) {
	f.t.Helper()
	for i := range f.dbs {
		all = append(all, f.openOne(i))
	}
	return all
}

func (f *fleet) openOne(i int) *Session {
	f.t.Helper()
	s, err := Open(f.t.Context(), fmt.Sprintf("s%d", i), func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, f.dbs[i].DSN("postgres")) })
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(s.Close)
	return s
}

// checker compares with small chunks, so that there are many.
func (f *fleet) checker(o Options) *Checker {
	f.t.Helper()
	o.Rules = f.rules
	if o.ChunkRows == 0 {
		o.ChunkRows = 3
	}
	if o.Rows == 0 {
		o.Rows = 100
	}
	c, err := New(f.open(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

// compare compares all tables; none may have a problem.
func (f *fleet) compare(c *Checker) (all []*TableResult) {
	f.t.Helper()
	for _, name := range c.Tables() {
		r, err := c.Compare(f.t.Context(), name[0], name[1])
		if err != nil || r.Problem != "" {
			f.t.Fatalf("%v: %v %s", name, err, r.Problem)
		}
		all = append(all, r)
	}
	return all
}

// counts says in short how many rows differ: "t s1 -1 +2 ~3".
func counts(all []*TableResult) string {
	var words []string
	for _, r := range all {
		for i := range r.Shards {
			if s := &r.Shards[i]; s.Differs() {
				words = append(words, fmt.Sprintf("%s %s -%d +%d ~%d", r.Name, s.Shard, s.Missing, s.Extra, s.Different))
			}
		}
	}
	return strings.Join(words, ", ")
}

// repaired says what was done, as counts does.
func repaired(all []*TableResult) string {
	var words []string
	for _, r := range all {
		for i := range r.Shards {
			if s := &r.Shards[i]; s.Repaired != nil {
				words = append(words, fmt.Sprintf("%s %s +%d -%d ~%d", r.Name, s.Shard, s.Repaired.Inserted, s.Repaired.Deleted, s.Repaired.Updated))
			}
		}
	}
	return strings.Join(words, ", ")
}

// inTurn commits one after the other.
func inTurn(ctx context.Context, sessions []*Session) error {
	for _, s := range sessions {
		if err := s.Exec(ctx, "COMMIT"); err != nil {
			return err
		}
	}
	return nil
}

// alike fails unless the databases answer alike, and returns the answer.
func (f *fleet) alike(sql string) (first string) {
	f.t.Helper()
	for i, db := range f.dbs {
		got := strings.Join(pgtest.Lines(db.Rows(sql)), "\n")
		if i == 0 {
			first = got
		} else if got != first {
			f.t.Errorf("%s: s%d has\n%s\ns0 has\n%s", sql, i, got, first)
		}
	}
	return first
}

// mends repairs what differs and compares again.
func (f *fleet) mends(c *Checker, differ, did string) {
	f.t.Helper()
	found := f.compare(c)
	if got := counts(found); got != differ {
		f.t.Errorf("differences: %s\nwant %s", got, differ)
	}
	if err := c.Repair(f.t.Context(), found, inTurn); err != nil {
		f.t.Fatal(Told(err))
	}
	if got := repaired(found); got != did {
		f.t.Errorf("repaired: %s\nwant %s", got, did)
	}
	again := f.compare(f.checker(Options{Source: c.opts.Source}))
	if got := counts(again); got != "" {
		f.t.Errorf("after the repair: %s", got)
	}
	if err := c.Repair(f.t.Context(), again, func(context.Context, []*Session) error { return fmt.Errorf("it commits something") }); err != nil {
		f.t.Error(err)
	}
	for i, db := range f.dbs {
		if got := db.Value("SELECT count(*) FROM pg_class WHERE relnamespace = 'shardproxy'::regnamespace AND relname LIKE 'repair%'"); got != "0" {
			f.t.Errorf("s%d: %s tables of the repair are left", i, got)
		}
	}
}
