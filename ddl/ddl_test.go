package ddl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
	"shardproxy/query"
	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is databases of the shared server as shards s0, s1, ... of a cluster. The
// control user is a superuser.
type fleet struct {
	t   *testing.T
	dbs []*pgtest.Database
	j   *Journal
}

func newFleet(t *testing.T, shards int, schema string) *fleet {
	t.Helper()
	f := &fleet{t: t}
	o := Options{Database: "shop"}
	init := metadata.Options{Database: "shop", Slots: 64}
	for i := range shards {
		db := pgtest.Shared(t)
		f.dbs = append(f.dbs, db)
		connect := func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, db.DSN("postgres")) }
		o.Shards = append(o.Shards, Shard{Name: fmt.Sprintf("s%d", i), Connect: connect})
		init.Shards = append(init.Shards, metadata.Shard{Name: fmt.Sprintf("s%d", i), Connect: connect})
		if _, err := db.Connect("app").Exec(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := metadata.Init(t.Context(), init); err != nil {
		t.Fatal(err)
	}
	f.j = New(o)
	return f
}

func statement(text string) Statement {
	return Statement{Text: text, Role: "app", SearchPath: `"$user", public`, Settings: map[string]string{"DateStyle": "ISO, DMY"}}
}

func (f *fleet) begin(text string) *Run {
	f.t.Helper()
	r, err := f.j.Begin(f.t.Context(), statement(text))
	if err != nil {
		f.t.Fatalf("%s: %v", text, err)
	}
	return r
}

// interrupted begins a statement and leaves it, as a proxy that dies, when the first
// shards have done it and the next was sent it.
func (f *fleet) interrupted(text string, done int) int64 {
	f.t.Helper()
	r := f.begin(text)
	for _, shard := range r.Shards()[:done+1] {
		if err := r.Start(f.t.Context(), shard); err != nil {
			f.t.Fatal(err)
		}
		if shard == done {
			break
		}
		if _, err := f.dbs[shard].Connect("app").Exec(f.t.Context(), r.Text()); err != nil {
			f.t.Fatal(err)
		}
		if left, err := r.End(f.t.Context(), shard, nil, false); left || err != nil {
			f.t.Fatal(left, err)
		}
	}
	r.ended = true // nothing more is written
	r.Close()
	return r.ID()
}

// resumes wants the steps of a Resume.
func (f *fleet) resumes(id int64, want ...string) {
	f.t.Helper()
	var got []string
	err := f.j.Resume(f.t.Context(), id, func(s Step) { got = append(got, s.Shard+": "+s.Did+s.Error) })
	if err != nil || !slices.Equal(got, want) {
		f.t.Errorf("resume: %v, %q, want %q", err, got, want)
	}
}

func (f *fleet) state(id int64) string {
	f.t.Helper()
	all, err := f.j.List(f.t.Context(), true)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, e := range all {
		if e.ID == id {
			return e.State
		}
	}
	return "none"
}

