package twopc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

func testCommit(t *testing.T, f *fleet) {
	r := f.closed(f.options())
	parts, clients := f.begin(1)
	if outcome, err := f.commit(t.Context(), r, parts); outcome != Committed || err != nil {
		t.Fatal(outcome, err)
	}
	if on := f.where(1); on != "111" || f.prepared() != 0 {
		t.Errorf("the row is on %s, %d prepared", on, f.prepared())
	}
	for i, c := range clients {
		if status := c.pg.TxStatus(); status != 'I' {
			t.Errorf("part %d: status %c", i, status)
		}
	}
	gid := f.value(0, "SELECT gid FROM shardproxy.commits")
	if len(gid) >= 200 || !strings.HasPrefix(gid, "shardproxy:"+f.cluster+":s0:") {
		t.Errorf("gid %q", gid)
	}
	if got := f.value(0, "SELECT decided_by FROM shardproxy.commits WHERE committed"); got != "buyer" {
		t.Errorf("decided by %s", got)
	}
	if s := r.Stats(); s.Commits[Committed] != 1 || len(r.live)+len(r.abandoned) != 0 {
		t.Errorf("%+v, %v, %v", s, r.live, r.abandoned)
	}
	// Two statements for each, and one more for the first of several by name, whose fence is taken ahead.
	for i, want := range []int{4, 4, 5} { // with SET and BEGIN
		if got := len(clients[i].log); got != want {
			t.Errorf("part %d: statements %q", i, clients[i].log)
		}
	}
	// The one with the strange name decides.
	parts, _ = f.begin(2)
	parts[0], parts[2] = parts[2], parts[0]
	if outcome, err := f.commit(t.Context(), nil, parts); outcome != Committed || err != nil || f.where(2) != "111" {
		t.Error(outcome, err, f.where(2))
	}
}

func TestOnePart(t *testing.T) {
	f := newFleet(t, 1)
	if outcome, err := Commit(t.Context(), Options{}, nil); outcome != Committed || err != nil {
		t.Error(outcome, err)
	}
	parts, clients := f.begin(1)
	if outcome, err := f.commit(t.Context(), nil, parts); outcome != Committed || err != nil || f.where(1) != "1" {
		t.Error(outcome, err)
	}
	if got := clients[0].log[2:]; len(got) != 1 || got[0] != "COMMIT" || f.value(0, "SELECT count(*) FROM shardproxy.commits") != "0" {
		t.Errorf("statements %q", got)
	}
	parts, clients = f.begin(2)
	f.must(clients[0], "INSERT INTO t VALUES (3, 99)")
	if outcome, err := f.commit(t.Context(), nil, parts); outcome != RolledBack || err == nil || err.Code != "23503" || f.where(2) != "0" {
		t.Error(outcome, err)
	}
	parts, clients = f.begin(4)
	clients[0].after = func(string) error { clients[0].cut(); return errors.New("cut") }
	if outcome, err := f.commit(t.Context(), nil, parts); outcome != Unknown || err == nil || err.Code != "08007" || f.where(4) != "1" {
		t.Error(outcome, err)
	}
}

// testRefused: what a server says against it rolls everything back and reaches the
// client, and the connections go on.
func testRefused(t *testing.T, f *fleet) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for id, test := range []struct {
		name string
		part int
		sql  string
		ctx  context.Context
		code string
	}{
		{"deferred constraint of the decider", 0, "INSERT INTO t VALUES (100, 99)", nil, "23503"},
		{"deferred constraint of another part", 1, "INSERT INTO t VALUES (100, 99)", nil, "23503"},
		{"a temporary table", 2, "CREATE TEMP TABLE x (y int)", nil, "0A000"},
		{"a failed transaction", 1, "SELECT 1/0", nil, "25P02"},
		{"a failed transaction of the decider", 0, "SELECT 1/0", nil, "25P02"},
		{"read only, at last", 0, "SET TRANSACTION READ ONLY", nil, "25006"},
		{"a context that has ended", 0, "SELECT 1", cancelled, "57014"},
		{"the session was ended", 1, "", nil, "57P01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			parts, clients := f.begin(id)
			if test.sql == "" {
				f.value(test.part, fmt.Sprintf("SELECT pg_terminate_backend(%d, 5000)", clients[test.part].pg.PID()))
			} else {
				_ = clients[test.part].Exec(t.Context(), test.sql)
			}
			ctx := test.ctx
			if ctx == nil {
				ctx = t.Context()
			}
			r := f.closed(f.options())
			outcome, err := f.commit(ctx, r, parts)
			if outcome != RolledBack || err == nil || err.Code != test.code {
				t.Fatalf("%v, %v, want %s", outcome, err, test.code)
			}
			if test.ctx == nil && !strings.Contains(err.Detail, "Shard "+f.shards[test.part].name+".") {
				t.Errorf("detail %q", err.Detail)
			}
			f.rounds(r)
			if on := f.where(id); on != "000" || f.prepared() != 0 {
				t.Errorf("the row is on %s, %d prepared", on, f.prepared())
			}
			for i, c := range clients {
				if status := c.pg.TxStatus(); test.sql != "" && status != 'I' {
					t.Errorf("part %d: status %c", i, status)
				}
			}
		})
	}
	if outcome, err := Commit(t.Context(), Options{Cluster: "x'"}, make([]Part, 0)); outcome != Committed || err != nil {
		t.Error(outcome, err)
	}
	parts, _ := f.begin(50)
	if outcome, err := Commit(t.Context(), Options{Cluster: "x'"}, parts); outcome != RolledBack || wire.AsError(err).Code != "XX000" {
		t.Error(outcome, err)
	}
}

