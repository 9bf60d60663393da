package twopc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
)

// as runs SQL in a session of a role.
func (f *fleet) as(shard int, role, sql string) error {
	f.t.Helper()
	pg, err := pgconn.Connect(f.t.Context(), f.shards[shard].node.DSN(f.shards[shard].database, "postgres"))
	if err != nil {
		f.t.Fatal(err)
	}
	defer pg.Close(context.Background())
	_, err = pg.Exec(f.t.Context(), "SET SESSION AUTHORIZATION "+role).ReadAll()
	if err == nil {
		_, err = pg.Exec(f.t.Context(), sql).ReadAll()
	}
	return err
}

// testForged: another role sees the name and decides in the coordinator's place.
func testForged(t *testing.T, f *fleet) {
	o := f.options()
	o.MinAge = time.Nanosecond
	recovery := f.closed(o)
	forge := func() {
		f.waitPrepared()
		gid, _, _ := strings.Cut(f.value(1, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND owner = 'buyer'"), ":1 ")
		if err := f.as(0, "thief", "SELECT shardproxy.decide('"+strings.TrimSuffix(gid, ":1")+"')"); err != nil {
			t.Fatal(err)
		}
	}
	// While the coordinator is there: it rolls back.
	parts, clients := f.begin(1)
	resume := f.stall(t, nil, point{step: "decide"}, parts, clients)
	forge()
	f.round(recovery)
	if d := recovery.Stats().Doubts; f.prepared() != 1 || len(d) != 1 || !strings.Contains(d[0].Reason, `role "thief"`) {
		t.Errorf("%d prepared, %+v", f.prepared(), d)
	}
	outcome, code := resume()
	if bad := wrong(outcome, f.where(1)); outcome != RolledBack || code != "40001" || bad != "" || f.prepared() != 0 {
		t.Error(outcome, code, bad)
	}
	// When it is gone: an operator has to say.
	parts, clients = f.begin(2)
	point{step: "decide"}.at(clients, func() error {
		forge()
		clients[0].cut()
		clients[1].cut()
		return errors.New("cut")
	})
	outcome, _ = f.commit(t.Context(), nil, parts)
	f.round(recovery)
	if f.prepared() != 1 || f.where(2) != "00" {
		t.Errorf("a forged decision was believed: %s", f.where(2))
	}
	f.do(0, "UPDATE shardproxy.commits SET committed = false WHERE decided_by = 'thief'")
	f.round(recovery)
	if bad := wrong(outcome, f.where(2)); bad != "" || f.prepared() != 0 || len(recovery.Stats().Doubts) != 0 {
		t.Error(bad, f.prepared())
	}
}

// testStrangers: prepared transactions that look like ours, and rights that lack.
func testStrangers(t *testing.T, f *fleet) {
	o := f.options()
	o.MinAge = time.Nanosecond
	// A real login, which may be no more than it is.
	for i, s := range f.shards {
		o.Shards[i].Connect = func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, s.node.DSN(s.database, "app")) }
	}
	r := f.closed(o)
	prefix, word := prefixOf(f.cluster), strings.Repeat("A", 20)
	names := map[string]string{ // and what is said of them
		"somebody else's":                               "",
		"shardproxy:" + someCluster + ":s0:x:1":         "",
		prefix + "x":                                    "its name is none that a commit gives",
		prefix + "s0:" + word + ":0":                    "its name is none that a commit gives",
		prefix + "s7:" + word + ":1":                    `shard "s7", which decides it, is not among the shards`,
		prefix + "s0:" + word + ":1":                    `the control user "app" may not act for role "thief", which prepared it: GRANT "thief" TO "app"`,
		prefix + "s0'; DROP TABLE t; --:" + word + ":1": "its name is none that a commit gives",
	}
	said := 0
	for name, reason := range names {
		if err := f.as(1, "thief", "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION "+literal(name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.rollBackPrepared(1, name) })
		if reason != "" {
			said++
		}
	}
	f.round(r)
	s := r.Stats()
	if len(s.Doubts) != said || s.Shards[1].InDoubt != said {
		t.Errorf("%+v", s.Doubts)
	}
	for _, d := range s.Doubts {
		if want := names[d.Name]; want == "" || !strings.Contains(d.Reason, want) {
			t.Errorf("%q: %q, want %q", d.Name, d.Reason, want)
		}
	}
	// Others' work goes on beside them.
	parts, clients := f.begin(1)
	point{step: "commit", after: true}.at(clients, func() error { clients[0].cut(); return errors.New("cut") })
	outcome, _ := f.commit(t.Context(), nil, parts)
	f.round(r)
	if bad := wrong(outcome, f.where(1)); outcome != Unknown || bad != "" || f.where(1) != "11" {
		t.Error(outcome, bad)
	}
}

