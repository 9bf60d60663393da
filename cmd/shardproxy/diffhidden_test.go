package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
	"shardproxy/shardmap"
)

// While slots move, shards hold rows that are not theirs. Here every shard holds all rows of all the others, and everything
// must be answered and written as if they were not there.

// strayKeys are the keys of the tables whose rows lie in slots.
var strayKeys = map[string]struct {
	types   []shardmap.KeyType
	columns []string
}{
	"customers": {[]shardmap.KeyType{shardmap.Int8}, []string{"id"}}, "orders": {[]shardmap.KeyType{shardmap.Int8}, []string{"customer_id"}},
	"items": {[]shardmap.KeyType{shardmap.Int4}, []string{"customer_id"}}, "addresses": {[]shardmap.KeyType{shardmap.Int8}, []string{"customer_id"}},
	"tenants": {[]shardmap.KeyType{shardmap.Text}, []string{"tenant"}}, "events": {[]shardmap.KeyType{shardmap.Text, shardmap.Date}, []string{"tenant", "day"}},
	"devices": {[]shardmap.KeyType{shardmap.UUID}, []string{"id"}}, "days": {[]shardmap.KeyType{shardmap.Date}, []string{"day"}},
	"amounts": {[]shardmap.KeyType{shardmap.Numeric}, []string{"amount"}}, "flags": {[]shardmap.KeyType{shardmap.Bool}, []string{"flag"}},
	"moments": {[]shardmap.KeyType{shardmap.Timestamp}, []string{"at"}}, "codes": {[]shardmap.KeyType{shardmap.Text}, []string{"code"}},
	"loose": {[]shardmap.KeyType{shardmap.Int8}, []string{"customer_id"}}, "logs": {[]shardmap.KeyType{shardmap.Int8}, []string{"customer_id"}},
	"tickets": {[]shardmap.KeyType{shardmap.Int8}, []string{"customer_id"}}, "emails": {[]shardmap.KeyType{shardmap.Int8}, []string{"customer_id"}},
	"facts": {[]shardmap.KeyType{shardmap.Int8}, []string{"k"}}, "shapes": {[]shardmap.KeyType{shardmap.Int8}, []string{"k"}}, "sums": {[]shardmap.KeyType{shardmap.Int8}, []string{"k"}},
	"nothing": {[]shardmap.KeyType{shardmap.Int8}, []string{"k"}}, "huge": {[]shardmap.KeyType{shardmap.Int8}, []string{"k"}},
	`"Odd Table"`: {[]shardmap.KeyType{shardmap.Int8}, []string{`"Key"`}}, "side.visits": {[]shardmap.KeyType{shardmap.Int8}, []string{"k"}},
	"links": {[]shardmap.KeyType{shardmap.Int8}, []string{"k"}},
}

// strays are the rows that shards hold and do not own.
type strays struct {
	b     *both
	there [][]fingerprint // by shard and table, since put
}

// slotOf is the slot of a row as SQL, "" for tables without slots.
func slotOf(table comparedTable) string {
	k, ok := strayKeys[table.name]
	if !ok {
		return ""
	}
	return shardmap.SlotSQL(k.types, k.columns, shardmap.DefaultSlots)
}

func hides(table comparedTable, bit int) string {
	return fmt.Sprintf(" WHERE coalesce(get_bit((SELECT slots FROM shardproxy.hidden), %s), 0) = %d", slotOf(table), bit)
}

// owned is the condition of the rows that a shard owns.
func (s *strays) owned(table comparedTable) string {
	if s == nil || slotOf(table) == "" {
		return ""
	}
	return hides(table, 0)
}

// stray is the condition of those that it hides.
func (s *strays) stray(table comparedTable) string {
	if slotOf(table) == "" {
		return " WHERE false"
	}
	return hides(table, 1)
}

// left reports whether the strays are what they were.
func (s *strays) left(after string) (same bool) {
	s.b.t.Helper()
	same = true
	for i, c := range s.b.shards {
		for j, f := range s.b.fingerprints(c, s.stray) {
			if f != s.there[i][j] {
				s.b.t.Errorf("after %s: of %s shard %d hides other rows than before (%d, not %d)", after, s.b.tables[j].name, i, f.rows, s.there[i][j].rows)
				same = false
			}
		}
	}
	return same
}

