package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

// purgeTable has rows 1 to 3000, three of each key; a trigger that must not fire, and rows that refer to it and must stay.
const purgeTables = `
CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, v text);
INSERT INTO t SELECT i, i / 3, repeat('x', 100) FROM generate_series(1, 3000) i;
CREATE TABLE other (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE);
INSERT INTO other SELECT i, i FROM generate_series(1, 3000) i;
CREATE TABLE fired (id int);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.fired VALUES (OLD.id); RETURN OLD; END';
CREATE TRIGGER fire BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION fire();
CREATE RULE fire AS ON DELETE TO t DO ALSO INSERT INTO public.fired VALUES (-1)`

// purgePlace is a database whose table t is to be purged of a half of all slots.
type purgePlace struct {
	*comparePair
	db    *pgtest.Database
	slots *Set
	in    string // the condition that a row is to go
}

func newPurgePlace(t *testing.T, sql string, names ...string) *purgePlace {
	p := &purgePlace{comparePair: newComparePair(t, sql, names...)}
	p.db = p.dbs[0]
	var half []shardmap.Slot
	for i := range compareSlots / 2 {
		half = append(half, shardmap.Slot(i*2))
	}
	p.slots = NewSet(half, compareSlots)
	p.in = "hashint8extended(k, 0) & 63 = ANY (" + p.slots.ArraySQL() + ")"
	return p
}

// checksPurged fails unless exactly the rows of the slots are gone of what the second database still has.
func (p *purgePlace) checksPurged(table string) {
	p.t.Helper()
	if got := p.db.Value("SELECT count(*) FROM " + table + " WHERE " + p.in); got != "0" {
		p.t.Errorf("%s rows are left", got)
	}
	sum := "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM " + table + " t WHERE NOT " + p.in
	if got, want := p.db.Value(sum), p.dbs[1].Value(sum); got != want {
		p.t.Errorf("the other rows are %s, want %s", got, want)
	}
}

func TestPurge(t *testing.T) {
	for _, rows := range []int{1, 7, 100, 100000} {
		for _, version := range []int{0, 130000} {
			t.Run(fmt.Sprintf("pieces of %d, version %d", rows, version), func(t *testing.T) {
				p := newPurgePlace(t, purgeTables, "t")
				purge := NewPurge(p.tables, p.slots, PurgeOptions{Rows: rows})
				want := p.db.Value("SELECT count(*) FROM t WHERE " + p.in)
				if version == 0 {
					if err := purge.Run(t.Context(), p.conns[0]); err != nil {
						t.Fatal(err)
					}
				} else { // by the statements that older servers get
					r := &purgeRun{Purge: purge, conn: p.conns[0]}
					if err := r.prepare(t.Context()); err != nil {
						t.Fatal(err)
					}
					r.version = version
					if err := r.purge(t.Context(), p.tables[0], &purge.deleted[0]); err != nil {
						t.Fatal(err)
					}
				}
				p.checksPurged("t")
				if got := fmt.Sprint(purge.Progress().Deleted); got != want || purge.Progress().Tables[0] != purge.Progress().Deleted {
					t.Errorf("%s rows were counted, want %s", got, want)
				}
				if got := p.db.Value("SELECT (SELECT count(*) FROM fired) || ' ' || (SELECT count(*) FROM other)"); got != "0 3000" {
					t.Errorf("triggers and foreign keys did something: %s", got)
				}
				var role, timeout string
				if err := p.conns[0].QueryRow(t.Context(), "SELECT current_setting('session_replication_role'), current_setting('lock_timeout')").Scan(&role, &timeout); err != nil || role != "origin" || timeout != "0" {
					t.Error("the session's settings are changed:", role, timeout, err)
				}
			})
		}
	}
}

