package config

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// row is what docs/configuration.md says of one key.
type row struct{ values, def, change string }

// wantRow returns the row that the tags ask for.
func wantRow(k keyOf) row {
	r := row{values: valuesText(k.field), def: "none", change: "reload"}
	switch {
	case k.required:
		r.def = "required"
	case k.hasDef:
		r.def = "`" + k.def + "`"
	}
	if k.restart {
		r.change = "restart"
	}
	return r
}

// valuesText says in words what a key takes.
func valuesText(f field) string {
	t, many := f.typ, ""
	if t.Kind() == reflect.Slice {
		t, many = t.Elem(), ", or a list"
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	word := "text"
	switch {
	case f.enum != nil:
		word = "`" + strings.Join(f.enum, "`, `") + "`"
	case f.path:
		word = "file"
	case t == durationType:
		word = "duration"
	case t == sizeType:
		word = "size"
	case t == fileModeType:
		word = "mode"
	case t == secretType:
		word = "secret"
	case t == prefixType:
		word = "address"
	case t.Kind() == reflect.Bool:
		word = "`true`, `false`"
	case t.Kind() == reflect.Int:
		word = "number"
	}
	if f.min != "" {
		word += ", " + f.min + " to " + f.max
	}
	return word + many
}

// TestDocs holds the reference against the structs: every key is there with
// its values, default and way of change, and no other.
func TestDocs(t *testing.T) {
	data, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]row{}
	for _, line := range strings.Split(string(data), "\n") {
		key, rest, ok := strings.Cut(strings.TrimPrefix(line, "| `"), "` | ")
		if !ok || !strings.HasPrefix(line, "| `") || strings.HasPrefix(key, "$") {
			continue
		}
		cells := strings.Split(strings.TrimSuffix(rest, " |"), " | ")
		if len(cells) != 4 || cells[3] == "" {
			t.Errorf("%s: not values, default, change, meaning", key)
			continue
		}
		if _, twice := rows[key]; twice {
			t.Errorf("%s is there twice", key)
		}
		rows[key] = row{cells[0], cells[1], cells[2]}
	}
	for _, k := range keysOf(reflect.TypeFor[Config](), "") {
		if n := k.nature(); n == section || n == elements {
			if !strings.Contains(string(data), "`"+k.path+"`") {
				t.Errorf("the section %s is not named", k.path)
			}
			continue
		}
		got, ok := rows[k.path]
		if want := wantRow(k); !ok {
			t.Errorf("%s is missing; its row is | `%s` | %s | %s | %s | ... |", k.path, k.path, want.values, want.def, want.change)
		} else if got != want {
			t.Errorf("%s: %+v, want %+v", k.path, got, want)
		}
		delete(rows, k.path)
	}
	for key := range rows {
		t.Errorf("%s is no setting", key)
	}
}

// TestDocsExample reads the examples of the reference.
func TestDocsExample(t *testing.T) {
	data, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(data), "```")
	read := 0
	for i := 1; i < len(blocks); i += 2 {
		text, ok := strings.CutPrefix(blocks[i], "yaml\n")
		if !ok {
			continue
		}
		opts := testOptions
		opts.ReadFile = func(path string) ([]byte, error) {
			base := path[strings.LastIndex(path, "/")+1:]
			if strings.HasSuffix(base, ".crt") || strings.HasSuffix(base, ".key") {
				return os.ReadFile("testdata/files/" + base)
			}
			return []byte("pw\n"), nil
		}
		if _, err := parse([]byte(text), "example.yaml", opts); err != nil {
			t.Errorf("example:\n%s\n%v", text, err)
		}
		read++
	}
	if read == 0 {
		t.Error("no example")
	}
}
