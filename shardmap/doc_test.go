package shardmap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

// documentedSlot matches a line of the table of docs/design/placement.md.
var documentedSlot = regexp.MustCompile("(?m)^\\| ([^|]+) \\| `([^`]+ & 4095)` \\|$")

// TestDocumentedSQL runs what the design page tells operators to run.
func TestDocumentedSQL(t *testing.T) {
	page, err := os.ReadFile("../docs/design/placement.md")
	if err != nil {
		t.Fatal(err)
	}
	db := pgtest.Shared(t)
	lines := documentedSlot.FindAllStringSubmatch(string(page), -1)
	checked := map[string]int{}
	for _, line := range lines {
		// "any of these" and "the same on PostgreSQL 13" are for all types.
		all := strings.Contains(line[1], "any of these") || strings.Contains(line[1], "the same")
		for _, typ := range sqlTypes() {
			if all || strings.Contains(line[1], "`"+typ.name+"`") {
				checkSQL(t, db, typ, line[2])
				checked[typ.name]++
			}
		}
	}
	if len(lines) != 8 {
		t.Errorf("%d lines of SQL on the page", len(lines))
	}
	for _, typ := range sqlTypes() {
		if checked[typ.name] < 2 {
			t.Errorf("%s: %d expressions", typ.name, checked[typ.name])
		}
	}
}

// checkSQL compares an expression for the slot of k over rows of a table.
func checkSQL(t *testing.T, db *pgtest.Database, typ sqlType, expression string) {
	t.Helper()
	random := rand.New(rand.NewPCG(11, uint64(typ.key)))
	texts := typ.edges
	for range 50 {
		texts = append(texts, typ.random(random))
	}
	table := "t_" + typ.name
	var values []string
	for i, text := range texts {
		values = append(values, fmt.Sprintf("(%d, %s)", i, quote(text)))
	}
	// The expressions serve in indexes: they are immutable.
	db.Exec(fmt.Sprintf("DROP TABLE IF EXISTS %[1]s; CREATE TABLE %[1]s (n int4, k %[2]s); INSERT INTO %[1]s VALUES %[3]s; CREATE INDEX ON %[1]s ((%[4]s))",
		table, typ.name, strings.Join(values, ", "), expression))
	for i, row := range db.Rows(fmt.Sprintf("SELECT %s FROM %s ORDER BY n", expression, table)) {
		hash, err := typ.key.HashText([]byte(texts[i]))
		if got := fmt.Sprint(SlotOf(hash, DefaultSlots)); err != nil || got != row[0] {
			t.Errorf("%s: slot of %q is %s, want %s, %v", expression, texts[i], row[0], got, err)
		}
	}
}
