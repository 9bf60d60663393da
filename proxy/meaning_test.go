package proxy_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/proxy"
)

// A text that one client prepared is on the server under a name that others use.
// Each of these has the same text mean something else.

const doySQL = "SELECT 'doy' || extract(doy from date '01/02/2024')"

func TestStatementsUnderLocalSettings(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "BEGIN")
	a.do(t, "SET LOCAL datestyle TO 'SQL, DMY'")
	a.say(1, fParse("s", doySQL), fSync())
	a.do(t, "COMMIT")
	b.mustSay(t, 1, "doy2\"", fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
	for _, mid := range []string{"SAVEPOINT a; ROLLBACK TO a", "SET work_mem TO '5MB'"} {
		sql := `SELECT 'len' || length('a\\b') /*` + mid + "*/"
		a.do(t, "BEGIN")
		a.do(t, "SET LOCAL standard_conforming_strings TO off")
		for _, q := range strings.Split(mid, "; ") {
			a.do(t, q)
		}
		a.say(1, fParse("l", sql), fSync())
		a.do(t, "COMMIT")
		b.mustSay(t, 1, "len4\"", fParse("", sql), fBind("", ""), fExecute("", 0), fSync())
		b.mustSay(t, 1, "len4\"", fParse("l", sql), fBind("", "l"), fExecute("", 0), fClose('S', "l"), fSync())
		a.say(1, fClose('S', "l"), fSync())
	}
}

