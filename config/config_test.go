package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parse([]byte(text), "testdata/text.yaml", testOptions)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const smallest = `
users: [{name: app, password: hidden}]
databases:
  shop:
    shards: [{name: s0, nodes: "10.0.0.1:5432"}]
`

// TestMinimal reads the example of the manual.
func TestMinimal(t *testing.T) {
	c := mustLoad(t, "testdata/minimal.yaml")
	if u := c.User("app"); u == nil || u.Password.Reveal() != "from a file" {
		t.Errorf("user %v", u)
	}
	db := c.Database("shop")
	if db == nil || len(db.Shards) != 2 || len(db.Tables) != 4 || db.Tables[2].Name != "order_items" {
		t.Fatalf("database %+v", db)
	}
	if c.User("nobody") != nil || c.Database("nothing") != nil {
		t.Error("found what is not there")
	}
}

// TestDefaults holds the defaults that others rely on.
func TestDefaults(t *testing.T) {
	c := mustParse(t, smallest)
	db := c.Database("shop")
	rule := Rule{Databases: []string{"all"}, Users: []string{"all"}, Transport: "any", TLS: "any", Method: "scram-sha-256"}
	if diff := cmp.Diff([]Rule{rule}, c.Auth.Rules, sameConfig); diff != "" {
		t.Errorf("rules: %s", diff)
	}
	if c.Auth.AuthQuery != nil || c.Listen.TLS != nil {
		t.Error("sections that the file lacks are there")
	}
	want := Pool{
		Mode: PoolTransaction, Size: 20, ReserveAfter: 5 * time.Second, IdleTimeout: 10 * time.Minute,
		LifeTime: time.Hour, WaitTimeout: 30 * time.Second, MaxDialing: 4, PreparedStatements: 200,
	}
	if diff := cmp.Diff(want, db.Pool); diff != "" {
		t.Errorf("pool: %s", diff)
	}
	if db.Server.Database != "shop" || db.Server.ConnectTimeout != 5*time.Second || db.Server.TLS.Mode != "prefer" || !db.Reads.Split {
		t.Errorf("database %+v", db)
	}
	if !slices.Equal(c.Listen.Addresses, []string{"127.0.0.1:6432"}) || c.Limits.MessageSize != 1<<30 || c.Timeouts.Login != time.Minute {
		t.Errorf("listen %v limits %v timeouts %v", c.Listen, c.Limits, c.Timeouts)
	}
	c = mustParse(t, smallest+"auth: {auth_query: {user: q}}\n")
	if c.Auth.AuthQuery.Query != DefaultAuthQuery {
		t.Errorf("auth_query %q", c.Auth.AuthQuery.Query)
	}
}

// TestTags makes sure that every default, bound and word is valid and canonical.
func TestTags(t *testing.T) {
	for _, k := range keysOf(reflect.TypeFor[Config](), "") {
		if n := k.nature(); n == section || n == elements {
			continue
		}
		typ := k.typ
		if typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		for _, s := range []string{k.def, k.min, k.max} {
			v := reflect.New(typ).Elem()
			if s == "" {
				continue
			}
			if err := k.parse(v, s); err != nil {
				t.Errorf("%s: %q %v", k.path, s, err)
			} else if text(v) != s {
				t.Errorf("%s: %q is printed as %q", k.path, s, text(v))
			}
		}
		if (k.min == "") != (k.max == "") {
			t.Errorf("%s has one bound", k.path)
		}
	}
}

