package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDiffKept compares generated statements while results of all tables are kept: behind each of them some that were asked before are asked again, so that
// what a write has changed is found in whatever hangs on it. The numbers in the environment are TestDiff's.
func TestDiffKept(t *testing.T) {
	t.Parallel()
	b := &both{tables: slices.Concat(diffTables, valuesTables), limit: 4 * time.Second}
	var names []string
	for _, table := range b.tables {
		name := table.name
		if !strings.Contains(name, ".") {
			name = "public." + name
		}
		names = append(names, "'"+name+"': 1h")
	}
	b.start(t, shardCount(t), diffSchema+valuesSchema, diffPlacesFor(shardCount(t))+"    cache: {size: 16MiB, tables: {"+strings.Join(names, ", ")+"}}\n")
	eventually(t, "the catalog is there, and results are kept", func() bool {
		_, err := b.proxy.Exec(within(t, 10*time.Second), "SELECT * FROM customers WHERE id = 0")
		return err == nil && b.kept("state") == "open"
	})
	b.load()
	n := counts{}
	again := 0
	for i := range testNumber(t, "SHARDPROXY_TEST_SEQUENCES", 1) {
		if i > 0 {
			b.restore()
			b.again()
		}
		b.forgets()
		again += b.keptSequence(t, uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1)+i), &n)
	}
	hits, _ := strconv.Atoi(b.kept("hits"))
	t.Logf("%d statements: %d equal, %d of them errors, %d refused, %d skipped; %d writes accepted, %d with rows; %d queries asked again, %d answers were kept ones, %s dropped for a change",
		n.all, n.equal, n.errors, n.refused, n.skipped, n.writes, n.full, again, hits, b.kept("invalidated"))
	if hits < again/10 || b.kept("invalidated") == "0" {
		t.Errorf("%d of %d answers were kept ones", hits, again)
	}
}

// kept returns a column of SHOW CACHE.
func (b *both) kept(column string) string {
	console, _ := b.consoleOf()
	defer console.Close(within(b.t, 10*time.Second))
	return shownBy(b.t, console, "SHOW CACHE")[0][column]
}

// forgets has nothing kept: rows were put back past the program.
func (b *both) forgets() {
	console, _ := b.consoleOf()
	defer console.Close(within(b.t, 10*time.Second))
	must(b.t, console, "RESET CACHE IN app")
}

// keptSequence runs the statements of one seed, and returns how many queries were asked again.
func (b *both) keptSequence(t *testing.T, seed uint64, n *counts) (again int) {
	type query struct {
		statement
		mode mode
	}
	g := newGenerator(seed)
	var asked []query
	for i := range perSequence {
		writes := g.chance(40)
		q := query{mode: pick(g, modes)}
		switch {
		case writes:
			q.sql = g.write()
		case g.chance(50):
			q.sql = g.fans()
		default:
			q.sql = g.selects()
		}
		q.args, q.ordered = slices.Clone(g.args), g.ordered && !writes
		q.line = fmt.Sprintf("seed %d, statement %d, args %v: %s", seed, i, q.args, q.sql)
		n.all++
		got := b.one(t, &q.statement, q.mode, writes, writes && g.chance(70))
		n.add(t, got, &q.statement, writes)
		if q.wrong != "" && writes {
			b.forgets() // the rows were put back
		}
		if !writes && got != nil && got.err == nil {
			if asked = append(asked, q); len(asked) > 30 {
				asked = asked[1:]
			}
		}
		for range min(len(asked), 4) {
			q := pick(g, asked)
			if b.one(t, &q.statement, q.mode, false, false); q.wrong != "" {
				t.Errorf("behind statement %d, asked again: %s", i, q.wrong)
				n.wrong++
			}
			again++
		}
		if n.wrong > 20 {
			t.Fatal("that will do")
		}
	}
	return again
}