func TestStatementsBehindSetInOneRequest(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.say(1, append(extended("SET datestyle TO 'SQL, DMY'"), fParse("s", doySQL), fSync())...)
	b.mustSay(t, 1, "doy2\"", fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
}

// A SET that failed is not in force when the next request is sent ahead.
func TestStatementsBehindFailedSet(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.Write(frames(append(append(extended("SET datestyle TO 'SQL, DMY'"), extended("SELECT 1/0")...), fFlush())...))
	if _, err := a.until('E', 1); err != nil {
		t.Fatal(err)
	}
	a.say(2, fSync(), fParse("s", doySQL), fSync())
	b.do(t, "SET datestyle TO 'SQL, DMY'")
	b.mustSay(t, 1, "doy32\"", fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
}

func TestStatementsOfTemporaryTables(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	f.learn()
	x := mustDial(t, f.addr, "app")
	x.do(t, "CREATE TABLE hidden (v text)")
	x.do(t, "INSERT INTO hidden VALUES ('public')")
	x.do(t, "CREATE TEMP TABLE other (v text)") // or the first temporary table changes the search path
	x.Close()
	b := mustDial(t, f.addr, "app")
	ask := []frame{fParse("s", "SELECT v FROM hidden"), fBind("", "s"), fExecute("", 0), fClose('S', "s"), fSync()}
	b.mustSay(t, 1, "public", ask...)
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE TEMP TABLE hidden AS SELECT 'temporary' AS v")
	a.mustAsk(t, "SELECT v FROM hidden", "temporary")
	a.mustSay(t, 1, "temporary", ask...)
	a.do(t, "DROP TABLE hidden")
	a.mustSay(t, 1, "public", ask...)
	b.mustSay(t, 1, "public", ask...)
}

// Temporary tables of one client do not take the statements of others away.
func TestTemporaryTablesLeaveStatements(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	f.learn()
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	before := f.db.Statements
	b.say(1, fParse("s", "SELECT 'kept'"), fSync())
	a.do(t, "CREATE TEMP TABLE brief (v text)")
	a.do(t, "DROP TABLE brief")
	a.say(1, fParse("s", "SELECT 'kept'"), fSync())
	if n, _ := before.Len(); n != 1 {
		t.Errorf("%d statements, not one", n)
	}
}

func TestStatementsOfANewTableEarlierInThePath(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	x := mustDial(t, f.addr, "app")
	x.do(t, "CREATE SCHEMA postgres")
	x.do(t, "CREATE TABLE public.meant (v text)")
	x.do(t, "INSERT INTO public.meant VALUES ('old')")
	ask := []frame{fParse("s", "SELECT v FROM meant"), fBind("", "s"), fExecute("", 0), fSync()}
	x.mustSay(t, 1, "old", ask...)
	x.do(t, "CREATE TABLE postgres.meant AS SELECT 'new' AS v")
	b := mustDial(t, f.addr, "app")
	b.mustAsk(t, "SELECT v FROM meant", "new")
	b.mustSay(t, 1, "new", ask...)
}

func TestStatementsAfterAlterTable(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	x := mustDial(t, f.addr, "app")
	x.do(t, "CREATE TABLE altered (v text)")
	ask := []frame{fParse("s", "SELECT * FROM altered"), fBind("", "s"), fExecute("", 0), fSync()}
	x.say(1, ask...)
	x.do(t, "ALTER TABLE altered ADD w int")
	b := mustDial(t, f.addr, "app")
	b.mustSay(t, 1, "SELECT 0", ask...)
	// Behind the proxy's back the first to notice is told, as by a server; the
	// next to prepare is not.
	direct, err := pgx.Connect(ctx10(t), "postgres://postgres@"+f.nodes[0]+"/"+f.database)
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close(ctx10(t))
	exec(t, direct, "ALTER TABLE altered ADD x int")
	b.mustSay(t, 1, "0A000", fBind("", "s"), fExecute("", 0), fSync())
	c := mustDial(t, f.addr, "app")
	c.mustSay(t, 1, "SELECT 0", ask...)
}

// DDL that is rolled back leaves no statement that others would take for theirs.
func TestStatementsInARolledBackDDL(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	x := mustDial(t, f.addr, "app")
	x.do(t, "CREATE TABLE undone (v text)")
	x.do(t, "BEGIN")
	x.do(t, "ALTER TABLE undone ADD w int")
	x.say(1, fParse("s", "SELECT * FROM undone"), fSync())
	x.do(t, "ROLLBACK")
	b := mustDial(t, f.addr, "app")
	b.mustSay(t, 1, "SELECT 0", fParse("s", "SELECT * FROM undone"), fBind("", "s"), fExecute("", 0), fSync())
}

func TestParseInAFailedTransaction(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.mustSay(t, 1, "fine", fParse("s", "SELECT 'fine'"), fBind("", "s"), fExecute("", 0), fSync())
	b.do(t, "BEGIN")
	b.ask("SELECT 1/0")
	b.mustSay(t, 1, "25P02", fParse("s", "SELECT 'fine'"), fSync())
	b.do(t, "ROLLBACK")
	for range 3 {
		a.mustSay(t, 1, "fine\"", fBind("", "s"), fExecute("", 0), fSync())
	}
	b.mustSay(t, 1, "fine\"", fParse("s2", "SELECT 'fine'"), fBind("", "s2"), fExecute("", 0), fSync())
}

func TestParseBehindDeallocateAndError(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.mustSay(t, 1, "fine", fParse("s", "SELECT 'fine'"), fBind("", "s"), fExecute("", 0), fSync())
	all := append(extended("DEALLOCATE ALL"), extended("SELECT 1/0")...)
	b.say(1, append(all, fParse("s", "SELECT 'fine'"), fSync())...)
	for range 3 {
		a.mustSay(t, 1, "fine\"", fBind("", "s"), fExecute("", 0), fSync())
	}
}

func TestLargeParseInAFailedTransaction(t *testing.T) {
	f := start(t, fixtureOptions{size: 1, policy: func(p *proxy.DatabasePolicy) { p.ParsedMax = 1000 }})
	a := mustDial(t, f.addr, "app")
	big := "SELECT 'big' /*" + strings.Repeat("x", 2000) + "*/"
	a.do(t, "BEGIN")
	a.ask("SELECT 1/0")
	a.mustSay(t, 1, "25P02", fParse("s", big), fBind("", "s"), fExecute("", 0), fSync())
	a.mustAsk(t, "ROLLBACK", "ROLLBACK")
	a.mustSay(t, 1, "big", fParse("s", big), fBind("", "s"), fExecute("", 0), fSync())
	a.mustSay(t, 1, "DEALLOCATE ALL", append(extended("DEALLOCATE ALL"), fParse("s2", big), fSync())...)
	a.mustSay(t, 1, "big", fBind("", "s2"), fExecute("", 0), fSync())
}

func TestRolesFollowInSessionMode(t *testing.T) {
	f := start(t, fixtureOptions{size: 2, mode: proxy.ModeSession})
	mustDial(t, f.addr, "app").do(t, "SELECT 1")
	for _, first := range []string{"DISCARD ALL", "RESET ROLE", "RESET SESSION AUTHORIZATION"} {
		a := mustDial(t, f.addr, "app")
		a.do(t, first)
		a.do(t, "SET ROLE pg_monitor")
		a.mustAsk(t, "SELECT current_user", "pg_monitor")
		a.Close()
	}
}

func TestRoleStaysAfterFailedAuthorization(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "SET ROLE pg_monitor")
	a.Write(frames(append(extended("SET SESSION AUTHORIZATION nosuch"), fFlush())...))
	if _, err := a.until('E', 1); err != nil {
		t.Fatal(err)
	}
	if got := a.say(2, fSync(), fQuery("SELECT current_user")); !contains(got, "pg_monitor") {
		t.Error(got)
	}
}

// What DISCARD ALL takes of the start-up packet is back before anything else runs.
func TestRequestBehindDiscardAll(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	for _, set := range []string{"SELECT 1", "SET TimeZone TO 'UTC'"} {
		a, err := dialRaw(f.addr, "postgres", "app", "TimeZone", "Asia/Tokyo")
		if err != nil {
			t.Fatal(err)
		}
		a.do(t, set)
		a.Write(frames(append(extended("DISCARD ALL"), fFlush())...))
		if _, err := a.until('C', 1); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(a.say(2, fSync(), fQuery("SHOW TimeZone")), " ")
		ready, row := strings.Index(got, `Z "I"`), strings.Index(got, `T "`)
		if !strings.Contains(got, `Asia/Tokyo" C`) || ready < 0 || row < ready {
			t.Error(got)
		}
		a.Close()
	}
}

// An answer that is kept back comes before one that needs no server.
func TestKeptBackAnswersComeFirst(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.say(1, fParse("s1", "SELECT 'one'"), fParse("s3", "SELECT 'three'"), fSync())
	b.say(1, fParse("s1", "SELECT 'one'"), fSync())
	b.mustSay(t, 1, "three\"", fDescribe('S', "s1"), fParse("s3", "SELECT 'three'"), fBind("", "s3"), fExecute("", 0), fSync())
}

// A block that has committed is not run twice.
func TestCommittedBlockRunsOnce(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.do(t, "CREATE TABLE once (i int)")
	got := a.ask("DO $$BEGIN INSERT INTO once VALUES (1); COMMIT; SET TRANSACTION READ ONLY; INSERT INTO once VALUES (2); END$$")
	if !strings.Contains(got, "25006") {
		t.Error(got)
	}
	a.mustAsk(t, "SELECT 'n' || count(*) FROM once", "n1\"")
}

// lastval by way of functions, calls by number and SQL in values is not another's.
func TestLastvalUnseen(t *testing.T) {
	for _, how := range []string{
		"SELECT 'id' || stable_id()", "SELECT 'id' || volatile_id()", "SELECT 'id' || atomic_id()", "SELECT 'id' || indirect_id()",
		"DO $$BEGIN RAISE NOTICE 'id%', lastval(); END$$", "SELECT query_to_xml('SELECT ''id'' || lastval() AS i', true, false, '')",
		"call",
	} {
		f := start(t, fixtureOptions{size: 1})
		a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
		b.do(t, "CREATE TABLE serials (i serial)")
		b.do(t, "CREATE FUNCTION stable_id() RETURNS bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN lastval(); END'")
		b.do(t, "CREATE FUNCTION volatile_id() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN lastval(); END'")
		b.do(t, "CREATE FUNCTION atomic_id() RETURNS bigint STABLE RETURN lastval()")
		b.do(t, "CREATE FUNCTION indirect_id() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT volatile_id()'")
		f.learn()
		b.do(t, "INSERT INTO serials DEFAULT VALUES")
		got := ""
		if how == "call" {
			got = strings.Join(a.say(1, fCall(2559)), " | ")
		} else {
			got = a.ask(how)
		}
		if !strings.Contains(got, "55000") {
			t.Errorf("%s: %s", how, got)
		}
	}
}

// What others have prepared shows nowhere.
func TestPreparedStatementsOfOthersUnseen(t *testing.T) {
	for _, c := range []string{
		"SELECT * FROM own_list", "SELECT * FROM listed()", "SELECT * FROM listed_volatile()",
		"SELECT query_to_xml('SELECT statement FROM pg_prepared_statements', true, false, '')",
		"DO $$DECLARE r text; BEGIN FOR r IN SELECT statement FROM pg_prepared_statements LOOP RAISE NOTICE '%', r; END LOOP; END$$",
		"fail ROLLBACK; SELECT statement FROM pg_prepared_statements", "fail ROLLBACK; EXECUTE _sp_1",
	} {
		f := start(t, fixtureOptions{size: 1})
		a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
		b.do(t, "CREATE VIEW own_list AS SELECT statement FROM pg_prepared_statements")
		b.do(t, "CREATE FUNCTION listed() RETURNS SETOF text STABLE LANGUAGE sql AS 'SELECT statement FROM pg_prepared_statements'")
		b.do(t, "CREATE FUNCTION listed_volatile() RETURNS SETOF text LANGUAGE sql AS 'SELECT statement FROM own_list'")
		f.learn()
		a.say(1, fParse("s", "SELECT 'a secret'"), fSync())
		sql, failed := strings.CutPrefix(c, "fail ")
		if failed {
			b.do(t, "BEGIN")
			b.ask("SELECT 1/0")
		}
		got := b.ask(sql)
		if strings.Contains(got, "secret") {
			t.Errorf("%s: %s", c, got)
		}
		if failed {
			if !strings.Contains(got, "0A000") {
				t.Error(got)
			}
			b.do(t, "ROLLBACK")
		}
		b.say(1, fParse("mine", "SELECT 'mine'"), fSync())
		b.mustAsk(t, "SELECT name FROM pg_prepared_statements", "mine")
	}
}

// A function is judged by the path under which it will be found.
func TestFunctionsBehindAChangedPath(t *testing.T) {
	for _, ext := range []bool{false, true} {
		f := start(t, fixtureOptions{size: 1})
		a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
		a.do(t, "CREATE SCHEMA s2; CREATE SCHEMA s1")
		a.do(t, "CREATE FUNCTION s1.fn() RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'")
		a.do(t, "CREATE FUNCTION s2.fn() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN set_config('work_mem','77MB',false); END$$")
		f.learn()
		a.do(t, "SET search_path TO s1")
		if ext {
			a.mustSay(t, 1, "77MB", segment("SET search_path TO s2", "SELECT fn()")...)
		} else {
			a.mustAsk(t, "SET search_path TO s2; SELECT fn()", "77MB")
		}
		b.mustAsk(t, "SHOW work_mem", "4MB")
		a.mustAsk(t, "SHOW work_mem", "77MB")
	}
}

// Frames that PostgreSQL refuses by their length take no memory.
func TestSmallFramesAreSmall(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	for _, kind := range []byte("DECSHXcf") {
		a := mustDial(t, f.addr, "app")
		a.Write([]byte{kind, 0x10, 0, 0, 0, 'S'})
		got, err := a.until('E', 1)
		if err != nil || !strings.Contains(string(got), "08P01") {
			t.Errorf("%c: %q, %v", kind, got, err)
		}
		a.Close()
	}
	a := mustDial(t, f.addr, "app")
	a.Write([]byte{'B', 0x10, 0, 0, 0})
	_ = a.SetWriteDeadline(time.Now().Add(5 * time.Second))
	a.Write([]byte(strings.Repeat("x", 64<<10)))
	if got, err := a.until('E', 1); err != nil || !strings.Contains(string(got), "08P01") {
		t.Errorf("a Bind with an endless name: %q, %v", got, err)
	}
}

// RESET within a text of several commands gives what the start-up packet asked
// for, at once, and the client is told nothing else.
func TestResetAmongCommands(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	for _, reset := range []string{"RESET TimeZone", "RESET ALL", "SET TimeZone TO DEFAULT", "Set  time zone default"} {
		a, err := dialRaw(f.addr, "postgres", "app", "TimeZone", "Asia/Tokyo")
		if err != nil {
			t.Fatal(err)
		}
		a.do(t, "SET TimeZone TO 'UTC'")
		got := a.ask("SELECT 'é'; " + reset + " ; SHOW TimeZone; SHOW application_name")
		tag := strings.ToUpper(strings.Fields(reset)[0])
		for _, want := range []string{`C "` + tag + `\x00"`, `Asia/Tokyo" | C "SHOW`, `raw" | C "SHOW`} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %s", reset, got, want)
			}
		}
		if strings.Contains(got, `TimeZone\x00UTC`) {
			t.Errorf("%s: told %s", reset, got)
		}
		a.mustAsk(t, "SHOW TimeZone", "Asia/Tokyo")
		// Positions are those of the client's text.
		text := "SELECT 'é'; " + reset + "; SELECT nonsense"
		want := "position " + strconv.Itoa(len([]rune(text[:strings.Index(text, "nonsense")]))+1) + " "
		if got := a.ask(text) + " "; !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", reset, got, want)
		}
		a.mustAsk(t, "SHOW TimeZone", "Asia/Tokyo") // the text was one transaction, and there was nothing to take back
		a.mustAsk(t, "SET TimeZone TO 'UTC'; SELECT nonsense", "42703")
		a.mustAsk(t, "SHOW TimeZone", "Asia/Tokyo")
		a.Close()
	}
}

