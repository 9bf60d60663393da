package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// epochStage is the program in front of two shards, and the home shard.
type epochStage struct {
	*shardedProgram
	home *pgx.Conn
	keys []int
}

func startEpochs(t *testing.T, more ...string) *epochStage {
	s := &epochStage{shardedProgram: startShards(t, 2, more...)}
	s.home = pgtest.Connect(t, s.shards[0].Primary().DSN("app", "postgres"))
	nobodyMoves(t, s.home)
	for m, k := s.load(t), 1; len(s.keys) < 2; k++ {
		if m.Owner(slotOfKey(m, k)) == fmt.Sprintf("s%d", len(s.keys)) {
			s.keys = append(s.keys, k)
		}
	}
	c := s.connectLoaded()
	for _, k := range append(s.keys, s.other(t, 0)) {
		must(t, c, "INSERT INTO customers VALUES ($1, 'first')", k)
	}
	return s
}

// nobodyMoves keeps the proxies from carrying moves out, and from ending what only moves begin.
func nobodyMoves(t *testing.T, home *pgx.Conn) {
	t.Helper()
	eventually(t, "the lock of who moves slots", func() bool {
		taken, err := metadata.TryMover(within(t, 10*time.Second), home)
		if err != nil {
			t.Fatal(err)
		}
		return taken
	})
}

// other returns another key of a shard, in another slot.
func (s *epochStage) other(t *testing.T, shard int) int {
	t.Helper()
	m := s.load(t)
	for k := s.keys[shard] + 1; ; k++ {
		if at := slotOfKey(m, k); m.Owner(at) == fmt.Sprintf("s%d", shard) && at != slotOfKey(m, s.keys[shard]) {
			return k
		}
	}
}

func slotOfKey(m *shardmap.Map, k int) shardmap.Slot {
	h, _ := shardmap.Int8.HashText(fmt.Append(nil, k)) // a number in decimal
	return m.SlotOf(h)
}

func (s *epochStage) load(t *testing.T) *shardmap.Map {
	t.Helper()
	m, _, err := metadata.Load(within(t, 10*time.Second), s.home)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// change stores a map with the same owners: guarded or not, with these slots held.
func (s *epochStage) change(t *testing.T, guarded bool, held ...shardmap.Slot) int64 {
	t.Helper()
	m := s.load(t)
	rows := m.Rows()
	for i := range rows {
		rows[i].Held = slices.Contains(held, shardmap.Slot(i))
	}
	next, err := shardmap.NewMap(m.Epoch()+1, m.Slots(), m.Shards(), rows)
	if err == nil {
		err = metadata.Change(within(t, 10*time.Second), s.home, m.Epoch(), next.Guard(next.Epoch(), guarded))
	}
	if err != nil {
		t.Fatal(err)
	}
	return m.Epoch() + 1
}

// keyed puts keys in the places of $K and $E.
func keyed(sql string, keys ...int) string {
	for i, k := range keys {
		sql = strings.ReplaceAll(sql, []string{"$K", "$E"}[i], fmt.Sprint(k))
	}
	return sql
}

// acknowledged waits until the only proxy has told this.
func (s *epochStage) acknowledged(t *testing.T, when string, epoch, writes, statements int64) {
	t.Helper()
	var last []metadata.Acknowledgement
	defer func() {
		if t.Failed() {
			t.Logf("told: %+v", last)
		}
	}()
	soon(t, 5*time.Second, fmt.Sprintf("%s: epoch %d, writes %d, statements %d is told", when, epoch, writes, statements), func() bool {
		var err error
		if last, err = metadata.Acknowledged(within(t, 10*time.Second), s.home); err != nil {
			t.Fatal(err)
		}
		return len(last) == 1 && last[0].Epoch == epoch && last[0].Writes == writes && last[0].Statements == statements
	})
}

// TestAcknowledged changes the slot map under statements and transactions of every kind.
func TestAcknowledged(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startEpochs(t, runtime)
		s.acknowledged(t, "at first", 1, 1, 1)
		e := s.change(t, true)
		s.acknowledged(t, "nothing runs", e, e, e)
		for _, test := range []struct {
			name   string
			before []string
			writes bool // is waited for
		}{
			{"a transaction that has begun", []string{"BEGIN"}, false},
			{"one that has read", []string{"BEGIN", "SELECT * FROM customers WHERE id = $K"}, false},
			{"one that has read all", []string{"BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM customers"}, false},
			{"one that has written", []string{"BEGIN", "UPDATE customers SET name = 'x' WHERE id = $K"}, true},
			{"one that has written and read", []string{"BEGIN", "UPDATE customers SET name = 'x' WHERE id = $K", "SELECT count(*) FROM customers"}, true},
			{"one that has locked", []string{"BEGIN", "SELECT * FROM customers WHERE id = $K FOR UPDATE"}, true},
			{"one that has written on all", []string{"BEGIN", "UPDATE customers SET name = 'y'"}, true},
			{"one that has failed behind a write", []string{"BEGIN", "UPDATE customers SET name = 'y'", "SELECT 1 / 0"}, true},
			{"in one text", []string{"BEGIN; UPDATE customers SET name = 'y' WHERE id = $K"}, true},
		} {
			c := s.connect()
			for _, sql := range test.before {
				_, _ = c.Exec(within(t, 10*time.Second), keyed(sql, s.keys[1]), pgx.QueryExecModeSimpleProtocol) // one is to fail
			}
			before, w := e, int64(0)
			e = s.change(t, e%2 == 0)
			if w = e; test.writes {
				w = before
			}
			s.acknowledged(t, test.name, e, w, e)
			must(t, c, "ROLLBACK")
			s.acknowledged(t, "behind "+test.name, e, e, e)
		}
		for _, test := range []struct {
			name, sql string
			writes    bool
		}{
			{"a read", "SELECT pg_sleep(2) FROM customers WHERE id = $K", false},
			{"a read of all", "SELECT pg_sleep(2) FROM customers", false},
			{"a write", "UPDATE customers SET name = 'y' WHERE id = $K AND pg_sleep(2) IS NOT NULL", true},
		} {
			c, done := s.connect(), make(chan error, 1)
			go func() {
				_, err := c.Exec(within(t, 20*time.Second), keyed(test.sql, s.keys[1]), pgx.QueryExecModeSimpleProtocol)
				done <- err
			}()
			direct := pgtest.Connect(t, s.shards[1].Primary().DSN("app", "postgres"))
			eventually(t, test.name+" runs", func() bool {
				const sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
				return one(t, direct, sleeping) != "0" || one(t, s.home, sleeping) != "0"
			})
			before := e
			e = s.change(t, e%2 == 0)
			w := e
			if test.writes {
				w = before
			}
			s.acknowledged(t, test.name, e, w, before)
			if err := <-done; err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			s.acknowledged(t, "behind "+test.name, e, e, e)
		}
		// A client that sends half of a request keeps nobody.
		half := speak(t, s.dsn())
		if _, err := half.conn.Conn.Write([]byte("Q\x00\x00\x00\x40SELECT")); err != nil {
			t.Fatal(err)
		}
		e = s.change(t, false)
		s.acknowledged(t, "half a request", e, e, e)
	})
}

