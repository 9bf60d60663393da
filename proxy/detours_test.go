package proxy_test

import (
	"strings"
	"testing"

	"shardproxy/proxy"
)

// What went wrong by a detour: each of these once answered with what was
// another's, or with what the client had not meant, or not at all.

const dmy = "DO $$BEGIN PERFORM set_config('datestyle','SQL, DMY',false); END$$"

// In session mode no audit tells of temporary objects.
func TestSessionModeTemp(t *testing.T) {
	f := start(t, fixtureOptions{size: 2, mode: proxy.ModeSession})
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE TABLE covered (v text); INSERT INTO covered VALUES ('public')")
	f.learn()
	a.do(t, "CREATE TEMP TABLE others (v text)")
	ask := func(name string) []frame {
		return []frame{fParse(name, "SELECT v FROM covered"), fBind("", name), fExecute("", 0), fSync()}
	}
	a.mustSay(t, 1, "public", ask("s1")...)
	a.do(t, "CREATE TEMP TABLE covered AS SELECT 'temporary' AS v")
	a.mustAsk(t, "SELECT v FROM covered", "temporary")
	a.mustSay(t, 1, "temporary", ask("s2")...)
}

func TestSessionModeUnseenSetting(t *testing.T) {
	f := start(t, fixtureOptions{size: 2, mode: proxy.ModeSession})
	a := mustDial(t, f.addr, "app")
	a.mustSay(t, 1, "doy2\"", fParse("s1", doySQL), fBind("", "s1"), fExecute("", 0), fSync())
	a.do(t, dmy)
	a.mustAsk(t, doySQL, "doy32")
	a.mustSay(t, 1, "doy32\"", fParse("s2", doySQL), fBind("", "s2"), fExecute("", 0), fSync())
}

