package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestRestorePoint recovers copies of all shards to a point that was made under transfers: they are
// right together. Points that are made one after the other are not, which shows that the test can tell.
func TestRestorePoint(t *testing.T) {
	t.Parallel()
	s := startLedger(t)
	var copies []*pgtest.Node
	for _, cl := range s.shards {
		n := cl.AddReplica(cl.Primary())
		n.Stop()
		copies = append(copies, n)
	}
	b := s.book(4)
	before := b.acknowledged()
	out, code := s.tool(within(t, time.Minute), restorePointCommand(), "--json", "one moment")
	if code != 0 {
		t.Fatalf("code %d\n%s", code, out)
	}
	b.goOn(t)
	for _, cl := range s.shards {
		cl.Primary().Exec("app", "SELECT pg_create_restore_point('apart')")
		b.goOn(t)
	}
	b.stop()
	for _, cl := range s.shards {
		cl.Primary().Exec("app", "SELECT pg_switch_wal()")
	}
	s.recorded(out)

	recoverTo(t, s.shards, copies, "one moment")
	for _, bad := range auditsBank(copies, "app", before) {
		t.Error(bad)
	}
	if n := len(auditsBank(copies, "app", b.acknowledged())); n == 0 {
		t.Error("what was acknowledged behind the point is there")
	}
	recoverTo(t, s.shards, copies, "apart")
	if len(auditsBank(copies, "app", nil)) == 0 {
		t.Error("points that were made one after the other are right: the test shows nothing")
	}
}

