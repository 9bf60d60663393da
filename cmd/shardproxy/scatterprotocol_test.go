package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// scatterBatches has queries over several shards stand between writes, up to one Sync.
func scatterBatches(t *testing.T, s *scattered) {
	c := s.connect()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeExec} {
		for _, in := range []bool{false, true} {
			cfg := c.Config().Copy()
			cfg.DefaultQueryExecMode = mode
			c, err := pgx.ConnectConfig(within(t, 10*time.Second), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if in {
				must(t, c, "BEGIN")
			}
			b := &pgx.Batch{}
			var want []string
			add := func(said, sql string, args ...any) {
				b.Queue(sql, args...)
				want = append(want, said)
			}
			add("0,1,2SELECT 3", "SELECT id FROM few ORDER BY id LIMIT $1", 3)
			for i, k := range s.keys {
				add("UPDATE 10", "UPDATE few SET n = n + $2 WHERE k = $1", k, 1000*(i+1))
			}
			add("2019,2017SELECT 2", "SELECT n FROM few ORDER BY n DESC LIMIT 2")
			add("20 30190SELECT 1", "SELECT count(*), sum(n) FROM few WHERE id >= $1", 0)
			add("UPDATE 20", "UPDATE few SET n = id")
			add("20SELECT 1", "SELECT count(*) FROM few a JOIN few b ON a.n = b.id")
			add(fmt.Sprintf("%dSELECT 1", 90), "SELECT sum(n) FROM few WHERE k = $1", s.keys[0])
			add("190SELECT 1", "SELECT sum(n) FROM few")
			said, err := batched(t, c, b)
			if err != nil || strings.Join(said, "|") != strings.Join(want, "|") {
				t.Errorf("%v, in a transaction %v: %v\n%q\n%q", mode, in, err, said, want)
			}
			// One that fails takes back what came before it, and nothing behind it runs.
			b = &pgx.Batch{}
			b.Queue("UPDATE few SET n = -1")
			b.Queue("SELECT id FROM few ORDER BY id LIMIT 1")
			b.Queue("SELECT 1 / (id - 5) FROM few")
			b.Queue("UPDATE few SET n = -2")
			said, err = batched(t, c, b)
			if sqlState(err) != "22012" || strings.Join(said, "|") != "UPDATE 20|0SELECT 1" {
				// A driver that describes all first, or reads rows before the error, may have had more.
				t.Errorf("%v, in a transaction %v: %q %v", mode, in, said, err)
			}
			if in {
				fails(t, c, "SELECT 1", "25P02")
				must(t, c, "ROLLBACK")
			}
			if got := one(t, c, "SELECT sum(n) FROM few"); got != "190" {
				t.Error("behind a batch that failed:", got)
			}
			_ = c.Close(t.Context())
		}
	}
}