// testContextEnds ends the context at each statement: before the decision's
// COMMIT that rolls back, from then on it changes nothing.
func testContextEnds(t *testing.T, f *fleet) {
	r := f.closed(f.options())
	for id, test := range []struct {
		step string
		part int
		want Outcome
	}{
		{"prepare", 1, RolledBack}, {"decide", 0, RolledBack}, {"commit", 0, Committed}, {"commit prepared", 1, Committed},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		parts, clients := f.begin(id)
		clients[test.part].before = func(sql string) error {
			if stepOf(sql) == test.step {
				cancel()
			}
			return nil
		}
		outcome, err := f.commit(ctx, r, parts)
		if outcome != test.want || (err == nil) != (outcome == Committed) || err != nil && err.Code != "57014" {
			t.Errorf("%s: %v, %v", test.step, outcome, err)
		}
		f.rounds(r)
		if bad := wrong(outcome, f.where(id)); bad != "" || f.prepared() != 0 {
			t.Errorf("%s: %s, %d prepared", test.step, bad, f.prepared())
		}
		cancel()
	}
}

// testDurable: what decides and what prepares waits for the disk, whatever the
// session has set; afterwards the session has what it had.
func testDurable(t *testing.T, f *fleet) {
	parts, clients := f.begin(1)
	var seen []string
	for _, c := range clients {
		f.must(c, "SET synchronous_commit = off")
		c.before = func(sql string) error {
			if stepOf(sql) == "commit" {
				rows, err := c.pg.Exec(t.Context(), "SHOW synchronous_commit").ReadAll()
				if err != nil {
					return err
				}
				seen = append(seen, string(rows[0].Rows[0][0]))
			}
			return nil
		}
	}
	// A trigger sees what is set while the other part prepares.
	f.must(clients[1], "CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t SELECT -1 WHERE current_setting('synchronous_commit') = 'on'; RETURN NULL; END $$;"+
		"CREATE CONSTRAINT TRIGGER look AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION look(); INSERT INTO t VALUES (2)")
	_ = seen
	if outcome, err := f.commit(t.Context(), nil, parts); outcome != Committed || err != nil {
		t.Fatal(outcome, err)
	}
	if len(seen) != 1 || seen[0] != "on" {
		t.Errorf("at COMMIT synchronous_commit is %q", seen)
	}
	if got := f.value(1, "SELECT count(*) FROM t WHERE id = -1"); got != "1" {
		t.Error("at PREPARE synchronous_commit is off")
	}
	for i, c := range clients {
		rows, err := c.pg.Exec(t.Context(), "SHOW synchronous_commit").ReadAll()
		if err != nil || string(rows[0].Rows[0][0]) != "off" {
			t.Errorf("part %d: afterwards it is %q, %v", i, rows[0].Rows, err)
		}
	}
}

// testLocalRole: a role for the transaction only owns the prepared parts, and is
// gone when they are to be committed; recovery does it.
func testLocalRole(t *testing.T, f *fleet) {
	r := f.resolver(f.options())
	parts, clients := f.begin(1)
	for _, c := range clients {
		f.must(c, "SET LOCAL ROLE clerk")
	}
	outcome, err := f.commit(t.Context(), r, parts)
	f.settled()
	if bad := wrong(outcome, f.where(1)); outcome != Committed || err != nil || bad != "" {
		t.Error(outcome, err, bad)
	}
	eventually(t, "counted", func() bool { return r.Stats().Committed > 0 })
	if s := r.Stats(); s.Committed != 1 || f.value(0, "SELECT decided_by FROM shardproxy.commits") != "clerk" {
		t.Errorf("%+v", s)
	}
}

// TestFullTable: a shard that can prepare nothing more refuses, and nothing is left anywhere.
func TestFullTable(t *testing.T) {
	f := &fleet{t: t}
	for i := range 2 {
		c := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"max_prepared_transactions": "1"}, MaxConnections: 30})
		f.shards = append(f.shards, &server{name: shardName(i, 2), database: "app", node: c.Primary()})
	}
	f.init()
	if err := f.as(1, "buyer", "BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'somebody else''s'"); err != nil {
		t.Fatal(err)
	}
	parts, _ := f.begin(1)
	outcome, err := f.commit(t.Context(), nil, parts)
	if outcome != RolledBack || err == nil || err.Code != "53200" || !strings.Contains(err.Hint, "max_prepared_transactions") {
		t.Errorf("%v, %+v", outcome, err)
	}
	if on := f.where(1); on != "00" || f.prepared() != 1 {
		t.Errorf("the row is on %s, %d prepared", on, f.prepared())
	}
	f.clear(1)
	parts, _ = f.begin(2)
	if outcome, err := f.commit(t.Context(), nil, parts); outcome != Committed || err != nil || f.where(2) != "11" {
		t.Errorf("%v, %v, on %s", outcome, err, f.where(2))
	}
}