// The answer of the DO has come, the Sync is sent and not answered.
func TestUnseenSettingBehindSync(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.Write(frames(append(extended(dmy), fFlush())...))
	if _, err := a.until('C', 1); err != nil {
		t.Fatal(err)
	}
	a.say(2, fSync(), fParse("s", doySQL), fSync())
	b.mustSay(t, 1, "doy2\"", fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
}

func tempLeak(t *testing.T, f func(a *rawClient)) {
	fx := start(t, fixtureOptions{size: 2}) // who has a temporary table keeps one
	fx.learn()
	a, b := mustDial(t, fx.addr, "app"), mustDial(t, fx.addr, "app")
	f(a)
	got := b.ask("SELECT 'n' || count(*) FROM pg_class WHERE relname = 'numberseak' AND pg_table_is_visible(oid)")
	a2 := a.ask("SELECT 'a' || count(*) FROM pg_class WHERE relname = 'numberseak'")
	if !strings.Contains(got, "n0") && strings.Contains(a2, "a1") {
		t.Errorf("another sees it: %s / %s", got, a2)
	}
	if g := b.ask("SELECT * FROM pg_temp.numberseak"); !strings.Contains(g, "42P01") {
		t.Errorf("leak: %s", g)
	}
}

func TestTempBySetInOneRequest(t *testing.T) {
	tempLeak(t, func(a *rawClient) {
		a.say(1, segment("SET search_path TO pg_temp, public", "CREATE TABLE numberseak (v int)")...)
	})
}

func TestTempBySetLocal(t *testing.T) {
	tempLeak(t, func(a *rawClient) {
		a.do(t, "BEGIN")
		a.do(t, "SET LOCAL search_path TO pg_temp, public")
		a.do(t, "CREATE TABLE numberseak (v int)")
		a.do(t, "COMMIT")
	})
}

// A statement that is brought to another connection under other settings.

func ensureLeak(t *testing.T, change ...string) {
	f := start(t, fixtureOptions{size: 2})
	a, b, c := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.say(1, fParse("s", doySQL), fSync())
	c.do(t, "BEGIN") // holds the connection that has it
	for _, q := range change {
		a.do(t, q)
	}
	a.say(1, fBind("", "s"), fExecute("", 0), fSync())
	a.do(t, "COMMIT")
	b.mustSay(t, 1, "doy2\"", fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
	c.do(t, "COMMIT")
}

func TestEnsureUnderSetLocal(t *testing.T) {
	ensureLeak(t, "BEGIN", "SET LOCAL datestyle TO 'SQL, DMY'")
}

func TestEnsureUnderSet(t *testing.T) { ensureLeak(t, "SET datestyle TO 'SQL, DMY'") }

func TestResetBeforeSetTransaction(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	for _, text := range []string{"RESET work_mem", "RESET work_mem; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"} {
		d, err := dialRaw(f.addr, "app", "app", "work_mem", "5MB")
		if err != nil {
			t.Fatal(err)
		}
		d.do(t, "BEGIN")
		d.do(t, text)
		d.mustAsk(t, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "C \"SET")
		d.Close()
	}
}

func TestSmallFrameOfTheLimit(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	name := strings.Repeat("x", 10000-4-1-1)
	fr := fClose('S', name)
	if len(fr.bytes()) != 10001 {
		t.Fatal(len(fr.bytes()))
	}
	a.mustSay(t, 1, "3", fr, fSync())
}

func settingLeak(t *testing.T, set, sql string) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	ask := []frame{fParse("s", sql), fBind("", "s"), fExecute("", 0), fSync()}
	want := b.ask(sql)
	a.do(t, set)
	if other := a.ask(sql); other == want {
		t.Fatalf("no difference: %s", other)
	}
	a.say(1, ask...)
	got := strings.Join(b.say(1, ask...), " | ")
	row := want[strings.Index(want, `D "`):]
	row = row[:strings.Index(row, " | ")]
	if !strings.Contains(got, row) {
		t.Errorf("got %s, want %s", got, row)
	}
}

func TestScopeAbbreviations(t *testing.T) {
	settingLeak(t, "SET timezone_abbreviations TO 'Australia'", "SELECT 'e' || extract(epoch from timestamptz '2024-01-01 12:00 EST')")
}

func TestScopeFloatDigits(t *testing.T) {
	settingLeak(t, "SET extra_float_digits TO 0", "SELECT 'f' || (0.1::float8 + 0.2::float8)::text")
}

func TestScopeByteaOutput(t *testing.T) {
	settingLeak(t, "SET bytea_output TO 'escape'", `SELECT 'b' || ('\x41'::bytea)::text`)
}

func lastvalLeak(t *testing.T, all ...frame) {
	f := start(t, fixtureOptions{size: 1, policy: func(p *proxy.DatabasePolicy) { p.ParsedMax = 10000 }})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	b.do(t, "CREATE SEQUENCE numbers START 4242")
	b.do(t, "SELECT nextval('numbers')")
	got := strings.Join(a.say(1, all...), " | ")
	if strings.Contains(got, "4242") || strings.Contains(got, `\x10\x92`) || !strings.Contains(got, "55000") {
		t.Errorf("%s", got)
	}
}

func TestLastvalLargeParse(t *testing.T) {
	lastvalLeak(t, segment("SELECT 'id' || lastval() /*"+strings.Repeat("x", 20000)+"*/")...)
}

func TestLastvalLargeParseNamed(t *testing.T) {
	lastvalLeak(t, fParse("s", "SELECT 'id' || lastval() /*"+strings.Repeat("x", 20000)+"*/"), fBind("", "s"), fExecute("", 0), fSync())
}

func TestLastvalSecondDO(t *testing.T) {
	lastvalLeak(t, segment("SELECT 1", "DO $$BEGIN RAISE NOTICE 'id%', lastval(); END$$")...)
}

func TestLastvalSecondCall(t *testing.T) {
	lastvalLeak(t, append(extended("SELECT 1"), fCall(2559), fSync())...)
}

func TestLastvalSecondLargeQuery(t *testing.T) {
	lastvalLeak(t, append(extended("SELECT 1"), fQuery("SELECT 'id' || lastval() /*"+strings.Repeat("x", 20000)+"*/"), fSync())...)
}

// The session's last value was drawn on a connection where others drew, too.
func TestStaleLastval(t *testing.T) {
	for _, asked := range []bool{false, true} {
		f := start(t, fixtureOptions{size: 2})
		a, b, c := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
		su := mustDial(t, f.addr, "app")
		su.do(t, "CREATE SEQUENCE drawn START 100; CREATE TABLE serials (i serial)")
		f.learn()
		if asked {
			su.ask("SELECT lastval()")
		}
		su.Close()
		a.do(t, "SELECT nextval('drawn')")                         // 100, on the first
		c.Write(frames(append(extended("SELECT 1"), fFlush())...)) // keeps the first
		if _, err := c.until('C', 1); err != nil {
			t.Fatal(err)
		}
		b.do(t, "INSERT INTO serials DEFAULT VALUES") // 1, on the second
		if asked {
			a.say(1, segment("SELECT 1", "INSERT INTO serials DEFAULT VALUES")...) // 2, on the second
		} else {
			a.do(t, "INSERT INTO serials DEFAULT VALUES")
		}
		c.say(1, fSync())
		if got := a.ask("SELECT 'id' || lastval()"); !strings.Contains(got, "id2") && !strings.Contains(got, "55000") {
			t.Errorf("asked before %v: the last value is 2: %s", asked, got)
		}
		c.Close()
		a.Close()
		b.Close()
	}
}

func ddlBehind(t *testing.T, change ...string) {
	f := start(t, fixtureOptions{size: 2})
	f.learn()
	x, y := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	x.do(t, "CREATE SCHEMA postgres; CREATE TABLE public.meant (v text); INSERT INTO public.meant VALUES ('old')")
	sql := "SELECT v FROM meant"
	ask := []frame{fParse("s", sql), fBind("", "s"), fExecute("", 0), fSync()}
	y.mustSay(t, 1, "old", ask...)
	y.do(t, "BEGIN READ ONLY") // keeps the connection that has the statement
	for _, q := range change {
		x.do(t, q)
	}
	y.do(t, "COMMIT")
	b := mustDial(t, f.addr, "app")
	b.mustAsk(t, sql, "new")
	b.mustSay(t, 1, "new", ask...)
	y.Close()
}

func TestDDLPlain(t *testing.T) {
	ddlBehind(t, "CREATE TABLE postgres.meant AS SELECT 'new' AS v", "BEGIN")
}

func TestDDLAndChain(t *testing.T) {
	ddlBehind(t, "BEGIN", "CREATE TABLE postgres.meant AS SELECT 'new' AS v", "COMMIT AND CHAIN")
}

func TestDDLBeginAgain(t *testing.T) {
	ddlBehind(t, "BEGIN; CREATE TABLE postgres.meant AS SELECT 'new' AS v; COMMIT; BEGIN")
}

func TestDDLWithTemp(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	f.learn()
	x, y := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	x.do(t, "CREATE SCHEMA postgres; CREATE TABLE public.meant (v text); INSERT INTO public.meant VALUES ('old')")
	x.do(t, "CREATE TEMP TABLE anything (i int)")
	sql := "SELECT v FROM meant"
	ask := []frame{fParse("s", sql), fBind("", "s"), fExecute("", 0), fSync()}
	y.mustSay(t, 1, "old", ask...)
	x.do(t, "CREATE TABLE postgres.meant AS SELECT 'new' AS v")
	b := mustDial(t, f.addr, "app")
	b.mustAsk(t, sql, "new")
	b.mustSay(t, 1, "new", ask...)
}

func TestCustomInDollars(t *testing.T) {
	pad := "/*" + strings.Repeat("x", 20000) + "*/"
	for _, set := range []string{
		"DO $$BEGIN EXECUTE $q$SET own.one TO 'mine'$q$; END" + pad + "$$",
		"DO $$BEGIN EXECUTE E'\\nSET own.one TO ''mine'''; END" + pad + "$$",
		"DO $$BEGIN EXECUTE ' SET own.one TO ''mine'''; END" + pad + "$$",
	} {
		f := start(t, fixtureOptions{size: 1, policy: func(p *proxy.DatabasePolicy) { p.ParsedMax = 10000 }})
		f.learn()
		a := mustDial(t, f.addr, "app")
		a.do(t, set)
		a.mustAsk(t, "SELECT 'is ' || current_setting('own.one', true)", "is mine")
	}
}

func TestDeallocatePrepared(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.say(1, fParse("x", "SELECT 1"), fParse("d", "DEALLOCATE x"), fSync())
	a.mustSay(t, 1, "DEALLOCATE", fBind("", "d"), fExecute("", 0), fSync())
	a.mustSay(t, 1, "26000", fBind("", "d"), fExecute("", 0), fSync())
}

// As above, by a session that keeps its connection: its own next statement is wrong.
func TestUnseenSettingPinned(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "SELECT pg_advisory_lock(77)")
	a.Write(frames(append(extended(dmy), fFlush())...))
	if _, err := a.until('C', 1); err != nil {
		t.Fatal(err)
	}
	a.say(2, fSync(), fQuery("PREPARE s AS "+doySQL))
	a.do(t, "RESET datestyle")
	a.mustAsk(t, doySQL, "doy2\"")
	a.mustSay(t, 1, "doy2\"", fParse("s2", doySQL), fBind("", "s2"), fExecute("", 0), fSync())
}