// TestExported makes sure that every exported field is a setting.
func TestExported(t *testing.T) {
	var walk func(typ reflect.Type)
	walk = func(typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if f.IsExported() && f.Tag.Get("yaml") == "" {
				t.Errorf("%s.%s has no key", typ.Name(), f.Name)
			}
			inner := f.Type
			if inner.Kind() == reflect.Slice || inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if f.IsExported() && isSection(inner) {
				walk(inner)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func TestControlLogin(t *testing.T) {
	const shards = "databases:\n  shop:\n    shards: [{name: s0, nodes: a}]\n"
	verifier := "md5" + strings.Repeat("0", 32)
	md5 := "auth: {rules: [{method: md5}]}\n"
	for _, c := range []struct{ text, want string }{
		{"users: [{name: app, password: pw}]\n" + shards, "app:pw"},
		{"users: [{name: a, verifier: " + verifier + "}, {name: b, password: pw}]\n" + shards + md5, "b:pw"},
		{"users: [{name: a, password: pw, server_user: s}]\n" + shards, "s:"},
		{"users: [{name: a, password: pw, server_user: s, server_password: spw}]\n" + shards, "s:spw"},
		{"users: [{name: a, verifier: " + verifier + "}]\n" + shards + md5, "a:"},
		{shards + "auth: {auth_query: {user: q, password: qpw}}\n", "q:qpw"},
		{"users: [{name: a, verifier: " + verifier + "}]\n" + shards + "auth: {auth_query: {user: q, password: qpw}, rules: [{method: md5}]}\n", "q:qpw"},
		{"users: [{name: app, password: pw}]\n" + shards + "    server: {user: u, password: upw}\n", "u:upw"},
		{"users: [{name: app, password: pw}]\n" + shards + "    server: {user: u, control: {user: c, password: cpw}}\n", "c:cpw"},
		{shards + "    server: {user: u}\n", "u:"},
	} {
		cfg := mustParse(t, c.text)
		l := cfg.ControlLogin(&cfg.Databases[0])
		if got := l.User + ":" + l.Password.Reveal(); got != c.want {
			t.Errorf("%s\ngot %s, want %s", c.text, got, c.want)
		}
	}
}

func TestUserTimeouts(t *testing.T) {
	base := Timeouts{Login: 1, Query: 2, IdleInTransaction: 3, ClientIdle: 4}
	got := UserTimeouts{Query: ptr(time.Duration(0)), ClientIdle: ptr(time.Duration(9))}.Or(base)
	if want := (Timeouts{Login: 1, Query: 0, IdleInTransaction: 3, ClientIdle: 9}); got != want {
		t.Errorf("got %+v", got)
	}
}

// TestSecretNeverShows prints a secret in every way that comes to mind.
func TestSecretNeverShows(t *testing.T) {
	s := NewSecret("hidden")
	if s.Reveal() != "hidden" || s != NewSecret("hidden") || s == NewSecret("other") || !NewSecret("").Empty() || NewSecret("").Reveal() != "" {
		t.Fatal("a secret does not keep what it is given")
	}
	type inside struct{ secret Secret }
	c := mustParse(t, smallest)
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "in", inside{s}, "config", c, "user", c.Users[0])
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "in", inside{s}, "config", c, "user", c.Users[0])
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c.Users)
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(asJSON) + string(asYAML) + c.String() + fmt.Sprint(c.Settings()) +
		fmt.Sprintf("%v %+v %#v %s %q %x %d", s, s, s, s, s, s, s) +
		fmt.Sprintf("%v %+v %#v", inside{s}, inside{s}, &inside{s}) + fmt.Sprintf("%v %+v %#v", *c, c.Users, c.Users[0])
	if strings.Contains(all, "hidden") || strings.Contains(all, fmt.Sprintf("%x", "hidden")) {
		t.Errorf("the secret shows in:\n%s", all)
	}
	if !strings.Contains(string(asJSON), `"***"`) {
		t.Errorf("no *** in %s", asJSON)
	}
}

// TestRoundTrip reads a printed configuration back.
func TestRoundTrip(t *testing.T) {
	odd := `
users:
  - {name: "true", password_file: files/password, server_user: "$${PASSWORD}", certificate_names: ["$${x}", "#", "1"]}
databases:
  "a.b ${LEVEL}": {shards: [{name: "null", nodes: a}], tables: {'"x.y"."~"': {key: ['"0"', "ID", '"I""D"']}, t: {key: a, list: {"null": ["", "$${x}", 0x1, "~", "- a"]}}, u: {key: a, range: [{shard: "null", from: "", to: "1"}]}}, schemas: {'"<<"*': "null", z*: hash}}
listen: {address: [], unix_socket_directory: /run}
admin: {address: ""}
auth: {rules: [{addresses: [all, 10.0.0.1], method: trust}]}
`
	for _, c := range []*Config{mustLoad(t, "testdata/minimal.yaml"), mustParse(t, odd)} {
		again := mustParse(t, c.String())
		if diff := cmp.Diff(c, again, sameConfig); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	}
}

