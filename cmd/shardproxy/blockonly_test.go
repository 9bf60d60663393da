package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBlockOnly compares commands that PostgreSQL runs only inside of transaction blocks, or only outside of them.
func TestBlockOnly(t *testing.T) {
	t.Parallel()
	eitherDriver(t, func(t *testing.T, runtime string) {
		b := &both{limit: 4 * time.Second}
		b.start(t, 2, "", "      moved: {key: owner}\n      everywhere: {reference: true}\n"+runtime)
		for _, sql := range []string{"CREATE TABLE moved (owner int PRIMARY KEY)", "CREATE TABLE everywhere (id int)", "CREATE TABLE home (id int)"} {
			b.onBoth(t, sql)
		}
		eventually(t, "all is known", func() bool {
			return strings.HasPrefix(asked(t, b.proxy, "EXPLAIN (ROUTE) SELECT * FROM moved WHERE owner = 1"), "Route: shard s")
		})
		proxy, direct := speak(t, b.dsn()), speak(t, b.dsnOfAll)
		for _, messages := range [][]message{
			{simple("LOCK TABLE moved")},
			{simple("LOCK moved, everywhere IN SHARE MODE NOWAIT")},
			{simple("LOCK TABLE everywhere")},
			{simple("LOCK TABLE home")},
			request(extended("LOCK TABLE moved")),
			{simple("LOCK TABLE moved; SELECT 1")},
			{simple("BEGIN")}, {simple("LOCK TABLE moved, everywhere")}, request(extended("LOCK TABLE home")), {simple("COMMIT")},
			{simple("BEGIN")}, {simple("CREATE DATABASE other")}, {simple("ROLLBACK")},
			{simple("BEGIN")}, {simple("LOCK TABLE moved")}, {simple("DROP DATABASE other")}, {simple("ROLLBACK")},
			{simple("CREATE DATABASE other; SELECT 1")},
			{simple("SELECT count(*) FROM moved")},
		} {
			got, want := proxy.say(messages...), direct.say(messages...)
			if short := shortErrors(slices.Clone(got)); short != shortErrors(slices.Clone(want)) && short != shortErrors(errorOnly(want)) {
				t.Errorf("%v\nsaid  %s\nwant  %s", messages[0], strings.Join(got, " | "), strings.Join(want, " | "))
			}
			if at := slices.IndexFunc(want, func(line string) bool { return strings.HasPrefix(line, "error ") }); at >= 0 && !slices.Contains(got, want[at]) {
				t.Errorf("%v\nsaid  %s\nwant  %s", messages[0], strings.Join(got, " | "), want[at])
			}
		}
		for _, sql := range []string{"CREATE DATABASE other", "DROP DATABASE IF EXISTS other", "CREATE TABLESPACE other LOCATION '/nowhere'", "DROP TABLESPACE other"} {
			for _, messages := range [][]message{{simple(sql)}, request(extended(sql))} {
				if said := strings.Join(proxy.say(messages...), " | "); !strings.Contains(said, "|0A000|this statement cannot be run over several shards: PostgreSQL runs it in no transaction, ") ||
					!strings.Contains(said, "|Run it on the server of each shard.|") || !strings.HasSuffix(said, " | ready I") {
					t.Errorf("%s: %s", sql, said)
				}
			}
		}
	})
}
