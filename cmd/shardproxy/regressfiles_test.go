//go:build regress

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/query"
)

// The files of PostgreSQL's own regression suite that are about queries, with their tables
// declared sharded: each statement runs on one PostgreSQL and through the program in front of
// two shards. scripts/regress-shards.sh brings the suite and runs this; what each file comes to is kept in
// testdata/regress/shards.txt.

// regressPlaces are the suite's tables that are sharded. Others are single tables.
const regressPlaces = `      onek:     {key: unique1}
      tenk1:    {key: unique1}
      tenk2:    {key: unique1}
      int4_tbl: {key: f1}
      int8_tbl: {key: q1}
      text_tbl: {key: f1}
      aggtest:  {key: a}
      j1_tbl:   {key: i}
      j2_tbl:   {key: i}
      subselect_tbl: {key: f1}
      gstest2:  {key: a}
      case_tbl: {key: i}
      case2_tbl: {reference: true}
`

// regressFiles are run in this order, each with what those before it have left.
var regressFiles = []string{
	"select", "select_distinct", "select_having", "limit", "case", "union", "subselect", "aggregates", "window", "groupingsets", "with", "join",
}

// regressScore is what became of the statements of a file.
type regressScore struct{ equal, refused, behind, varies, wrong int }

// TestRegressFiles compares the statements of the suite in the folder SHARDPROXY_TEST_REGRESS, of the
// files that SHARDPROXY_TEST_REGRESS_FILES names, or all.
func TestRegressFiles(t *testing.T) {
	suite := os.Getenv("SHARDPROXY_TEST_REGRESS")
	if suite == "" {
		t.Fatal("scripts/regress-shards.sh runs this with PostgreSQL's regression suite")
	}
	b := startRegress(t, suite)
	files := regressFiles
	if only := os.Getenv("SHARDPROXY_TEST_REGRESS_FILES"); only != "" {
		files = strings.Fields(only)
	}
	var table strings.Builder
	fmt.Fprintf(&table, "%-16s %6s %8s %7s %7s %6s\n", "file", "equal", "refused", "behind", "varies", "wrong")
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(suite, "sql", file+".sql"))
			if err != nil {
				t.Fatal(err)
			}
			s := b.regressFile(t, regressText(text))
			fmt.Fprintf(&table, "%-16s %6d %8d %7d %7d %6d\n", file, s.equal, s.refused, s.behind, s.varies, s.wrong)
		})
	}
	t.Log("\n" + table.String())
	if out := os.Getenv("SHARDPROXY_TEST_REGRESS_OUT"); out != "" {
		if err := os.WriteFile(out, []byte(table.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// regressBoth is both sides with what a statement that was refused may have changed.
type regressBoth struct {
	*both
	// twin is a server like that of direct, whose rows lie in another order: what it answers otherwise depends
	// on that.
	twin    *pgx.Conn
	twinDSN string
	// apart are the names of what a refused statement would have made or changed.
	apart []string
}

// startRegress makes the suite's tables on one server, and with its definitions and rows the shards.
func startRegress(t *testing.T, suite string) *regressBoth {
	t.Helper()
	b := &regressBoth{both: &both{limit: 20 * time.Second}}
	clusters := startClusters(t, 4)
	bin := clusters[0].Binaries()
	run := func(input []byte, program string, args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin.Path(program), args...)
		cmd.Stdin = bytes.NewReader(input)
		cmd.Env = append(os.Environ(), "PG_ABS_SRCDIR="+suite, "PG_LIBDIR="+suite, "PG_DLSUFFIX=.so", "PGTZ=PST8PDT", "PGDATESTYLE=Postgres, MDY")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", program, err)
		}
		return out
	}
	var list strings.Builder
	var dump []byte
	for i := range clusters {
		cl := clusters[len(clusters)-1-i] // the one for all is the first
		dsn := cl.Primary().DSN("app", "app")
		owner, err := cl.Primary().Connect(t.Context(), "app")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = owner.Close(within(t, 10*time.Second)) })
		must(t, owner, "ALTER ROLE app SUPERUSER")
		if i == 0 {
			run(nil, "psql", "-X", "-q", "-d", dsn, "-f", filepath.Join(suite, "sql", "test_setup.sql"))
			dump = run(nil, "pg_dump", "-d", dsn, "--schema-only", "--no-owner", "--schema=public")
			dump = regexp.MustCompile(`(?m)^(CREATE SCHEMA public|\\(un)?restrict.*);?$`).ReplaceAll(dump, nil)
			b.owner, b.dsnOfAll = owner, dsn
			continue
		}
		run(dump, "psql", "-X", "-q", "-d", dsn, "-f", "-")
		if i == 1 {
			b.twinDSN = dsn
			continue
		}
		b.shards = append(b.shards, pgtest.Connect(t, dsn))
		fmt.Fprintf(&list, "      - {name: s%d, nodes: [%q]}\n", i-2, cl.Primary().Addr())
	}
	b.proxied = &proxied{t: t, addr: freeAddr(t), path: filepath.Join(t.TempDir(), "shardproxy.yaml")}
	b.write(strings.NewReplacer("%SHARDS%", list.String(), "%TABLES%", regressPlaces, "%LISTEN%", b.addr, "%ADMIN%", freeAddr(t)).Replace(bothText))
	b.initialise()
	b.run()
	b.again()
	eventually(t, "the catalog is there", func() bool {
		_, err := b.proxy.Exec(within(t, 10*time.Second), "SELECT * FROM tenk1 WHERE unique1 = 0")
		return err == nil
	})
	b.regressRows()
	return b
}