// A DISCARD ALL behind a query in an open request: its Sync must go out.
func TestSyncBehindDiscardAll(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	var all []frame
	all = append(all, extended("SELECT 1")...)
	all = append(all, fQuery("SELECT 2"))
	all = append(all, extended("DISCARD ALL")...)
	all = append(all, fFlush())
	a.Write(frames(all...))
	if _, err := a.until('C', 3); err != nil {
		t.Fatal(err)
	}
	a.mustSay(t, 1, "Z \"I\"", fSync())
}

func small(p *proxy.DatabasePolicy) { p.ParsedMax = 10000 }

func padded(sql string) string { return sql + " /*" + strings.Repeat("x", 20000) + "*/" }

func TestLargeTextListsStatements(t *testing.T) {
	for _, ext := range []bool{false, true} {
		f := start(t, fixtureOptions{size: 1, policy: small})
		a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
		b.say(1, fParse("s", "SELECT 'the secret'"), fSync())
		sql := padded("SELECT statement FROM pg_prepared_statements")
		fr := []frame{fQuery(sql)}
		if ext {
			fr = segment(sql)
		}
		if got := a.say(1, fr...); contains(got, "secret") {
			t.Errorf("extended %v: %v", ext, got)
		}
	}
}

func TestLargeDDL(t *testing.T) {
	f := start(t, fixtureOptions{size: 1, policy: small})
	f.learn()
	x, y := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	x.do(t, "CREATE SCHEMA postgres; CREATE TABLE public.meant (v text); INSERT INTO public.meant VALUES ('old')")
	sql := "SELECT v FROM meant"
	ask := []frame{fParse("s", sql), fBind("", "s"), fExecute("", 0), fSync()}
	f2 := mustDial(t, f.addr, "app")
	f2.do(t, "BEGIN READ ONLY")
	f2.do(t, "COMMIT")
	y.mustSay(t, 1, "old", ask...)
	x.do(t, padded("CREATE TABLE postgres.meant AS SELECT 'new' AS v"))
	b := mustDial(t, f.addr, "app")
	b.mustAsk(t, sql, "new")
	b.mustSay(t, 1, "new", ask...)
}