// TestHeldSlots holds a slot while statements come.
func TestHeldSlots(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		s := startEpochs(t, "    failover: {hold_timeout: 5s}\n", runtime)
		k, free, elsewhere := s.keys[0], s.other(t, 0), s.keys[1]
		slot := slotOfKey(s.load(t), k)
		writer := s.connect()
		must(t, writer, "BEGIN")
		must(t, writer, "UPDATE customers SET name = 'before' WHERE id = $1", free)
		s.acknowledged(t, "at first", 1, 1, 1)
		e := s.change(t, true, slot)
		s.acknowledged(t, "held", e, 1, e)
		for _, sql := range []string{"SELECT * FROM customers WHERE id = $K", "SELECT count(*) FROM customers", "UPDATE customers SET name = 'free' WHERE id = $E",
			"BEGIN; UPDATE customers SET name = 'free' WHERE id = $E; COMMIT", "UPDATE products SET name = name WHERE id = 1"} {
			must(t, s.connect(), keyed(sql, k, elsewhere), pgx.QueryExecModeSimpleProtocol)
		}
		must(t, writer, "UPDATE customers SET name = 'within' WHERE id = $1", k) // who holds the slot waits for this transaction
		must(t, writer, "COMMIT")
		s.acknowledged(t, "the writer has ended", e, e, e)
		waiting := []string{
			"UPDATE customers SET name = 'behind' WHERE id = $K", "SELECT * FROM customers WHERE id = $K FOR UPDATE", "UPDATE customers SET name = name || '!'",
			"INSERT INTO orders VALUES (1, $K, 'a'), (1, $E, 'b')", "BEGIN; UPDATE customers SET name = name || '?' WHERE id IN ($K, $E); COMMIT",
			"INSERT INTO orders SELECT 2, id, 'c' FROM customers", "DELETE FROM orders WHERE id = 77",
		}
		done := make(chan error, len(waiting)+1)
		for _, sql := range waiting {
			c := s.connect()
			go func() {
				_, err := c.Exec(within(t, 20*time.Second), keyed(sql, k, elsewhere), pgx.QueryExecModeSimpleProtocol)
				if err != nil {
					err = fmt.Errorf("%s: %w", sql, err)
				}
				done <- err
			}()
		}
		inside := s.connect()
		must(t, inside, "BEGIN")
		must(t, inside, "UPDATE customers SET name = 'inside' WHERE id = $1", elsewhere)
		go func() {
			_, err := inside.Exec(within(t, 20*time.Second), "UPDATE customers SET name = 'inside' WHERE id = $1", k)
			if err == nil {
				_, err = inside.Exec(within(t, 20*time.Second), "COMMIT")
			}
			done <- err
		}()
		select {
		case err := <-done:
			t.Fatal("one did not wait: ", err)
		case <-time.After(time.Second):
		}
		if got := one(t, s.home, "SELECT count(*) FROM orders WHERE customer_id = $1", k); got != "0" {
			t.Error("a row of a held slot was written")
		}
		s.acknowledged(t, "while they wait", e, e, e)
		s.change(t, false)
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if got := one(t, s.home, "SELECT count(*) FROM orders WHERE customer_id = $1", k); got != "2" {
			t.Error(got, "rows were written behind the hold")
		}
		// In vain.
		e = s.change(t, false, slot)
		s.acknowledged(t, "held in vain", e, e, e)
		c := s.connect()
		begin := time.Now()
		fails(t, c, fmt.Sprintf("UPDATE customers SET name = 'late' WHERE id = %d", k), "57P03")
		if d := time.Since(begin); d < 4*time.Second || d > 8*time.Second {
			t.Error("it waited for", d)
		}
		must(t, c, fmt.Sprintf("UPDATE customers SET name = 'free' WHERE id = %d", free))
		s.change(t, false)
		must(t, c, fmt.Sprintf("UPDATE customers SET name = 'at last' WHERE id = %d", k))
	})
}
