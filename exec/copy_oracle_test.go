package exec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/exec"
	"shardproxy/internal/pgtest"
	"shardproxy/query"
	"shardproxy/wire"
)

var columns = []string{"a", "b", "c"}

// server loads data in transactions that it rolls back.
type server struct {
	t    testing.TB
	conn *pgconn.PgConn
}

// load runs a COPY and returns the rows of the table in their order, or the error.
func (s server) load(sql, table string, data []byte) (rows [][]*string, failed *pgconn.PgError) {
	s.t.Helper()
	ctx := context.Background()
	if _, err := s.conn.Exec(ctx, "BEGIN").ReadAll(); err != nil {
		s.t.Fatal(err)
	}
	defer func() {
		if _, err := s.conn.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
			s.t.Fatal(err)
		}
	}()
	_, err := s.conn.CopyFrom(ctx, bytes.NewReader(data), sql)
	if errors.As(err, &failed) {
		return nil, failed
	} else if err != nil {
		s.t.Fatal(err)
	}
	results, err := s.conn.Exec(ctx, "SELECT a, b, c FROM "+table+" ORDER BY ord").ReadAll()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, row := range results[0].Rows {
		var values []*string
		for _, v := range row {
			if v == nil {
				values = append(values, nil)
				continue
			}
			text := string(v)
			values = append(values, &text)
		}
		rows = append(rows, values)
	}
	return rows, nil
}

