package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
)

// quickBreaker opens within a second, and tries again after one.
const quickBreaker = "    breaker: {percent: 50, least: 5, window: 1s, open_for: 1s, open_max: 2s}\n"

// leftAlone reports whether a statement was refused because its shard is left alone.
func leftAlone(err error) bool {
	return sqlState(err) == "57P03" && strings.Contains(err.Error(), "left alone")
}

// breakerOf returns what SHOW SHARDS says of the breaker of a shard.
func (s *shardedProgram) breakerOf(shard string) (state string) {
	s.t.Helper()
	console, _ := s.consoleOf()
	defer console.Close(within(s.t, time.Second))
	return shownBy(s.t, console, "SHOW SHARDS WHERE shard = '"+shard+"'")[0]["breaker"]
}

// onEither makes rows and returns keys of one on the first shard and one on the second.
func (s *shardedProgram) onEither(c *pgx.Conn) (a, b int) {
	s.t.Helper()
	if _, err := c.Exec(within(s.t, 20*time.Second), "INSERT INTO customers SELECT n, 'x' FROM generate_series(0, 9) n"); err != nil {
		s.t.Fatal(err)
	}
	if a, b = s.apart(); s.shardOf(b) != "s1" {
		a, b = b, a
	}
	return a, b
}

// detailOf returns a server error's DETAIL.
func detailOf(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Detail
	}
	return ""
}

// TestBreakerNoPrimary kills a shard's primary: when statements have waited in vain for a second, the others are refused at once, for this shard
// only; when it is back, it is used again.
func TestBreakerNoPrimary(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, quickFailover+quickBreaker)
	c := s.connectLoaded()
	a, b := s.onEither(c)
	write := func(id int) string { return fmt.Sprintf("UPDATE customers SET name = 'x' WHERE id = %d", id) }
	waited, refused := s.outage(1, func() { s.shards[1].Primary().Kill9() }, write(b))
	if waited < 5 {
		t.Errorf("%d waited in vain, and then it was left alone", waited)
	}
	if len(refused) == 0 {
		t.Fatal("nothing was refused")
	}
	for _, took := range refused {
		if took > 300*time.Millisecond {
			t.Errorf("a refusal took %v", took)
		}
	}
	if state := s.breakerOf("s1"); state != "open" && state != "half-open" {
		t.Errorf("the breaker is %s", state)
	}
	if state := s.breakerOf("s0"); state != "closed" {
		t.Errorf("that of the other shard is %s", state)
	}
	must(t, c, write(a))
	for _, sql := range []string{write(b), "SELECT count(*) FROM customers", "UPDATE customers SET name = 'y'", fmt.Sprintf("SELECT * FROM customers WHERE id = %d FOR UPDATE", b), "BEGIN; " + write(a) + "; " + write(b)} {
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
			if mode == pgx.QueryExecModeExec && strings.HasPrefix(sql, "BEGIN") {
				continue
			}
			began := time.Now()
			_, err := c.Exec(within(t, 20*time.Second), sql, mode)
			if took := time.Since(began); !leftAlone(err) || took > 300*time.Millisecond {
				t.Errorf("%s: %v, in %v", sql, err, took)
			}
			must(t, c, "ROLLBACK")
		}
	}
	_, err := c.Exec(within(t, 20*time.Second), write(b))
	if d := detailOf(err); !strings.Contains(d, "Shard s1") || !strings.Contains(d, "57P03") {
		t.Errorf("DETAIL %q", d)
	}
	must(t, c, "SET shardproxy.partial_results = on")
	if n := one(t, c, "SELECT count(*)::text FROM customers"); n != s.shards[0].Primary().Value("app", "SELECT count(*) FROM customers") {
		t.Errorf("%s rows without the shard", n)
	}
	s.shards[1].Primary().Start()
	eventually(t, "it is used again", func() bool {
		_, err := c.Exec(within(t, 20*time.Second), write(b))
		return err == nil
	})
	eventually(t, "the breaker is closed", func() bool {
		if _, err := c.Exec(within(t, 20*time.Second), write(b)); err != nil && !leftAlone(err) { // only a few get through at first
			t.Error(err)
		}
		return s.breakerOf("s1") == "closed"
	})
	must(t, c, write(b))
	for _, line := range []string{"circuit breaker opened", "circuit breaker tries the shard", "circuit breaker closed"} {
		if !strings.Contains(s.logged(), line) {
			t.Errorf("the log lacks %q", line)
		}
	}
	if s.sample("shardproxy_breaker_opened_total") < 1 || s.sample("shardproxy_breaker_refusals_total") < 10 {
		t.Error(s.metricsText())
	}
}

// outage has clients run a statement without end, does harm to the shard, and returns how many of them failed otherwise before
// others were refused, and how long those took.
func (s *shardedProgram) outage(shard int, harm func(), sql string) (failed int, refused []time.Duration) {
	s.t.Helper()
	type result struct {
		err  error
		took time.Duration
	}
	results, stop := make(chan result), make(chan struct{})
	for range 6 {
		conn := s.connect()
		go func() {
			for {
				began := time.Now()
				_, err := conn.Exec(within(s.t, 20*time.Second), sql)
				select {
				case results <- result{err, time.Since(began)}:
				case <-stop:
					return
				}
			}
		}()
	}
	defer close(stop)
	for range 30 {
		if r := <-results; r.err != nil {
			s.t.Error(r.err)
		}
	}
	harm()
	for deadline := time.After(30 * time.Second); len(refused) < 10; {
		select {
		case <-deadline:
			s.t.Errorf("shard %d is not left alone: %d failed", shard, failed)
			return failed, refused
		case r := <-results:
			switch {
			case r.err == nil:
			case leftAlone(r.err):
				refused = append(refused, r.took)
			case len(refused) == 0:
				failed++
			}
		}
	}
	return failed, refused
}