// recoverTo has copies recover to a point, from what their primaries have written.
func recoverTo(t *testing.T, shards []*pgtest.Cluster, copies []*pgtest.Node, name string) {
	t.Helper()
	for i, n := range copies {
		n.Stop()
		f, err := os.OpenFile(filepath.Join(n.Engine.DataDir(), "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "primary_conninfo = ''\nrestore_command = 'cp \"%s/pg_wal/%%f\" \"%%p\"'\nrecovery_target_name = '%s'\nrecovery_target_action = 'pause'\n",
			shards[i].Primary().Engine.DataDir(), name)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		n.Start()
		eventually(t, "the copy is at the point", func() bool {
			return n.Value("app", "SELECT pg_get_wal_replay_pause_state()") == "paused"
		})
		log, err := os.ReadFile(n.Engine.LogFile())
		if err != nil || !strings.Contains(string(log), `recovery stopping at restore point "`+name+`"`) {
			t.Fatalf("the copy of shard %d is not at the point: %v", i, err)
		}
	}
}

// recorded compares what the command printed with what it wrote down.
func (s *shardedProgram) recorded(out string) {
	t := s.t
	t.Helper()
	var p restorePoint
	if err := json.Unmarshal([]byte(out), &p); err != nil || !p.Whole || !p.Recorded || len(p.Warnings) > 0 || len(p.Shards) != len(s.shards) {
		t.Errorf("%v\n%s", err, out)
	}
	rows := s.shards[0].Primary().Rows("app", `SELECT s.shard, s.lsn, s.timeline FROM shardproxy.restore_points,
		jsonb_to_recordset(shards) AS s(shard text, lsn pg_lsn, timeline int) WHERE name = $1 AND made_at > began_at`, p.Name)
	if len(rows) != len(p.Shards) {
		t.Errorf("it is recorded as %v", rows)
		return
	}
	for i, row := range rows {
		if want := fmt.Sprintf("s%d %s 1", i, p.Shards[i].LSN); strings.Join(row, " ") != want {
			t.Errorf("recorded %v, printed %s", row, want)
		}
	}
}

// TestRestorePointRefused makes none where it would be no moment of all, and takes no name twice.
func TestRestorePointRefused(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	command := restorePointCommand
	s.refuses(exitProblems, "63 at most", command(), strings.Repeat("x", 64))
	s.refuses(exitProblems, "printable ASCII", command(), "Größe")
	s.refuses(exitProblems, "printable ASCII", command(), "")
	s.refuses(1, "--hold", command(), "--hold=1m", "late")
	s.refuses(1, "no database", command(), "--database=other", "late")

	out, code := s.tool(within(t, time.Minute), command(), strings.Repeat("x", 63))
	if code != 0 || !strings.Contains(out, "TIMELINE") {
		t.Errorf("code %d: %s", code, out)
	}
	s.refuses(exitProblems, "already", command(), strings.Repeat("x", 63))

	// A part that nobody finishes keeps windows shut, and leaves the name free.
	second := s.shards[1].Primary()
	second.Exec("app", "BEGIN; SELECT shardproxy.take_part(); PREPARE TRANSACTION 'foreign'")
	s.refuses(exitProblems, "shard s1: a transaction over several shards does not end", command(), "--wait=2s", "stuck")
	second.Exec("app", "ROLLBACK PREPARED 'foreign'")
	if out, code := s.tool(within(t, time.Minute), command(), "stuck"); code != 0 {
		t.Errorf("code %d: %s", code, out)
	}

	// A shard fails. The home shard comes last: when it fails, the other has made its point, and the name
	// is taken.
	breakPoints(second)
	s.refuses(exitProblems, "shard s1: ERROR: no room", command(), "half")
	breakPoints(s.shards[0].Primary())
	s.refuses(exitProblems, "no room", command(), "half")
	second.Exec("app", "DROP FUNCTION pg_catalog.pg_create_restore_point(text); ALTER FUNCTION pg_catalog.gone RENAME TO pg_create_restore_point")
	out, code = s.tool(within(t, time.Minute), command(), "half")
	if code != exitUnfinished || !strings.Contains(out, "NOT one moment") || !strings.Contains(out, "s0     none") || !strings.Contains(out, "no room") || !strings.Contains(out, "s1     0/") {
		t.Errorf("code %d: %s", code, out)
	}
	s.refuses(exitProblems, "did not come to be on all shards", command(), "half")
	if got := s.shards[0].Primary().Value("app", "SELECT (made_at IS NULL) || ' ' || (shards->0->>'shard') FROM shardproxy.restore_points WHERE name = 'half'"); got != "true s1" {
		t.Error("it is recorded as", got)
	}

	// The control user owns the schema and is no superuser.
	for _, cl := range s.shards {
		cl.Primary().Exec("app", `CREATE ROLE controller LOGIN PASSWORD 'c' IN ROLE pg_monitor; ALTER SCHEMA shardproxy OWNER TO controller;
			DO $$ DECLARE r text; BEGIN
				FOR r IN SELECT format('TABLE %s', oid::regclass) FROM pg_class WHERE relnamespace = 'shardproxy'::regnamespace AND relkind = 'r'
					UNION ALL SELECT format('FUNCTION %s', oid::regprocedure) FROM pg_proc WHERE pronamespace = 'shardproxy'::regnamespace
				LOOP EXECUTE 'ALTER ' || r || ' OWNER TO controller'; END LOOP; END $$`)
	}
	s.write(strings.Replace(s.text(), "control: {user: postgres}", "control: {user: controller, password: c}", 1))
	grant := "GRANT EXECUTE ON FUNCTION pg_catalog.pg_create_restore_point(text) TO "
	s.shards[0].Primary().Exec("app", "DROP FUNCTION pg_catalog.pg_create_restore_point(text); ALTER FUNCTION pg_catalog.gone RENAME TO pg_create_restore_point;"+grant+"controller")
	s.refuses(exitProblems, `shard s1: the control user may not make restore points: `+grant+`"controller"`, command(), "rights")
	second.Exec("app", grant+"controller")
	if out, code := s.tool(within(t, time.Minute), command(), "rights"); code != 0 {
		t.Errorf("code %d: %s", code, out)
	}
}

// breakPoints has a server refuse to make restore points.
func breakPoints(n *pgtest.Node) {
	n.Exec("app", `ALTER FUNCTION pg_catalog.pg_create_restore_point(text) RENAME TO gone;
		CREATE FUNCTION pg_catalog.pg_create_restore_point(text) RETURNS pg_lsn LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room'; END $$`)
}
