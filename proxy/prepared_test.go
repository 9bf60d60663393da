package proxy_test

import (
	"slices"
	"strings"
	"testing"

	"shardproxy/proxy"
)

// Two clients take turns on one server connection, each with statements of the
// same names.
func TestSQLPreparedStatementsFollow(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "PREPARE q AS SELECT 'of a'")
	b.do(t, "PREPARE q (int, text) AS SELECT 'of b' || $1 || $2")
	a.mustAsk(t, "EXECUTE q", "of a")
	b.mustAsk(t, "EXECUTE q(1, 'x')", "of b1x")
	a.mustAsk(t, "PREPARE q AS SELECT 1", `42P05 "prepared statement \"q\" already exists"`)
	a.mustSay(t, 1, "of a", fBind("", "q"), fExecute("", 0), fSync())
	a.do(t, "DEALLOCATE q")
	a.mustAsk(t, "EXECUTE q", `26000 "prepared statement \"q\" does not exist"`)
	b.mustAsk(t, "EXECUTE q(2, 'y')", "of b2y")
	if n := f.db.Totals().Pins; n != 0 {
		t.Errorf("%d pins: the sessions kept their connection", n)
	}
}

// The names that servers know our statements by mean nothing to clients.
func TestForeignStatementNames(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.say(1, fParse("s", "SELECT 'a secret'"), fSync())
	gone := `26000 "prepared statement \"_sp_1\" does not exist"`
	b.mustSay(t, 1, gone, fBind("", "_sp_1"), fExecute("", 0), fSync())
	b.mustSay(t, 1, gone, fDescribe('S', "_sp_1"), fSync())
	b.mustAsk(t, "EXECUTE _sp_1", gone)
	b.mustAsk(t, "DEALLOCATE _sp_1", gone)
	b.mustSay(t, 1, `3 ""`, fClose('S', "_sp_1"), fSync())
	if got := b.ask("SELECT * FROM pg_prepared_statements"); strings.Contains(got, "secret") {
		t.Errorf("another client's statement is to be seen: %s", got)
	}
	b.Close()
	for range 2 {
		a.mustSay(t, 1, "a secret", fBind("", "s"), fExecute("", 0), fSync())
	}
	a.mustSay(t, 1, "a secret", fBind("", "s"), fExecute("", 0), fSync())
}

// A constant is read when the statement is prepared: statements are shared only
// among clients that read it alike.
func TestSharedStatementsAndSettings(t *testing.T) {
	for _, c := range []struct{ name, one, other, sql string }{
		{"TimeZone", "UTC", "Asia/Tokyo", "SELECT extract(epoch from '2024-01-01 00:00'::timestamptz)::bigint"},
		{"DateStyle", "ISO, MDY", "ISO, DMY", "SELECT '01/02/2024'::date - '2024-01-01'::date"},
		{"client_encoding", "LATIN1", "UTF8", "SELECT length('\xc3\xa9')"},
		{"standard_conforming_strings", "off", "on", `SELECT length('a\\b')`},
		{"IntervalStyle", "postgres", "sql_standard", `SELECT extract(epoch from interval '-1 2:03:04')`},
		{"search_path", "pg_catalog", "other, pg_catalog", `SELECT 'pg_class'::regclass::oid`},
		{"transform_null_equals", "on", "off", `SELECT NULL = NULL`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 1})
			su := mustDial(t, f.addr, "app")
			su.do(t, "CREATE SCHEMA other; CREATE TABLE other.pg_class ()")
			prepared := func(value string) string {
				d, err := dialRaw(f.addr, "postgres", "app", c.name, value)
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close()
				d.do(t, "BEGIN")
				got := strings.Join(d.say(1, fParse("s", c.sql), fBind("", "s"), fExecute("", 0), fSync()), " ")
				if truth := d.ask(c.sql); !strings.Contains(truth, got[strings.Index(got, `D "`):strings.Index(got, ` C "`)]) {
					t.Errorf("%s: prepared %s, not prepared %s", value, got, truth)
				}
				return got
			}
			if prepared(c.one) == prepared(c.other) {
				t.Error("the setting makes no difference: the test shows nothing")
			}
		})
	}
}

func TestStatementsTooLargeToKeep(t *testing.T) {
	f := start(t, fixtureOptions{size: 1, policy: func(p *proxy.DatabasePolicy) { p.ParsedMax = 4096 }})
	a := mustDial(t, f.addr, "app")
	big := "SELECT 'n' || length('" + strings.Repeat("x", 8000) + "')"
	a.mustSay(t, 1, "n8000", segment(big)...)
	// Parsed in one request, run in another: the session keeps the connection meanwhile.
	a.mustSay(t, 1, `1 ""`, fParse("", big), fSync())
	if f.db.Shards[0].Pools.Lent() != 1 {
		t.Error("the connection that has the statement was given away")
	}
	a.mustSay(t, 1, "n8000", fBind("", ""), fExecute("", 0), fSync())
	a.do(t, "SELECT 1")
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
	a.mustSay(t, 1, "26000", fBind("", ""), fExecute("", 0), fSync())
	a.mustSay(t, 1, `1 ""`, fParse("named", big), fSync())
	a.mustSay(t, 1, "n8000", fBind("", "named"), fExecute("", 0), fSync())
	a.mustSay(t, 1, "42P05", fParse("named", big), fSync())
	a.mustSay(t, 1, `3 ""`, fClose('S', "named"), fSync())
	a.mustSay(t, 1, `1 ""`, fParse("named", "SELECT 'small'"), fBind("", "named"), fExecute("", 0), fSync())
	a.do(t, "DISCARD ALL")
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
}

