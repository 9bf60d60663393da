package pool_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
	"shardproxy/pool"
)

func literal(name, value string) pool.Setting {
	return pool.Setting{Name: name, Text: value, Literal: true}
}

func bySQL(name, text string) pool.Setting { return pool.Setting{Name: name, Text: text} }

// candidates are settings in every shape in which clients give them. Of the
// same name several differ in value, in shape, or in both.
var candidates = []pool.Setting{
	literal("work_mem", "7MB"), bySQL("work_mem", "'8MB'"), bySQL("work_mem", "9000"),
	literal("search_path", `pg_catalog, public`), bySQL("search_path", `pg_catalog, "Odd Name", 'an''other'`),
	literal("search_path", `"a b", "c""d", public`), literal("search_path", ""),
	literal("timezone", "Asia/Tokyo"), bySQL("timezone", "INTERVAL '-08:30' HOUR TO MINUTE"), bySQL("timezone", "'UTC'"), bySQL("timezone", "-5"),
	bySQL("datestyle", "ISO, DMY"), literal("datestyle", "German"), bySQL("datestyle", "'SQL', 'MDY'"),
	literal("standard_conforming_strings", "off"), bySQL("standard_conforming_strings", "on"), bySQL("standard_conforming_strings", "off"),
	literal("application_name", `it's a \ "name"`), bySQL("application_name", "'plain'"), literal("application_name", ""),
	literal("app.tenant", `o'hara \' "x" $1 -- /* ;`), literal("app.tenant", "line\nline\ttab"), literal("app.tenant", "größe ✓"), literal("app.tenant", ""),
	literal("app.a.b", "deep"), literal("app.größe", "1"), literal("app.x$1", `\\`), literal("my_ext._v", "E'x'"),
	bySQL("statement_timeout", "60000"), literal("statement_timeout", "1min"), bySQL("lock_timeout", "DEFAULT"),
	literal("default_transaction_isolation", "repeatable read"), bySQL("default_transaction_read_only", "on"),
	literal("extra_float_digits", "0"), bySQL("intervalstyle", "iso_8601"), literal("bytea_output", "escape"), literal("escape_string_warning", "off"),
	literal("role", "app"), bySQL("role", "'pg_monitor'"), bySQL("role", "pg_monitor"), bySQL("session_authorization", "'app'"), literal("session_authorization", "app"),
	literal("default_tablespace", "pg_default"), literal("client_min_messages", "warning"),
}

// randomSettings returns a set that a server accepts: who has become "app" may
// not become anything else.
func randomSettings(r *rand.Rand) *pool.Settings {
	var items []pool.Setting
	for range r.IntN(7) {
		items = append(items, candidates[r.IntN(len(candidates))])
	}
	s := pool.NewSettings(items)
	if _, is := s.Get("session_authorization"); is {
		s = s.Without("role")
	}
	return s
}

// observed is what a server session says of all the candidates' settings.
func observed(t *testing.T, c *pgx.Conn) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("SELECT session_user || ' ' || current_user || ' ' || concat_ws('|'")
	seen := map[string]bool{}
	for _, it := range candidates {
		if !seen[it.Name] {
			seen[it.Name] = true
			fmt.Fprintf(&b, ", '%s=' || coalesce(nullif(current_setting('%s', true), ''), '')", it.Name, it.Name)
		}
	}
	b.WriteString(")")
	res := c.PgConn().ExecParams(context.Background(), b.String(), nil, nil, nil, nil).Read()
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	return string(res.Rows[0][0])
}

func simple(t *testing.T, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// TestAppendChange walks one server session from set to set and compares it
// with a session that was given nothing but the last set.
func TestAppendChange(t *testing.T) {
	d := pgtest.Shared(t)
	walked, fresh := d.Connect("postgres"), d.Connect("postgres")
	r := rand.New(rand.NewPCG(1, 2))
	var from *pool.Settings
	for step := range 400 {
		to := randomSettings(r)
		if r.IntN(3) == 0 { // a small change, as clients make them
			to = from.With(candidates[r.IntN(len(candidates))])
			if _, is := to.Get("session_authorization"); is {
				to = to.Without("role")
			}
		}
		sql := string(to.AppendChange(nil, from))
		if (sql == "") != to.Equal(from) {
			t.Fatalf("%q for a change from %v to %v", sql, from.All(), to.All())
		}
		if sql != "" {
			simple(t, walked, sql)
		}
		simple(t, fresh, "DISCARD ALL")
		if sql := string(to.AppendChange([]byte(";"), nil)); sql != ";" {
			simple(t, fresh, sql)
		}
		got, want := observed(t, walked), observed(t, fresh)
		if got != want {
			t.Fatalf("step %d\nfrom %v\nto   %v\nby   %s\ngot  %s\nwant %s", step, from.All(), to.All(), sql, got, want)
		}
		for _, it := range to.All() {
			if it.Literal && strings.Contains(it.Name, ".") {
				var v string
				if err := walked.QueryRow(context.Background(), "SELECT current_setting($1)", it.Name).Scan(&v); err != nil || v != it.Text {
					t.Fatalf("%s is %q, want %q (%v)", it.Name, v, it.Text, err)
				}
			}
		}
		from = to
	}
}

// TestSettingsAgainstModel compares the set with a map.
func TestSettingsAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var s *pool.Settings
	model := map[string]pool.Setting{}
	for range 3000 {
		it := candidates[r.IntN(len(candidates))]
		before := s
		if r.IntN(3) == 0 {
			s = s.Without(it.Name)
			delete(model, it.Name)
		} else {
			s = s.With(it)
			model[it.Name] = it
		}
		var items []pool.Setting
		for _, it := range model {
			items = append(items, it)
			if got, ok := s.Get(it.Name); !ok || got != it {
				t.Fatalf("%v, want %v", got, it)
			}
		}
		if len(s.All()) != len(model) {
			t.Fatalf("%v, want %v", s.All(), model)
		}
		if same := pool.NewSettings(items); !same.Equal(s) || !s.Equal(same) {
			t.Fatalf("%v does not equal %v", s.All(), same.All())
		}
		if before.Equal(s) != (string(s.AppendChange(nil, before)) == "") {
			t.Fatal("Equal and AppendChange disagree")
		}
	}
	for i := 1; i < len(s.All()); i++ {
		if s.All()[i-1].Name >= s.All()[i].Name {
			t.Error("not in order")
		}
	}
}

// FuzzLiteral gives a server any value; it must arrive unchanged.
func FuzzLiteral(f *testing.F) {
	for _, it := range candidates {
		f.Add(it.Text)
	}
	f.Add(`\`)
	f.Add(`'; DROP TABLE x; --`)
	d := pgtest.Shared(f)
	c, err := pgconn.Connect(context.Background(), d.DSN("postgres"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close(context.Background()) })
	f.Fuzz(func(t *testing.T, value string) {
		if strings.ContainsRune(value, 0) || strings.ToValidUTF8(value, "") != value {
			return // neither can come from a client
		}
		for _, strings := range []string{"on", "off"} {
			sql := pool.NewSettings([]pool.Setting{literal("app.v", value)}).AppendChange([]byte("SET standard_conforming_strings = "+strings+";"), nil)
			if _, err := c.Exec(context.Background(), string(sql)).ReadAll(); err != nil {
				t.Fatalf("%q: %v", sql, err)
			}
			res := c.ExecParams(context.Background(), "SELECT current_setting('app.v')", nil, nil, nil, nil).Read()
			if res.Err != nil || string(res.Rows[0][0]) != value {
				t.Fatalf("%q arrived as %q, %v", value, res.Rows, res.Err)
			}
		}
	})
}
