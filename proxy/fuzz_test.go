package proxy_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// frame is one message of a client: type byte and body.
type frame struct {
	kind byte
	body []byte
}

func (f frame) bytes() []byte { return wire.AppendFrame(nil, f.kind, f.body) }

// String shows the frame as a reader of a failed test wants it.
func (f frame) String() string { return fmt.Sprintf("%c %q", f.kind, f.body) }

func fQuery(sql string) frame { return frame{'Q', []byte(sql + "\x00")} }
func fParse(name, sql string) frame {
	return frame{'P', []byte(name + "\x00" + sql + "\x00\x00\x00")}
}
func fDescribe(what byte, name string) frame { return frame{'D', []byte(string(what) + name + "\x00")} }
func fClose(what byte, name string) frame    { return frame{'C', []byte(string(what) + name + "\x00")} }
func fCopyData(s string) frame               { return frame{'d', []byte(s)} }
func fSync() frame                           { return frame{kind: 'S'} }
func fFlush() frame                          { return frame{kind: 'H'} }
func fCopyDone() frame                       { return frame{kind: 'c'} }
func fCopyFail() frame                       { return frame{'f', []byte("enough\x00")} }

func fExecute(portal string, rows uint32) frame {
	return frame{'E', binary.BigEndian.AppendUint32([]byte(portal+"\x00"), rows)}
}

// fBind binds text values.
func fBind(portal, statement string, values ...string) frame {
	b := []byte(portal + "\x00" + statement + "\x00\x00\x00")
	b = binary.BigEndian.AppendUint16(b, uint16(len(values)))
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	return frame{'B', append(b, 0, 0)}
}

// fCall calls a function of two text arguments by its OID.
func fCall(oid uint32, values ...string) frame {
	b := binary.BigEndian.AppendUint32(nil, oid)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(values)))
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	return frame{'F', append(b, 0, 0)}
}

// rawClient is a client without a mind of its own.
type rawClient struct {
	net.Conn
	r   *bufio.Reader
	pid uint32
	key []byte
	// parameters are what the server reported; being told one again is no news.
	parameters map[string]string
}

// learn notes a ParameterStatus and reports whether it says something new.
func (c *rawClient) learn(body []byte) bool {
	name, value, _ := strings.Cut(string(body), "\x00")
	old, known := c.parameters[name]
	c.parameters[name] = value
	return !known || old != value
}

func newRaw(nc net.Conn) *rawClient {
	return &rawClient{Conn: nc, r: bufio.NewReader(nc), parameters: map[string]string{}}
}

const rawTimeout = 5 * time.Second

