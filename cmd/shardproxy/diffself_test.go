package main

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// TestDiffSelf runs the statements of the corpus that read all shards on two single
// servers, whose rows lie in another order: they have one answer each, as far as they say
// that rows are ordered, or the comparison with the program says nothing.
func TestDiffSelf(t *testing.T) {
	clusters := startClusters(t, 2)
	b := &both{tables: slices.Concat(diffTables, valuesTables), limit: 4 * time.Second, proxied: &proxied{t: t}}
	other := pgtest.Connect(t, clusters[1].Primary().DSN("app", "app"))
	b.dsnOfAll = clusters[0].Primary().DSN("app", "app")
	b.owner = pgtest.Connect(t, b.dsnOfAll)
	must(t, b.owner, diffSchema+valuesSchema)
	must(t, other, diffSchema+valuesSchema)
	for sql := range diffRows() {
		must(t, b.owner, sql)
	}
	for _, table := range b.tables {
		var out bytes.Buffer
		if _, err := b.owner.PgConn().CopyTo(within(t, time.Minute), &out, "COPY (SELECT * FROM "+table.name+") TO STDOUT"); err != nil {
			t.Fatal(err)
		}
		lines := slices.Collect(strings.Lines(out.String()))
		slices.Reverse(lines)
		if _, err := other.PgConn().CopyFrom(within(t, time.Minute), strings.NewReader(strings.Join(lines, "")), "COPY "+table.name+" FROM STDIN"); err != nil {
			t.Fatal(err)
		}
	}
	b.direct, b.proxy = b.connectTo(b.dsnOfAll), b.connectTo(clusters[1].Primary().DSN("app", "app"))
	statements := 0
	for st := range fanLines(t) {
		if st.varies {
			continue
		}
		statements++
		for _, m := range []mode{modes[0], modes[2], modes[4]} {
			if !m.raw && slices.ContainsFunc(st.args, isTyped) {
				continue
			}
			if why := b.compare(t, st, m, false); why != "" && testing.Verbose() {
				t.Logf("%s: %s", why, st.line)
			}
		}
		if st.wrong != "" {
			t.Error(st.wrong)
		}
	}
	t.Logf("%d statements", statements)
	t.Run("random", b.selfRandom)
}

// fanLines gives the lines of the corpus that read all shards.
func fanLines(t *testing.T) iter.Seq[*statement] {
	t.Helper()
	files, err := filepath.Glob("testdata/diff/corpus/fan*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	return func(yield func(*statement) bool) {
		for _, path := range files {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			reads, _, _ := strings.Cut(string(content), "\n----")
			reads, ok := strings.CutPrefix(reads, "reads\n")
			if !ok {
				continue
			}
			for line := range strings.Lines(reads) {
				if st, ok := readLine(t, strings.TrimSpace(line)); ok && !yield(&st) {
					return
				}
			}
		}
	}
}

// selfRandom does so with generated statements, SHARDPROXY_TEST_SEQUENCES times 300. Few
// are errors, most give rows.
func (b *both) selfRandom(t *testing.T) {
	var n counts
	seed := testNumber(t, "SHARDPROXY_TEST_SEED", 1)
	for i := range testNumber(t, "SHARDPROXY_TEST_SEQUENCES", 1) {
		g := newGenerator(uint64(seed + i))
		for range perSequence {
			st := statement{sql: g.fans()}
			st.args, st.ordered = g.args, g.ordered
			st.line = fmt.Sprintf("seed %d, args %v: %s", seed+i, st.args, st.sql)
			n.all++
			n.add(t, b.one(t, &st, pick(g, modes), false, false), &st, false)
		}
	}
	t.Logf("%d statements, %d errors, %d skipped, %d with rows; %v", n.all, n.errors, n.skipped, n.full, n.codes)
	if n.errors > n.all/10 || n.full < n.all/2 {
		t.Error("too many errors, or too few rows")
	}
}