// literal quotes a text.
func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (f *fleet) rollBackPrepared(shard int, name string) {
	s := f.shards[shard]
	conn, err := s.node.Engine.Connect(context.Background(), s.database)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), "ROLLBACK PREPARED "+literal(name)); err != nil {
		f.t.Error(err)
	}
}

// testWrongServers: a server that is not the shard's primary is not believed.
func testWrongServers(t *testing.T, f *fleet) {
	r := f.closed(f.options())
	says := func(shard int, what string) {
		t.Helper()
		f.round(r)
		if err := r.Stats().Shards[shard].Err; err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
	f.do(1, "UPDATE shardproxy.cluster SET shard = 's9'")
	says(1, `its server is shard "s9" of cluster `+f.cluster)
	f.do(1, "UPDATE shardproxy.cluster SET shard = 'it''s: süd', id = '"+someCluster+"'")
	says(1, "of cluster "+someCluster)
	f.do(1, "UPDATE shardproxy.cluster SET id = '"+f.cluster+"', schema_version = schema_version + 1")
	says(1, fmt.Sprintf("schema version %d", metadata.Version+1))
	var version *metadata.VersionError
	if !errors.As(r.Stats().Shards[1].Err, &version) {
		t.Error("no VersionError")
	}
	f.do(1, "UPDATE shardproxy.cluster SET schema_version = schema_version - 1; ALTER SCHEMA shardproxy RENAME TO away")
	says(1, "does not exist")
	f.do(1, "ALTER SCHEMA away RENAME TO shardproxy")
	f.round(r)
	if s := r.Stats().Shards[1]; s.Err != nil || s.Failures != 4 || s.Looked.IsZero() {
		t.Errorf("%+v", s)
	}
}

// TestPromotion: prepared parts survive the promotion of a replica; a standby,
// which lists none, is not taken for a shard without any.
func TestPromotion(t *testing.T) {
	f := newFleet(t, 2)
	c := pgtest.Start(t, pgtest.Options{Replicas: 1})
	var at atomic.Pointer[pgtest.Node]
	at.Store(c.Primary())
	// A fleet whose second shard is the cluster.
	f.shards[1].forget()
	f.shards[1] = &server{name: "s1", database: "app", node: c.Primary()}
	f.do(0, "DROP SCHEMA shardproxy CASCADE; DROP TABLE t")
	f.init()
	o := f.options()
	o.Shards[1].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		return (&server{database: "app", node: at.Load()}).control()(ctx)
	}
	var outcomes []Outcome
	for id, p := range []point{{step: "commit"}, {step: "commit", after: true}} {
		parts, clients := f.begin(id)
		p.at(clients, func() error {
			clients[0].cut()
			clients[1].cut()
			return errors.New("cut")
		})
		outcome, _ := f.commit(t.Context(), nil, parts)
		outcomes = append(outcomes, outcome)
	}
	// The decision must not be removed while the replica seems to have nothing.
	f.do(0, "UPDATE shardproxy.commits SET decided_at = '-infinity'")
	c.CatchUp()
	at.Store(c.Replicas()[0])
	r := f.closed(o)
	r.sweep(t.Context())
	f.round(r)
	if err := r.Stats().Shards[1].Err; !errors.Is(err, errStandby) || f.value(0, "SELECT count(*) FROM shardproxy.commits") != "1" {
		t.Errorf("%v", err)
	}
	c.Primary().Kill9()
	c.Replicas()[0].Promote()
	f.shards[1].forget()
	f.shards[1].node = c.Replicas()[0]
	if f.prepared() != 2 {
		t.Errorf("%d prepared", f.prepared())
	}
	f.rounds(r)
	r.sweep(t.Context())
	for id, outcome := range outcomes {
		if bad := wrong(outcome, f.where(id)); bad != "" {
			t.Errorf("%d: %v, %s", id, outcome, bad)
		}
	}
	if f.where(1) != "11" || f.prepared() != 0 || f.value(0, "SELECT count(*) FROM shardproxy.commits WHERE committed") != "0" {
		t.Errorf("the row is on %s, %d prepared", f.where(1), f.prepared())
	}
}