// again connects both sides anew, as the suite's runner does.
func (b *regressBoth) again() {
	b.both.again()
	b.twin = b.connectTo(fmt.Sprintf("%s&statement_timeout=%d", b.twinDSN, b.limit.Milliseconds()))
	for _, c := range []*pgx.Conn{b.proxy, b.direct, b.twin} {
		must(b.t, c, "SET timezone = 'PST8PDT'")
		must(b.t, c, "SET datestyle = 'Postgres, MDY'")
		must(b.t, c, "SET intervalstyle = postgres_verbose")
	}
}

// regressRows copies the rows of all tables through the program.
func (b *regressBoth) regressRows() {
	t := b.t
	t.Helper()
	rows, err := b.owner.Query(t.Context(), "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		var data bytes.Buffer
		if _, err := b.owner.PgConn().CopyTo(t.Context(), &data, "COPY ONLY "+name+" TO STDOUT"); err != nil {
			data.Reset()
			if _, err := b.owner.PgConn().CopyTo(t.Context(), &data, "COPY (SELECT * FROM ONLY "+name+") TO STDOUT"); err != nil {
				t.Fatal(name, err)
			}
		}
		lines := bytes.SplitAfter(data.Bytes(), []byte("\n"))
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
		if _, err := b.twin.PgConn().CopyFrom(t.Context(), bytes.NewReader(bytes.Join(lines, nil)), "COPY "+name+" FROM STDIN"); err != nil {
			t.Fatal(name, err)
		}
		if _, err := b.proxy.PgConn().CopyFrom(t.Context(), &data, "COPY "+name+" FROM STDIN"); err != nil {
			t.Fatal(name, err)
		}
	}
	for _, c := range append(slices.Clone(b.shards), b.owner, b.twin) {
		must(t, c, "ANALYZE")
	}
}

var (
	copyData  = regexp.MustCompile(`(?ims)^copy [^;]* from stdin[^;]*;.*?^\\\.$`)
	temporary = regexp.MustCompile(`(?i)\b(create|or replace)(\s+local|\s+global)?\s+temp(orary)?\b`)
	// Plans are each server's own, and so is what depends on where a row lies; the last depends on the order of rows, and
	// both servers happen to have one that gives the same.
	leftOut = regexp.MustCompile(`(?i)^(explain|vacuum|analyze|cluster|reindex|checkpoint|set enable_|reset enable_|set (local )?(work_mem|hash_mem|min_parallel|parallel_|max_parallel|jit|cpu_|seq_|random_page|force_parallel)|reset (work_mem|hash_mem|min_parallel|parallel_|max_parallel|jit|cpu_|force_parallel))|\bctid\b|tableoid|random\(\)|explain_|:'|:"|\bpg_class\b|regclass|rows between current row and 9223372036854775807 following exclude current row`)
	// The numbers of types that users make are each server's own.
	ownTypes = regexp.MustCompile(`:(1[6-9]\d{3}|[2-9]\d{4,}):`)
	orders   = regexp.MustCompile(`(?is)\border\s+by\b`)
	makes    = regexp.MustCompile(`(?is)^\s*(?:create|alter|drop|insert\s+into|update|delete\s+from|truncate|copy|select\b.*\binto)\b`)
	names    = regexp.MustCompile(`(?i)\b(?:table|view|function|type|aggregate|operator|rule|trigger|sequence|into|from|update|only)\s+(?:if\s+(?:not\s+)?exists\s+)?([a-z_][a-z0-9_]*)`)
)

