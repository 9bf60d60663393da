package rebalance

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

const randomSchema = `
CREATE TABLE keyed (tenant bigint, id int, v int, doc text, tail text, PRIMARY KEY (tenant, id));
CREATE TABLE plain (id int PRIMARY KEY, tenant bigint, v int, doc text, tail text);
CREATE TABLE wide (id int, region text, tenant bigint, v int, doc text, tail text, PRIMARY KEY (region, id));
CREATE TABLE whole (id int PRIMARY KEY, tenant bigint, v int, doc text, tail text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE bare (id int, tenant bigint, PRIMARY KEY (id, tenant));
CREATE TABLE counted (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant bigint, v int, doc text, tail text);
CREATE TABLE parts (id int, tenant bigint, v int, doc text, tail text, PRIMARY KEY (id, tenant)) PARTITION BY RANGE (id);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (30);
CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (30) TO (10000);
ALTER TABLE keyed ALTER doc SET STORAGE EXTERNAL; ALTER TABLE plain ALTER doc SET STORAGE EXTERNAL; ALTER TABLE wide ALTER doc SET STORAGE EXTERNAL;
ALTER TABLE whole ALTER doc SET STORAGE EXTERNAL; ALTER TABLE counted ALTER doc SET STORAGE EXTERNAL; ALTER TABLE parts_a ALTER doc SET STORAGE EXTERNAL;
ALTER TABLE parts_b ALTER doc SET STORAGE EXTERNAL;
`

// randomWriter changes rows of the source, in transactions of several statements.
type randomWriter struct {
	r       *rand.Rand
	tenants []int // some of the moving slots, some not
	outside []int
}

// ids that the target has too, in rows of its own.
const randomShared = 1000

func (w *randomWriter) doc() string {
	switch w.r.IntN(4) {
	case 0:
		return "NULL"
	case 1:
		return fmt.Sprintf("'short %d'", w.r.IntN(100))
	}
	return fmt.Sprintf("(SELECT string_agg(md5((%d + g)::text), '') FROM generate_series(1, 80) g)", w.r.IntN(1000000))
}

func (w *randomWriter) tenant() string {
	if w.r.IntN(15) == 0 { // refused where it is part of the primary key
		return "NULL"
	}
	return fmt.Sprint(w.tenants[w.r.IntN(len(w.tenants))])
}

func (w *randomWriter) statement() string {
	table := []string{"keyed", "plain", "plain", "wide", "whole", "bare", "counted", "parts"}[w.r.IntN(8)]
	id, region := w.r.IntN(60), ""
	if w.r.IntN(10) == 0 && (table == "plain" || table == "whole") {
		id = randomShared + w.r.IntN(10) // these stay outside of the moving slots
		return []string{
			fmt.Sprintf("UPDATE %s SET v = %d WHERE id = %d", table, w.r.IntN(1000), id),
			fmt.Sprintf("UPDATE %s SET tenant = %d, doc = %s WHERE id = %d", table, w.outside[w.r.IntN(len(w.outside))], w.doc(), id),
			fmt.Sprintf("DELETE FROM %s WHERE id = %d", table, id),
			fmt.Sprintf("INSERT INTO %s VALUES (%d, %d, 1, %s) ON CONFLICT DO NOTHING", table, id, w.outside[w.r.IntN(len(w.outside))], w.doc()),
		}[w.r.IntN(4)]
	}
	if table == "wide" {
		region = fmt.Sprintf(" AND region = 'r%d'", w.r.IntN(2))
	}
	where := fmt.Sprintf(" WHERE id = %d%s", id, region)
	if table == "bare" {
		switch w.r.IntN(4) {
		case 0:
			return "DELETE FROM bare" + where
		case 1:
			return fmt.Sprintf("UPDATE bare SET tenant = %s"+where, w.tenant())
		case 2:
			return fmt.Sprintf("UPDATE bare SET id = %d"+where, w.r.IntN(60))
		}
		return fmt.Sprintf("INSERT INTO bare VALUES (%d, %s) ON CONFLICT DO NOTHING", id, w.tenant())
	}
	switch w.r.IntN(12) {
	case 0, 1, 2:
		columns, values := "id, tenant, v, doc, tail", fmt.Sprintf("%d, %s, %d, %s, 'new'", id, w.tenant(), w.r.IntN(1000), w.doc())
		switch table {
		case "wide":
			columns, values = columns+", region", values+fmt.Sprintf(", 'r%d'", w.r.IntN(2))
		case "counted":
			columns += ") OVERRIDING SYSTEM VALUE VALUES ("
			return "INSERT INTO counted (" + columns + values + ") ON CONFLICT DO NOTHING"
		}
		return "INSERT INTO " + table + " (" + columns + ") VALUES (" + values + ") ON CONFLICT DO NOTHING"
	case 3, 4:
		return fmt.Sprintf("UPDATE %s SET v = v + 1%s", table, where)
	case 5:
		return fmt.Sprintf("UPDATE %s SET doc = %s%s", table, w.doc(), where)
	case 6, 7:
		return fmt.Sprintf("UPDATE %s SET tenant = %s%s", table, w.tenant(), where)
	case 8:
		if table == "counted" {
			return fmt.Sprintf("UPDATE counted SET v = NULL%s", where)
		}
		return fmt.Sprintf("UPDATE %s SET id = %d%s", table, w.r.IntN(60), where)
	case 9:
		if table == "counted" {
			return fmt.Sprintf("UPDATE counted SET tail = %s, tenant = %s%s", w.doc(), w.tenant(), where)
		}
		return fmt.Sprintf("UPDATE %s SET id = %d, tenant = %s, tail = 'both'%s", table, w.r.IntN(60), w.tenant(), where)
	case 10:
		return fmt.Sprintf("UPDATE %s SET v = v + 1, tail = NULL WHERE tenant = %s AND id < 1000", table, w.tenant())
	}
	return "DELETE FROM " + table + where
}