// TestBreakerSick has a server fail most of what it is asked as one does whose disk is broken, and statements fail for their own faults,
// which is no reason to leave it alone.
func TestBreakerSick(t *testing.T) {
	t.Parallel()
	for name, sql := range map[string]string{
		"keyed":   "UPDATE customers SET name = 'x' WHERE id = %d",
		"several": "UPDATE customers SET name = 'x'",
		"rows":    "SELECT sickly(id) FROM customers",
	} {
		t.Run(name, func(t *testing.T) {
			s := startShards(t, 2, quickFailover+quickBreaker)
			c := s.connectLoaded()
			a, b := s.onEither(c)
			sick := func(code string) {
				for i := range s.shards {
					body := "RETURN 1;"
					if i == 1 && code != "" {
						body = "RAISE 'could not read block 7' USING ERRCODE = '" + code + "';"
					}
					s.direct(i, "CREATE OR REPLACE FUNCTION sickly(bigint) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$BEGIN "+body+" END$$;"+
						"CREATE OR REPLACE FUNCTION sick() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM sickly(1); RETURN NEW; END$$;"+
						"CREATE OR REPLACE TRIGGER sick BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION sick()")
				}
			}
			if strings.Contains(sql, "%d") {
				sql = fmt.Sprintf(sql, b)
			}
			sick("")
			eventually(t, "the function is known", func() bool {
				_, err := c.Exec(within(t, 20*time.Second), sql)
				return err == nil
			})
			// What is wrong with a statement is not wrong with the shard, nor is what a server has too little of.
			for _, code := range []string{"P0001", "53100", "53200", "57014", "40001", "58P01"} {
				sick(code)
				for end := time.Now().Add(600 * time.Millisecond); time.Now().Before(end); {
					if _, err := c.Exec(within(t, 20*time.Second), sql); sqlState(err) != code {
						t.Fatalf("%s: %v", code, err)
					}
				}
			}
			sick("")
			if failed, refused := s.outage(1, func() { sick("58030") }, sql); failed < 5 || len(refused) == 0 {
				t.Errorf("%d failed, %d were refused", failed, len(refused))
			}
			_, err := c.Exec(within(t, 20*time.Second), sql)
			if d := detailOf(err); leftAlone(err) && !strings.Contains(d, "58030") {
				t.Errorf("DETAIL %q", d)
			}
			must(t, c, fmt.Sprintf("SELECT * FROM customers WHERE id = %d", a))
			sick("")
			eventually(t, "it is used again", func() bool {
				_, err := c.Exec(within(t, 20*time.Second), sql)
				return err == nil && s.breakerOf("s1") == "closed"
			})
		})
	}
}

// TestBreakerLost: connections that are lost again and again count, those that are lost at one moment do not; and a reload turns the breaker off.
func TestBreakerLost(t *testing.T) {
	t.Parallel()
	s := startShards(t, 2, quickFailover+quickBreaker)
	c := s.connectLoaded()
	_, b := s.onEither(c)
	sql := fmt.Sprintf("UPDATE customers SET name = pg_sleep(0.05)::text WHERE id = %d", b)
	killer := pgtest.Connect(t, s.shards[1].Primary().DSN("postgres", "postgres"))
	kill := func() {
		must(t, killer, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active'")
	}
	// All at one moment, as when a server restarts.
	conns := make([]*pgx.Conn, 8)
	done := make(chan error, len(conns))
	for i := range conns {
		conns[i] = s.connect()
		go func() {
			_, err := conns[i].Exec(within(t, 20*time.Second), fmt.Sprintf("SELECT pg_sleep(20) FROM customers WHERE id = %d FOR SHARE", b))
			done <- err
		}()
	}
	eventually(t, "all of them run", func() bool {
		return s.shards[1].Primary().Value("app", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state = 'active' AND query LIKE '%pg_sleep(20)%'") == "8"
	})
	kill()
	for range conns {
		if err := <-done; !strings.Contains("08006 08007 57P01", sqlState(err)) {
			t.Error(err)
		}
	}
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		must(t, c, sql)
	}
	if state := s.breakerOf("s1"); state != "closed" {
		t.Fatalf("the breaker is %s", state)
	}
	// Again and again.
	stop, stopped := make(chan struct{}), make(chan struct{})
	if failed, refused := s.outage(1, func() {
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				case <-time.After(20 * time.Millisecond):
					kill()
				}
			}
		}()
	}, sql); failed < 5 || len(refused) == 0 {
		t.Errorf("%d failed, %d were refused", failed, len(refused))
	}
	// While it fails, without a breaker nothing is refused.
	s.write(strings.Replace(s.text(), "percent: 50", "percent: 0", 1))
	console, _ := s.consoleOf()
	must(t, console, "RELOAD")
	eventually(t, "the breaker is closed", func() bool { return s.breakerOf("s1") == "closed" })
	for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); {
		if _, err := c.Exec(within(t, 20*time.Second), sql); leftAlone(err) {
			t.Fatal(err)
		}
		if c.IsClosed() {
			c = s.connect()
		}
	}
	close(stop)
	<-stopped
}
