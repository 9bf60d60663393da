package pgtest_test

import (
	"context"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCluster(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{Replicas: 1})
	old, replica := c.Primary(), c.Replicas()[0]
	old.Exec("app", "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
	c.CatchUp()
	if got := replica.Value("app", "SELECT sum(a) FROM t"); got != "3" {
		t.Errorf("sum on the replica = %s, want 3", got)
	}

	replica.Pause()
	old.Exec("app", "INSERT INTO t VALUES ($1)", 4)
	replica.Resume()
	c.CatchUp()
	old.Kill9()
	replica.Promote()
	replica.Exec("app", "INSERT INTO t VALUES (8)")
	old.Rebuild(replica)
	third := c.AddReplica(replica)
	replica.Set("work_mem", "9MB")
	replica.Restart()
	third.Stop()
	third.Start()
	replica.Exec("app", "INSERT INTO t VALUES (16)")
	lsn := replica.LSN()
	for _, n := range []*pgtest.Node{old, third} {
		n.WaitReplayed(lsn)
		if got := n.Value("app", "SELECT sum(a) FROM t"); got != "31" {
			t.Errorf("sum on %s = %s, want 31", n.Name(), got)
		}
	}
	if got := replica.Value("app", "SHOW work_mem"); got != "9MB" {
		t.Errorf("work_mem = %s, want 9MB", got)
	}
	if len(c.Nodes()) != 3 {
		t.Errorf("%d nodes, want 3", len(c.Nodes()))
	}
}

func TestShared(t *testing.T) {
	a, b := pgtest.Shared(t), pgtest.Shared(t)
	a.Exec("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, NULL), (2, 'two')")
	if got := b.Value("SELECT to_regclass('t')"); got != "NULL" {
		t.Errorf("a table of another test's database is seen: %s", got)
	}
	want := []string{"2|two", "1|NULL"}
	if got := pgtest.Lines(a.Rows("SELECT a, b FROM t WHERE a < $1 ORDER BY a DESC", 5)); !slices.Equal(got, want) {
		t.Errorf("rows %q, want %q", got, want)
	}
	// The owner may do everything in its database, with its password only.
	conn := a.Connect("app")
	if _, err := conn.Exec(context.Background(), "CREATE TABLE mine ()"); err != nil {
		t.Error(err)
	}
	if got := a.Value("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'"); got != "app" {
		t.Errorf("the owner is %s, want app", got)
	}
}
