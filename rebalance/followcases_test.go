package rebalance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// TestCarryWhole: a large transaction of the source comes over whole, also when the follower is lost within it.
func TestCarryWhole(t *testing.T) {
	p := newErrorsPair(t)
	inside, _ := p.keys(1)
	c := p.carry("whole")
	o := p.copied(c)
	object := MoveObject("whole")
	stop := p.follow(c, o)
	p.catchUp(c)
	p.source.Exec("app", fmt.Sprintf("INSERT INTO t SELECT g, %d, repeat('x', 100) || g FROM generate_series(1, 30000) g; UPDATE t SET m = 'sad'; DELETE FROM t WHERE id %% 2 = 0", inside[0]))
	kills := 0
	for seen := "0"; seen != "15000"; {
		if seen = p.target.Value("app", "SELECT count(*) FROM t"); seen != "0" && seen != "15000" {
			t.Fatalf("%s rows of a transaction are seen", seen)
		}
		if c.Position().Received > c.Position().Applied && kills < 3 {
			carrySleepFor(t, 300*time.Millisecond)
			p.target.Exec("app", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '"+object+"'")
			kills++
		}
		select {
		case <-p.failed:
			if err := stop(); errors.As(err, new(*CarryError)) {
				t.Fatal(err)
			}
			stop = p.follow(c, o)
		case <-time.After(5 * time.Millisecond):
		}
	}
	p.catchUp(c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if p.same() != 15000 || kills == 0 {
		t.Errorf("%d kills, %+v", kills, c.Counts())
	}
	p.again(c)
}

// TestCarryNotVisible: a value is not read from the source before its transaction is seen there. Its changes are streamed earlier.
func TestCarryNotVisible(t *testing.T) {
	p := newErrorsPair(t)
	inside, outside := p.keys(1)
	c := p.carry("visible")
	o := p.copied(c)
	stop := p.follow(c, o)
	p.catchUp(c)
	p.source.Set("synchronous_standby_names", "nobody")
	commit := make(chan error, 1)
	go func() {
		conn, err := p.source.Engine.Connect(context.Background(), "app")
		if err == nil {
			// The document is not sent with the row that comes in.
			_, err = conn.PgConn().Exec(context.Background(), fmt.Sprintf(`BEGIN; INSERT INTO t SELECT 1, %d, string_agg(md5(g::text), '') FROM generate_series(1, 80) g;
				UPDATE t SET tenant = %d WHERE id = 1; COMMIT`, outside[0], inside[0])).ReadAll()
			err = errors.Join(err, conn.Close(context.Background()))
		}
		commit <- err
	}()
	lsn := c.Position().Received
	for end := time.Now().Add(10 * time.Second); c.Position().Received == lsn && time.Now().Before(end); {
		carrySleepFor(t, 10*time.Millisecond)
	}
	carrySleepFor(t, 500*time.Millisecond)
	if got := p.target.Value("app", "SELECT count(*) FROM t"); got != "0" {
		t.Errorf("%s rows before the source shows any", got)
	}
	p.source.Set("synchronous_standby_names", "")
	if err := <-commit; err != nil {
		t.Fatal(err)
	}
	p.catchUp(c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if p.same() != 1 || c.Counts().Fetched != 1 {
		t.Errorf("%+v", c.Counts())
	}
	p.again(c)
}

// TestCarryIdle: a source that rests, or writes other tables only, is followed, and can let go of its WAL.
func TestCarryIdle(t *testing.T) {
	p := newErrorsPair(t)
	p.source.Exec("app", "CREATE TABLE other (a int)")
	c := p.carry("idle")
	o := p.copied(c)
	stop := p.follow(c, o)
	p.catchUp(c)
	conn := pgtest.Connect(t, p.source.DSN("app", "postgres"))
	for _, position := range []string{"pg_current_wal_lsn()", "pg_current_wal_insert_lsn()"} {
		p.source.Exec("app", "INSERT INTO other SELECT generate_series(1, 20000)")
		var slowest time.Duration
		for range 20 {
			lsn, err := parseOf(t.Context(), conn, position)
			if err != nil {
				t.Fatal(err)
			}
			begin := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := c.WaitFor(ctx, lsn); err != nil {
				t.Fatal(position, err)
			}
			cancel()
			slowest = max(slowest, time.Since(begin))
		}
		t.Log(position, "slowest", slowest)
	}
	end, err := c.SourceEnd(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	const lets = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= $1::pg_lsn - 100000"
	for until := time.Now().Add(10 * time.Second); p.source.Value("app", lets, end.String()) != "1"; carrySleepFor(t, 50*time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("the slot keeps what the target has")
		}
	}
	p.source.Exec("app", "SELECT pg_switch_wal()")
	p.catchUp(c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.WaitFor(ctx, c.Position().Applied+1e6); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that the time is over", err)
	}
	p.again(c)
}

// TestCarryWALRemoved: a slot whose WAL the source has removed is known as such, before and while it is read.
func TestCarryWALRemoved(t *testing.T) {
	p := newErrorsPair(t)
	inside, _ := p.keys(1)
	c := p.carry("removed")
	o := p.copied(c)
	p.source.Set("wal_keep_size", "0")
	p.source.Set("max_slot_wal_keep_size", "1MB")
	for range 4 {
		p.source.Exec("app", fmt.Sprintf("INSERT INTO t SELECT coalesce(max(id), 0) + 1, %d FROM t", inside[0]))
		p.source.Exec("app", "SELECT pg_switch_wal()")
		p.source.Exec("app", "CHECKPOINT")
	}
	cause(t, p.fails(c, o, func() {}), SlotLost, "max_slot_wal_keep_size")
	p.again(c)
}

// TestCarryLargeKeys: keys and primary keys that are stored apart are not sent with every UPDATE.
func TestCarryLargeKeys(t *testing.T) {
	const schema = `CREATE TABLE large (id text PRIMARY KEY, tenant text, doc text, v int); ALTER TABLE large ALTER id SET STORAGE EXTERNAL, ALTER tenant SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL;
		CREATE TABLE both_large (tenant text, v int, doc text, PRIMARY KEY (tenant)); ALTER TABLE both_large ALTER tenant SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL`
	p := newCarryPair(t, schema, map[string][]string{"large": {"tenant"}, "both_large": {"tenant"}}, everySecondSlot()...)
	c := p.carry("large")
	p.source.Exec("app", "INSERT INTO large SELECT g || repeat('i', 2100), g || repeat('t', 5000), g || repeat('d', 4000), g FROM generate_series(1, 40) g")
	p.source.Exec("app", "INSERT INTO both_large SELECT g || repeat('i', 2100), g, repeat('d', 4000) FROM generate_series(1, 40) g")
	o := p.copied(c)
	stop := p.follow(c, o)
	for _, sql := range []string{
		"UPDATE large SET v = v + 1", "UPDATE large SET id = id || 'x' WHERE v % 3 = 0", "UPDATE large SET tenant = tenant || v WHERE v % 2 = 0",
		"UPDATE large SET v = -v, id = 'y' || id WHERE v % 5 = 0", "UPDATE both_large SET v = v + 1", "UPDATE both_large SET tenant = 'x' || tenant WHERE v % 2 = 0",
		"DELETE FROM large WHERE v % 7 = 0", "DELETE FROM both_large WHERE v % 7 = 0",
	} {
		p.source.Exec("app", sql)
	}
	p.catchUp(c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := p.same(); n < 10 {
		t.Errorf("%d rows", n)
	}
	p.again(c)
}

// TestCarryTaken: who comes later ends the follower that is there, on both servers.
func TestCarryTaken(t *testing.T) {
	p := newErrorsPair(t)
	inside, _ := p.keys(1)
	first, second := p.carry("taken"), p.carry("taken")
	o := p.copied(first)
	stop := p.follow(first, o)
	p.catchUp(first)
	failed := p.failed
	stopSecond := p.follow(second, o)
	select {
	case <-failed:
	case <-time.After(10 * time.Second):
		t.Error("the first goes on")
	}
	if err := stop(); err == nil || errors.As(err, new(*CarryError)) {
		t.Errorf("the first ended with %v", err)
	}
	p.source.Exec("app", fmt.Sprintf("INSERT INTO t VALUES (1, %d)", inside[0]))
	p.catchUp(second)
	third := p.carry("taken")
	p.again(third) // ends the second
	if err := stopSecond(); err == nil {
		t.Error("the second goes on")
	}
}

// TestClearPieces: both ways to delete in pieces take the rows of the slots and no others.
func TestClearPieces(t *testing.T) {
	p := newErrorsPair(t)
	c := p.carry("clear")
	p.target.Exec("app", "INSERT INTO t SELECT g, g, repeat('x', 300) || g FROM generate_series(1, 20000) g")
	table := p.tables[slices.IndexFunc(p.tables, func(t *Table) bool { return t.Name == "t" })]
	own := p.rows(p.target, table, false)
	if got := p.target.Value("app", "SELECT count(*) FROM t WHERE "+clearTIDs(0, 8192)); got == "0" || p.target.Value("app", fmt.Sprintf("SELECT count(*) FROM t WHERE ctid < '(%d,0)'", clearBlocks)) != got {
		t.Errorf("%s rows by their pointers", got)
	}
	if err := c.ClearTarget(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := p.rows(p.target, table, true); len(left) > 0 || c.Counts().Cleared != int64(20000-len(own)) {
		t.Errorf("%d rows are left, %+v", len(left), c.Counts())
	}
	if got := p.rows(p.target, table, false); strings.Join(got, "\n") != strings.Join(own, "\n") {
		t.Error("other rows are gone")
	}
}

// parseOf returns the position that an expression has on a server.
func parseOf(ctx context.Context, conn *pgx.Conn, expression string) (LSN, error) {
	var text string
	if err := conn.QueryRow(ctx, "SELECT "+expression+"::text").Scan(&text); err != nil {
		return 0, err
	}
	return pglogrepl.ParseLSN(text)
}
