package proxy_test

import (
	"testing"
	"time"

	"shardproxy/proxy"
)

// eventual lets reads go to replicas whatever the session has written.
func eventual(p *proxy.DatabasePolicy) { p.Consistent = false }

// A hint holds for every way in which its statement comes.
func TestHintsOfPreparedStatements(t *testing.T) {
	f := start(t, fixtureOptions{replicas: 1, policy: eventual})
	conn := f.connect("")
	ask := func(hint string) string {
		var in bool
		if err := conn.QueryRow(ctx10(t), hint+"SELECT pg_is_in_recovery() AND $1", true).Scan(&in); err != nil {
			t.Fatal(err)
		}
		if in {
			return "replica"
		}
		return "primary"
	}
	for range 3 {
		if got := ask("/* shardproxy: route=primary */ "); got != "primary" {
			t.Fatalf("route=primary ran on the %s", got)
		}
		if got := ask(""); got != "primary" {
			t.Fatalf("what belongs to the node ran on the %s", got)
		}
		if got := ask("/* shardproxy: route=replica */ "); got != "replica" {
			t.Fatalf("route=replica ran on the %s", got)
		}
	}
	before := f.db.Totals().ReplicaReads
	for range 3 {
		var s string
		if err := conn.QueryRow(ctx10(t), "/* shardproxy: route=primary */ SELECT 'x' || $1::text", "y").Scan(&s); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.db.Totals().ReplicaReads - before; n != 0 {
		t.Errorf("%d reads with route=primary went to the replica", n)
	}
}

// route=replica is no reason to send there what writes.
func TestRouteReplicaOfABatch(t *testing.T) {
	f := start(t, fixtureOptions{replicas: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE TABLE w23 (i int)")
	a.do(t, "SET shardproxy.route = 'replica'")
	f.cluster.CatchUp()
	a.mustSay(t, 1, "INSERT 0 1", segment("INSERT INTO w23 VALUES (1)", "SELECT count(*) FROM w23")...)
	a.mustSay(t, 1, "INSERT 0 1", segment("SELECT 1", "INSERT INTO w23 VALUES (1)")...)
}

func TestAdvisoryLocksInReadOnlyTransactions(t *testing.T) {
	f := start(t, fixtureOptions{replicas: 1, policy: eventual})
	a := mustDial(t, f.addr, "app")
	refused := "0A000 \"advisory locks cannot be taken"
	for _, sql := range []string{"SELECT pg_advisory_lock(1)", "SELECT pg_try_advisory_xact_lock(1)"} {
		for _, frames := range [][]frame{{fQuery(sql)}, segment(sql), {fParse("s", sql), fBind("", "s"), fExecute("", 0), fClose('S', "s"), fSync()}} {
			a.do(t, "BEGIN READ ONLY")
			a.mustSay(t, 1, refused, frames...)
			a.mustAsk(t, "SELECT 1", "25P02")
			a.do(t, "ROLLBACK")
			a.say(1, fClose('S', "s"), fSync())
			a.do(t, "/* shardproxy: route=primary */ BEGIN READ ONLY")
			if got := a.say(1, frames...); contains(got, "E ERROR") {
				t.Errorf("on the primary: %v", got)
			}
			a.do(t, "COMMIT")
			a.do(t, "SELECT pg_advisory_unlock_all()")
		}
	}
}

func TestSerializableNeverOnAReplica(t *testing.T) {
	f := start(t, fixtureOptions{replicas: 1, policy: eventual})
	for _, set := range []string{
		"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET default_transaction_isolation = serializable",
	} {
		a := mustDial(t, f.addr, "app")
		a.do(t, set)
		before := f.db.Totals().Retries
		a.mustAsk(t, "SELECT 'read'", "read")
		if f.db.Totals().Retries != before {
			t.Error("the read was tried on the replica first")
		}
		a.do(t, "BEGIN READ ONLY")
		a.mustAsk(t, "SELECT 'read'", "read")
		a.do(t, "COMMIT")
		a.do(t, "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
		a.do(t, "SELECT 1")
		a.do(t, "COMMIT")
	}
}

// A read that fails on a replica before its first row is tried on the primary,
// also when the replica has begun the answer.
func TestReadBegunOnAReplica(t *testing.T) {
	f := start(t, fixtureOptions{replicas: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE SEQUENCE q24; GRANT ALL ON SEQUENCE q24 TO PUBLIC")
	a.do(t, "CREATE FUNCTION liar(int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN nextval('q24'); END $$")
	f.learn()
	f.cluster.CatchUp()
	for _, mode := range []string{"simple_protocol", "cache_statement", "exec", "describe_exec"} {
		c := f.connect("&default_query_exec_mode=" + mode)
		before := f.db.Totals()
		var n int
		if err := c.QueryRow(ctx10(t), "SELECT liar($1) AS n", 1).Scan(&n); err != nil || n == 0 {
			t.Errorf("%s: %d, %v", mode, n, err)
		}
		after := f.db.Totals()
		if after.Retries == before.Retries {
			t.Errorf("%s: nothing was tried again: the test shows nothing", mode)
		}
	}
}

// A statement of a pipeline has the query timeout for itself.
func TestQueryTimeoutOfAPipeline(t *testing.T) {
	f := start(t, fixtureOptions{size: 1, user: func(u *proxy.UserPolicy) { u.Timeouts.Query = time.Second }})
	c := mustDial(t, f.addr, "app")
	var frames []frame
	for range 20 {
		frames = append(frames, segment("SELECT 'n' FROM pg_sleep(0.1)")...)
	}
	if got := c.say(20, frames...); contains(got, "E ERROR") {
		t.Error(got)
	}
	c.mustAsk(t, "SELECT pg_sleep(5)", "query timeout")
}
