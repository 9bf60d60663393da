package proxy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// startupSeeds are the parameters that drivers send, and others.
var startupSeeds = [][]string{
	{"application_name", "psql", "client_encoding", "UTF8"},                                                  // psql
	{"client_encoding", "UTF8", "DateStyle", "ISO", "TimeZone", "Europe/Berlin", "extra_float_digits", "2"},  // pgjdbc
	{"client_encoding", "UTF8", "search_path", `app, "$user"`, "Timezone", "UTC"},                            // Npgsql
	{"options", "-c geqo=off -c statement_timeout=5min", "application_name", "it's", "DateStyle", "German"},  // libpq with PGOPTIONS
	{"options", "-c work_mem=8MB", "work_mem", "9MB"},                                                        // either order: the parameter counts
	{"work_mem", "9MB", "options", "-c work_mem=8MB"},                                                        //
	{"options", "-c work_mem=1MB", "options", "-c geqo=off"},                                                 // the last of two counts
	{"work_mem", "1MB", "Work_Mem", "2MB"}, {"work_mem", "x"}, {"work_mem", ""}, {"no_such", "1"}, {"", "x"}, //
	{"a.b", "c", "options", `-c a.c=d\ e`}, {"client_encoding", "LATIN1", "application_name", "gr\xf6\xdfe"}, //
	{"client_encoding", "nonsense"}, {"role", "app"}, {"session_authorization", "app"}, {"role", "none"}, //
	{"options", "-c role=app -c lc_messages=C"}, {"options", "--"}, {"options", `\`}, {"options", "-c x"}, //
	{"default_transaction_read_only", "on"}, {"transaction_read_only", "on"}, {"default_transaction_isolation", "x"}, //
	{"DateStyle", "DMY"}, {"DateStyle", "ISO, German"}, {"TimeZone", "-03"}, {"search_path", ""}, {"a.b", ""}, //
	{"options", "-c DateStyle=SQL", "datestyle", "YMD"}, {"standard_conforming_strings", "off"}, //
	{"a-b.c", "1"}, {"options", "-c a-b.c=1"}, {"replication", "false"}, {"replication", "x"}, {"_pq_.x", "y"}, //
	{"options", "-c DateStyle=ISO,DMY", "DateStyle", "ISO"}, {"options", "-c datestyle=german", "datestyle", "iso"}, //
	{"seed", "0.5"}, {"session_replication_role", "replica"}, {"bytea_output", "escape"}, {"log_connections", "on"}, //
	{"default_tablespace", "nonsense"}, {"temp_tablespaces", "nonsense"}, {"default_text_search_config", "nonsense"}, //
	{"application_name", "gr\xc3\xb6\xc3\x9fe"}, {"a.b", "gr\xc3\xb6\xc3\x9fe"}, {"search_path", "gr\xc3\xb6\xc3\x9fe"}, //
}

// parametersOf reads a fuzzer's bytes as names and values. What would log in as
// another or elsewhere is left out, and names beyond ASCII, which PostgreSQL folds
// to small letters in another way.
func parametersOf(data []byte) (params []string) {
	all := strings.Split(string(data), "\x00")
	for i := 0; i+1 < len(all); i += 2 {
		name := strings.ToLower(all[i])
		if !isASCII(name+all[i]) || name == "" || name == "user" || name == "database" || strings.HasPrefix(name, "shardproxy.") {
			continue
		}
		params = append(params, all[i], all[i+1])
	}
	return params
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }

// shownSettings is all that a session has been told and has set. What ends a
// session is not to be known from it.
const shownSettings = `SELECT pg_catalog.string_agg(pg_catalog.concat(name, '=', setting), E'\n' ORDER BY name) FROM pg_catalog.pg_settings
WHERE name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable', 'in_hot_standby')`

// start logs in with the parameters and returns what the session then is, or why
// there is none.
func startWith(addr, database string, params []string) (state map[string]string, err error) {
	c, err := dialRaw(addr, "postgres", database, params...)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	state = map[string]string{}
	for name, value := range c.parameters {
		state["told of "+name] = value
	}
	delete(state, "told of in_hot_standby")
	ask := func(name, sql string) error {
		if _, err := c.Write(fQuery(sql).bytes()); err != nil {
			return err
		}
		for {
			kind, body, err := c.receive(rawTimeout)
			switch {
			case err != nil:
				return err
			case kind == wire.MsgErrorResponse:
				state[name] = "error " + wire.Field(body, 'C')
			case kind == wire.MsgDataRow:
				state[name] = string(body)
			case kind == wire.MsgReadyForQuery:
				return nil
			}
		}
	}
	err = ask("settings", shownSettings)
	for i := 0; i < len(params) && err == nil; i += 2 {
		if strings.Contains(params[i], ".") {
			name := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(params[i])
			err = ask("custom "+params[i], "SELECT pg_catalog.current_setting(E'"+name+"', true)")
		}
	}
	return state, err
}

// mayRepeat reports whether a setting may be given twice: the proxy looks at the
// last value alone.
func mayRepeat(params []string) bool {
	n := 0
	for i := 0; i < len(params); i += 2 {
		if params[i] == "options" {
			n += strings.Count(params[i+1], "=")
		} else {
			n++
		}
	}
	return n > 1
}

// FuzzStartup logs in at PostgreSQL and at the proxy with the same parameters.
// What PostgreSQL refuses, the proxy does; where both let the client in, its
// session is the same.
func FuzzStartup(f *testing.F) {
	for _, s := range startupSeeds {
		f.Add([]byte(strings.Join(s, "\x00")))
	}
	fx := start(f, fixtureOptions{size: 3})
	d := pgtest.Shared(f)
	d.Exec("SELECT 1")
	f.Fuzz(func(t *testing.T, data []byte) {
		params := parametersOf(data)
		// The name of the application is the last of the packet, as dialRaw has it.
		direct, directErr := startWith(fx.nodes[0], fx.database, params)
		behind, behindErr := startWith(fx.addr, "app", params)
		switch {
		case behindErr != nil:
			if !strings.HasPrefix(behindErr.Error(), "login: ") || strings.Contains(behindErr.Error(), "XX000") {
				t.Errorf("%q: %v; directly %v", params, behindErr, directErr)
			}
		case directErr != nil && !mayRepeat(params):
			t.Errorf("%q: let in; directly %v", params, directErr)
		case directErr == nil && !maps.Equal(direct, behind):
			t.Errorf("%q:%s", params, firstDifference(direct, behind))
		}
	})
}

// firstDifference shows what differs between the states of two sessions.
func firstDifference(direct, behind map[string]string) (all string) {
	for _, name := range slices.Sorted(maps.Keys(direct)) {
		a, b := strings.Split(direct[name], "\n"), strings.Split(behind[name], "\n")
		for i := range a {
			if i >= len(b) || a[i] != b[i] {
				all += fmt.Sprintf("\n%s: %.200q, directly %.200q", name, b[min(i, len(b)-1)], a[i])
				break
			}
		}
	}
	return all
}