// The stand-in of a DEALLOCATE, run again, finds nothing to deallocate.
func TestDeallocateRunTwice(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	a := mustDial(t, f.addr, "app")
	a.mustSay(t, 1, "26000", fParse("s2", "SELECT 1"), fParse("", "DEALLOCATE s2"), fBind("", ""), fExecute("", 0),
		fBind("", ""), fExecute("", 0), fSync())
	a.mustSay(t, 1, "26000", fBind("", ""), fExecute("", 0), fSync())
	a.mustSay(t, 1, "26000", fBind("", "s2"), fExecute("", 0), fSync())
}

// A statement keeps its constants wherever it is prepared again, and the settings
// of the moment stay as they are.
func TestBroughtStatementsKeepTheirConstants(t *testing.T) {
	for _, c := range []struct {
		name   string
		before []string
		use    []frame
	}{
		{"SET", []string{"SET datestyle TO 'SQL, DMY'"}, []frame{fBind("", "s"), fExecute("", 0), fSync()}},
		{"Describe", []string{"SET datestyle TO 'SQL, DMY'"}, []frame{fDescribe('S', "s"), fBind("", "s"), fExecute("", 0), fSync()}},
		{"EXECUTE", []string{"SET datestyle TO 'SQL, DMY'"}, []frame{fQuery("EXECUTE s")}},
		{"transaction", []string{"BEGIN", "SET datestyle TO 'SQL, DMY'"}, []frame{fBind("", "s"), fExecute("", 0), fSync()}},
		{"SET LOCAL", []string{"BEGIN", "SET LOCAL datestyle TO 'SQL, DMY'"}, []frame{fBind("", "s"), fExecute("", 0), fSync()}},
		{"EXECUTE, SET LOCAL", []string{"BEGIN", "SET LOCAL datestyle TO 'SQL, DMY'"}, []frame{fQuery("EXECUTE s")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 2})
			a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
			a.say(1, fParse("s", doySQL), fSync())
			b.do(t, "BEGIN") // holds the connection that has it
			for _, q := range c.before {
				a.do(t, q)
			}
			n := 1
			a.mustSay(t, n, "doy2\"", c.use...)
			a.mustSay(t, n, "doy2\"", c.use...)
			a.mustAsk(t, "SHOW datestyle", "SQL, DMY")
			a.mustAsk(t, doySQL, "doy32\"")
			a.do(t, "ROLLBACK")
			b.do(t, "ROLLBACK")
			b.mustAsk(t, "SHOW datestyle", "ISO, MDY")
		})
	}
}

