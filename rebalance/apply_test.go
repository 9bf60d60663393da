package rebalance

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"shardproxy/shardmap"
)

// applyTable is a table of an id, a key and a document, by its primary key.
func applyTable(identity ...int) *carryFacts {
	t := &Table{Schema: "s", Name: "t", Columns: []Column{{"id", "integer"}, {"tenant", "bigint"}, {"doc", "text"}}, Identity: identity,
		Key: []int{1}, Types: []shardmap.KeyType{shardmap.Int8}, Slots: carryTestSlots}
	f := &carryFacts{table: t, oid: 1, equal: []string{"=", "="}, columns: make([]carryColumn, 3), statements: map[string]*applyStatement{}}
	return f
}

// applyRow is a row from words: "-" is NULL, "?" was not sent.
func applyRow(text string) *streamRow {
	if text == "" {
		return nil
	}
	row := &streamRow{values: make([][]byte, 3)}
	for i, word := range strings.Fields(text) {
		switch word {
		case "-":
		case "?":
			row.unsent = append(row.unsent, i)
		default:
			row.values[i] = []byte(word)
		}
	}
	return row
}

// TestApplySteps: what each kind of change means for the target. The tenant 1 moves, the tenant 2 does not.
func TestApplySteps(t *testing.T) {
	hash, err := shardmap.Int8.HashText([]byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	slots := NewSet([]shardmap.Slot{shardmap.SlotOf(hash, carryTestSlots)}, carryTestSlots)
	keyed, plain := []int{0, 1}, []int{0}
	for _, test := range []struct {
		name     string
		identity []int
		kind     string // of change and of old row
		old, row string
		want     string
	}{
		{"insert here", plain, "I", "", "7 1 x", "i(7 1 x)"},
		{"insert elsewhere", plain, "I", "", "7 2 x", ""},
		{"insert without a key", plain, "I", "", "7 - x", ""},
		{"delete", plain, "DK", "7 - -", "", "d[7]"},
		{"delete, keyed, here", keyed, "DK", "7 1 -", "", "d[7 1]"},
		{"delete, keyed, elsewhere", keyed, "DK", "7 2 -", "", ""},
		{"delete, whole row", plain, "DO", "7 2 x", "", ""},
		{"stays, or comes", plain, "U", "", "7 1 x", "p(7 1 x)[7]"},
		{"stays, or comes; large", plain, "U", "", "7 1 ?", "u(7 1 ?)[7]!"},
		{"goes, or stays away", plain, "U", "", "7 2 x", "d[7]"},
		{"goes, or stays away; without a key", plain, "U", "", "7 - x", "d[7]"},
		{"key not sent", plain, "U", "", "7 ? x", "u(7 ? x)[7]"},
		{"stays, keyed", keyed, "U", "", "7 1 ?", "u(7 1 ?)[7 1]!"},
		{"stays away, keyed", keyed, "U", "", "7 2 ?", ""},
		{"renamed", plain, "UK", "6 - -", "7 1 x", "d[6] i(7 1 x)"},
		{"renamed; large", plain, "UK", "6 - -", "7 1 ?", "d[6] i(7 1 ?)"},
		{"renamed and goes", plain, "UK", "6 - -", "7 2 ?", "d[6]"},
		{"renamed, key not sent", plain, "UK", "6 - -", "7 ? x", "d[6] i(7 ? x)?"},
		{"renamed, keyed, within", keyed, "UK", "6 1 -", "7 1 ?", "d[6 1] i(7 1 ?)"},
		{"comes, keyed", keyed, "UK", "7 2 -", "7 1 ?", "i(7 1 ?)"},
		{"goes, keyed", keyed, "UK", "7 1 -", "7 2 ?", "d[7 1]"},
		{"stays away, keyed, renamed", keyed, "UK", "6 2 -", "7 2 ?", ""},
		{"identity stored apart", keyed, "UK", "7 1 -", "? ? x", "u(7 1 x)[7 1]!"},
		{"whole row, stays", plain, "UO", "7 1 y", "7 1 ?", "u(7 1 y)[7]!"},
		{"whole row, comes", plain, "UO", "7 2 y", "7 1 ?", "i(7 1 y)"},
		{"whole row, goes", plain, "UO", "7 1 y", "7 2 ?", "d[7]"},
		{"whole row, renamed", plain, "UO", "6 1 y", "7 1 ?", "d[6] i(7 1 y)"},
		{"whole row, stays away", plain, "UO", "7 2 y", "7 2 ?", ""},
		{"whole row, NULL", plain, "UO", "7 1 -", "7 1 ?", "u(7 1 -)[7]!"},
		{"identity not sent", plain, "U", "", "? 1 x", "unproven"},
		{"key that is none", plain, "I", "", "7 one x", "unproven"},
		{"insert not sent", plain, "I", "", "7 1 ?", "unproven"},
	} {
		c := streamChange{kind: test.kind[0], old: applyRow(test.old), row: applyRow(test.row)}
		if len(test.kind) > 1 {
			c.was = test.kind[1]
		}
		steps, err := applySteps(applyTable(test.identity...), slots, c)
		var words []string
		for _, s := range steps {
			words = append(words, applyWords(&s))
		}
		var known *CarryError
		if errors.As(err, &known) {
			words = []string{string(known.Cause)}
		}
		if got := strings.Join(words, " "); got != test.want {
			t.Errorf("%s: %s, want %s", test.name, got, test.want)
		}
	}
}

func applyWords(s *applyStep) string {
	word := string(s.kind)
	if s.row != nil {
		values := make([]string, len(s.row.values))
		for i, v := range s.row.values {
			if values[i] = string(v); v == nil {
				values[i] = "-"
			}
		}
		for _, at := range s.row.unsent {
			values[at] = "?"
		}
		word += "(" + strings.Join(values, " ") + ")"
	}
	if s.id != nil {
		word += fmt.Sprintf("%s", s.id)
	}
	if s.expected {
		word += "!"
	}
	if s.unplaced {
		word += "?"
	}
	return word
}

func TestApplyEpoch(t *testing.T) {
	const e = 1 << 32
	for _, test := range []struct {
		next uint64
		xid  uint32
		want uint64
	}{{1000, 990, 990}, {1000, 1005, 1005}, {3*e + 5, 4294967290, 3*e - 6}, {3*e - 6, 4, 3*e + 4}, {2*e + 100, 90, 2*e + 90}, {5, 4294967290, 4294967290}} {
		if got := applyEpoch(test.next, test.xid); got != test.want {
			t.Errorf("%d at %d: %d, want %d", test.xid, test.next, got, test.want)
		}
	}
}

// TestApplyStatements: what is not sent is not named, and rows of other slots are left alone where the primary key does not tell.
func TestApplyStatements(t *testing.T) {
	for _, test := range []struct {
		identity []int
		kind     applyKind
		row      string
		want     string
	}{
		{[]int{0, 1}, applyDelete, "", `DELETE FROM ONLY "s"."t" WHERE "id" = $1::integer AND "tenant" = $2::bigint`},
		{[]int{0}, applyDelete, "", `DELETE FROM ONLY "s"."t" WHERE "id" = $1::integer AND mine`},
		{[]int{0}, applyInsert, "1 2 3", `INSERT INTO "s"."t" ("id", "tenant", "doc") OVERRIDING SYSTEM VALUE VALUES ($1::integer, $2::bigint, $3::text)`},
		{[]int{0}, applyUpdate, "1 2 ?", `UPDATE ONLY "s"."t" SET "tenant" = $1::bigint WHERE "id" = $2::integer AND mine`},
		{[]int{0, 1}, applyUpdate, "1 2 ?", `SELECT FROM ONLY "s"."t" WHERE "id" = $1::integer AND "tenant" = $2::bigint FOR UPDATE`},
		{[]int{0}, applyUpsert, "1 2 3", `WITH u AS (UPDATE ONLY "s"."t" SET "tenant" = $2::bigint, "doc" = $3::text WHERE "id" = $4::integer AND mine RETURNING 1) ` +
			`INSERT INTO "s"."t" ("id", "tenant", "doc") OVERRIDING SYSTEM VALUE SELECT $1::integer, $2::bigint, $3::text WHERE NOT EXISTS (SELECT FROM u)`},
	} {
		f := applyTable(test.identity...)
		f.guard = "mine"
		s := &applyStep{facts: f, kind: test.kind, row: applyRow(test.row)}
		if got := s.statement(map[*Table]*carryFacts{f.table: f}).sql; got != test.want {
			t.Errorf("%s\nwant %s", got, test.want)
		}
	}
}

// FuzzStreamTuple: malformed rows are errors, and no more than what is there is read.
func FuzzStreamTuple(f *testing.F) {
	f.Add([]byte{0, 2, 'n', 't', 0, 0, 0, 1, 'x'})
	f.Add([]byte{0, 2, 'u', 't', 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, data []byte) {
		row, rest, err := streamTuple(data, 2)
		if err == nil && (len(row.values) != 2 || len(rest) > len(data)) {
			t.Errorf("%v, %d of %d bytes left", row, len(rest), len(data))
		}
	})
}

// TestThrottle: a rate bounds, and may be changed while somebody waits.
func TestThrottle(t *testing.T) {
	var throttle Throttle
	begin := time.Now()
	for range 1000 {
		if err := throttle.take(t.Context(), 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("without a rate it took %s", d)
	}
	throttle.SetRate(1 << 20)
	begin = time.Now()
	for range 10 { // half a second's bytes, a tenth of which may go at once
		if err := throttle.take(t.Context(), 1<<20/20); err != nil {
			t.Fatal(err)
		}
	}
	if d := time.Since(begin); d < 300*time.Millisecond {
		t.Errorf("half a second's bytes in %s", d)
	}
	done := make(chan error)
	go func() { done <- throttle.take(t.Context(), 1<<30) }() // a quarter of an hour
	carrySleepFor(t, 100*time.Millisecond)
	throttle.SetRate(0)
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it still waits though there is no bound any more")
	}
}