// scatterMessages sends the messages of the extended protocol in every order that drivers do.
func scatterMessages(t *testing.T, s *scattered) {
	const text = "SELECT id, n::text FROM few WHERE id >= $1 ORDER BY id LIMIT 1"
	describeS := &pgproto3.Describe{ObjectType: 'S', Name: "a"}
	describeU := &pgproto3.Describe{ObjectType: 'S'}
	describeP := &pgproto3.Describe{ObjectType: 'P'}
	flush := &pgproto3.Flush{}
	columns, row := "columns id:20:-1:0 n:25:-1:0", `row "7" "7" | complete SELECT 1 | ready I`
	for _, test := range []struct {
		name     string
		requests [][]message
		want     string // of the last request
	}{
		{"all at once", [][]message{request([]message{parse("", text), bind("", "", "7"), describeP, execute("")})}, "ParseComplete | BindComplete | " + columns + " | " + row},
		{"without Describe", [][]message{request([]message{parse("", text), bind("", "", "7"), execute("")})}, "ParseComplete | BindComplete | " + row},
		{"prepared before", [][]message{request([]message{parse("a", text)}), request([]message{bind("", "a", "7"), execute("")})}, "BindComplete | " + row},
		{"prepared and described before", [][]message{request([]message{parse("a", text), describeS}), request([]message{bind("", "a", "7"), describeP, execute("")})}, "BindComplete | " + columns + " | " + row},
		{"described", [][]message{request([]message{parse("a", text), describeS})}, "ParseComplete | ParameterDescription | columns id:20:-1:0 n:25:-1:0 | ready I"},
		{"described in the same request", [][]message{request([]message{parse("", text), describeU, bind("", "", "7"), execute("")})}, "ParseComplete | ParameterDescription | columns id:20:-1:0 n:25:-1:0 | BindComplete | " + row},
		{"described unnamed before", [][]message{request([]message{parse("", text), describeU}), request([]message{bind("", "", "7"), describeP, execute("")})}, "BindComplete | " + columns + " | " + row},
		{"twice", [][]message{request([]message{parse("a", text)}), request([]message{bind("", "a", "7"), execute("")}), request([]message{bind("", "a", "7"), execute("")})}, "BindComplete | " + row},
		{"two in one request", [][]message{request([]message{parse("a", text), bind("", "a", "6"), execute(""), bind("", "a", "7"), execute("")})}, `ParseComplete | BindComplete | row "6" "6" | complete SELECT 1 | BindComplete | ` + row},
		{"closed behind", [][]message{request([]message{parse("a", text), bind("", "a", "7"), execute(""), closes('S', "a")})}, `ParseComplete | BindComplete | row "7" "7" | complete SELECT 1 | CloseComplete | ready I`},
		{"a flush behind Execute", [][]message{request([]message{parse("", text), flush, bind("", "", "7"), describeP, execute(""), flush})}, "ParseComplete | BindComplete | " + columns + " | " + row},
		{"a flush behind Bind", [][]message{request([]message{parse("", text), bind("", "", "7"), flush, execute(""), flush})}, "ParseComplete | BindComplete | " + row},
		{"a flush behind Parse and Describe", [][]message{request([]message{parse("a", text), describeS, flush, bind("", "a", "7"), execute("")})}, "ParseComplete | ParameterDescription | columns id:20:-1:0 n:25:-1:0 | BindComplete | " + row},
		{"begun in the request", [][]message{request(extended("BEGIN"), []message{parse("", text), bind("", "", "7"), execute("")}), request(extended("COMMIT"))}, `ParseComplete | BindComplete | complete COMMIT | ready I`},
		{"a bad value", [][]message{request([]message{parse("", text), bind("", "", "x"), execute("")})}, "ParseComplete | error 22P02 | ready I"},
		{"too many values", [][]message{request([]message{parse("", text), bind("", "", "7", "8"), execute("")})}, "ParseComplete | error 08P01 | ready I"},
		{"too few values", [][]message{request([]message{parse("", text), bind("", ""), execute("")})}, "ParseComplete | error 08P01 | ready I"},
		{"a named portal", [][]message{request([]message{parse("", text), bind("p", "", "7"), execute("p")})}, "ParseComplete | BindComplete | " + row},
		{"a row limit", [][]message{request([]message{parse("", text), bind("", "", "7"), &pgproto3.Execute{MaxRows: 1}})}, `ParseComplete | BindComplete | row "7" "7" | PortalSuspended | ready I`},
		{"no statement", [][]message{request([]message{bind("", "zz", "7"), execute("")})}, "error 26000 | ready I"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := speak(t, s.dsn())
			var last string
			for _, r := range test.requests {
				last = shortErrors(c.say(r...))
			}
			// A refusal may come before or behind the answers to the messages in front of it.
			if last != test.want && (!strings.Contains(test.want, "error") || last != strings.TrimPrefix(test.want, "ParseComplete | ") && last != strings.Replace(test.want, "ParseComplete | ", "ParseComplete | BindComplete | ", 1)) {
				t.Errorf("said  %s\nwant %s", last, test.want)
			}
			if got := shortErrors(c.say(simple("SELECT id FROM few ORDER BY id LIMIT 1"))); got != `columns id:20:-1:0 | row "0" | complete SELECT 1 | ready I` {
				t.Error("behind it:", got)
			}
			if got := shortErrors(c.say(request(extended("SELECT count(*) FROM few"))...)); got != `ParseComplete | BindComplete | row "20" | complete SELECT 1 | ready I` {
				t.Error("behind it:", got)
			}
		})
	}
}

// shortErrors joins what was said, of errors only their SQLSTATE.
func shortErrors(said []string) string {
	for i, line := range said {
		if strings.HasPrefix(line, "error ") {
			said[i] = "error " + strings.Split(line, "|")[1]
		}
	}
	return strings.Join(said, " | ")
}