// What cannot be prepared again as it was is refused where it is missing.
func TestStatementsOfLocalConstantsAreRefusedElsewhere(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a, b := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "BEGIN")
	a.do(t, "SET LOCAL datestyle TO 'SQL, DMY'")
	a.mustSay(t, 1, "doy32\"", fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
	a.do(t, "COMMIT")
	b.do(t, "BEGIN")
	a.mustSay(t, 1, "0A000", fBind("", "s"), fExecute("", 0), fSync())
	a.mustSay(t, 1, "0A000", fDescribe('S', "s"), fSync())
	a.mustSay(t, 1, "0A000", fQuery("EXECUTE s"))
	a.mustSay(t, 1, "doy2\"", fClose('S', "s"), fParse("s", doySQL), fBind("", "s"), fExecute("", 0), fSync())
}

// A statement whose result is another since the client was told of it does not
// run on a connection that is to prepare it anew, named or not.
func TestResultsThatChange(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a, b, c, d := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	const all, told = "SELECT * FROM shaped", "cached plan must not change result type"
	a.do(t, "CREATE TABLE shaped (i int); INSERT INTO shaped VALUES (1)")
	a.mustSay(t, 1, "1", fParse("named", all), fDescribe('S', "named"), fSync())
	a.mustSay(t, 1, "2", fParse("portal", all+" WHERE i = 1"), fBind("", "portal"), fDescribe('P', ""), fSync())
	a.mustSay(t, 1, "1", fParse("untold", all), fSync())
	a.mustSay(t, 1, "1", fParse("same", "SELECT i FROM shaped"), fDescribe('S', "same"), fSync())
	a.mustSay(t, 1, "1", fParse("none", "DELETE FROM shaped WHERE i = 0"), fDescribe('S', "none"), fSync())
	c.mustSay(t, 1, "1", fParse("", all), fDescribe('S', ""), fSync())
	d.do(t, "BEGIN") // takes the connection that all this is on
	d.do(t, "SELECT 1")
	b.do(t, "ALTER TABLE shaped ADD COLUMN w int DEFAULT 7")
	for range 2 {
		for _, name := range []string{"named", "portal"} {
			a.mustSay(t, 1, told, fBind("", name), fExecute("", 0), fSync())
			a.mustSay(t, 1, told, fDescribe('S', name), fSync())
		}
		c.mustSay(t, 1, told, fBind("", ""), fExecute("", 0), fSync())
	}
	a.mustSay(t, 1, "1", fBind("", "untold"), fExecute("", 0), fSync()) // nobody was told anything
	a.mustSay(t, 1, "1", fBind("", "same"), fExecute("", 0), fSync())
	a.mustSay(t, 1, "DELETE 0", fBind("", "none"), fExecute("", 0), fSync())
	a.mustSay(t, 2, "1", fQuery("BEGIN"), fBind("", "same"), fExecute("", 0), fSync())
	a.mustSay(t, 1, told, fBind("", "named"), fExecute("", 0), fSync())
	a.do(t, "ROLLBACK")
	// As it was again, it runs again.
	b.do(t, "ALTER TABLE shaped DROP COLUMN w")
	a.mustSay(t, 1, "1", fBind("", "named"), fExecute("", 0), fSync())
	c.mustSay(t, 1, "1", fBind("", ""), fExecute("", 0), fSync())
}

// An EXECUTE whose statement cannot be prepared again says why.
func TestExecuteOfWhatCannotBePrepared(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	a, b, d := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	a.do(t, "CREATE TABLE going (i int)")
	a.do(t, "PREPARE p AS SELECT * FROM going")
	d.do(t, "BEGIN") // takes the connection that it is on
	d.do(t, "SELECT 1")
	b.do(t, "DROP TABLE going")
	a.mustAsk(t, "EXECUTE p", "42P01")
	a.do(t, "BEGIN")
	a.mustAsk(t, "EXECUTE p", "42P01")
	a.mustAsk(t, "SELECT 1", "25P02")
	a.do(t, "ROLLBACK")
	b.do(t, "CREATE TABLE going (i int)")
	a.do(t, "EXECUTE p")
}