// regressText makes a file's text one without data of COPY, and without temporary tables, which would tie the
// session to one server.
func regressText(text []byte) []byte {
	text = copyData.ReplaceAll(text, nil)
	return temporary.ReplaceAll(text, []byte("$1"))
}

// regressFile runs the statements of a file.
func (b *regressBoth) regressFile(t *testing.T, text []byte) (s regressScore) {
	b.again()
	b.apart = nil
	for _, span := range query.Split(text) {
		sql := strings.TrimSpace(string(text[span.Start:span.End]))
		if sql == "" || leftOut.MatchString(sql) {
			continue
		}
		b.regressStatement(t, sql, &s)
	}
	for _, c := range []*pgx.Conn{b.proxy, b.direct, b.twin} {
		_, _ = c.Exec(within(t, 30*time.Second), "ROLLBACK")
	}
	return s
}

func (b *regressBoth) regressStatement(t *testing.T, sql string, s *regressScore) {
	if b.proxy.IsClosed() {
		t.Errorf("the session has ended before %s", sql)
		b.again()
	}
	before := b.proxy.PgConn().TxStatus()
	got := ask(t, b.proxy, modes[0], sql, nil)
	// A cursor that was not declared with SCROLL goes back where a plan happens to allow it.
	backward := got.err != nil && got.err.Code == "55000" && got.err.Message == "cursor can only scan forward"
	why := got.refused()
	if why == "" && got.err != nil && got.err.Code == "0A000" {
		// PostgreSQL's own, or one for what only a proxy has.
		if want := ask(t, b.direct, modes[0], sql, nil); want.err != nil && want.err.Code == "0A000" {
			_ = ask(t, b.twin, modes[0], sql, nil)
			s.equal++
			return
		}
		why = got.err.Message
	}
	if why != "" || backward {
		s.refused++
		if why == "" {
			why = got.err.Message
		}
		t.Logf("refused: %s\n\t%s", why, oneLineOf(sql))
		if makes.MatchString(sql) {
			for _, n := range names.FindAllStringSubmatch(sql, -1) {
				b.apart = append(b.apart, strings.ToLower(n[1]))
			}
		}
		if before == 'T' && b.proxy.PgConn().TxStatus() == 'E' { // the other's transaction is to have failed, too
			for _, c := range []*pgx.Conn{b.direct, b.twin} {
				_, _ = c.Exec(within(t, 30*time.Second), "SELECT 1/0")
			}
		}
		return
	}
	want, other := ask(t, b.direct, modes[0], sql, nil), ask(t, b.twin, modes[0], sql, nil)
	for _, a := range []*answer{&got, &want, &other} {
		a.columns = ownTypes.ReplaceAllString(a.columns, ":own:")
	}
	d := difference(&got, &want, false)
	if d == "" && orders.MatchString(sql) && len(got.rows) > 0 && !slices.Equal(got.rows, want.rows) {
		t.Logf("another order, of ties if it is right: %s", oneLineOf(sql))
	}
	switch {
	case d == "":
		s.equal++
	case slices.ContainsFunc(b.apart, func(n string) bool { return regexp.MustCompile(`(?i)\b` + n + `\b`).MatchString(sql) }):
		s.behind++
		t.Logf("behind a refusal: %s: %s", oneLineOf(sql), d)
	case difference(&other, &want, false) != "":
		s.varies++
	default:
		s.wrong++
		t.Errorf("%s\n\t%s", oneLineOf(sql), d)
	}
}

func oneLineOf(sql string) string { return strings.Join(strings.Fields(sql), " ") }