// TestNames gives indexes without a name the one that PostgreSQL gives them.
func TestNames(t *testing.T) {
	long := strings.Repeat("a_long_name_", 5)
	f := newFleet(t, 1, fmt.Sprintf(`CREATE TABLE t (a int, b text, "C d" int, "on" int, %[1]s1 int, %[1]s2 int, ts timestamptz);
		CREATE TABLE %[1]s (a int, %[1]s1 int); CREATE SCHEMA other; CREATE TABLE other."T.x" (a int);
		CREATE INDEX ON t (b); CREATE INDEX ON t (b); CREATE VIEW t_ts_idx AS SELECT 1`, long))
	for _, test := range []string{
		"t (a)", "t (a, b)", "t (a, a)", `t ("C d")`, `t ("on") WHERE "on" > 0`, "t (b)", "t USING hash (b)", "t (lower(b), upper(b), (a + 1), (a + 2))",
		"t (a) INCLUDE (b)", "t ((b::varchar))", "t ((CASE WHEN a = 1 THEN 2 END))", "t ((coalesce(a, 1)))", "t (ts)",
		long + " (a)", long + " (" + long + "1)", "t (" + long + "1, " + long + "2, a)", `other."T.x" (a)`, "ONLY public.t (a DESC NULLS LAST)",
		"t ((t.a + t.a))", "t (b COLLATE \"C\" text_pattern_ops) WITH (fillfactor = 50)",
	} {
		r := f.begin("CREATE INDEX CONCURRENTLY ON " + test)
		got := query.ReadConcurrent(r.Text()).Object.Name
		r.Close()
		f.dbs[0].Exec("CREATE TABLE before AS SELECT indexrelid FROM pg_index")
		f.dbs[0].Exec("CREATE INDEX ON " + test)
		if want := f.dbs[0].Value("SELECT indexrelid::regclass::oid::regclass FROM pg_index WHERE indexrelid NOT IN (SELECT indexrelid FROM before) AND indrelid <> 'before'::regclass"); got != strings.TrimPrefix(strings.Trim(strings.TrimPrefix(want, "other."), `"`), "public.") {
			t.Errorf("%s: %q, PostgreSQL %q", test, got, want)
		}
		f.dbs[0].Exec("DROP TABLE before")
	}
	_, err := f.j.Begin(t.Context(), statement("CREATE INDEX CONCURRENTLY ON ONLY (t) (a)"))
	if e := wire.AsError(err); e.Code != "0A000" || e.Hint == "" {
		t.Errorf("a table in parentheses: %v", err)
	}
}

// TestSame knows an index that is there from one that the statement would make.
func TestSame(t *testing.T) {
	f := newFleet(t, 1, `CREATE TABLE t (a int, b text, d date); CREATE TABLE u (a int, b text, d date)`)
	const there, another = "s0: the index is there", `s0: "public"."i" is there, and is not what the statement makes`
	for _, test := range []struct {
		statement, existing string
		same                bool
	}{
		{"i ON t (a)", "INDEX i ON t (a)", true},
		{"i ON t (a)", "INDEX i ON public.t USING btree (a ASC NULLS LAST)", true},
		{"i ON t (a)", "INDEX i ON t (a DESC)", false},
		{"i ON t (a)", "UNIQUE INDEX i ON t (a)", false},
		{"i ON t (a)", "INDEX i ON u (a)", false},
		{"i ON t (a)", "INDEX i ON t (a) INCLUDE (b)", false},
		{"i ON t (a) WHERE b = ' USING '", "INDEX i ON t (a) WHERE b = ' USING '", true},
		{"i ON t (a) WHERE b = ' USING '", "INDEX i ON t (a) WHERE b = ' USING'", false},
		{"i ON t ((a + 1), lower(t.b))", "INDEX i ON t ((a + 1), lower(b))", true},
		{"i ON t (a) WITH (fillfactor = 50)", "INDEX i ON t (a)", false},
		// The text is read by the settings of the session that sent it.
		{"i ON t (a) WHERE d > '01/02/2024'", "INDEX i ON t (a) WHERE d > '2024-02-01'", true},
		{"i ON t (a) WHERE d > '01/02/2024'", "INDEX i ON t (a) WHERE d > '2024-01-02'", false},
	} {
		id := f.interrupted("CREATE INDEX CONCURRENTLY "+test.statement, 0)
		f.dbs[0].Exec("SET ROLE app; CREATE " + test.existing)
		want, state := there, "done"
		if !test.same {
			want, state = another, "unfinished"
		}
		f.resumes(id, want)
		if got := f.state(id); got != state {
			t.Errorf("%s: %s", test.statement, got)
		}
		f.dbs[0].Exec("DROP INDEX i")
	}
	// A view is no index.
	id := f.interrupted("CREATE INDEX CONCURRENTLY i ON t (a)", 0)
	f.dbs[0].Exec("CREATE VIEW i AS SELECT 1")
	f.resumes(id, another)
	f.dbs[0].Exec("DROP VIEW i")
	f.resumes(id, "s0: made the index")
	if err := f.j.Resume(t.Context(), id, nil); !errors.Is(err, ErrEnded) {
		t.Errorf("once more: %v", err)
	}
}

