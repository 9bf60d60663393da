package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// TestLostPart: of a statement on several shards the connection is lost to a shard that has more nodes than the
// first one. It is that shard's node that has met an error.
func TestLostPart(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2)
	text, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	primary := `"` + s.shards[1].Primary().Addr() + `"`
	s.p.close()
	s.write(strings.Replace(string(text), primary, `"127.0.0.1:1", `+primary, 1))
	s.run()
	c := s.connectLoaded()
	direct := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "postgres"))
	must(t, direct, `CREATE FUNCTION dies() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
		CREATE TRIGGER dies BEFORE UPDATE ON products FOR EACH ROW EXECUTE FUNCTION dies()`)
	_, err = c.Exec(within(t, time.Minute), "UPDATE products SET name = 'x' WHERE id = 1")
	var said *pgconn.PgError
	if !errors.As(err, &said) || said.Code != "08006" || !strings.Contains(said.Detail, s.shards[1].Primary().Addr()) {
		t.Fatalf("%v", err)
	}
	must(t, direct, "DROP TRIGGER dies ON products")
	must(t, s.connectLoaded(), "UPDATE products SET name = 'x' WHERE id = 1")
	log, err := os.ReadFile(strings.TrimSuffix(s.path, "shardproxy.yaml") + "log")
	if err != nil || strings.Contains(string(log), "panicked") {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestLevelNotTold: a query over several shards for which the isolation level of its transaction cannot be asked for, as when
// it is cancelled then, fails, and the transaction with it; the session goes on.
func TestLevelNotTold(t *testing.T) {
	t.Parallel()
	var fronts []*faultproxy.Proxy
	s := startShardsBehind(t, 2, pgtest.Options{}, func(addr string) string {
		fronts = append(fronts, faultproxy.Start(t, faultproxy.Options{Target: addr, RefuseTLS: true}))
		return fronts[len(fronts)-1].Addr()
	})
	c := s.connectLoaded()
	cancelled := wire.Errorf("57014", "canceling statement due to user request")
	var rules []*faultproxy.Trigger
	for _, f := range fronts {
		rules = append(rules, f.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: 'Q', Text: "SHOW transaction_isolation", Every: true, Do: faultproxy.Answer(cancelled)}))
	}
	must(t, c, "BEGIN")
	fails(t, c, "SELECT count(*) FROM customers", "57014")
	fails(t, c, "SELECT name FROM customers WHERE id = 1", "25P02")
	must(t, c, "ROLLBACK")
	must(t, c, "BEGIN")
	fails(t, c, "SELECT name FROM customers ORDER BY id", "57014")
	fails(t, c, "SELECT count(*) FROM customers", "25P02")
	must(t, c, "COMMIT")
	for _, r := range rules {
		if r.Remove(); r.Matches() > 0 {
			rules = nil
		}
	}
	if rules != nil {
		t.Error("the level was not asked for")
	}
	must(t, c, "BEGIN")
	must(t, c, "SELECT count(*) FROM customers")
	must(t, c, "COMMIT")
}