// dialRaw logs in as a user who needs no password, up to ReadyForQuery.
func dialRaw(addr, user, database string, params ...string) (*rawClient, error) {
	nc, err := net.DialTimeout("tcp", addr, rawTimeout)
	if err != nil {
		return nil, err
	}
	c := newRaw(nc)
	if err := c.login(user, database, append(params, "application_name", "raw")...); err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func startupPacket(user, database string, params ...string) []byte {
	b := []byte{0, 0, 0, 0, 0, 3, 0, 0}
	for _, s := range append([]string{"user", user, "database", database}, params...) {
		b = append(append(b, s...), 0)
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

func (c *rawClient) login(user, database string, params ...string) error {
	if _, err := c.Write(startupPacket(user, database, params...)); err != nil {
		return err
	}
	for {
		kind, body, err := c.receive(rawTimeout)
		switch {
		case err != nil:
			return err
		case kind == 'E':
			return fmt.Errorf("login: %s %s", wire.Field(body, 'C'), wire.Field(body, 'M'))
		case kind == 'K':
			c.pid, c.key = binary.BigEndian.Uint32(body), body[4:]
		case kind == 'S':
			c.learn(body)
		case kind == 'Z':
			return nil
		}
	}
}

func (c *rawClient) receive(patience time.Duration) (byte, []byte, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	return wire.ReadMessage(c.r, 1<<30)
}

// until reads up to the n-th message of the kind and returns the last.
func (c *rawClient) until(kind byte, n int) ([]byte, error) {
	for {
		k, body, err := c.receive(rawTimeout)
		if err != nil {
			return nil, fmt.Errorf("waiting for %c: %w", kind, err)
		}
		if k == kind {
			if n--; n == 0 {
				return body, nil
			}
		}
	}
}

// theEnd makes any session answer a query whose row is unmistakable: out of a
// copy, out of a skipped sequence, out of a transaction.
func theEnd() []frame {
	return []frame{fCopyFail(), fSync(), fQuery("ROLLBACK"), fQuery("SELECT 'the end'")}
}

// converse sends the frames, cut into writes by pieces, and returns all that
// comes back, up to the end of the conversation or of the connection.
func (c *rawClient) converse(frames []frame, piece int) (transcript []string, err error) {
	var out []byte
	for _, f := range append(frames[:len(frames):len(frames)], theEnd()...) {
		out = append(out, f.bytes()...)
	}
	go func() {
		for len(out) > 0 {
			n := min(piece, len(out))
			if _, err := c.Write(out[:n]); err != nil {
				return // the reader finds out
			}
			out = out[n:]
		}
	}()
	ending := false
	for {
		kind, body, err := c.receive(rawTimeout)
		if err != nil {
			var ne net.Error
			if ok := asNetError(err, &ne); ok && ne.Timeout() {
				return append(transcript, "HANGS"), nil
			}
			return append(transcript, "closed"), nil
		}
		if kind == 'S' && !c.learn(body) {
			continue
		}
		transcript = append(transcript, describeMessage(kind, body))
		ending = ending || kind == 'D' && strings.HasSuffix(string(body), "the end")
		if ending && kind == 'Z' {
			return transcript, nil
		}
	}
}

func asNetError(err error, to *net.Error) bool {
	for err != nil {
		if ne, ok := err.(net.Error); ok {
			*to = ne
			return true
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return false
		}
		err = u.Unwrap()
	}
	return false
}

// describeMessage renders a server's message without what must differ between
// two servers: table OIDs and process numbers.
func describeMessage(kind byte, body []byte) string {
	body = append([]byte(nil), body...)
	switch kind {
	case 'T':
		n, at := int(binary.BigEndian.Uint16(body)), 2
		for range n {
			at += strings.IndexByte(string(body[at:]), 0) + 1
			copy(body[at:at+4], "\x00\x00\x00\x00")
			at += 18
		}
	case 'A':
		body = body[4:]
	case 'E', 'N':
		return fmt.Sprintf("%c %s %s %q detail %q hint %q position %s", kind, wire.Field(body, 'S'), wire.Field(body, 'C'),
			wire.Field(body, 'M'), wire.Field(body, 'D'), wire.Field(body, 'H'), wire.Field(body, 'P'))
	}
	return fmt.Sprintf("%c %q", kind, body)
}

// oracle compares a proxy with a server of the same content.
type oracle struct {
	t              testing.TB
	direct, behind func() (*rawClient, error)
	control        []*rawClient // one to each database, past the proxy
}

const oracleSchema = `CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE c (id int, v text);
CREATE FUNCTION noisy(x int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'noise %', x; RETURN x; END $$`

func newOracle(t testing.TB, o fixtureOptions) *oracle {
	f := start(t, o)
	d := pgtest.Shared(t)
	d.Exec(oracleSchema)
	setup := mustDial(t, f.addr, "app")
	got, err := setup.converse([]frame{fQuery(oracleSchema), fQuery("SELECT 'name ' || current_database()")}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	_, name, ok := strings.Cut(strings.Join(got, "\n"), "name ")
	if !ok {
		t.Fatal(got)
	}
	name, _, _ = strings.Cut(name, `"`)
	return &oracle{
		t:       t,
		direct:  func() (*rawClient, error) { return dialRaw(d.Node.Addr(), "postgres", d.Name) },
		behind:  func() (*rawClient, error) { return dialRaw(f.addr, "postgres", "app") },
		control: []*rawClient{mustDial(t, d.Node.Addr(), d.Name), mustDial(t, d.Node.Addr(), name)},
	}
}

// mustDial logs in as the superuser until the test ends.
func mustDial(t testing.TB, addr, database string) *rawClient {
	t.Helper()
	c, err := dialRaw(addr, "postgres", database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// oracleReset brings the tables to a known content before each conversation.
const oracleReset = "DROP TABLE IF EXISTS ddl; ALTER TABLE c DROP COLUMN IF EXISTS w; TRUNCATE t; TRUNCATE c; INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 5) i"

// compare returns both transcripts of the frames.
func (o *oracle) compare(frames []frame, piece int) (direct, behind []string) {
	o.t.Helper()
	for _, c := range o.control {
		got, err := c.converse([]frame{fQuery(oracleReset)}, 1<<20)
		if err != nil || strings.HasPrefix(got[0], "E") {
			o.t.Fatal(got, err)
		}
	}
	talk := func(dial func() (*rawClient, error)) []string {
		c, err := dial()
		if err != nil {
			o.t.Fatal(err)
		}
		defer c.Close()
		got, err := c.converse(frames, piece)
		if err != nil {
			o.t.Fatal(err)
		}
		_, _ = c.Write([]byte{'X', 0, 0, 0, 4}) // it may have been closed already
		return got
	}
	return talk(o.direct), talk(o.behind)
}

// sameTranscript reports whether two transcripts agree. Where both end the
// connection for a breach of the protocol, how many words are lost is not compared.
//
// One thing the proxy does not know: what the unnamed statement was before a
// Parse that the server skipped after an error. It refuses to run any then.
func sameTranscript(a, b []string) bool {
	a, b = beforeFatal(a), beforeFatal(b)
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return strings.Contains(b[i], "unnamed prepared statement does not exist")
		}
	}
	return len(a) == len(b)
}

func beforeFatal(t []string) []string {
	if n := len(t); n == 0 || t[n-1] != "closed" {
		return t
	}
	for i, m := range t {
		if strings.HasPrefix(m, "E") && strings.Contains(m, " 08P01 ") {
			return append(t[:i:i], "ended by 08P01")
		}
	}
	return t
}

// shrink returns a shorter sequence that still diverges.
func (o *oracle) shrink(frames []frame, piece int) []frame {
	diverges := func(f []frame) bool {
		a, b := o.compare(f, piece)
		return !sameTranscript(a, b)
	}
	for size := max(len(frames)/2, 1); ; {
		cut := false
		for at := 0; at < len(frames); {
			shorter := append(frames[:at:at], frames[min(at+size, len(frames)):]...)
			if len(shorter) < len(frames) && diverges(shorter) {
				frames, cut = shorter, true
			} else {
				at += size
			}
		}
		if size == 1 && !cut {
			return frames
		}
		size = max(size/2, 1)
	}
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// oracleTexts are statements whose answers do not depend on where and when
// they run.
var oracleTexts = []string{
	"SELECT 1", "SELECT 1", "SELECT generate_series(1, 7)", "SELECT id, v FROM t ORDER BY id", "SELECT 1/0", "SELEC 1", "",
	"INSERT INTO t VALUES (100, 'x') RETURNING id", "INSERT INTO t VALUES (1, 'dup')", "UPDATE t SET v = v || '!'", "DELETE FROM t WHERE id = 3",
	"BEGIN", "BEGIN", "COMMIT", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a", "RELEASE a", "COMMIT AND CHAIN", "BEGIN READ ONLY",
	"SET work_mem = '7MB'", "SET LOCAL work_mem = '8MB'", "SHOW work_mem", "RESET work_mem", "SET datestyle = 'German'", "SELECT date '2020-01-02'",
	"SET application_name = 'x'", "SHOW application_name", "SELECT set_config('work_mem', '9MB', false)", "SET no_such = 1",
	"SELECT current_setting('search_path')", "SET search_path = pg_catalog", "SET search_path = public", "SET statement_timeout = 0",
	"DECLARE cu CURSOR FOR SELECT generate_series(1, 5)", "DECLARE ch CURSOR WITH HOLD FOR SELECT generate_series(1, 5)",
	"FETCH 2 FROM cu", "FETCH 2 FROM ch", "CLOSE cu", "CLOSE ch",
	"PREPARE pq AS SELECT 5", "EXECUTE pq", "DEALLOCATE pq", "DEALLOCATE ALL", "DISCARD PLANS", "EXECUTE s1", "DEALLOCATE s2",
	"PREPARE s1(int, varchar) AS SELECT $1 + 1, $2", "EXECUTE s1(1, 'x')", "PREPARE pq(no_such) AS SELECT $1", "PREPARE  /* ä */ pq AS SELECT nonsense",
	"EXPLAIN (COSTS off) EXECUTE pq", "SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY name",
	"PREPARE s3 (regtype) AS SELECT $1", "CREATE TEMP TABLE te AS EXECUTE pq",
	"COPY c FROM STDIN", "COPY c FROM STDIN", "COPY c TO STDOUT", "COPY (SELECT generate_series(1, 3)) TO STDOUT", "SELECT count(*) FROM c",
	"CREATE TEMP TABLE tt (x int)", "INSERT INTO tt VALUES (1)", "SELECT count(*) FROM tt", "DROP TABLE tt",
	"SELECT noisy(1)", "DO $$ BEGIN RAISE NOTICE 'n'; END $$", "LISTEN ch1", "NOTIFY ch1, 'p'", "UNLISTEN *",
	"SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)", "EXPLAIN (COSTS off) SELECT 1", "VALUES (1), (2)",
	"LOCK TABLE t", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SHOW transaction_read_only",
	"SET ROLE pg_monitor", "RESET ROLE", "SELECT current_user", "SET SESSION AUTHORIZATION app", "RESET SESSION AUTHORIZATION",
	"CREATE TABLE ddl (x int)", "DROP TABLE ddl", "ALTER TABLE c ADD COLUMN w int", "ALTER TABLE c DROP COLUMN w", "SELECT * FROM c",
}

// oracleParamTexts take one parameter.
var oracleParamTexts = []string{
	"SELECT $1::int + 1", "SELECT 10 / $1::int", "SELECT id FROM t WHERE id >= $1::int ORDER BY id", "INSERT INTO t VALUES ($1::int, 'p')",
	"SELECT $1::text", "DELETE FROM t WHERE id = $1::int", "SELECT set_config('work_mem', $1::text || 'MB', false)",
}

// oracleScripts are for simple queries only: texts of several statements,
// commands that name a protocol-level statement, and those after which the
// proxy must put settings back before the next request.
var oracleScripts = []string{
	"RESET ALL", "DISCARD ALL", "EXECUTE s1", "EXECUTE s2(1)", "DEALLOCATE s1", "DEALLOCATE s2", "PREPARE pq AS SELECT 6; EXECUTE pq",
	"EXECUTE s1; DEALLOCATE s1; EXECUTE s1", "PREPARE s2 AS SELECT 8; SELECT 1/0", "DEALLOCATE pq; PREPARE pq AS VALUES (9)",
	"SELECT 1; SELECT 2", "SELECT 1; SELECT 1/0; SELECT 3", "BEGIN; SELECT 1", "INSERT INTO t VALUES (50, 'm'); COMMIT", "SELECT 1; ; SELECT 2;", ";",
	"INSERT INTO t VALUES (60, 'm'); SELECT 1/0", "COPY c FROM STDIN; SELECT 1", "SELECT 1; COPY c TO STDOUT; SELECT 2", "COPY c FROM STDIN; COPY c FROM STDIN",
	"SET work_mem = '3MB'; SELECT 1/0", "SET work_mem = '4MB'; SHOW work_mem", "BEGIN; SET work_mem = '5MB'; ROLLBACK", "SELECT 1; DEALLOCATE ALL", "-- nothing", "BEGIN; ROLLBACK; SELECT 1",
}

// sequence makes a random conversation.
func sequence(r *rand.Rand, length int) []frame {
	statement := func() string { return pick(r, "", "", "s1", "s2", "s3") }
	portal := func() string { return pick(r, "", "", "", "p1", "p2") }
	var all []frame
	for len(all) < length {
		switch n := r.IntN(100); {
		case n < 18:
			all = append(all, fQuery(pick(r, oracleTexts...)))
		case n < 23:
			all = append(all, fQuery(pick(r, oracleScripts...)))
		case n < 45: // one well-formed round
			s, p := statement(), portal()
			if r.IntN(3) == 0 {
				all = append(all, fParse(s, pick(r, oracleParamTexts...)), fBind(p, s, pick(r, "0", "1", "2", "7", "x")))
			} else {
				all = append(all, fParse(s, pick(r, oracleTexts...)), fBind(p, s))
			}
			if r.IntN(2) == 0 {
				all = append(all, fDescribe('P', p))
			}
			all = append(all, fExecute(p, uint32(pick(r, 0, 0, 1, 2, 3))))
			if r.IntN(4) > 0 {
				all = append(all, fSync())
			}
		case n < 52:
			all = append(all, fParse(statement(), pick(r, oracleTexts...)))
		case n < 56:
			all = append(all, fParse(statement(), pick(r, oracleParamTexts...)))
		case n < 62:
			all = append(all, fBind(portal(), statement()))
		case n < 66:
			all = append(all, fBind(portal(), statement(), pick(r, "0", "1", "5", "x")))
		case n < 70:
			all = append(all, fDescribe('S', statement()))
		case n < 73:
			all = append(all, fDescribe('P', portal()))
		case n < 80:
			all = append(all, fExecute(portal(), uint32(pick(r, 0, 0, 1, 2, 3))))
		case n < 83:
			all = append(all, fClose('S', statement()))
		case n < 85:
			all = append(all, fClose('P', portal()))
		case n < 87:
			all = append(all, fFlush())
		case n < 95:
			all = append(all, fSync())
		case n < 97:
			all = append(all, fCopyData(pick(r, "1\ta\n", "2\tb\n", "broken\n")))
		case n < 98:
			all = append(all, fCopyDone())
		case n < 99:
			all = append(all, fCopyFail())
		default:
			all = append(all, fCall(pick[uint32](r, 177, 1, 4294967295), "3", "4"))
		}
		if last := all[len(all)-1]; r.IntN(3) > 0 && strings.Contains(string(last.body), "COPY c FROM STDIN") && last.kind == 'Q' {
			all = append(all, fCopyData("1\ta\n"), pick(r, fCopyDone(), fCopyFail(), fCopyDone()))
		}
	}
	return all
}

func environInt(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestTranscripts lets random clients talk to PostgreSQL and to the proxy and
// compares every message. SHARDPROXY_TEST_SEQUENCES says how many, and
// SHARDPROXY_TEST_SEED where to begin.
func TestTranscripts(t *testing.T) {
	o := newOracle(t, fixtureOptions{size: 1})
	first, n := environInt("SHARDPROXY_TEST_SEED", 1), environInt("SHARDPROXY_TEST_SEQUENCES", 300)
	seen := map[string]bool{}
	for seed := first; seed < first+n; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		frames := sequence(r, 2+r.IntN(20))
		piece := pick(r, 1<<20, 1<<20, 1, 7, 100)
		a, b := o.compare(frames, piece)
		if sameTranscript(a, b) || strings.Contains(strings.Join(a, ""), "FATAL XX000") {
			continue // nor does PostgreSQL itself know what to do with EXECUTE of a ROLLBACK TO
		}
		if strings.Contains(strings.Join(b, ""), "Sync in the middle of copy data that failed") {
			continue // refused: nobody can tell whether the server has read the Sync as a part of the copy
		}
		if slices.Contains(b, "HANGS") {
			// What hangs keeps the only server connection: nothing more can be compared.
			t.Fatalf("seed %d, pieces of %d bytes:\n%s", seed, piece, divergence(frames, a, b))
		}
		small := o.shrink(frames, piece)
		if c, d := o.compare(small, piece); !sameTranscript(c, d) {
			a, b = c, d
		} else {
			small = frames
		}
		report := divergence(small, a, b)
		if !seen[report] {
			seen[report] = true
			t.Errorf("seed %d, pieces of %d bytes:\n%s", seed, piece, report)
		}
		if len(seen) >= environInt("SHARDPROXY_TEST_DIVERGENCES", 10) {
			t.Fatal("enough divergences")
		}
	}
}

// TestSequences compares conversations that once went wrong, in small and in
// large pieces.
func TestSequences(t *testing.T) {
	one := "SELECT 1"
	for _, test := range []struct {
		name   string
		frames []frame
	}{
		{"query skipped after an error", []frame{fExecute("p", 0), fQuery(one), fSync(), fQuery("SELECT 2")}},
		{"call skipped after an error", []frame{fDescribe('S', "s"), fCall(177, "3", "4"), fSync(), fQuery("SELECT 2")}},
		{"frames in pieces", []frame{fParse("", "SELECT $1::text"), fBind("", "", "a long enough value"), fExecute("", 0), fSync()}},
		{"bind first, in pieces", []frame{fParse("s", "SELECT $1::text"), fSync(), fBind("", "s", "value"), fExecute("", 0), fSync()}},
		{"parse skipped, then used", []frame{fExecute("p", 0), fParse("s", one), fSync(), fBind("", "s"), fExecute("", 0), fSync()}},
		{"parse skipped, then the same text", []frame{fExecute("p", 0), fParse("s", "SELECT 41"), fSync(), fParse("r", "SELECT 41"), fBind("", "r"), fExecute("", 0), fSync()}},
		{"close skipped", []frame{fParse("s", one), fSync(), fExecute("p", 0), fClose('S', "s"), fSync(), fParse("s", "SELECT 2"), fBind("", "s"), fExecute("", 0), fSync()}},
		{"name in an error of Parse", []frame{fParse("s", one), fParse("s", "SELECT 2"), fSync()}},
		{"name in an error of Bind", []frame{fParse("s", one), fBind("", "s", "1"), fSync()}},
		{"name in an error of EXECUTE", []frame{fParse("s", "SELECT $1::int"), fSync(), fQuery("EXECUTE s")}},
		{"another's unnamed statement", []frame{fBind("", ""), fExecute("", 0), fSync()}},
		{"another's unnamed statement, after a skipped Parse", []frame{fExecute("p", 0), fParse("", one), fSync(), fBind("", ""), fExecute("", 0), fSync()}},
		{"DEALLOCATE ALL ahead of Parse", []frame{fQuery("DEALLOCATE ALL"), fParse("s", one), fSync(), fBind("", "s"), fExecute("", 0), fSync()}},
		{"DEALLOCATE ALL, extended", []frame{fParse("", "DEALLOCATE ALL"), fBind("", ""), fExecute("", 0), fParse("s", one), fSync(), fBind("", "s"), fSync()}},
		{"DEALLOCATE ALL spares the unnamed", []frame{fParse("", "DEALLOCATE ALL"), fBind("", ""), fExecute("", 0), fSync(), fDescribe('S', ""), fSync()}},
		{"DEALLOCATE ahead of Parse", []frame{fParse("s", one), fSync(), fQuery("DEALLOCATE s"), fParse("s", "SELECT 2"), fBind("", "s"), fExecute("", 0), fSync()}},
		{"DEALLOCATE ALL among others", []frame{fParse("s", one), fSync(), fQuery("SELECT 1; DEALLOCATE ALL"), fBind("", "s"), fSync()}},
		{"DEALLOCATE of itself", []frame{fParse("s", "DEALLOCATE s"), fBind("", "s"), fExecute("", 0), fSync()}},
		{"PREPARE of a name that a Parse took", []frame{fParse("s", one), fSync(), fQuery("PREPARE s AS SELECT 6")}},
		{"breach of protocol during COPY", []frame{fQuery("COPY c FROM STDIN; SELECT 1"), fExecute("", 0)}},
		{"breach of protocol during COPY, extended", []frame{fParse("", "COPY c FROM STDIN"), fBind("", ""), fExecute("", 0), fExecute("p", 0)}},
		{"PREPARE, then Parse of the name", []frame{fQuery("PREPARE pq AS SELECT 5"), fParse("pq", one), fSync(), fQuery("EXECUTE pq")}},
		{"PREPARE, then Bind", []frame{fQuery("PREPARE pq(int) AS SELECT $1 + 1"), fBind("", "pq", "4"), fDescribe('S', "pq"), fExecute("", 0), fSync()}},
		{"PREPARE, then Close", []frame{fQuery("PREPARE pq AS SELECT 5"), fClose('S', "pq"), fSync(), fQuery("EXECUTE pq")}},
		{"EXPLAIN EXECUTE of a Parse", []frame{fParse("s", one), fSync(), fQuery("EXPLAIN (COSTS off) EXECUTE s"), fBind("", "s"), fExecute("", 0), fSync()}},
		{"EXPLAIN EXECUTE, extended", []frame{fParse("s", one), fParse("", "EXPLAIN (COSTS off) EXECUTE s"), fBind("", ""), fDescribe('P', ""), fExecute("", 0), fSync()}},
		{"EXECUTE, extended", []frame{fParse("s", "SELECT $1::int"), fSync(), fParse("", "EXECUTE s(3)"), fBind("", ""), fDescribe('P', ""), fExecute("", 0), fSync()}},
		{"PREPARE, extended", []frame{fParse("", "PREPARE pq AS SELECT 3"), fBind("", ""), fExecute("", 0), fSync(), fQuery("EXECUTE pq"), fQuery("DEALLOCATE pq"), fQuery("EXECUTE pq")}},
		{"positions in errors", []frame{fQuery("PREPARE /* ä */ pq (int, text) AS SELECT nonsense"), fQuery("PREPARE pq AS SELECT 1"), fQuery("EXECUTE pq(nonsense)"), fQuery("SELECT 1; EXECUTE pq(nonsense)")}},
		{"the view of statements", []frame{fParse("s", one), fSync(), fQuery("PREPARE pq AS SELECT 5"),
			fQuery("SELECT name, statement, parameter_types, from_sql FROM pg_prepared_statements ORDER BY name")}},
		{"the view of statements, extended, in a transaction", []frame{fQuery("BEGIN"), fParse("s", one), fSync(), fQuery("PREPARE pq AS SELECT 5"),
			fParse("", "SELECT name FROM pg_prepared_statements ORDER BY name"), fBind("", ""), fExecute("", 0), fSync(), fQuery("COMMIT"), fQuery("EXECUTE pq")}},
		{"EXECUTE whose arguments set", []frame{fQuery("PREPARE pq AS SELECT $1::text"), fQuery("EXECUTE pq(set_config('work_mem', '6MB', false))"), fQuery("SHOW work_mem")}},
		{"PREPARE in a failed transaction", []frame{fQuery("BEGIN"), fQuery("SELECT 1/0"), fQuery("PREPARE pq AS SELECT 5"), fQuery("ROLLBACK"), fQuery("EXECUTE pq")}},
		{"PREPARE outlives a rollback", []frame{fQuery("BEGIN"), fQuery("PREPARE pq AS SELECT 5"), fQuery("ROLLBACK"), fQuery("EXECUTE pq"), fQuery("DEALLOCATE ALL"), fQuery("EXECUTE pq")}},
		{"several commands", []frame{fQuery("PREPARE pq AS SELECT 5; EXECUTE pq"), fQuery("EXECUTE pq"), fQuery("DEALLOCATE pq; EXECUTE pq"), fParse("pq", one), fSync(), fQuery("PREPARE pq AS SELECT 7")}},
		{"RESET ALL, extended", []frame{fParse("", "RESET ALL"), fBind("", ""), fExecute("", 0), fParse("s", "SHOW application_name"), fBind("", "s"), fExecute("", 0), fSync()}},
		{"DISCARD ALL tells what is back", []frame{fQuery("SET application_name = 'x'"), fQuery("DISCARD ALL"), fQuery("SHOW application_name")}},
		{"DISCARD ALL, extended, tells what is back", append([]frame{fQuery("SET application_name = 'x'")}, append(segment("DISCARD ALL"), fQuery("SHOW application_name"))...)},
		{"DISCARD ALL ends a role", []frame{fQuery("SET ROLE pg_monitor"), fQuery("DISCARD ALL"), fQuery("SELECT current_user")}},
		{"RESET SESSION AUTHORIZATION", []frame{fQuery("SET SESSION AUTHORIZATION app"), fQuery("RESET SESSION AUTHORIZATION"), fQuery("SELECT current_user")}},
		{"queries in an open request", []frame{fParse("", one), fQuery("DISCARD ALL"), fQuery("BEGIN"), fQuery("SHOW application_name"), fParse("s", one), fSync(), fQuery("ROLLBACK")}},
		{"a setting by query in an open request", []frame{fParse("", one), fQuery("SET datestyle TO German"), fParse("", "SELECT date '2024-02-01'"), fBind("", ""), fExecute("", 0), fSync()}},
		{"a copy in an open request", []frame{fClose('S', "s1"), fQuery("COPY c FROM STDIN; SELECT 1"), fBind("p1", ""), fSync()}},
		{"a write behind writes in one request", append(extended("INSERT INTO t VALUES (77, 'a')"), fQuery("DISCARD ALL"), fSync())},
		{"DEALLOCATE and Parse in one request", []frame{fParse("s", "DEALLOCATE s"), fBind("p", "s"), fExecute("p", 0), fParse("s", "SELECT 2"), fBind("", "s"), fExecute("", 0), fSync()}},
		{"PREPARE ends the unnamed portal", []frame{fQuery("BEGIN"), fParse("", one), fBind("", ""), fSync(), fQuery("PREPARE pq AS SELECT 5"), fDescribe('P', ""), fSync(), fQuery("ROLLBACK")}},
		{"RESET ALL tells of nothing that stays", []frame{fQuery("RESET ALL"), fQuery("SHOW application_name")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOracle(t, fixtureOptions{size: 1})
			for _, piece := range []int{1 << 20, 1} {
				leaveBehind(t, o.behind)
				if a, b := o.compare(test.frames, piece); !sameTranscript(a, b) {
					t.Errorf("pieces of %d bytes:\n%s", piece, divergence(test.frames, a, b))
				}
			}
		})
	}
}

// leaveBehind is a client that leaves an unnamed statement on the server.
func leaveBehind(t *testing.T, dial func() (*rawClient, error)) {
	t.Helper()
	c, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, f := range []frame{fParse("", "SELECT 'secret'"), fBind("", ""), fExecute("", 0), fSync()} {
		if _, err := c.Write(f.bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.until('Z', 1); err != nil {
		t.Fatal(err)
	}
}

func divergence(frames []frame, a, b []string) string {
	var w strings.Builder
	for _, f := range frames {
		fmt.Fprintf(&w, "  send %s\n", f)
	}
	for i := range max(len(a), len(b)) {
		line := func(t []string) string {
			if i < len(t) {
				return t[i]
			}
			return "-"
		}
		if line(a) != line(b) {
			fmt.Fprintf(&w, "  #%d server %s\n  #%d proxy  %s\n", i, line(a), i, line(b))
			if i+1 < max(len(a), len(b)) {
				fmt.Fprintf(&w, "  (more follows: %d and %d messages)\n", len(a), len(b))
			}
			break
		}
	}
	return w.String()
}

// framesOf reads a fuzzer's bytes as frames: a type byte, a length byte, a body.
func framesOf(data []byte) (all []frame) {
	for len(data) >= 2 && len(all) < 50 {
		n := min(int(data[1]), len(data)-2)
		all = append(all, frame{data[0], data[2 : 2+n]})
		data = data[2+n:]
	}
	return all
}

func fuzzBytes(frames []frame) (b []byte) {
	for _, f := range frames {
		n := min(len(f.body), 255)
		b = append(append(b, f.kind, byte(n)), f.body[:n]...)
	}
	return b
}

// FuzzSession sends arbitrary frames to a session. It answers or it ends with
// an error; it never hangs and never ends without a word.
func FuzzSession(f *testing.F) {
	for seed := range 40 {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		f.Add(fuzzBytes(sequence(r, 10)), uint16(r.IntN(50)))
	}
	f.Add([]byte("B\x03\x00\x00\x00D\x01SE\x00S\x00"), uint16(1))
	f.Add([]byte("P\x04a\x00b\x00C\x00"), uint16(0))
	fx := start(f, fixtureOptions{size: 3})
	f.Fuzz(func(t *testing.T, data []byte, piece uint16) {
		frames := framesOf(data)
		c, err := dialRaw(fx.addr, "postgres", "app")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		size := int(piece)
		if size == 0 {
			size = 1 << 20
		}
		got, err := c.converse(frames, size)
		if err != nil || len(got) == 0 {
			t.Fatal(got, err)
		}
		switch last := got[len(got)-1]; last {
		case "HANGS":
			t.Fatalf("%v hang after %q", frames, got)
		case "closed":
			for _, fr := range frames {
				if fr.kind == 'X' {
					return
				}
			}
			if len(got) < 2 || !strings.HasPrefix(got[len(got)-2], "E FATAL") {
				t.Fatalf("%v end the session without a word after %q", frames, got)
			}
		}
	})
}