// The same, with a connection that the unread text did not run on.
func TestLargeDDLElsewhere(t *testing.T) {
	f := start(t, fixtureOptions{size: 2, policy: small})
	f.learn()
	x, y := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	x.do(t, "CREATE SCHEMA postgres; CREATE TABLE public.meant (v text); INSERT INTO public.meant VALUES ('old')")
	sql := "SELECT v FROM meant"
	ask := []frame{fParse("s", sql), fBind("", "s"), fExecute("", 0), fSync()}
	y.mustSay(t, 1, "old", ask...)
	y.do(t, "BEGIN READ ONLY")
	x.do(t, padded("CREATE TABLE postgres.meant AS SELECT 'new' AS v"))
	x.do(t, "BEGIN")
	y.do(t, "COMMIT")
	b := mustDial(t, f.addr, "app")
	b.mustAsk(t, sql, "new")
	b.mustSay(t, 1, "new", ask...)
	x.do(t, "COMMIT")
}

func TestHalfDateStyle(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, err := dialRaw(f.addr, "postgres", "app", "DateStyle", "ISO, DMY")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b := mustDial(t, f.addr, "app")
	half := func(c *rawClient) string {
		c.Write(frames(append(extended("SET datestyle TO 'SQL'"), fFlush())...))
		if _, err := c.until('C', 1); err != nil {
			t.Fatal(err)
		}
		return strings.Join(c.say(1, fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync()), " | ")
	}
	if got := half(a); !strings.Contains(got, "doy32\"") {
		t.Errorf("a: %s", got)
	}
	if got := half(b); !strings.Contains(got, "doy2\"") {
		t.Errorf("b: %s", got)
	}
}