func TestCustomSettingsInLargeTexts(t *testing.T) {
	f := start(t, fixtureOptions{size: 2, policy: func(p *proxy.DatabasePolicy) { p.ParsedMax = 4096 }})
	pad := strings.Repeat("x", 300000)
	for _, sql := range []string{
		"SET app.large = 'yes'; SELECT length('" + pad + "')", "SELECT length('" + pad + "'); SET SESSION app.large = 'yes'",
		"SELECT length('" + pad + "'), set_config('app.' || 'large', 'yes', false)",
	} {
		a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
		a.do(t, sql)
		b.do(t, "SELECT 1")
		a.mustAsk(t, "SELECT current_setting('app.large', true)", "yes")
		a.Close()
		b.Close()
	}
	c := mustDial(t, f.addr, "app")
	before := f.db.Totals().Pins
	c.do(t, "SELECT length('the set of all "+pad+"')")
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
	if f.db.Totals().Pins != before {
		t.Error("a harmless text ties its session")
	}
	// A name may be longer than what is looked at in one piece.
	c.do(t, "SELECT length('the set of "+pad+"')")
	waitFor(t, func() bool { return f.db.Totals().Pins == before+1 })
}

// currval and lastval never tell of another client's values.
func TestSequenceValuesBehindOtherWriters(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b, c := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "CREATE SEQUENCE q13 START 1000; CREATE TABLE w13 (i int); CREATE TABLE s13 (i serial)")
	a.do(t, "SELECT nextval('q13')")
	b.do(t, "INSERT INTO w13 VALUES (1)")
	b.mustAsk(t, "SELECT lastval()", "55000")
	b.Close()
	a.do(t, "SELECT nextval('q13')")
	// From now on the values of others are discarded before own ones are drawn.
	c.do(t, "INSERT INTO s13 DEFAULT VALUES")
	c.mustAsk(t, "SELECT lastval()", `\x011`)
	c.mustAsk(t, "SELECT currval('q13')", "55000")
	c.do(t, "BEGIN")
	c.ask("SELECT 1/0")
	c.mustAsk(t, "SELECT lastval()", "25P02")
	c.do(t, "ROLLBACK")
}

func TestSettingsOfDiscardAll(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	d, err := dialRaw(f.addr, "postgres", "app", "cursor_tuple_fraction", "0.5")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.do(t, "SET work_mem = '5MB'")
	d.say(2, append([]frame{fQuery("DISCARD ALL")}, segment("SELECT 1")...)...)
	d.mustAsk(t, "SHOW cursor_tuple_fraction", "0.5")
	d.mustAsk(t, "SHOW work_mem", "4MB")
}

// A default, a trigger or a function that asks for a sequence's value asks for
// the session's own.
func TestSequenceValuesAskedUnseen(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	su := mustDial(t, f.addr, "app")
	su.do(t, "CREATE SEQUENCE q14; CREATE TABLE w14 (x int DEFAULT nextval('q14'), z int DEFAULT -currval('q14'))")
	su.do(t, "CREATE FUNCTION last14() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN currval('q14'); END $$")
	f.learn()
	su.Close()
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "INSERT INTO w14 DEFAULT VALUES")
	b.do(t, "BEGIN")
	b.do(t, "SELECT nextval('q14')")
	a.do(t, "SELECT nextval('q14')")
	b.do(t, "COMMIT")
	a.mustAsk(t, "INSERT INTO w14 (x) VALUES (0) RETURNING z", `-3`)
	a.mustAsk(t, "SELECT last14()", `3`)
	b.mustAsk(t, "SELECT last14()", `2`)
	c := mustDial(t, f.addr, "app")
	b.Close()
	c.mustAsk(t, "SELECT last14()", "55000")
}

// A session's value is its last one, also when it drew on several connections.
func TestSequenceValuesOfSeveralConnections(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a, b, c := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "CREATE SEQUENCE q15")
	a.do(t, "SELECT nextval('q15')") // on the first connection
	b.do(t, "BEGIN")
	b.do(t, "SELECT 1")
	a.do(t, "SELECT nextval('q15')") // on the other
	c.do(t, "BEGIN")
	c.do(t, "SELECT 1")
	b.do(t, "COMMIT")
	if got := a.ask("SELECT currval('q15')"); !strings.Contains(got, `\x012`) && !strings.Contains(got, "55000") {
		t.Errorf("the last value drawn is 2: %s", got)
	}
	c.do(t, "COMMIT")
}

