package admin

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	cases := []struct {
		sql  string
		want request
	}{
		{"", request{}},
		{" ;; \n", request{}},
		{"-- ping", request{}},
		{"/* a /* b */ c */ -- d", request{}},
		{"SHOW POOLS", request{verb: "show", name: "pools"}},
		{"show Pools;", request{verb: "show", name: "pools"}},
		{"\tSHOW\n\"pools\" ; ", request{verb: "show", name: "pools"}},
		{"SELECT pools;", request{verb: "show", name: "pools"}},
		{"/* driver */ SHOW/**/CLIENTS -- now", request{verb: "show", name: "clients"}},
		{"SHOW TRANSACTION ISOLATION LEVEL", request{verb: "show", name: "transaction_isolation"}},
		{"SHOW TIME ZONE", request{verb: "show", name: "timezone"}},
		{"PAUSE", request{verb: "pause"}},
		{"pause My-Db.2", request{verb: "pause", arg: "My-Db.2", hasArg: true}},
		{`PAUSE "My ""Db"""`, request{verb: "pause", arg: `My "Db"`, hasArg: true}},
		{"PAUSE ''", request{verb: "pause", hasArg: true}},
		{"Shutdown WAIT_FOR_SERVERS;", request{verb: "shutdown", arg: "WAIT_FOR_SERVERS", hasArg: true}},
		{"RELOAD", request{verb: "reload"}},
		{"SET client_encoding TO 'UTF8'", request{verb: "set", name: "client_encoding", arg: "UTF8", hasArg: true}},
		{"set session DateStyle = ISO, MDY", request{verb: "set", name: "datestyle", arg: "ISO, MDY", hasArg: true}},
		{"SET LOCAL extra_float_digits=-1", request{verb: "set", name: "extra_float_digits", arg: "-1", hasArg: true}},
		{"SET TIME ZONE 'Europe/Berlin'", request{verb: "set", name: "timezone", arg: "Europe/Berlin", hasArg: true}},
		{"SET application_name = 'it''s'", request{verb: "set", name: "application_name", arg: "it's", hasArg: true}},
		{"RESET ALL", request{verb: "reset", name: "all"}},
		{"BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY", request{verb: "begin"}},
		{"START TRANSACTION", request{verb: "begin"}},
		{"COMMIT WORK", request{verb: "commit"}},
		{"DEALLOCATE PREPARE ALL", request{verb: "deallocate", arg: "ALL", hasArg: true}},
		{"DISCARD ALL", request{verb: "discard"}},
		{"reset Queries", request{verb: "reset queries"}},
		{"RESET QUERIES IN shop", request{verb: "reset queries", in: "shop", hasIn: true}},
		{"RESET \"queries\"", request{verb: "reset", name: "queries"}},
		{"KILL_CLIENT 7", request{verb: "kill_client", arg: "7", hasArg: true}},
		{"suspend", request{verb: "suspend"}},
		{"BAN NODE 'a:1' in x", request{verb: "ban", arg: "a:1", hasArg: true, in: "x", hasIn: true}},
		{"BLOCK 'SELECT 1'", request{verb: "block", name: "statement", arg: "SELECT 1", hasArg: true}},
		{"block fingerprint 'ff' in \"x y\" for 90m", request{verb: "block", name: "fingerprint", arg: "ff", hasArg: true, in: "x y", hasIn: true, term: 90 * time.Minute}},
		{"BLOCK 'SELECT 1' FOR '7d';", request{verb: "block", name: "statement", arg: "SELECT 1", hasArg: true, term: 7 * 24 * time.Hour}},
		{"UNBLOCK FINGERPRINT 'ff'", request{verb: "unblock", name: "fingerprint", arg: "ff", hasArg: true}},
		{"UNBLOCK all in x", request{verb: "unblock", name: "all", in: "x", hasIn: true}},
		{"EXPLAIN ROUTE 'SELECT 1'", request{verb: "explain", name: "route", arg: "SELECT 1", hasArg: true}},
		{"MOVE PAUSE", request{verb: "move", name: "pause"}},
		{"move rollback 3,5 IN \"My Db\";", request{verb: "move", name: "rollback", arg: "3, 5", hasArg: true, in: "My Db", hasIn: true}},
		{"MOVE COMPLETE IN shop", request{verb: "move", name: "complete", in: "shop", hasIn: true}},
	}
	for _, c := range cases {
		got, err := parse(c.sql)
		if err != nil || got != c.want {
			t.Errorf("%q: %+v, %v, want %+v", c.sql, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for sql, message := range map[string]string{
		"SHOW":                         "invalid command 'SHOW', use SHOW HELP;",
		"SHOW POOLS CLIENTS":           "invalid command 'SHOW POOLS CLIENTS', use SHOW HELP;",
		"SHOW POOLS; SHOW CLIENTS":     "one command at a time",
		"PAUSE a b":                    "invalid command",
		"PAUSE =":                      "invalid command",
		"RELOAD now":                   "invalid command",
		"SET":                          "invalid command",
		"SET a":                        "invalid command",
		"SET a = ":                     "invalid command",
		"SET a = b c":                  "invalid command",
		"SET a = b,":                   "invalid command",
		"SET SESSION AUTHORIZATION me": "invalid command",
		"SET TIME ZONE":                "invalid command",
		"RESET":                        "invalid command",
		"'SHOW' POOLS":                 "invalid command",
		"COMMIT AND CHAIN":             "invalid command",
		"DEALLOCATE":                   "invalid command",
		"DISCARD":                      "invalid command",
		"DROP TABLE x":                 "invalid command",
		"BAN 'a:1'":                    "invalid command",
		"UNBAN NODE":                   "invalid command",
		"BAN NODE x IN":                "invalid command",
		"BLOCK":                        "invalid command",
		"BLOCK ALL":                    "invalid command",
		"BLOCK x":                      "invalid command",
		"BLOCK 'x' FOR":                "invalid command",
		"BLOCK 'x' FOR 0":              "\"0\" is not for how long",
		"BLOCK 'x' FOR -1m":            "\"-1m\" is not for how long",
		"BLOCK 'x' FOR 400d":           "\"400d\" is not for how long",
		"UNBLOCK 'x' FOR 1m":           "invalid command",
		"EXPLAIN SELECT 1":             "invalid command",
		"EXPLAIN ROUTE select":         "invalid command",
		"MOVE":                         "invalid command",
		"MOVE PAUSE 3":                 "invalid command",
		"MOVE STOP":                    "invalid command",
		"MOVE ROLLBACK 1 2":            "invalid command",
		"MOVE ROLLBACK 1 IN":           "invalid command",
		"SUSPEND shop":                 "invalid command",
		"SHOW $1":                      "invalid command",
		"SHOW 'pools":                  "unterminated quoted name or string",
		"SHOW \"pools":                 "unterminated quoted name or string",
		"/* SHOW POOLS":                "unterminated /* comment",
		"/* /* */ SHOW POOLS":          "unterminated /* comment",
	} {
		r, err := parse(sql)
		switch {
		case err == nil:
			t.Errorf("%q was read as %+v", sql, r)
		case err.Code != "42601" || !strings.HasPrefix(err.Message, message):
			t.Errorf("%q: %v, want %s", sql, err, message)
		}
	}
	_, err := parse("\xff" + strings.Repeat("é", 3000))
	if err == nil || len(err.Message) > 300 || strings.ToValidUTF8(err.Message, "") != err.Message {
		t.Errorf("a long text makes a long or broken message: %q", err.Message)
	}
}

// FuzzParse: whatever the text, the answer is a command, nothing, or 42601; and
// a command that is written out anew reads as itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"SHOW POOLS;", "pause \"a\"\"b\"", "SET x TO 'y', z", "/* /* */ */ RELOAD -- x\n;", "SHOW $1", "set time zone 'UTC'",
		"SHOW POOLS WHERE a = 1 AND NOT (b IN ('x', NULL) OR c LIKE '%\\_') AND d NOT BETWEEN -1 AND 2.50 ORDER BY a DESC NULLS LAST, 2 LIMIT 5 OFFSET 1",
		"twopc commit 'a' force", "SHOW x WHERE a IS NOT NULL", "move rollback 1, 2 in x", "MOVE START ADD a, 'b=c:1' slots 1, '2-3' TO x exact PLAN 'it''s' IN y", "move plan", "BEGIN", "RESET all", "SHUTDOWN wait_for_clients", "deallocate prepare x", "KILL \x00", "'", "--",
	} {
		f.Add(s)
	}
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	f.Fuzz(func(t *testing.T, sql string) {
		r, err := parse(sql)
		if err != nil {
			if err.Code != "42601" || len(err.Message) > 400 {
				t.Fatalf("%q: %v", sql, err)
			}
			return
		}
		again, rows := r.verb, ""
		if r.rows != nil {
			rows, r.rows = r.rows.String(), nil
		}
		switch {
		case r.verb == "set":
			again += " " + quote(r.name) + " = '" + strings.ReplaceAll(r.arg, "'", "''") + "'"
		case r.verb == "twopc":
			again += " " + r.name + " '" + strings.ReplaceAll(r.arg, "'", "''") + "'"
			if r.force {
				again += " force"
			}
		case r.verb == "block" || r.verb == "unblock":
			if r.name != byText {
				again += " " + r.name
			}
			if r.hasArg {
				again += " '" + strings.ReplaceAll(r.arg, "'", "''") + "'"
			}
			if r.hasIn {
				again += " in " + quote(r.in)
			}
			if r.term > 0 {
				again += " for '" + r.term.String() + "'"
			}
		case r.plan != nil:
			again += " " + r.name + r.plan.text()
			if r.hasIn {
				again += " in " + quote(r.in)
			}
		case r.verb == "move" || r.verb == "explain" || r.verb == "ban" || r.verb == "unban":
			if again += " " + r.name; r.name == "" {
				again += "node"
			}
			if r.hasArg {
				again += " '" + strings.ReplaceAll(r.arg, "'", "''") + "'"
			}
			if r.hasIn {
				again += " in " + quote(r.in)
			}
		case r.name != "":
			again += " " + quote(r.name) + " " + rows
		case r.hasArg:
			again += " " + quote(r.arg)
		case r.verb == "show" || r.verb == "reset":
			return // an empty quoted name
		case r.verb == "discard":
			again += " all"
		}
		r2, err := parse(again)
		rows2 := ""
		if r2.rows != nil {
			rows2, r2.rows = r2.rows.String(), nil
		}
		if r.plan != nil && r2.plan != nil && reflect.DeepEqual(r.plan, r2.plan) {
			r2.plan = r.plan
		}
		if err != nil || r2 != r || rows2 != rows {
			t.Fatalf("%q is %+v %s, but %q is %+v %s, %v", sql, r, rows, again, r2, rows2, err)
		}
	})
}