// TestPurgeKeepsWhatMoved: a row that another session takes out of the slots, while its deletion waits for that
// session, stays.
func TestPurgeKeepsWhatMoved(t *testing.T) {
	p := newPurgePlace(t, "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i", "t")
	ids := p.db.Rows("SELECT id FROM t WHERE " + p.in + " ORDER BY id LIMIT 3")
	out := p.db.Value("SELECT k FROM t WHERE NOT " + p.in + " LIMIT 1")
	other := p.db.Connect("postgres")
	if _, err := other.Exec(t.Context(), fmt.Sprintf("BEGIN; UPDATE t SET k = %s WHERE id = %s; UPDATE t SET id = id WHERE id = %s", out, ids[0][0], ids[1][0])); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			var waits bool
			if err := other.QueryRow(context.Background(), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')").Scan(&waits); err != nil || waits {
				break
			}
		}
		if _, err := other.Exec(context.Background(), "COMMIT"); err != nil {
			t.Error(err)
		}
	})
	if _, err := p.conns[0].Exec(t.Context(), "SET deadlock_timeout = '2min'"); err != nil {
		t.Fatal(err)
	}
	purge := NewPurge(p.tables, p.slots, PurgeOptions{LockTimeout: time.Minute})
	err := purge.Run(t.Context(), p.conns[0])
	group.Wait()
	if err != nil || purge.Progress().Retries != 0 {
		t.Error("it did not wait:", err, purge.Progress().Retries)
	}
	if got := p.db.Value("SELECT count(*) FROM t WHERE id = $1", ids[0][0]); got != "1" {
		t.Error("a row that is in no slot of the set is gone")
	}
	if got := p.db.Value("SELECT count(*) FROM t WHERE " + p.in); got != "0" {
		t.Errorf("%s rows are left", got)
	}
}

// TestPurgeAmongWriters: sessions that write rows of other slots, and lock rows of any slots in an order that makes for
// deadlocks, never see an error, nor miss a row.
func TestPurgeAmongWriters(t *testing.T) {
	p := newPurgePlace(t, "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT i, i FROM generate_series(1, 4000) i", "t")
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	purge := NewPurge(p.tables, p.slots, PurgeOptions{Rows: 100, RowsPerSecond: 2000, LockTimeout: 2 * time.Millisecond})
	done := make(chan struct{})
	var group sync.WaitGroup
	var wrote [4]int64
	for w := range wrote {
		conn := p.db.Connect("postgres")
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				// Some rows of its own, of any slots, in descending order: the deletion takes them in ascending.
				_, err := conn.Exec(ctx, fmt.Sprintf(`BEGIN; SELECT id FROM t WHERE id = %d FOR UPDATE; SELECT pg_sleep(0.005); SELECT id FROM t WHERE id %% 4 = %[3]d AND id < %[2]d AND id > %[2]d - 200 ORDER BY id DESC FOR UPDATE; SELECT pg_sleep(0.005);
					UPDATE t SET n = n + 1 WHERE id %% 4 = %[3]d AND id BETWEEN %[4]d AND %[5]d AND NOT %[6]s; COMMIT`, (20+i*37%3900)/4*4+w, (10+i*37%3900)/4*4+w, w, i%3000, i%3000+200, p.in))
				if err != nil {
					t.Error("a writer:", err)
					return
				}
				wrote[w]++
			}
		})
	}
	err := purge.Run(ctx, p.conns[0])
	close(done)
	group.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.db.Value("SELECT count(*) FROM t"), p.dbs[1].Value("SELECT count(*) FROM t WHERE NOT "+p.in); got != want {
		t.Errorf("%s rows, want %s", got, want)
	}
	t.Logf("%v transactions wrote meanwhile, %d times a lock was not given", wrote, purge.Progress().Retries)
}

// TestPurgeLocked: a row that somebody keeps locked holds up nothing but itself, and is deleted when it is free.
func TestPurgeLocked(t *testing.T) {
	p := newPurgePlace(t, purgeTables, "t")
	other := p.db.Connect("postgres")
	var id int
	if err := other.QueryRow(t.Context(), "SELECT id FROM t WHERE "+p.in+" ORDER BY id OFFSET 5 LIMIT 1").Scan(&id); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Exec(t.Context(), fmt.Sprintf("BEGIN; SELECT FROM t WHERE id = %d FOR UPDATE", id)); err != nil {
		t.Fatal(err)
	}
	purge := NewPurge(p.tables, p.slots, PurgeOptions{Rows: 100, LockTimeout: 20 * time.Millisecond})
	ended := make(chan error, 1)
	go func() { ended <- purge.Run(t.Context(), p.conns[0]) }()
	for deadline := time.Now().Add(20 * time.Second); p.db.Value("SELECT count(*) FROM t WHERE "+p.in) != "1"; {
		if time.Now().After(deadline) {
			t.Error("one locked row holds up others")
			break
		}
	}
	if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil || purge.Progress().Retries == 0 {
		t.Error(err, purge.Progress())
	}
	p.checksPurged("t")
}