// TestAnother leaves an index alone that has the name of one that is dropped, and one of
// another schema.
func TestAnother(t *testing.T) {
	f := newFleet(t, 2, `CREATE TABLE t (a int); CREATE INDEX i ON t (a); CREATE SCHEMA app; CREATE TABLE app.t (a int); CREATE INDEX i ON app.t (a)`)
	id := f.interrupted("DROP INDEX CONCURRENTLY i", 1) // of schema app
	f.dbs[1].Exec("DROP INDEX app.i")
	f.resumes(id, "s1: the index is gone")
	id = f.interrupted("DROP INDEX CONCURRENTLY i", 0) // public.i
	f.dbs[0].Exec("DROP INDEX public.i; CREATE INDEX i ON public.t (a)")
	f.resumes(id, "s0: the index is gone", "s1: dropped the index")
	if got := f.dbs[0].Value("SELECT 'public.i'::regclass"); got != "i" {
		t.Error(got)
	}
	// A table that means another one by now.
	id = f.interrupted("CREATE INDEX CONCURRENTLY j ON t (a)", 0)
	f.dbs[0].Exec("DROP TABLE app.t")
	f.resumes(id, `s0: the name means "public"."t" now, and meant "app"."t"`, "s1: made the index")
	// One that is no shard's alike is not begun.
	if _, err := f.j.Begin(t.Context(), statement("CREATE INDEX CONCURRENTLY k ON t (a)")); wire.AsError(err).Code != "55000" {
		t.Errorf("two tables of a name: %v", err)
	}
}

// TestDetach detaches a partition, wherever it was interrupted.
func TestDetach(t *testing.T) {
	f := newFleet(t, 3, `CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE c PARTITION OF p FOR VALUES FROM (1) TO (2)`)
	id := f.interrupted("ALTER TABLE p DETACH PARTITION c CONCURRENTLY", 1)
	// Half way: it waits for a transaction that has seen the partition.
	other := f.dbs[1].Connect("app")
	if _, err := other.Exec(t.Context(), "BEGIN; SELECT FROM p"); err != nil {
		t.Fatal(err)
	}
	mine := f.dbs[1].Connect("app")
	pid := mine.PgConn().PID()
	done := make(chan error)
	go func() {
		_, err := mine.Exec(context.Background(), "ALTER TABLE p DETACH PARTITION c CONCURRENTLY")
		done <- err
	}()
	for end := time.Now().Add(10 * time.Second); f.dbs[1].Value("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'c'::regclass") != "t"; {
		if time.Now().After(end) {
			t.Fatal("it is not begun")
		}
	}
	f.dbs[1].Exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", pid))
	<-done
	if _, err := other.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	f.resumes(id, "s1: ended the detachment", "s2: detached the partition")
	for _, db := range f.dbs {
		if got := db.Value("SELECT count(*) FROM pg_inherits"); got != "0" {
			t.Errorf("%s partitions are left", got)
		}
	}
	_, err := f.j.Begin(t.Context(), statement("ALTER TABLE p DETACH PARTITION nothing CONCURRENTLY"))
	if wire.AsError(err).Code != "42P01" {
		t.Error(err)
	}
}