func TestSetLocalDefault(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, err := dialRaw(f.addr, "postgres", "app", "work_mem", "5MB")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	a.do(t, "BEGIN")
	a.do(t, "SET LOCAL work_mem TO '9MB'")
	a.do(t, "SET LOCAL work_mem TO DEFAULT")
	a.mustAsk(t, "SHOW work_mem", "5MB")
}

func TestGuardBeforeSetTransaction(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a, b, c := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	b.do(t, "CREATE SEQUENCE rvg")
	b.do(t, "SELECT nextval('rvg')")
	a.do(t, "BEGIN")
	c.ask("SELECT lastval()")
	a.mustAsk(t, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "C \"SET")
}

// A statement that only its own connection knew, brought to a temporary table's connection.
func TestEnsureSQLPrepared(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a, b, c := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "PREPARE s AS "+doySQL)
	c.do(t, "BEGIN")
	a.do(t, "SET datestyle TO 'SQL, DMY'")
	a.mustAsk(t, "EXECUTE s", "doy2\"")
	b.do(t, "PREPARE s AS "+doySQL)
	b.mustAsk(t, "EXECUTE s", "doy2\"")
	c.do(t, "COMMIT")
}

// The timezone is what applications change most.
func TestEnsureTimeZone(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	const sql = "SELECT 'e' || extract(epoch from timestamptz '2024-01-01 12:00')"
	a, b, c := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	want := b.ask(sql)
	want = want[strings.Index(want, `D "`):]
	want = want[:strings.Index(want, " | ")]
	a.say(1, fParse("s", sql), fSync())
	c.do(t, "BEGIN")
	a.do(t, "SET timezone TO 'Asia/Tokyo'")
	a.say(1, fBind("", "s"), fExecute("", 0), fSync())
	b.mustSay(t, 1, want, fParse("s", sql), fBind("", "s"), fExecute("", 0), fSync())
	c.do(t, "COMMIT")
}

func leaving(t *testing.T, first, then []frame) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	b.do(t, "CREATE TABLE rvx (v text)")
	a.Write(frames(first...))
	if len(then) > 0 {
		if _, err := a.until('G', 1); err != nil {
			t.Fatal(err)
		}
	}
	a.Write(frames(append(then, frame{kind: 'X'})...))
	a.Close()
	b.mustAsk(t, "SELECT 'n' || count(*) FROM rvx", "n0")
}

