package pgtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStart(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{Replicas: 1})
	c.Primary().Exec("app", "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
	c.CatchUp()
	if got := c.Replicas()[0].Value("app", "SELECT sum(a) FROM t"); got != "3" {
		t.Errorf("sum on the replica = %s, want 3", got)
	}
}

func TestShared(t *testing.T) {
	a, b := pgtest.Shared(t), pgtest.Shared(t)
	a.Exec("CREATE TABLE t (a int)")
	if got := b.Value("SELECT to_regclass('t')"); got != "NULL" {
		t.Errorf("a table of another test's database is seen: %s", got)
	}
}