func show(rows [][]*string) (lines []string) {
	for _, row := range rows {
		line := ""
		for _, v := range row {
			if v == nil {
				line += " NULL"
			} else {
				line += " " + strconv.Quote(*v)
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func showKept(rows []kept) (lines []string) {
	for _, row := range rows {
		line := ""
		for _, v := range row.values {
			if v.Null {
				line += " NULL"
			} else {
				line += " " + strconv.Quote(string(v.Bytes))
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func told(e *wire.Error) string {
	if e == nil {
		return ""
	}
	return e.Code + " " + e.Message + " | " + e.Hint + " | " + e.Where
}

func toldBy(e *pgconn.PgError, where string) string {
	if e == nil {
		return ""
	}
	return e.Code + " " + e.Message + " | " + e.Hint + " | " + where
}

// sample is one COPY with its data.
type sample struct {
	sql  string // with %s for the table
	data []byte
}

func (s sample) statement(table string) string { return fmt.Sprintf(s.sql, table) }

// TestCopyOracle compares with PostgreSQL: the rows and values, what they become when they are
// split over several targets, and what is said of data that are wrong.
func TestCopyOracle(t *testing.T) {
	db := pgtest.Shared(t)
	db.Exec(`CREATE TABLE t (a text, b text, c varchar(9), ord bigserial);
		CREATE SCHEMA s0; CREATE SCHEMA s1; CREATE SCHEMA s2;
		CREATE TABLE s0.t (LIKE t INCLUDING ALL, extra text, more int); CREATE TABLE s1.t (LIKE s0.t INCLUDING ALL); CREATE TABLE s2.t (LIKE s0.t INCLUDING ALL)`)
	s := server{t, db.Connect("postgres").PgConn()}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var good, bad int
	kinds := map[string]int{}
	for i := 0; i < oracleRounds && !t.Failed(); i++ {
		x := makeSample(rng)
		whole, failed := s.load(x.statement("t"), "t", x.data)
		if bytes.Contains(x.data, []byte("\r\xff")) || bytes.Contains(x.data, []byte("\r\x00")) {
			continue // PostgreSQL looks behind a carriage return, and names the line before
		}
		compareCut(t, rng, x, whole, failed)
		compareSplit(t, rng, s, x, whole, failed)
		if failed != nil {
			bad++
			kinds[failed.Code+" "+regexp.MustCompile(`(?s)".*"`).ReplaceAllString(failed.Message, "...")]++
		} else {
			good++
		}
		if t.Failed() {
			t.Logf("%s\n%q", x.statement("t"), x.data)
		}
	}
	t.Logf("%d accepted, %d refused: %v", good, bad, kinds)
	if !t.Failed() && (good < oracleRounds/5 || bad < oracleRounds/5 || len(kinds) < 8) {
		t.Error("the samples are one-sided")
	}
}

const oracleRounds = 1500

func (s sample) reader(t testing.TB) exec.CopyReaderOptions {
	return exec.CopyReaderOptions{Dialect: dialectOf(t, s.statement("t"), session), Relation: "t", Columns: columns, Wanted: []int{2, 0, 1}}
}

// compareCut compares rows and values.
func compareCut(t *testing.T, rng *rand.Rand, x sample, whole [][]*string, failed *pgconn.PgError) {
	o := x.reader(t)
	rows, err := cut(o, x.data, pieces(rng, len(x.data))...)
	again, err2 := cut(o, x.data)
	if !slices.Equal(showKept(rows), showKept(again)) || told(err) != told(err2) {
		t.Errorf("in pieces:\n%q\n%s\nat once:\n%q\n%s", showKept(rows), told(err), showKept(again), told(err2))
	}
	for i := range rows { // as c, a, b
		v := rows[i].values
		rows[i].values = []exec.CopyValue{v[1], v[2], v[0]}
	}
	fault := err
	if n := len(rows); n > 0 && rows[n-1].Fault != nil {
		fault = rows[n-1].Fault
	}
	switch {
	case failed == nil && fault != nil:
		t.Errorf("we say %s, PostgreSQL nothing", told(fault))
	case failed == nil && !slices.Equal(show(whole), showKept(rows)):
		t.Errorf("PostgreSQL:\n%s\nwe:\n%s", strings.Join(show(whole), "\n"), strings.Join(showKept(rows), "\n"))
	case failed != nil && fault != nil && failed.Code != "22001" && failed.Code != "22021" && told(fault) != toldBy(failed, failed.Where):
		t.Errorf("we say\n%s\nPostgreSQL\n%s", told(fault), toldBy(failed, failed.Where))
	}
}

// compareSplit loads what the writers make of the data.
func compareSplit(t *testing.T, rng *rand.Rand, s server, x sample, whole [][]*string, failed *pgconn.PgError) {
	targets := 2 + rng.IntN(2)
	added := rng.IntN(3) == 0
	out := make([]bytes.Buffer, targets)
	writers := make([]*exec.CopyWriter, targets)
	lines := make([]*exec.CopyLines, targets)
	d := dialectOf(t, x.statement("t"), session)
	for i := range writers {
		lines[i] = exec.NewCopyLines("t")
		writers[i] = exec.NewCopyWriter(&out[i], d, lines[i])
	}
	var fault *wire.Error
	err := each(exec.NewCopyReader(x.reader(t)), x.data, pieces(rng, len(x.data)), func(row *exec.CopyRow) {
		h := fnv.New32a()
		h.Write(row.Values[1].Bytes)
		w := writers[int(h.Sum32())%targets]
		if !added {
			if err := w.Write(row); err != nil {
				t.Error(err)
			}
		} else if fault = row.Fault; fault == nil {
			if err := w.WriteAdded(row, exec.CopyAdded{Name: "extra", Value: []byte("v\\,\"'x")}, exec.CopyAdded{Name: "more"}); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		fault = err
	}
	var all []string
	first, told2 := int64(1<<62), told(fault)
	for i, w := range writers {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		table := fmt.Sprintf("s%d.t", i)
		change := query.CopyChange{NoHeader: true}
		if added {
			change.Columns = []string{"extra", "more"}
		}
		sql, err := query.RewriteCopy(x.statement(table), query.Options{}, change)
		if err != nil {
			t.Error(err)
			return
		}
		data := unframe(t, out[i].Bytes())
		rows, refused := s.load(sql, table, data)
		if refused == nil {
			all = append(all, show(rows)...)
			continue
		}
		where := lines[i].Where(refused.Where)
		if line := lineOf(where); line < first {
			first, told2 = line, toldBy(refused, where)
		}
	}
	want2 := toldBy(failed, where(failed))
	if strings.HasSuffix(told2, "COPY t") {
		want2 = regexp.MustCompile(`(COPY t), line.*`).ReplaceAllString(want2, "$1")
	}
	if want := want2; told2 != want && !(added && excused(told2, want)) {
		t.Errorf("split over %d (added %v): said\n%s\nwhole:\n%s", targets, added, told2, want)
	}
	want := show(whole)
	slices.Sort(want)
	slices.Sort(all)
	if failed == nil && !slices.Equal(all, want) {
		t.Errorf("split over %d (added %v):\n%s\nwhole:\n%s", targets, added, strings.Join(all, "\n"), strings.Join(want, "\n"))
	}
}

func where(e *pgconn.PgError) string {
	if e == nil {
		return ""
	}
	return e.Where
}

var lineNumber = regexp.MustCompile(`^COPY t, line (\d+)`)

func lineOf(where string) int64 {
	m := lineNumber.FindStringSubmatch(where)
	if m == nil {
		return 0
	}
	n, _ := strconv.ParseInt(m[1], 10, 64)
	return n
}

// excused: with a column added the line that a shard shows has it too, and a row's fault is
// told before what is wrong with its values.
func excused(got, want string) bool {
	head := func(s string) string {
		if i := strings.Index(s, `: "`); i >= 0 && strings.Contains(s, "| COPY t, line") {
			return regexp.MustCompile(`(COPY t, line \d+).*`).ReplaceAllString(s, "$1")
		}
		return s
	}
	got, want = strings.SplitN(got, "\n", 2)[0], strings.SplitN(want, "\n", 2)[0]
	return head(got) == head(want) || strings.HasPrefix(got, "22P04 missing data") && lineOf(got[strings.Index(got, "COPY t"):]) == lineOf(want[strings.Index(want, "COPY t"):])
}