func TestTerminateInOpenRequest(t *testing.T) {
	leaving(t, extended("INSERT INTO rvx VALUES ('x')"), nil)
}

func TestTerminateBehindParse(t *testing.T) { leaving(t, []frame{fParse("", "SELECT 1")}, nil) }

func TestTerminateInCopy(t *testing.T) {
	leaving(t, []frame{fQuery("COPY rvx FROM STDIN")}, []frame{fCopyData("x\n")})
}

// RESET ALL on a server whose defaults are not those that the client was told.
func TestResetAllElsewhere(t *testing.T) {
	for _, text := range []string{"RESET ALL", "SELECT 1; RESET work_mem; RESET ALL"} {
		f := start(t, fixtureOptions{size: 1})
		a, err := dialRaw(f.addr, "postgres", "app", "work_mem", "5MB")
		if err != nil {
			t.Fatal(err)
		}
		told := cutNUL(a.parameters["TimeZone"])
		su := mustDial(t, f.addr, "app")
		su.do(t, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = %L', current_database(), 'Asia/Tokyo'); END $$")
		f.db.Shards[0].Pools.Retire(0)
		a.mustAsk(t, "SHOW timezone", told)
		a.do(t, text)
		a.mustAsk(t, "SHOW timezone", told)
		su.mustAsk(t, "SHOW timezone", told)
		a.Close()
	}
}

// Who leaves with a Terminate in a request after earlier complete ones.
func TestRevertedSavepointScope(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "BEGIN")
	a.do(t, "SAVEPOINT p")
	a.do(t, "SET datestyle TO 'SQL, DMY'")
	a.say(2, fQuery("ROLLBACK TO p"), fParse("s", doySQL), fSync())
	a.do(t, "COMMIT")
	b.mustSay(t, 1, "doy2\"", fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
	// In one text.
	c := mustDial(t, f.addr, "app")
	c.do(t, "BEGIN")
	c.do(t, "SAVEPOINT p; SET datestyle TO 'SQL, DMY'; ROLLBACK TO p; SAVEPOINT p; SET datestyle TO 'SQL, DMY'; RELEASE p")
	c.say(1, fParse("t", doySQL+" /*t*/"), fSync())
	c.do(t, "ROLLBACK")
	b.mustSay(t, 1, "doy2\"", fParse("t", doySQL+" /*t*/"), fBind("", "t"), fExecute("", 0), fSync())
}

// The same name twice: the inner one hides the outer.
func TestSavepointNames(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "BEGIN")
	a.do(t, "SAVEPOINT p")
	a.do(t, "SET work_mem TO '6MB'")
	a.do(t, "SAVEPOINT \"P\"")
	a.do(t, "SET work_mem TO '7MB'")
	a.do(t, "ROLLBACK TO p")
	a.do(t, "COMMIT")
	b.do(t, "SELECT 1")
	a.mustAsk(t, "SHOW work_mem", "4MB")
	b.mustAsk(t, "SHOW work_mem", "4MB")
}

// COPY data that comes while the server's error is on its way, in one large run.
func TestCopyRunBehindError(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE TABLE rvc (i int)")
	all := []frame{fQuery("COPY rvc FROM STDIN")}
	for range 50000 {
		all = append(all, fCopyData("12345\n"))
	}
	all = append(all, fCopyData("bad\n"))
	for range 50000 {
		all = append(all, fCopyData("12345\n"))
	}
	all = append(all, fCopyDone(), fQuery("SELECT 'n' || count(*) FROM rvc"), fQuery("SELECT 'the end'"))
	got := a.say(3, all...)
	if !contains(got, "22P02") || !contains(got, "n0") || !contains(got, "the end") {
		t.Errorf("%v", got)
	}
}