// write runs transactions until stop closes. Statements may fail, and be rolled back with what came before.
func (w *randomWriter) write(ctx context.Context, dsn string, stop <-chan struct{}) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // of a test
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		texts := []string{"BEGIN"}
		for range 1 + w.r.IntN(6) {
			switch w.r.IntN(8) {
			case 0:
				texts = append(texts, "SAVEPOINT a", w.statement(), "ROLLBACK TO a")
			case 1:
				texts = append(texts, "SAVEPOINT a", w.statement(), "RELEASE a")
			default:
				texts = append(texts, w.statement())
			}
		}
		end := "COMMIT"
		if w.r.IntN(5) == 0 {
			end = "ROLLBACK"
		}
		if end == "COMMIT" && w.r.IntN(8) == 0 {
			gid := fmt.Sprintf("'%d'", w.r.Uint64())
			texts, end = append(texts, "PREPARE TRANSACTION "+gid), "COMMIT PREPARED "+gid
		}
		if w.r.IntN(4) == 0 {
			texts[0] += "; SET LOCAL synchronous_commit = off"
		}
		for _, text := range append(texts, end) {
			if _, err := conn.PgConn().Exec(ctx, text).ReadAll(); err != nil {
				_, _ = conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
				break
			}
		}
	}
}

// killer ends sessions of the mover at random, of both servers and of both kinds.
func killer(ctx context.Context, p *carryPair, r *rand.Rand, object string, stop <-chan struct{}) (killed int) {
	var conns []*pgx.Conn
	for _, n := range []*pgtest.Node{p.source, p.target} {
		conn, err := pgx.Connect(ctx, n.DSN("app", "postgres"))
		if err != nil {
			p.t.Error(err)
			return 0
		}
		defer conn.Close(ctx) //nolint:errcheck // of a test
		conns = append(conns, conn)
	}
	for {
		select {
		case <-stop:
			return killed
		case <-time.After(time.Duration(20+r.IntN(200)) * time.Millisecond):
		}
		tag, err := conns[r.IntN(2)].Exec(ctx, `WITH p AS MATERIALIZED (SELECT pid FROM pg_stat_activity WHERE application_name = $1 ORDER BY random() LIMIT 1)
			SELECT pg_terminate_backend(pid) FROM p`, object)
		if err != nil {
			p.t.Error(err)
		}
		killed += int(tag.RowsAffected())
	}
}

func randomSeeds() (seeds []uint64) {
	if text := os.Getenv("CARRY_SEED"); text != "" {
		seed, _ := strconv.ParseUint(text, 10, 64)
		return []uint64{seed}
	}
	return []uint64{1, 2, 3}
}

