package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
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
