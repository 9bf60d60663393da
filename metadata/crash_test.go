package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
)

// through leads to a database through a man in the middle.
func through(t *testing.T, db *pgtest.Database, p *faultproxy.Proxy) Connect {
	t.Helper()
	config, err := pgx.ParseConfig(asApp(db) + "&sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	config.Host, config.Port = "127.0.0.1", uint16(p.Port())
	return func(ctx context.Context) (*pgx.Conn, error) { return pgx.ConnectConfig(ctx, config) }
}

// TestInitCrashes ends Init after each statement on each shard: the server has
// carried it out, Init never hears of it. Each time the next run finishes the
// work.
func TestInitCrashes(t *testing.T) {
	f := newFleet(t, 2)
	direct := f.opts.Shards
	proxies := make([]*faultproxy.Proxy, 2)
	broken := f.opts
	broken.Shards = nil
	for i, s := range direct {
		proxies[i] = faultproxy.Start(t, faultproxy.Options{Target: f.dbs[i].Node.Addr()})
		broken.Shards = append(broken.Shards, Shard{Name: s.Name, Connect: through(t, f.dbs[i], proxies[i])})
	}
	for i, p := range proxies {
		for n := 8; ; n++ { // the first statements only read
			f.drop()
			trigger := p.On(faultproxy.Rule{From: faultproxy.FromServer, Kind: 'Z', Nth: n, Do: faultproxy.Kill()})
			_, err := Init(t.Context(), broken)
			trigger.Remove()
			if !fired(trigger) {
				if err != nil || n < 14 {
					t.Errorf("shard %d has %d statements only; %v", i, n-1, err)
				}
				break
			}
			if err == nil {
				t.Fatalf("shard %d, statement %d: no error", i, n)
			}
			f.afterCrash(t, i, n, err)
			if strings.Contains(err.Error(), "cannot read the slot map") {
				break // all is written
			}
		}
	}
}

func fired(t *faultproxy.Trigger) bool {
	select {
	case <-t.Fired():
		return true
	default:
		return false
	}
}

// afterCrash judges what a crash has left, and runs Init again.
func (f *fleet) afterCrash(t *testing.T, shard, n int, crash error) {
	t.Helper()
	var p *Problem
	if !errors.As(crash, &p) || p.Shard != f.opts.Shards[shard].Name || p.Hint == "" {
		t.Errorf("shard %d, statement %d: error %v does not name the shard", shard, n, crash)
	}
	rows := func(i int, table string) string {
		return f.value(i, "SELECT CASE WHEN to_regclass('shardproxy."+table+"') IS NULL THEN 0 ELSE (xpath('//n/text()', query_to_xml('SELECT count(*) AS n FROM shardproxy."+table+"', true, true, '')))[1]::text::int END")
	}
	if rows(0, "epoch") == "1" && (rows(1, "cluster") != "1" || rows(0, "slots") != "64") {
		t.Errorf("shard %d, statement %d: a map of shards that are not its own", shard, n)
	}
	if rows(1, "epoch") == "1" && rows(0, "epoch") != "1" {
		t.Errorf("shard %d, statement %d: an epoch without a map", shard, n)
	}
	id := ""
	if rows(0, "cluster") == "1" {
		id = f.value(0, "SELECT id FROM shardproxy.cluster")
	}
	again := mustInit(t, f.opts)
	if id != "" && again.Cluster.ID != id {
		t.Errorf("shard %d, statement %d: cluster %s became %s", shard, n, id, again.Cluster.ID)
	}
	if got := rows(0, "slots") + rows(0, "shards") + rows(0, "epoch") + rows(1, "epoch") + rows(1, "cluster"); got != "642111" {
		t.Errorf("shard %d, statement %d: after the second run: %s", shard, n, got)
	}
}

// TestInitCancelled ends the context while Init waits for its turn.
func TestInitCancelled(t *testing.T) {
	f := newFleet(t, 1)
	other := f.dbs[0].Connect("app")
	if err := takeTurn(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := Init(ctx, f.opts)
		done <- err
	}()
	eventually(t, "one waits for its turn", func() bool {
		return f.dbs[0].Value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())") == "1"
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if got := f.dbs[0].Value("SELECT to_regnamespace('shardproxy')"); got != "NULL" {
		t.Error("something was written")
	}
	if err := other.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustInit(t, f.opts)
}

// TestUpgrade takes a step that this program does not have yet, fails in the
// middle of one, and sees older programs refuse what newer ones have made.
func TestUpgrade(t *testing.T) {
	f := madeFleet(t, 2)
	next := append(steps(), step{version: Version + 1, shard: "ALTER TABLE shardproxy.epoch ADD COLUMN note text;", home: "CREATE TABLE shardproxy.extra (x int);"})
	failing := append(slices.Clone(next), step{version: Version + 2, shard: "CREATE TABLE shardproxy.more (x int); SELECT 1 / 0;"})
	f.opts.Shards[0].Connect, f.opts.Shards[1].Connect = f.opts.Shards[1].Connect, f.opts.Shards[0].Connect
	if _, err := initialise(t.Context(), f.opts, next); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("exchanged shards: %v", err)
	}
	f.opts.Shards[0].Connect, f.opts.Shards[1].Connect = f.opts.Shards[1].Connect, f.opts.Shards[0].Connect

	before := f.state()
	_, err := initialise(t.Context(), f.opts, failing)
	wantProblem(t, err, "s0", ErrServer, fmt.Sprintf("schema version %d: ERROR: division by zero", Version+2))
	if after := f.state(); after != before || f.dbs[0].Value("SELECT count(*) FROM pg_tables WHERE schemaname = 'shardproxy'") != "17" {
		t.Errorf("a failed upgrade left\n%s\nbefore\n%s", after, before)
	}
	r, err := initialise(t.Context(), f.opts, next)
	if err != nil || len(r.Steps) != 2 || r.Steps[1] != (Step{"s1", fmt.Sprintf("upgraded the schema from version %d to %d", Version, Version+1)}) || r.Cluster.SchemaVersion != Version+1 {
		t.Errorf("upgrade: %+v, %v", r, err)
	}
	if r, err = initialise(t.Context(), f.opts, next); err != nil || len(r.Steps) != 0 {
		t.Errorf("again: %v, %v", r, err)
	}
	if got := f.dbs[0].Value("SELECT to_regclass('shardproxy.extra') IS NOT NULL"); got != "t" {
		t.Error("the home shard's step was not taken")
	}
	if got := f.dbs[1].Value("SELECT to_regclass('shardproxy.extra') IS NOT NULL"); got != "f" {
		t.Error("the home shard's step was taken elsewhere")
	}
	conn := f.dbs[0].Connect("app")
	_, _, err = Load(t.Context(), conn)
	wantProblem(t, err, "s0", ErrVersion, fmt.Sprintf("schema version %d, this program's is %d", Version+1, Version))
	_, err = Init(t.Context(), f.opts)
	if !errors.Is(err, ErrVersion) || strings.Count(err.Error(), "newer") != 2 {
		t.Errorf("Init: %v", err)
	}
	_, err = Check(t.Context(), f.opts)
	if !errors.Is(err, ErrVersion) {
		t.Errorf("Check: %v", err)
	}
	wantProblem(t, Change(t.Context(), conn, 1, r.Map), "s0", ErrVersion, fmt.Sprint("schema version ", Version+1))
	c := r.Cluster
	c.Shard = "s1"
	_, err = RaiseEpoch(t.Context(), f.dbs[1].Connect("app"), &c, 2)
	wantProblem(t, err, "s1", ErrVersion, fmt.Sprint("schema version ", Version+1))
}
