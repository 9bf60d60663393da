package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
	"shardproxy/wire"
)

// give returns the map that follows m: the slots belong to a shard.
func give(t *testing.T, m *shardmap.Map, shard string, slots ...int) *shardmap.Map {
	t.Helper()
	rows := m.Rows()
	for _, s := range slots {
		rows[s].Shard = shard
	}
	names := m.Shards()
	if !slices.Contains(names, shard) {
		names = append(names, shard)
	}
	next, err := shardmap.NewMap(m.Epoch()+1, m.Slots(), names, rows)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func mustLoad(t *testing.T, conn *pgx.Conn) (*shardmap.Map, *Cluster) {
	t.Helper()
	m, c, err := Load(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	return m, c
}

func TestLoad(t *testing.T) {
	f := newFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	_, _, err := Load(t.Context(), conn)
	wantProblem(t, err, "", ErrNotInitialised, "no shardproxy cluster")
	r := mustInit(t, f.opts)
	m, c := mustLoad(t, conn)
	if !m.Equal(r.Map) || *c != r.Cluster || m.Epoch() != 1 || m.Slots() != 64 || !slices.Equal(m.Shards(), []string{"s0", "s1"}) {
		t.Errorf("%+v %+v, Init said %+v", m, c, r)
	}
	_, _, err = Load(t.Context(), f.dbs[1].Connect("app"))
	wantProblem(t, err, "s1", ErrOtherCluster, `the slot map is on the home shard "s0"`)
}

// TestNonsense edits rows by hand: the server refuses it or Load does.
func TestNonsense(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	for _, sql := range []string{
		"INSERT INTO shardproxy.cluster SELECT false, id, database, shard, home, slots, schema_version FROM shardproxy.cluster",
		"INSERT INTO shardproxy.cluster SELECT * FROM shardproxy.cluster",
		"UPDATE shardproxy.cluster SET slots = 100", "UPDATE shardproxy.cluster SET slots = 0", "UPDATE shardproxy.cluster SET slots = 131072",
		"UPDATE shardproxy.cluster SET slots = NULL", "UPDATE shardproxy.cluster SET shard = ''", "UPDATE shardproxy.cluster SET home = ''",
		"UPDATE shardproxy.cluster SET database = ''", "UPDATE shardproxy.cluster SET id = NULL", "UPDATE shardproxy.cluster SET schema_version = 0",
		"UPDATE shardproxy.epoch SET epoch = 0", "UPDATE shardproxy.epoch SET epoch = NULL", "INSERT INTO shardproxy.epoch VALUES (false, 7)",
		"INSERT INTO shardproxy.epoch VALUES (true, 7)", "UPDATE shardproxy.slots SET slot = 1 WHERE slot = 2", "UPDATE shardproxy.slots SET slot = -1 WHERE slot = 2",
		"UPDATE shardproxy.slots SET slot = 65536 WHERE slot = 2", "UPDATE shardproxy.slots SET shard = 'nowhere' WHERE slot = 2",
		"UPDATE shardproxy.slots SET shard = NULL WHERE slot = 2", "UPDATE shardproxy.slots SET state = 'lost' WHERE slot = 2", "DELETE FROM shardproxy.shards WHERE name = 's1'",
		"UPDATE shardproxy.shards SET name = 's2' WHERE name = 's1'", "UPDATE shardproxy.shards SET position = 0", "UPDATE shardproxy.shards SET position = -1 WHERE name = 's1'",
		"INSERT INTO shardproxy.shards VALUES ('', 5)", "TRUNCATE shardproxy.shards",
	} {
		if _, err := f.root[0].Exec(t.Context(), sql); sqlstate(err) == "" || !strings.HasPrefix(sqlstate(err), "23") && sqlstate(err) != "0A000" {
			t.Errorf("%s: %v, want a violated constraint", sql, err)
		}
	}
	mustLoad(t, conn)
	for _, test := range []struct{ sql, want string }{
		{"DELETE FROM shardproxy.slots WHERE slot BETWEEN 3 AND 5", "slots 3-5 (3 slots) without an owner"},
		{"INSERT INTO shardproxy.slots VALUES (64, 's0')", "slot 64 out of bounds"},
		{"UPDATE shardproxy.cluster SET slots = 32", "out of bounds"},
		{"UPDATE shardproxy.cluster SET slots = 128", "without an owner"},
		{"DELETE FROM shardproxy.epoch", "the table epoch has no row"},
		{"DELETE FROM shardproxy.slots", "without an owner"},
		{"DELETE FROM shardproxy.slots; DELETE FROM shardproxy.shards", "no shards"},
		{"UPDATE shardproxy.shards SET position = 1 - position", `the first shard is "s1", the home shard "s0"`},
		{"ALTER TABLE shardproxy.slots DROP CONSTRAINT slots_state_check; UPDATE shardproxy.slots SET state = 'lost' WHERE slot = 2", `state "lost" of a slot is not known`},
		{"ALTER TABLE shardproxy.slots DROP CONSTRAINT slots_pkey; INSERT INTO shardproxy.slots VALUES (9, 's0')", "slot 9 stored more than once"},
		{"ALTER TABLE shardproxy.slots DROP CONSTRAINT slots_shard_fkey; UPDATE shardproxy.slots SET shard = 'x' WHERE slot = 9", `owned by "x", which is no shard`},
		{"ALTER TABLE shardproxy.slots ALTER shard DROP NOT NULL; UPDATE shardproxy.slots SET shard = NULL WHERE slot = 9", "cannot scan"},
		{"ALTER TABLE shardproxy.epoch DROP CONSTRAINT epoch_pkey; INSERT INTO shardproxy.epoch VALUES (true, 2)", "epoch has 2 rows, not one"},
		{"ALTER TABLE shardproxy.cluster DROP CONSTRAINT cluster_pkey; INSERT INTO shardproxy.cluster SELECT * FROM shardproxy.cluster", "cluster has 2 rows, not one"},
		{"DROP TABLE shardproxy.slots", "does not exist"},
		{"ALTER TABLE shardproxy.shards RENAME name TO title", "does not exist"},
		{"ALTER TABLE shardproxy.cluster RENAME id TO uuid", "not this program's"},
	} {
		tx, err := f.root[0].Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = tx.Exec(t.Context(), test.sql)
		if err == nil {
			_, err = tx.Exec(t.Context(), "SET CONSTRAINTS ALL IMMEDIATE")
		}
		if err != nil {
			t.Fatalf("%s: %v", test.sql, err)
		}
		_, _, err = loadIn(t.Context(), tx, Version)
		err = asked("", "read the slot map", err)
		if !errors.Is(err, ErrInconsistent) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "hint") {
			t.Errorf("%s: %v, want %q", test.sql, err, test.want)
		}
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.do(t, 0, "REVOKE SELECT ON shardproxy.slots FROM app")
	_, _, err := Load(t.Context(), conn)
	wantProblem(t, err, "", ErrPrivilege, "permission denied for table slots")
}

func TestChange(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	first, c := mustLoad(t, conn)
	untouched := f.value(0, "SELECT string_agg(xmin::text, ' ' ORDER BY slot) FROM shardproxy.slots WHERE slot NOT IN (1, 2)")
	listener := f.dbs[0].Connect("app")
	if _, err := listener.Exec(t.Context(), "LISTEN shardproxy"); err != nil {
		t.Fatal(err)
	}
	second := give(t, first, "s2", 1, 2)
	if err := Change(t.Context(), conn, 1, second); err != nil {
		t.Fatal(err)
	}
	got, _ := mustLoad(t, conn)
	if d := second.Diff(got).String(); d != "" || !slices.Equal(got.Shards(), []string{"s0", "s1", "s2"}) {
		t.Errorf("stored %v, differs: %s", got.Shards(), d)
	}
	if now := f.value(0, "SELECT string_agg(xmin::text, ' ' ORDER BY slot) FROM shardproxy.slots WHERE slot NOT IN (1, 2)"); now != untouched {
		t.Error("slots were written that did not change")
	}
	waiting, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	n, err := listener.WaitForNotification(waiting)
	if err != nil || n.Payload != c.ID+" 2" {
		t.Errorf("notification %+v, %v", n, err)
	}
	conflict := Change(t.Context(), conn, 1, second)
	wantProblem(t, conflict, "", ErrConflict, "the map has epoch 2, the change was made from epoch 1")
	var facts *ConflictError
	if !errors.As(conflict, &facts) || *facts != (ConflictError{From: 1, Found: 2}) {
		t.Errorf("%+v", facts)
	}
	// s1 leaves; s2 has its slots.
	third := give(t, got, "s2", slotNumbers(got, "s1")...)
	rows := third.Rows()
	third, err = shardmap.NewMap(3, 64, []string{"s2", "s0"}, rows)
	if err != nil {
		t.Fatal(err)
	}
	if err := Change(t.Context(), conn, 2, third); err != nil {
		t.Fatal(err)
	}
	got, _ = mustLoad(t, conn)
	if d := third.Diff(got).String(); d != "" || !slices.Equal(got.Shards(), []string{"s0", "s2"}) {
		t.Errorf("stored %v, differs: %s", got.Shards(), d)
	}
	for _, test := range []struct {
		next *shardmap.Map
		want string
	}{
		{third, "epoch 3 cannot follow epoch 3"},
		{newMap(t, 5, 64, "s0"), "epoch 5 cannot follow epoch 3"},
		{newMap(t, 4, 128, "s0"), "a map of 128 slots cannot follow one of 64"},
		{newMap(t, 4, 64, "s2"), `the home shard "s0" cannot leave`},
	} {
		wantProblem(t, Change(t.Context(), conn, 3, test.next), "", ErrInvalid, test.want)
	}
	// A new epoch of the same placement is a change too.
	if err := Change(t.Context(), conn, 3, give(t, got, "s0")); err != nil {
		t.Error(err)
	}
	if got, _ = mustLoad(t, conn); got.Epoch() != 4 {
		t.Errorf("epoch %d", got.Epoch())
	}
	f.drop()
	wantProblem(t, Change(t.Context(), conn, 4, give(t, got, "s0")), "", ErrNotInitialised, "no shardproxy cluster")
}

func slotNumbers(m *shardmap.Map, shard string) (numbers []int) {
	for _, s := range m.SlotsOf(shard) {
		numbers = append(numbers, int(s))
	}
	return numbers
}

func newMap(t *testing.T, epoch int64, n int, shard string) *shardmap.Map {
	t.Helper()
	rows := make([]shardmap.Row, n)
	for i := range rows {
		rows[i] = shardmap.Row{Slot: int64(i), Shard: shard}
	}
	m, err := shardmap.NewMap(epoch, n, []string{shard}, rows)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestChangesRace has proxies change the map from the same epoch: of each round
// one wins, and what is stored is its map.
func TestChangesRace(t *testing.T) {
	f := madeFleet(t, 2)
	conns := make([]*pgx.Conn, 4)
	for i := range conns {
		conns[i] = f.dbs[0].Connect("app")
	}
	for range 10 {
		from, _ := mustLoad(t, conns[0])
		maps, errs := make([]*shardmap.Map, len(conns)), make([]error, len(conns))
		var group sync.WaitGroup
		for i, conn := range conns {
			maps[i] = give(t, from, fmt.Sprintf("s%d", i%2), i, i+8, i+16)
			group.Go(func() { errs[i] = Change(t.Context(), conn, from.Epoch(), maps[i]) })
		}
		group.Wait()
		winner := slices.Index(errs, nil)
		if winner < 0 {
			t.Fatalf("nobody won: %v", errs)
		}
		for i, err := range errs {
			if i != winner {
				wantProblem(t, err, "", ErrConflict, "the map has epoch")
			}
		}
		if got, _ := mustLoad(t, conns[0]); maps[winner].Diff(got).String() != "" {
			t.Errorf("stored is not the winner's: %s", maps[winner].Diff(got))
		}
	}
}

// TestChangeOutcome loses the connection when COMMIT has been carried out, and
// before it reaches the server.
func TestChangeOutcome(t *testing.T) {
	f := madeFleet(t, 1)
	p := faultproxy.Start(t, faultproxy.Options{Target: f.dbs[0].Node.Addr()})
	connect := through(t, f.dbs[0], p)
	direct := f.dbs[0].Connect("app")
	for _, test := range []struct {
		rule    faultproxy.Rule
		changed bool
	}{
		{faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "COMMIT", Do: faultproxy.Kill()}, true},
		{faultproxy.Rule{From: faultproxy.FromClient, Kind: 'Q', Text: "commit\x00", Do: faultproxy.Kill()}, false},
		{faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Text: "COMMIT",
			Do: faultproxy.Answer(wire.Fatal("57P01", "terminating connection due to administrator command"))}, true},
	} {
		from, _ := mustLoad(t, direct)
		conn, err := connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		trigger := p.On(test.rule)
		err = Change(t.Context(), conn, from.Epoch(), give(t, from, "s0"))
		trigger.Remove()
		closeConn(conn)
		wantProblem(t, err, "", ErrOutcome, "connection was lost during COMMIT")
		if now, _ := mustLoad(t, direct); (now.Epoch() == from.Epoch()+1) != test.changed {
			t.Errorf("epoch %d after %d", now.Epoch(), from.Epoch())
		}
	}
}

// TestChangeFails lets a change fail in the middle: nothing of it stays, and
// the connection can be used again.
func TestChangeFails(t *testing.T) {
	f := madeFleet(t, 2)
	f.do(t, 0, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no space'; END$$;
		CREATE TRIGGER refuse BEFORE UPDATE ON shardproxy.epoch FOR EACH ROW EXECUTE FUNCTION refuse()`)
	conn := f.dbs[0].Connect("app")
	first, _ := mustLoad(t, conn)
	wantProblem(t, Change(t.Context(), conn, 1, give(t, first, "s2", 1, 2, 3)), "", ErrServer, "no space")
	if now, _ := mustLoad(t, conn); first.Diff(now).String() != "" {
		t.Errorf("a failed change left %s", first.Diff(now))
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Change(cancelled, conn, 1, give(t, first, "s1", 1)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestSpreadEpoch(t *testing.T) {
	f := madeFleet(t, 3)
	home := f.dbs[0].Connect("app")
	first, c := mustLoad(t, home)
	epochs := func() string {
		return f.value(0, "SELECT epoch FROM shardproxy.epoch") + f.value(1, "SELECT epoch FROM shardproxy.epoch") + f.value(2, "SELECT epoch FROM shardproxy.epoch")
	}
	if err := Change(t.Context(), home, 1, give(t, first, "s1", 0)); err != nil {
		t.Fatal(err)
	}
	if s, err := Check(t.Context(), f.opts); err != nil || !slices.Equal(s.Behind, []string{"s1", "s2"}) {
		t.Errorf("%+v, %v", s, err)
	}
	// One shard is away, the others are told.
	shards := slices.Clone(f.opts.Shards)
	shards[1].Connect = func(context.Context) (*pgx.Conn, error) { return nil, errors.New("away") }
	wantProblem(t, SpreadEpoch(t.Context(), c, shards, 2), "s1", ErrUnreachable, "away")
	if epochs() != "212" {
		t.Errorf("epochs %s", epochs())
	}
	if err := SpreadEpoch(t.Context(), c, f.opts.Shards, 2); err != nil || epochs() != "222" {
		t.Errorf("%v, epochs %s", err, epochs())
	}
	// It never lowers.
	changed := f.value(1, "SELECT changed_at FROM shardproxy.epoch")
	if err := SpreadEpoch(t.Context(), c, f.opts.Shards, 1); err != nil || epochs() != "222" || f.value(1, "SELECT changed_at FROM shardproxy.epoch") != changed {
		t.Errorf("%v, epochs %s", err, epochs())
	}
	want := *c
	want.Shard = "s1"
	conn := f.dbs[1].Connect("app")
	if stored, err := RaiseEpoch(t.Context(), conn, &want, 1); stored != 2 || err != nil {
		t.Errorf("%d, %v", stored, err)
	}
	_, err := RaiseEpoch(t.Context(), home, c, 9)
	wantProblem(t, err, "s0", ErrInvalid, "with its map only")
	shards[1].Connect = shards[2].Connect
	wantProblem(t, SpreadEpoch(t.Context(), c, shards, 3), "s1", ErrOtherCluster, `is shard "s2"`)
	fresh := pgtest.Shared(t)
	shards[1].Connect = to(fresh.DSN("app"))
	wantProblem(t, SpreadEpoch(t.Context(), c, shards, 3), "s1", ErrNotInitialised, "no shardproxy cluster")
}

// TestGuarded stores that shards may hold rows that are not theirs, and that they do not any more.
func TestGuarded(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	for i := range f.dbs {
		if got := f.value(i, "SELECT length(slots) || ' ' || bit_count(slots) FROM shardproxy.hidden"); got != "64 0" {
			t.Errorf("shard %d hides %s", i, got)
		}
		if _, err := f.dbs[i].Connect("app").Exec(t.Context(), "INSERT INTO shardproxy.hidden VALUES (false, B'1')"); err == nil {
			t.Error("a second row of hidden slots")
		}
	}
	for n, guarded := range []bool{true, true, false} {
		m, _ := mustLoad(t, conn)
		next := give(t, m, "s1", n).Guard(m.Epoch()+1, guarded)
		if err := Change(t.Context(), conn, m.Epoch(), next); err != nil {
			t.Fatal(err)
		}
		if m, _ = mustLoad(t, conn); m.Guarded() != guarded || m.Owner(shardmap.Slot(n)) != "s1" || !m.Equal(next) {
			t.Errorf("stored as guarded: %v, want %v", m.Guarded(), guarded)
		}
	}
}

// TestHeld stores which slots are held.
func TestHeld(t *testing.T) {
	f := madeFleet(t, 2)
	conn := f.dbs[0].Connect("app")
	for _, slots := range [][]int{{3, 5}, {5, 63}, nil} {
		m, _ := mustLoad(t, conn)
		rows := m.Rows()
		for s := range rows {
			rows[s].Held = slices.Contains(slots, s)
		}
		next, err := shardmap.NewMap(m.Epoch()+1, m.Slots(), m.Shards(), rows)
		if err != nil {
			t.Fatal(err)
		}
		if err := Change(t.Context(), conn, m.Epoch(), next); err != nil {
			t.Fatal(err)
		}
		if m, _ = mustLoad(t, conn); !m.SameStates(next) || m.Holding() != (slots != nil) || m.Held(5) != slices.Contains(slots, 5) || m.Held(4) {
			t.Errorf("%v are not held", slots)
		}
	}
}