// TestPurgeGoesOn: it ends with its context, or its connection, and goes on with another one where it was.
func TestPurgeGoesOn(t *testing.T) {
	p := newPurgePlace(t, purgeTables+"; CREATE TABLE u AS SELECT id, k FROM t; ALTER TABLE u ADD PRIMARY KEY (id)", "t", "u")
	purge := NewPurge(p.tables, p.slots, PurgeOptions{Rows: 20, RowsPerSecond: 400})
	want := p.db.Value("SELECT (SELECT count(*) FROM t WHERE " + p.in + ") + (SELECT count(*) FROM u WHERE " + p.in + ")")
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	if err := purge.Run(ctx, p.conns[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	first := purge.Progress()
	if first.Deleted < 20 || first.Deleted > 200 || first.Done != 0 {
		t.Errorf("in 400 ms at 400 rows/s: %+v", first)
	}
	conn := p.db.Connect("postgres")
	timer := time.AfterFunc(200*time.Millisecond, func() {
		killer, err := pgx.Connect(context.Background(), p.db.DSN("postgres"))
		if err != nil {
			t.Error(err)
			return
		}
		defer killer.Close(context.Background()) //nolint:errcheck // the test ends
		if _, err := killer.Exec(context.Background(), "SELECT pg_terminate_backend($1)", conn.PgConn().PID()); err != nil {
			t.Error(err)
		}
	})
	defer timer.Stop()
	if err := purge.Run(t.Context(), conn); err == nil {
		t.Error("its connection was ended and it did not notice")
	}
	purge.SetRate(0)
	if err := purge.Run(t.Context(), p.db.Connect("postgres")); err != nil {
		t.Fatal(err)
	}
	p.checksPurged("t")
	p.checksPurged("u")
	end := purge.Progress()
	if fmt.Sprint(end.Deleted) != want || end.Done != 2 {
		t.Errorf("counted: %+v, want %s", end, want)
	}
	// And once more, when rows have come.
	p.db.Exec("INSERT INTO t SELECT id + 10000, k FROM u; INSERT INTO t SELECT 5000 + i, i FROM generate_series(1, 100) i; DELETE FROM t WHERE id > 5000 AND NOT " + p.in)
	if err := purge.Run(t.Context(), p.db.Connect("postgres")); err != nil || purge.Progress().Deleted == end.Deleted {
		t.Error(err, purge.Progress())
	}
	p.checksPurged("t")
}

// TestPurgeRefuses what would do more than delete.
func TestPurgeRefuses(t *testing.T) {
	p := newPurgePlace(t, purgeTables, "t")
	p.db.Exec("ALTER TABLE t OWNER TO app")
	var b *Blocker
	if err := NewPurge(p.tables, p.slots, PurgeOptions{}).Run(t.Context(), p.db.Connect("app")); !errors.As(err, &b) || !strings.Contains(b.Reason, "session_replication_role") || b.Hint == "" {
		t.Error("a role that may not:", err)
	}
	for _, test := range []struct{ sql, back, want string }{
		{"ALTER TABLE t ENABLE ALWAYS TRIGGER fire", "ALTER TABLE t ENABLE TRIGGER fire", "trigger fire (ENABLE ALWAYS)"},
		{"ALTER TABLE t ENABLE REPLICA TRIGGER fire", "ALTER TABLE t ENABLE TRIGGER fire", "trigger fire (ENABLE REPLICA)"},
		{"ALTER TABLE t ENABLE ALWAYS RULE fire", "ALTER TABLE t ENABLE RULE fire", "rule fire (ENABLE ALWAYS)"},
	} {
		p.db.Exec(test.sql)
		err := NewPurge(p.tables, p.slots, PurgeOptions{}).Run(t.Context(), p.conns[0])
		if !errors.As(err, &b) || !strings.Contains(b.Reason, test.want) || b.Hint != strings.Replace(test.back, " t ", ` "public"."t" `, 1)+", or disable it, while slots move" {
			t.Errorf("%s: %v %+v", test.sql, err, b)
		}
		p.db.Exec(test.back)
	}
	if got := p.db.Value("SELECT count(*) FROM t"); got != "3000" {
		t.Errorf("%s rows are left", got)
	}
	if _, err := p.conns[0].Exec(t.Context(), "BEGIN"); err != nil {
		t.Fatal(err)
	}
	if err := NewPurge(p.tables, p.slots, PurgeOptions{}).Run(t.Context(), p.conns[0]); err == nil {
		t.Error("it deleted within a transaction of the caller")
	}
}