func TestWarnings(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	copied := func(name string, mode os.FileMode) {
		data, err := os.ReadFile(filepath.Join("testdata/files", name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(data), mode)
	}
	copied("server.crt", 0o644)
	copied("server.key", 0o644)
	write("open", "pw\n", 0o644)
	write("closed", "pw\n", 0o640)
	text := `
listen: {tls: {certificate: server.crt, key: server.key}}
users:
  - {name: a, password_file: open}
  - {name: b, password_file: closed, server_password: "${file:open}"}
  - {name: c, verifier: md5` + strings.Repeat("0", 32) + `}
  - {name: d, password: "${PASSWORD}"}
databases:
  shop:
    shards: [{name: s0, nodes: "10.0.0.1:5432"}]
auth:
  rules: [{users: [a, b, c], method: md5}]
`
	opts := testOptions
	load := func(path string) string {
		c, err := Load(path, opts)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, w := range c.Warnings() {
			b.WriteString(strings.ReplaceAll(w.String(), dir+"/", "") + "\n")
		}
		return b.String()
	}
	want := `proxy.yaml:2:41: listen.tls.key: everybody on this machine can read server.key (chmod o-r)
proxy.yaml:4:15: users[0].password_file: everybody on this machine can read open (chmod o-r)
proxy.yaml:5:38: users[1].server_password: everybody on this machine can read open (chmod o-r)
proxy.yaml:6:5: users[2]: nothing gives the user's password for the servers of shop: they must ask for none (give server_password_file, or server.user in the database)
proxy.yaml:6:15: users[2].verifier: an md5 verifier is as good as the password to whoever reads it (use a SCRAM verifier)
proxy.yaml:7:5: users[3]: no rule of auth.rules lets the user in
`
	// The verifier stands in the file itself.
	if diff := cmp.Diff(want, load(write("proxy.yaml", text, 0o640))); diff != "" {
		t.Errorf("closed file: %s", diff)
	}
	want += "proxy.yaml: everybody on this machine can read the file, and it holds passwords (chmod o-r, or put them into files of their own)\n"
	if diff := cmp.Diff(want, load(write("proxy.yaml", text, 0o644))); diff != "" {
		t.Errorf("open file: %s", diff)
	}
	// A verifier that auth_query finds logs in to no server.
	const lookedUp = "proxy.yaml:13:3: auth.auth_query: nothing gives the passwords of the users it finds for the servers of shop: they must ask for none"
	asking := text + "  auth_query: {user: root}\n"
	if got := load(write("proxy.yaml", asking, 0o640)); !strings.Contains(got, lookedUp) {
		t.Errorf("auth_query without a login for the servers: %s", got)
	}
	for what, fine := range map[string]string{
		"server.user":       strings.Replace(asking, "    shards:", "    server: {user: proxy}\n    shards:", 1),
		"a certificate":     strings.Replace(asking, "    shards:", "    server: {tls: {mode: require, certificate: server.crt, key: server.key}}\n    shards:", 1),
		"passwords in full": strings.Replace(asking, "method: md5}", "method: password, tls: require}", 1),
	} {
		if got := load(write("proxy.yaml", fine, 0o640)); strings.Contains(got, "auth.auth_query:") {
			t.Errorf("%s: %s", what, got)
		}
	}
	write("proxy.yaml", text, 0o644)
	opts.Now = func() time.Time { return time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC) }
	if got := load(filepath.Join(dir, "proxy.yaml")); !strings.Contains(got, "listen.tls.certificate: server.crt ran out on 21") {
		t.Errorf("an old certificate: %s", got)
	}
	opts.Now = func() time.Time { return time.Unix(0, 0) }
	if got := load(filepath.Join(dir, "proxy.yaml")); !strings.Contains(got, "listen.tls.certificate: server.crt is not valid before 20") {
		t.Errorf("a new certificate: %s", got)
	}
}

// TestOneShard: what a program without sharding cannot do is a problem, with
// its place and among the others; what it does not look at brings a warning.
func TestOneShard(t *testing.T) {
	const text = `users: [{name: app, password: pw}]
databases:
  shop:
    shards:
      - {name: s0, nodes: "10.0.0.1:5432"}
      - {name: s1, nodes: "10.0.0.2:5432"}
    tables: {orders: {key: id}}
    pool: {size: -1}
`
	load := func(text string, one bool) (*Config, error) {
		path := filepath.Join(t.TempDir(), "c.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(path, Options{OneShard: one})
	}
	_, err := load(text, true)
	want := []string{
		"6:9: databases.shop.shards[1]: the database has 2 shards, and this version serves databases of one shard (one shard with all its nodes; a database for each of the others)",
		`8:18: databases.shop.pool.size: "-1" is out of range: 1 to 100000`,
	}
	if diff := cmp.Diff(want, problemLines(t, err)); diff != "" {
		t.Error(diff)
	}
	good := strings.Replace(text, "size: -1", "size: 1", 1)
	if c, err := load(good, false); err != nil || len(c.Warnings()) != 0 {
		t.Errorf("where shards are served: %v %v", err, c.Warnings())
	}
	c, err := load(strings.Replace(good, "      - {name: s1, nodes: \"10.0.0.2:5432\"}\n", "", 1), true)
	if err != nil || len(c.Warnings()) != 1 || !strings.Contains(c.Warnings()[0].String(), "c.yaml:6:5: databases.shop.tables: nothing is sharded in this version") {
		t.Errorf("tables of one shard: %v %v", err, c.Warnings())
	}
}