// TestRole refuses what could not be taken up again, and resumes as the role.
func TestRole(t *testing.T) {
	f := newFleet(t, 1, "CREATE TABLE t (a int)")
	db := f.dbs[0]
	f.j.opts.Shards[0].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		conn, err := pgx.Connect(ctx, db.DSN("postgres"))
		if err == nil {
			_, err = conn.Exec(ctx, "SET SESSION AUTHORIZATION ddl_control")
		}
		return conn, err
	}
	db.Exec("CREATE ROLE ddl_control; GRANT ALL ON SCHEMA shardproxy TO ddl_control; GRANT ALL ON ALL TABLES IN SCHEMA shardproxy TO ddl_control")
	t.Cleanup(func() {
		db.Exec("DROP OWNED BY ddl_control")
		db.Exec("DROP ROLE ddl_control")
	})
	_, err := f.j.Begin(t.Context(), statement("CREATE INDEX CONCURRENTLY ON t (a)"))
	if e := wire.AsError(err); e.Code != "42501" || !strings.Contains(e.Hint, `GRANT "app" TO "ddl_control"`) {
		t.Errorf("%v", err)
	}
	db.Exec("GRANT app TO ddl_control")
	id := f.interrupted("CREATE INDEX CONCURRENTLY ON t (a)", 0)
	f.resumes(id, "s0: made the index")
	if got := db.Value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 't_a_idx'"); got != "app" {
		t.Error(got)
	}
}

// TestNotes keeps the journal right when its connection is lost, or somebody else has
// taken the statement up.
func TestNotes(t *testing.T) {
	f := newFleet(t, 2, "CREATE TABLE t (a int)")
	r := f.begin("CREATE INDEX CONCURRENTLY i ON t (a)")
	cut := func() {
		f.dbs[0].Exec(fmt.Sprintf("SELECT pg_terminate_backend(%d)", r.home.PgConn().PID()))
	}
	if err := f.j.Abandon(t.Context(), r.ID()); !errors.Is(err, ErrBusy) || f.state(r.ID()) != "running" {
		t.Errorf("it is under way: %v, %s", err, f.state(r.ID()))
	}
	cut()
	if err := r.Start(t.Context(), 0); err != nil {
		t.Errorf("over a new connection: %v", err)
	}
	if err := f.j.Abandon(t.Context(), r.ID()); !errors.Is(err, ErrBusy) {
		t.Errorf("the lock is not taken again: %v", err)
	}
	cut()
	var other *pgx.Conn
	for end := time.Now().Add(10 * time.Second); other == nil; { // until the server has let the lock go
		var err error
		if other, _, err = f.j.hold(t.Context(), r.ID()); time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if _, err := r.End(t.Context(), 0, nil, false); wire.AsError(err).Code != "57P03" {
		t.Errorf("somebody else has it: %v", err)
	}
	letGo(other, r.ID())
	r.Close()
	f.resumes(r.ID(), "s0: made the index", "s1: made the index")

	// What fails on the second shard is left, what fails on the first without a trace is not.
	r = f.begin("CREATE INDEX CONCURRENTLY k ON t (a)")
	e := wire.Errorf("53100", "disk full")
	if left, err := r.End(t.Context(), 1, e, false); !left || err != nil || f.state(r.ID()) != "unfinished" {
		t.Errorf("on the second: %v, %v, %s", left, err, f.state(r.ID()))
	}
	r.Close()
	r = f.begin("CREATE INDEX CONCURRENTLY k ON t (a)")
	if left, err := r.End(t.Context(), 0, e, false); left || err != nil || f.state(r.ID()) != "undone" {
		t.Errorf("on the first: %v, %v, %s", left, err, f.state(r.ID()))
	}
	r.Close()
	// One that was begun and not run is unfinished; what has long ended is forgotten.
	f.dbs[0].Exec("UPDATE shardproxy.ddl SET began_at = '2000-01-01', ended_at = ended_at - interval '91 days'")
	last := f.begin("CREATE INDEX CONCURRENTLY l ON t (a)")
	last.Close()
	if got := f.state(last.ID()); got != "unfinished" || f.state(r.ID()) != "none" {
		t.Errorf("%s, %s", got, f.state(r.ID()))
	}
	if got := f.dbs[0].Value("SELECT count(*) FROM shardproxy.ddl"); got != "2" {
		t.Errorf("%s statements are left", got)
	}
}
