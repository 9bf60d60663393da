package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/internal/pgtest"
)

// TestDump: what is made from a dump is what was made from the server.
func TestDump(t *testing.T) {
	for name, schema := range map[string]string{"tables": readFile(t, "testdata/tables/schema.sql"), "functions": schemaSQL} {
		conn := connect(t, pgtest.Shared(t).DSN("postgres"))
		if _, err := conn.Exec(t.Context(), schema); err != nil {
			t.Fatal(err)
		}
		c, err := LoadTables(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		beside, d, err := MakeDump(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", name, len(b))
		var again Dump
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatal(err)
		}
		restored, err := again.Catalog(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if restored.Version() != 1 {
			t.Errorf("version %d", restored.Version())
		}
		restored.version = 0
		for what, other := range map[string]*Catalog{"beside the dump": beside, "from the dump": restored} {
			sortOverloads(c)
			sortOverloads(other)
			// Pointers lead in circles, which DeepEqual follows once.
			if !reflect.DeepEqual(c, other) {
				t.Errorf("%s: the catalog %s is not that of the server: %s", name, what, cmp.Diff(printTables(c), printTables(other)))
			}
		}
	}
}

// sortOverloads orders what is of one name, which loading leaves in any order, and
// leaves out the reasons, of which it names any.
func sortOverloads(c *Catalog) {
	for _, list := range c.functions {
		for i := range list {
			list[i].verdict.Why = ""
		}
	}
	for _, list := range c.relations {
		for i := range list {
			list[i].read.Why, list[i].write.Why = "", ""
		}
	}
	for _, all := range []map[string][]object{c.operators, c.types} {
		for _, list := range all {
			for i := range list {
				list[i].verdict.Why = ""
			}
		}
	}
	for name, v := range c.attributes {
		v.Why = ""
		c.attributes[name] = v
	}
	sorted(c.functions)
	sorted(c.relations)
	sorted(c.operators)
	sorted(c.types)
}

func sorted[T any](all map[string][]T) {
	for _, list := range all {
		slices.SortFunc(list, func(a, b T) int { return strings.Compare(fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b)) })
	}
}

func TestDumpRefused(t *testing.T) {
	_, d, err := MakeDump(t.Context(), connect(t, pgtest.Shared(t).DSN("postgres")))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, c := range []struct{ text, want string }{
		{strings.Replace(text, `"version":1`, `"version":2`, 1), "it has version 2, and only 1 is known"},
		{`{"answers":[]}`, "it has version 0"},
		{strings.Replace(text, "pg_catalog", "other", 1), "it is not as it was written"},
		{`[]`, "cannot unmarshal"},
		{`{"version":1,"answers":3}`, "cannot unmarshal"},
	} {
		var again Dump
		if err := json.Unmarshal([]byte(c.text), &again); !errors.Is(err, ErrDump) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	for _, answers := range [][]answer{nil, d.answers[1:], d.answers[:len(d.answers)-1], append(d.answers[:len(d.answers):len(d.answers)], answer{})} {
		if _, err := (&Dump{answers}).Catalog(t.Context()); !errors.Is(err, ErrDump) || !errors.Is(err, errOtherProgram) {
			t.Errorf("%d answers: %v", len(answers), err)
		}
	}
	odd := append([]answer{}, d.answers...)
	odd[len(odd)-1].Rows = [][]*string{nil}
	if _, err := (&Dump{odd}).Catalog(t.Context()); !errors.Is(err, ErrDump) {
		t.Error(err)
	}
}

func FuzzDump(f *testing.F) {
	f.Add([]byte(`{"version":1,"sha256":"","answers":[{"query":"x","types":[23],"rows":[["1"],[null]]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Dump
		if json.Unmarshal(b, &d) != nil {
			return
		}
		if _, err := d.Catalog(t.Context()); err == nil {
			t.Error("a catalog was made from nothing")
		}
	})
}
