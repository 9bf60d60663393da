package config

import (
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const diffBase = `
listen: {address: 127.0.0.1:6432}
users:
  - {name: app, password: one}
  - {name: bob, password: two, timeouts: {query: 5s}}
databases:
  shop:
    shards:
      - {name: s0, nodes: ["10.0.0.1:5432"]}
      - {name: s1, nodes: ["10.0.0.2:5432"]}
    pool: {size: 10}
  other:
    shards: [{name: s0, nodes: ["10.0.0.1:5432"]}]
auth:
  rules:
    - {users: app, method: md5}
    - {users: bob, method: md5}
`

// rulesBefore are rules of the shop that change.
var rulesBefore = map[string]string{
	"schema moved": "    schemas: {a: s0}\n",
	"values":       "    tables: {t: {key: id, list: {s0: x}}}\n",
	"ranges":       "    tables: {t: {key: id, range: [{shard: s0, from: 1}]}}\n",
}

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		name     string
		old, new string // pieces of diffBase replaced
		want     []Change
	}{
		{"nothing", "", "", nil},
		{"default written out", "pool: {size: 10}", "pool: {size: 10, min: 0}", nil},
		{"empty list written out", "auth:\n", "admin: {admin_users: []}\nauth:\n", nil},
		{"listen", "127.0.0.1:6432", "127.0.0.1:6433",
			[]Change{{"listen.address", "[127.0.0.1:6432]", "[127.0.0.1:6433]", true}}},
		{"secret", "password: one", "password: three", []Change{{"users[app].password", "***", "***", false}}},
		{"user gone", "  - {name: app, password: one}\n", "  - {name: app2, password: one}\n",
			[]Change{{"users[app]", "(set)", "", false}, {"users[app2]", "", "(set)", false}, {"auth.rules", "2 entries", "2 entries", false}}},
		{"users swapped", "  - {name: app, password: one}\n  - {name: bob, password: two, timeouts: {query: 5s}}\n",
			"  - {name: bob, password: two, timeouts: {query: 5s}}\n  - {name: app, password: one}\n", nil},
		{"optional set", "timeouts: {query: 5s}", "timeouts: {query: 0, client_idle: 90s}",
			[]Change{{"users[bob].timeouts.query", "5s", "0", false}, {"users[bob].timeouts.client_idle", "", "1m30s", false}}},
		{"pool", "size: 10", "size: 11, mode: session",
			[]Change{{"databases.shop.pool.mode", "transaction", "session", false}, {"databases.shop.pool.size", "10", "11", false}}},
		{"node", `["10.0.0.2:5432"]`, `["10.0.0.2:5432", "10.0.0.3"]`,
			[]Change{{"databases.shop.shards[s1].nodes", "[10.0.0.2:5432]", "[10.0.0.2:5432, 10.0.0.3:5432]", true}}},
		{"shard added", `["10.0.0.2:5432"]}`, "[\"10.0.0.2:5432\"]}\n      - {name: s2, nodes: \"10.0.0.9\"}",
			[]Change{{"databases.shop.shards[s2]", "", "(set)", true}}},
		{"shards swapped", "      - {name: s0, nodes: [\"10.0.0.1:5432\"]}\n      - {name: s1, nodes: [\"10.0.0.2:5432\"]}\n",
			"      - {name: s1, nodes: [\"10.0.0.2:5432\"]}\n      - {name: s0, nodes: [\"10.0.0.1:5432\"]}\n",
			[]Change{{"databases.shop.shards", "[s0, s1]", "[s1, s0]", true}}},
		{"database renamed", "  other:", "  more:",
			[]Change{{"databases.other", "(set)", "", false}, {"databases.more", "", "(set)", false}}},
		{"table", "    pool: {size: 10}", "    pool: {size: 10}\n    tables: {a.b: {key: c}}",
			[]Change{{`databases.shop.tables["a.b"]`, "", "(set)", true}}},
		{"key", "    pool: {size: 10}", "    pool: {size: 10}\n    slots: 64\n    keys: [A, '\"A\"']",
			[]Change{{"databases.shop.slots", "4096", "64", true}, {"databases.shop.keys", "[]", `[a, "A"]`, true}}},
		{"schema", "    pool: {size: 10}", "    pool: {size: 10}\n    schemas: {a*: hash}",
			[]Change{{`databases.shop.schemas["a*"]`, "", "(set)", true}}},
		{"function", "    pool: {size: 10}", "    pool: {size: 10}\n    keys: id\n    functions: {f: {argument: 1, table: t}}",
			[]Change{{"databases.shop.keys", "[]", "[id]", true}, {"databases.shop.functions.f", "", "(set)", true}}},
		{"schema moved", "  other:\n", "    schemas: {a: hash}\n  other:\n",
			[]Change{{"databases.shop.schemas.a", "s0", "hash", true}}},
		{"values", "  other:\n", "    tables: {t: {key: id, list: {s0: [x, y]}, range: []}}\n  other:\n",
			[]Change{{"databases.shop.tables.t.list.s0", "[x]", "[x, y]", true}}},
		{"ranges", "  other:\n", "    tables: {t: {key: id, range: [{shard: s0, from: 2}]}}\n  other:\n",
			[]Change{{"databases.shop.tables.t.range", "1 entry", "1 entry", true}}},
		{"rules", "    - {users: bob, method: md5}\n", "    - {users: bob, method: md5}\n    - {method: reject}\n",
			[]Change{{"auth.rules", "2 entries", "3 entries", false}}},
		{"section added", "auth:\n", "auth:\n  auth_query: {user: q}\n", []Change{{"auth.auth_query", "", "(set)", false}}},
		{"tls", "address: 127.0.0.1:6432", "address: 127.0.0.1:6432, tls: {mode: disable}",
			[]Change{{"listen.tls", "", "(set)", true}}},
		{"tls off", "address: 127.0.0.1:6432", "address: 127.0.0.1:6432, tls: {mode: disable, min_version: 1.3}",
			[]Change{{"listen.tls.mode", "require", "disable", true}, {"listen.tls.min_version", "1.2", "1.3", false}}},
		{"tls mode", "address: 127.0.0.1:6432", "address: 127.0.0.1:6432, tls: {mode: allow}",
			[]Change{{"listen.tls.mode", "require", "allow", false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(diffBase, c.old) {
				t.Fatalf("%q is not in the base", c.old)
			}
			changed := strings.Replace(diffBase, c.old, c.new, 1)
			if c.name == "user gone" {
				changed = strings.Replace(changed, "users: app,", "users: app2,", 1)
			}
			base := diffBase
			if before, ok := rulesBefore[c.name]; ok {
				base = strings.Replace(base, "  other:\n", before+"  other:\n", 1)
			}
			if c.name == "tls off" || c.name == "tls mode" {
				const pair = ", certificate: files/server.crt, key: files/server.key}"
				base = strings.Replace(base, "6432}", "6432, tls: {mode: require"+pair+"}", 1)
				changed = strings.Replace(changed, "}}", pair+"}", 1)
			}
			before, after := mustParse(t, base), mustParse(t, changed)
			if diff := cmp.Diff(c.want, Diff(before, after)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			back := Diff(after, before)
			if len(back) != len(c.want) {
				t.Errorf("%d changes, %d back: %v", len(c.want), len(back), back)
			}
		})
	}
}

// TestDiffSeesEverything changes each setting of a full configuration and
// looks for the one change.
func TestDiffSeesEverything(t *testing.T) {
	base := mustLoad(t, "testdata/good.yaml")
	changed := 0
	var visit func(v reflect.Value, path string)
	visit = func(v reflect.Value, path string) {
		for _, f := range fieldsOf(v.Type()) {
			fv, p := v.Field(f.index), joinPath(path, f.key)
			switch f.nature() {
			case section:
				if fv = reflect.Indirect(fv); fv.IsValid() {
					visit(fv, p)
				}
				continue
			case elements:
				for i := range fv.Len() {
					visit(fv.Index(i), elementPath(p, fv.Index(i), i, f.isMap))
				}
				continue
			}
			if f.key == "name" {
				continue // another name is another element
			}
			was := reflect.New(fv.Type()).Elem()
			was.Set(fv)
			alter(t, fv, p)
			diff := Diff(mustLoad(t, "testdata/good.yaml"), base)
			list, inList := "", false // whose elements have no name
			for _, key := range []string{"auth.rules[", ".range["} {
				if i := strings.Index(p, key); i >= 0 {
					list, inList = p[:i+len(key)-1], true
				}
			}
			if len(diff) != 1 || diff[0].Path != p && (!inList || diff[0].Path != list) || diff[0].Restart != f.restart {
				t.Errorf("%s changed, and Diff says %v", p, diff)
			}
			fv.Set(was)
			changed++
		}
	}
	visit(reflect.ValueOf(base).Elem(), "")
	if left := Diff(mustLoad(t, "testdata/good.yaml"), base); left != nil {
		t.Errorf("changes are left: %v", left)
	}
	if changed < 150 {
		t.Errorf("only %d settings visited", changed)
	}
}

// alter gives v another value of its type.
func alter(t *testing.T, v reflect.Value, path string) {
	t.Helper()
	switch x := v.Interface().(type) {
	case Secret:
		v.Set(reflect.ValueOf(NewSecret(x.Reveal() + "x")))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	case reflect.Slice:
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else {
			v.SetZero()
		}
	default:
		t.Fatalf("%s: no other value of %s", path, v.Type())
	}
}