// What is invalid by now stays behind when a session goes private, and fails no
// transaction.
func TestPrivateWithInvalidStatements(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	for _, begin := range []string{"SELECT 1", "BEGIN"} {
		a.do(t, "CREATE TEMP TABLE gone (i int)")
		a.do(t, "PREPARE a1 AS SELECT * FROM gone")
		a.mustSay(t, 1, `1 ""`, fParse("b2", "SELECT * FROM gone"), fSync())
		a.do(t, "PREPARE z9 AS SELECT 'kept'")
		a.do(t, "DROP TABLE gone")
		a.do(t, begin)
		a.mustAsk(t, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'z9'", `\x011"`)
		a.mustAsk(t, "EXECUTE z9", "kept")
		a.do(t, "ROLLBACK")
		a.do(t, "DISCARD ALL")
	}
}

// A login on a connection that is in use already is told what its own settings
// come to.
func TestLoginOnAUsedConnection(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	login := func() *rawClient {
		c, err := dialRaw(f.addr, "postgres", "app", "datestyle", "Postgres, MDY")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if got := cutNUL(c.parameters["DateStyle"]); got != "Postgres, MDY" {
			t.Errorf("told %q", got)
		}
		c.mustAsk(t, "SHOW datestyle", "Postgres, MDY")
		return c
	}
	a := login()
	a.do(t, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET cursor_tuple_fraction = 0.3', current_database()); END $$")
	a.do(t, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'Asia/Tokyo'); END $$")
	f.db.Shards[0].Pools.Retire(0)
	a.do(t, "SELECT 1") // on a new connection, which reports another time zone, and now has the settings
	login()
	login().mustAsk(t, "SELECT 'x'::text, date '2020-01-02'", "01-02-2020")
}

// A statement parsed in one request runs in the next, whatever had to be sent
// to its server in between.
func TestUnnamedStatementAcrossRequests(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	b.do(t, "CREATE TABLE w16 (i int)")
	f.learn()
	b.ask("SELECT lastval()")
	b.Close()
	c := mustDial(t, f.addr, "app")
	for _, between := range []string{"", "INSERT INTO w16 VALUES (2)", "SET work_mem = '3MB'", "SELECT 1", "PREPARE q AS SELECT 1"} {
		c.do(t, "INSERT INTO w16 VALUES (3)") // may have drawn from a sequence
		a.mustSay(t, 1, `1 ""`, fParse("", "INSERT INTO w16 VALUES (1)"), fDescribe('S', ""), fSync())
		if between != "" {
			c.ask(between)
		}
		a.mustSay(t, 1, "INSERT 0 1", fBind("", ""), fExecute("", 0), fSync())
	}
}

// A cancel request reaches a statement that had to be prepared on its server
// first, in the same request.
func TestCancelBehindWhatIsOurs(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.say(1, fParse("s", "SELECT pg_sleep(60)"), fSync())
	f.db.Shards[0].Pools.Retire(0) // the next connection does not have it
	got := make(chan []string, 1)
	go func() { got <- a.say(1, fBind("", "s"), fExecute("", 0), fSync()) }()
	watch := mustDial(t, f.nodes[0], f.database)
	waitFor(t, func() bool {
		return strings.Contains(watch.ask("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND wait_event = 'PgSleep'"), `\x011"`)
	})
	cancelRaw(t, f.addr, a)
	if lines := <-got; !contains(lines, "57014") {
		t.Error(lines)
	}
}

// TestPreparedInFailed: who prepares what ends a failed transaction is told the same whether the server connection has that
// statement of others or not.
func TestPreparedInFailed(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	for _, text := range []string{"ROLLBACK", "COMMIT", "ROLLBACK TO SAVEPOINT a", "ROLLBACK AND CHAIN", "PREPARE TRANSACTION 'it'", "", "SELECT 1", "SAVEPOINT b", "RELEASE a", "BEGIN"} {
		var first []string
		keeper := mustDial(t, f.addr, "app") // what nobody has prepared any more is forgotten
		for i := range 3 {
			c := mustDial(t, f.addr, "app")
			c.do(t, "BEGIN; SAVEPOINT a")
			c.mustSay(t, 1, "22012", fQuery("SELECT 1/0"))
			said := c.say(1, fParse("s", text), fBind("", "s"), fExecute("", 0), fSync())
			if i == 0 {
				first = said
				want := "25P02"
				if strings.HasPrefix(text, "ROLLBACK") || text == "COMMIT" || strings.HasPrefix(text, "PREPARE") {
					want = `C "ROLLBACK`
				}
				if !strings.Contains(strings.Join(said, " "), want) {
					t.Errorf("%s: %q, want %s", text, said, want)
				}
			} else if !slices.Equal(said, first) {
				t.Errorf("%s: %q, and the %d. time %q", text, first, i+1, said)
			}
			c.do(t, "ROLLBACK")
			c.Close()
			waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
			if i == 1 { // outside of a failed transaction, so that the connection has it surely
				keeper.say(1, fParse("s", text), fSync())
				waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
			}
		}
		keeper.Close()
	}
}