// put gives every shard the rows of all others.
func (s *strays) put() {
	t, b := s.b.t, s.b
	t.Helper()
	s.there = nil
	for i, c := range b.shards {
		for j, table := range b.tables {
			if slotOf(table) == "" {
				continue
			}
			must(t, c, "DROP TABLE IF EXISTS pg_temp.stray; CREATE TEMP TABLE stray AS SELECT * FROM "+table.name+" WHERE false")
			for other := range b.shards {
				if other == i {
					continue
				}
				if _, err := c.PgConn().CopyFrom(within(t, time.Minute), bytes.NewReader(b.copies[other*len(b.tables)+j]), "COPY stray FROM STDIN"); err != nil {
					t.Fatal(err)
				}
			}
			must(t, c, "INSERT INTO "+table.name+" SELECT * FROM stray"+s.stray(table)+" ON CONFLICT DO NOTHING")
		}
		must(t, c, "DROP TABLE pg_temp.stray")
		s.there = append(s.there, b.fingerprints(c, s.stray))
	}
}

// hide has every shard hide the slots that it does not own, and tells the program.
func (b *both) hide(t *testing.T) {
	t.Helper()
	var home *pgx.Conn
	for i, dsn := range b.control {
		c := pgtest.Connect(t, dsn)
		if i == 0 {
			home = c
		}
		var bits strings.Builder
		rows, err := home.Query(within(t, 10*time.Second), "SELECT CASE WHEN shard = $1 THEN '0' ELSE '1' END FROM shardproxy.slots ORDER BY slot", fmt.Sprintf("s%d", i))
		if err != nil {
			t.Fatal(err)
		}
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		for _, bit := range all {
			bits.WriteString(bit)
		}
		must(t, c, "UPDATE shardproxy.hidden SET slots = '"+bits.String()+"'::bit varying")
	}
	nobodyMoves(t, home)
	m, _, err := metadata.Load(within(t, 10*time.Second), home)
	if err == nil {
		err = metadata.Change(within(t, 10*time.Second), home, m.Epoch(), m.Guard(m.Epoch()+1, true))
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the program leaves hidden rows out", func() bool {
		lines := pgtest.Connect(t, b.dsn())
		rows, err := lines.Query(within(t, 10*time.Second), "EXPLAIN SELECT * FROM orders")
		if err != nil {
			t.Fatal(err)
		}
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		return err == nil && strings.Contains(strings.Join(plan, " "), "get_bit")
	})
	b.strays = &strays{b: b}
	b.strays.put()
}

// TestDiffHidden runs the corpus, and generated statements, over shards that hide rows. The file keeps what is refused then, and only
// then. With SHARDPROXY_TEST_SEQUENCES all of the corpus is run, and else one line in eight.
func TestDiffHidden(t *testing.T) {
	t.Parallel()
	b := startBoth(t)
	b.hide(t)
	every := 8
	if os.Getenv("SHARDPROXY_TEST_SEQUENCES") != "" || rewriteHidden() {
		every = 1
	}
	t.Run("corpus", func(t *testing.T) { b.corpusHidden(t, every) })
	b.restore()
	t.Run("random", func(t *testing.T) {
		b.random(t, testNumber(t, "SHARDPROXY_TEST_SEQUENCES", 1), testNumber(t, "SHARDPROXY_TEST_SEED", 7))
	})
}

const hiddenGolden = "testdata/diff/hidden.txt"

// rewriteHidden says that the file is to be written anew: -rewrite, as for those of the corpus.
func rewriteHidden() bool {
	f := flag.Lookup("rewrite")
	return f != nil && f.Value.String() == "true"
}

func (b *both) corpusHidden(t *testing.T, every int) {
	known, err := os.ReadFile(hiddenGolden)
	if err != nil && !rewriteHidden() {
		t.Fatal(err)
	}
	n, equal, also := 0, 0, 0
	var wrong, refused []string
	datadriven.Walk(t, "testdata/diff/corpus", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			writes := d.Cmd == "writes"
			for line := range strings.Lines(d.Input) {
				st, ok := readLine(t, strings.TrimSpace(line))
				if n++; !ok || n%every != 0 {
					continue
				}
				lines := b.compareLine(t, &st, writes)
				switch {
				case strings.Contains(st.wrong, "argument of AND must be type boolean"): // of WHERE, with the same SQLSTATE
					equal++
				case st.wrong != "":
					wrong = append(wrong, st.wrong)
				case !strings.Contains(lines, "  refused"):
					equal++
				case slices.Contains(strings.Split(d.Expected, "\n"), st.line):
					also++
				default:
					refused = append(refused, st.line+"\n"+lines)
				}
				if d.Cmd == "ties" {
					b.again()
				}
			}
			b.again()
			if writes {
				b.restore()
			}
			return d.Expected
		})
	})
	for _, w := range wrong {
		t.Error(w)
	}
	t.Logf("%d statements equal, %d refused as ever, %d refused while slots move", equal, also, len(refused))
	if rewriteHidden() {
		if err := os.WriteFile(hiddenGolden, []byte(strings.Join(refused, "")), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, r := range refused {
		if len(b.shards) == 2 && !strings.Contains(string(known), r) {
			t.Errorf("refused while slots move, and not known to be:\n%s", r)
		}
	}
}