// testSweep: rows go when they are old and nobody needs them.
func testSweep(t *testing.T, f *fleet) {
	o := f.options()
	var away atomic.Bool
	direct := o.Shards[1].Connect
	o.Shards[1].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		if away.Load() {
			return nil, errors.New("away")
		}
		return direct(ctx)
	}
	o.Keep = time.Hour
	r := f.closed(o)
	needed := newGID(f.cluster, "s0")
	if err := f.as(1, "buyer", "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION '"+partName(needed, 1)+"'"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.rollBackPrepared(1, partName(needed, 1)) })
	f.do(0, fmt.Sprintf(`INSERT INTO shardproxy.commits (gid, committed, decided_by, decided_at) VALUES
		('old', true, 'buyer', now() - interval '61 minutes'), ('new', true, 'buyer', now() - interval '59 minutes'), ('%s', true, 'buyer', now() - interval '2 hours'),
		('tombstone', false, 'app', now() - interval '23 hours'), ('old tombstone', false, 'app', now() - interval '25 hours');
		INSERT INTO shardproxy.commits (gid, committed, decided_by, decided_at) SELECT 'many ' || n, true, 'buyer', '-infinity' FROM generate_series(1, %d) n`, needed, 2*sweepBatch+1))
	left := func(want string) {
		t.Helper()
		r.sweep(t.Context())
		if got := f.value(0, "SELECT string_agg(CASE gid WHEN '"+needed+"' THEN 'needed' ELSE gid END, ', ' ORDER BY decided_at DESC) FROM shardproxy.commits WHERE gid NOT LIKE 'many %'"); got != want {
			t.Errorf("left are %s, want %s", got, want)
		}
	}
	away.Store(true)
	left("new, old, needed, tombstone, old tombstone")
	away.Store(false)
	// Prepared transactions of this server are running, too, but newer.
	running := f.client(0)
	f.do(0, "UPDATE shardproxy.commits SET xid = pg_current_xact_id() WHERE gid = 'old tombstone'")
	if got := f.value(0, "SELECT count(*) FROM shardproxy.commits WHERE gid LIKE 'many %'"); got != fmt.Sprint(2*sweepBatch+1) {
		t.Errorf("%s rows left without asking every shard", got)
	}
	left("new, needed, tombstone, old tombstone") // the prepared one began before the tombstone
	if got := f.value(0, "SELECT count(*) FROM shardproxy.commits WHERE gid LIKE 'many %'"); got != "0" {
		t.Errorf("%s rows left", got)
	}
	f.must(running, "BEGIN; INSERT INTO t VALUES (7)")
	f.do(0, "UPDATE shardproxy.commits SET xid = '3' WHERE gid = 'old tombstone'")
	left("new, needed, tombstone")
	if got := r.Stats().Removed; got != 2*sweepBatch+1+2 {
		t.Errorf("removed %d", got)
	}
}