// TestCarryRandom: whatever is written while rows are copied and followed, and whichever connections are lost meanwhile, the target has in the end
// exactly what the source has of the moving slots, and its own rows as they were.
func TestCarryRandom(t *testing.T) {
	keys := map[string][]string{
		"keyed": {"tenant"}, "plain": {"tenant"}, "wide": {"tenant", "region"}, "whole": {"tenant"}, "bare": {"tenant"}, "counted": {"tenant"}, "parts": {"tenant"},
	}
	var slots []shardmap.Slot
	for s := shardmap.Slot(0); s < carryTestSlots; s += 2 {
		slots = append(slots, s)
	}
	p := newCarryPair(t, randomSchema, keys, slots...)
	inside, outside := p.keys(6)
	for _, table := range []string{"plain", "whole"} {
		p.target.Exec("app", fmt.Sprintf("INSERT INTO %s SELECT %d + g, %d, g, 'of the target' FROM generate_series(0, 9) g", table, randomShared, outside[0]))
	}
	// The follower is lost where it matters most: its rows are written, its position is being written.
	p.target.Exec("app", `CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
		IF random() < 0.1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END$$;
		CREATE TRIGGER lose BEFORE UPDATE ON shardproxy.move_progress FOR EACH ROW EXECUTE FUNCTION lose(); ALTER TABLE shardproxy.move_progress ENABLE ALWAYS TRIGGER lose`)
	for _, seed := range randomSeeds() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			p := *p
			p.t = t
			randomRun(t, &p, seed, append(inside[:6:6], outside...), outside)
		})
	}
}

func randomRun(t *testing.T, p *carryPair, seed uint64, tenants, outside []int) {
	own := map[*Table][]string{}
	for _, table := range p.tables {
		p.source.Exec("app", "DELETE FROM "+table.String())
		own[table] = p.rows(p.target, table, false)
	}
	var wg sync.WaitGroup
	stop, killStop := make(chan struct{}), make(chan struct{})
	for i := range 3 {
		w := &randomWriter{r: rand.New(rand.NewPCG(seed, uint64(i))), tenants: tenants, outside: outside}
		wg.Go(func() {
			if err := w.write(context.Background(), p.source.DSN("app", "postgres"), stop); err != nil {
				t.Error(err)
			}
		})
	}
	carrySleepFor(t, 300*time.Millisecond)
	move := fmt.Sprintf("Random %d", seed)
	o := randomCopy(t, p, seed, move)
	c := p.carry(move)
	killed := make(chan int, 1)
	go func() {
		killed <- killer(context.Background(), p, rand.New(rand.NewPCG(seed, 99)), MoveObject(move), killStop)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan error, 1)
	runs := 0
	go func() {
		for {
			runs++
			err := c.Follow(ctx, o)
			var ended *CarryError
			if errors.As(err, &ended) || ctx.Err() != nil {
				followed <- err
				return
			}
		}
	}()
	carrySleepFor(t, 4*time.Second)
	close(stop)
	wg.Wait()
	close(killStop)
	n := <-killed
	end := p.source.Value("app", "SELECT pg_current_wal_insert_lsn()")
	waiting, done := context.WithTimeout(t.Context(), 20*time.Second)
	conn := pgtest.Connect(t, p.source.DSN("app", "postgres"))
	lsn, err := c.SourceEnd(waiting, conn)
	if err == nil {
		err = c.WaitFor(waiting, lsn)
	}
	done()
	cancel()
	if ferr := <-followed; err != nil || !errors.Is(ferr, context.Canceled) {
		t.Errorf("%v; Follow: %v; %s %+v", err, ferr, end, c.Position())
	}
	rows := p.same()
	t.Logf("%d rows, %d kills, %d runs, %+v, %+v", rows, n, runs, c.Counts(), c.Position())
	for _, table := range p.tables {
		if got := p.rows(p.target, table, false); fmt.Sprint(got) != fmt.Sprint(own[table]) {
			t.Errorf("%s: rows that are the target's own have changed: %d, were %d", table, len(got), len(own[table]))
		}
	}
	if err := c.Clean(t.Context()); err != nil {
		t.Error(err)
	}
	if err := c.ClearTarget(t.Context()); err != nil {
		t.Error(err)
	}
	p.clean()
}

// randomCopy prepares and copies; connections are lost in the first attempts.
func randomCopy(t *testing.T, p *carryPair, seed uint64, move string) Origin {
	t.Helper()
	for attempt := range 50 {
		stop, ended := make(chan struct{}), make(chan int, 1)
		if attempt < 5 {
			go func() {
				ended <- killer(context.Background(), p, rand.New(rand.NewPCG(seed, uint64(attempt))), MoveObject(move), stop)
			}()
		}
		c := p.carry(move)
		s, err := c.Prepare(t.Context())
		if err == nil {
			err = c.Copy(t.Context(), s, 3)
			s.Close()
		}
		if attempt < 5 {
			close(stop)
			<-ended
		}
		if err == nil {
			return s.Origin
		}
		var lasting *CarryError
		if errors.As(err, &lasting) {
			t.Fatal(err)
		}
		if err := errors.Join(c.Clean(t.Context()), c.ClearTarget(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no copy came to an end")
	return Origin{}
}

func carrySleepFor(t *testing.T, d time.Duration) {
	t.Helper()
	if err := carrySleep(t.Context(), d); err != nil {
		t.Fatal(err)
	}
}