// scatterFormats asks for the columns in all formats.
func scatterFormats(t *testing.T, s *scattered) {
	c := speak(t, s.dsn())
	for _, text := range []string{"SELECT id, n, 'x'::text AS x FROM few WHERE id = 7", "SELECT id, n, 'x'::text AS x FROM few WHERE id = 7 ORDER BY n", "SELECT max(id) AS id, max(n) AS n, 'x'::text AS x FROM few WHERE id = 7",
		"SELECT a.id, b.n, 'x'::text AS x FROM few a JOIN few b ON a.id = b.n WHERE a.id = 7 ORDER BY 2"} {
		long, short := `"\x00\x00\x00\x00\x00\x00\x00\a"`, `"\x00\x00\x00\a"`
		for _, test := range []struct {
			formats []int16
			want    string
		}{
			{nil, `columns id:20:-1:0 n:23:-1:0 x:25:-1:0 | row "7" "7" "x"`},
			{[]int16{0}, `columns id:20:-1:0 n:23:-1:0 x:25:-1:0 | row "7" "7" "x"`},
			{[]int16{1}, `columns id:20:-1:1 n:23:-1:1 x:25:-1:1 | row ` + long + " " + short + ` "x"`},
			{[]int16{1, 0, 1}, `columns id:20:-1:1 n:23:-1:0 x:25:-1:1 | row ` + long + ` "7" "x"`},
			{[]int16{0, 1, 0}, `columns id:20:-1:0 n:23:-1:1 x:25:-1:0 | row "7" ` + short + ` "x"`},
		} {
			b := &pgproto3.Bind{ResultFormatCodes: test.formats}
			got := shortErrors(c.say(request([]message{parse("", text), b, &pgproto3.Describe{ObjectType: 'P'}, execute("")})...))
			if got != "ParseComplete | BindComplete | "+test.want+" | complete SELECT 1 | ready I" {
				t.Errorf("%s, %v: %s", text, test.formats, got)
			}
		}
	}
}

// scatterTexts sends several statements in one text.
func scatterTexts(t *testing.T, s *scattered) {
	c := speak(t, s.dsn())
	rows := func(v ...string) string {
		return "columns id:20:-1:0 | row \"" + strings.Join(v, "\" | row \"") + fmt.Sprintf("\" | complete SELECT %d | ", len(v))
	}
	const first = "SELECT id FROM few ORDER BY id LIMIT 1"
	sum := func(n int) string { return fmt.Sprintf(`columns sum:20:-1:0 | row "%d" | complete SELECT 1 | `, n) }
	for _, test := range []struct{ text, want string }{
		{first + "; " + first, rows("0") + rows("0") + "ready I"},
		{first + ";;" + first + "; -- " + first, rows("0") + rows("0") + "ready I"},
		{"UPDATE few SET n = n + 1; SELECT sum(n) FROM few; UPDATE few SET n = id; SELECT sum(n) FROM few", "complete UPDATE 20 | " + sum(210) + "complete UPDATE 20 | " + sum(190) + "ready I"},
		{"UPDATE few SET n = 0; SELECT sum(n) FROM few; SELECT 1 / (id - 5) AS q FROM few; SELECT 1", "complete UPDATE 20 | " + sum(0) + "columns q:20:-1:0 | error 22012 | ready I"},
		{"SELECT sum(n) FROM few", sum(190) + "ready I"},
		{"BEGIN; " + first + "; UPDATE few SET n = 0; SELECT sum(n) FROM few", "complete BEGIN | " + rows("0") + "complete UPDATE 20 | " + sum(0) + "ready T"},
		{"ROLLBACK; SELECT sum(n) FROM few", "complete ROLLBACK | " + sum(190) + "ready I"},
		{first + " -- to the end", rows("0") + "ready I"},
		{first + " /* ; */ ;", rows("0") + "ready I"},
	} {
		got := shortErrors(c.say(simple(test.text)))
		if strings.Contains(test.want, "error") {
			// How many rows come before the error is not said.
			var kept []string
			for _, line := range strings.Split(got, " | ") {
				if !strings.HasPrefix(line, "row") || line == `row "0"` && len(kept) == 2 {
					kept = append(kept, line)
				}
			}
			got = strings.Join(kept, " | ")
		}
		if got != test.want {
			t.Errorf("%s\nsaid  %s\nwant %s", test.text, got, test.want)
		}
	}
}
