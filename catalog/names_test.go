package catalog

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitNames(t *testing.T) {
	for _, c := range []struct {
		value string
		names []string
		ok    bool
	}{
		{"", nil, true},
		{"  ", nil, true},
		{`""`, []string{""}, true},
		{`"$user", public`, []string{"$user", "public"}, true},
		{"A ,B", []string{"a", "b"}, true},
		{`"A b""c",d`, []string{`A b"c`, "d"}, true},
		{"a b", nil, false},
		{"a,", nil, false},
		{",a", nil, false},
		{`"a`, nil, false},
		{`"a"b`, nil, false},
		{strings.Repeat("é", 40), []string{strings.Repeat("é", 31)}, true},
	} {
		names, ok := SplitNames(c.value)
		if ok != c.ok || !slices.Equal(names, c.names) {
			t.Errorf("%q: %q, %t", c.value, names, ok)
		}
	}
}

func FuzzSplitNames(f *testing.F) {
	f.Add(`"$user", public`)
	f.Fuzz(func(t *testing.T, value string) {
		names, ok := SplitNames(value)
		if !ok && names != nil {
			t.Errorf("%q: names with a refusal", value)
		}
	})
}

func TestScanBody(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
	}{
		{"BEGIN NEW.updated_at = now(); RETURN NEW; END", true},
		{"BEGIN UPDATE t SET a = 1; RETURN NULL; END", true},
		{"BEGIN INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET a = 2; END", true},
		{"SELECT 'set; execute', $$ temp $$, $1, \"Temp\" -- ; set x", true},
		{"DECLARE x int; BEGIN /* ; set y */ x := 1; END", true},
		{"", false},
		{"BEGIN SET x = 1; END", false},
		{"BEGIN -- why\n SET x = 1; END", false},
		{"BEGIN /* why; */ SET x = 1; END", false},
		{"SET x = 1", false},
		{"BEGIN IF a THEN RESET x; END IF; END", false},
		{"BEGIN EXECUTE 'x'; END", false},
		{"BEGIN RETURN QUERY EXECUTE x; END", false},
		{"BEGIN CREATE TABLE x AS SELECT 1; END", false},
		{"BEGIN SELECT 1 INTO TEMP x; END", false},
		{"BEGIN INSERT INTO \"pg_temp\".x VALUES (1); END", false},
		{"BEGIN INSERT INTO pg_temp_1.x VALUES (1); END", false},
		{"BEGIN LISTEN x; END", false},
		{"BEGIN <<a>> SET x = 1; END", false},
		{"BEGIN x := 'a\\'; END", false},
		{"BEGIN x := 'a; END", false},
		{"/* open", false},
		{"$a$ open", false},
		{"\"open", false},
	} {
		if _, ok := scanBody(c.text); ok != c.ok {
			t.Errorf("%q: %t", c.text, ok)
		}
	}
}

func FuzzScanBody(f *testing.F) {
	f.Add("BEGIN -- x\n $a$ $b$ $a$ 'x''' \"y\"\"\" @> 1; END")
	f.Fuzz(func(t *testing.T, text string) {
		if _, ok := scanBody(text); ok && strings.TrimSpace(text) == "" {
			t.Error("an empty body was vouched for")
		}
	})
}

func TestLocalSetting(t *testing.T) {
	for name, want := range map[string]bool{
		"search_path": false, "TimeZone": false, "work_mem": false, "my.setting": false, "server_version": false,
		"transaction_isolation": false, "standard_conforming_strings": false, "statement_timeout": false,
		"transaction_read_only": true, "In_Hot_Standby": true, "all": true, "wal_level": true, "ssl_cert_file": true,
	} {
		if LocalSetting(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

func TestQualifiedName(t *testing.T) {
	for value, want := range map[string]string{
		"orders_id_seq": "/orders_id_seq", "Public.Orders": "public/orders", `"Public" . "a.b""c"`: `Public/a.b"c`, " x ": "/x",
		"": "no", "-": "no", "1234": "no", "a.b.c": "no", "a.": "no", `"a`: "no", "a b": "no",
	} {
		schema, name, ok := QualifiedName(value)
		got := schema + "/" + name
		if !ok {
			got = "no"
		}
		if got != want {
			t.Errorf("%q is %s, want %s", value, got, want)
		}
	}
}
