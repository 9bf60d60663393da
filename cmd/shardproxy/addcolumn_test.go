package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestAddColumnIfNotExists compares columns that are added IF NOT EXISTS with the time as their default.
func TestAddColumnIfNotExists(t *testing.T) {
	t.Parallel()
	b := &both{limit: 4 * time.Second}
	b.start(t, 2, "", "      moved: {key: owner}\n      everywhere: {reference: true}\n")
	for _, sql := range []string{"CREATE TABLE moved (owner int PRIMARY KEY, v text)", "CREATE TABLE everywhere (id int, v text)"} {
		b.onBoth(t, sql)
	}
	eventually(t, "all is known", func() bool {
		return strings.HasPrefix(asked(t, b.proxy, "EXPLAIN (ROUTE) SELECT * FROM moved WHERE owner = 1"), "Route: shard s")
	})
	b.onBoth(t, "INSERT INTO moved VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')")
	b.onBoth(t, "INSERT INTO everywhere VALUES (1, 'a'), (2, 'b')")
	proxy, direct := speak(t, b.dsn()), speak(t, b.dsnOfAll)
	const defaults = "SELECT coalesce(string_agg(attname || ' ' || pg_get_expr(adbin, adrelid), ', ' ORDER BY attrelid::regclass::text, attname), 'none') " +
		"FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum WHERE attrelid IN ('moved'::regclass, 'everywhere'::regclass)"
	known := func(table, column string) {
		t.Helper()
		eventually(t, column+" is known", func() bool {
			_, err := b.proxy.Exec(t.Context(), "SELECT "+column+" FROM "+table+" WHERE false")
			return err == nil
		})
	}
	for _, test := range []struct{ sql, table, column string }{
		{"ALTER TABLE moved ADD COLUMN IF NOT EXISTS at timestamptz DEFAULT now()", "moved", "at"},
		{"ALTER TABLE moved ADD COLUMN IF NOT EXISTS at timestamptz NOT NULL DEFAULT now()", "moved", "at"},
		{"ALTER TABLE moved ADD IF  not\nEXISTS \"of day\" date DEFAULT current_date, ADD COLUMN n int DEFAULT 3 -- the end", "moved", "n"},
		{"ALTER TABLE ONLY public.everywhere ADD COLUMN IF NOT EXISTS at timestamp DEFAULT localtimestamp(0), ADD COLUMN IF NOT EXISTS till text DEFAULT 'x' || now()::text", "everywhere", "till"},
		{"ALTER TABLE IF EXISTS everywhere ADD COLUMN IF NOT EXISTS at timestamp DEFAULT localtimestamp, ADD COLUMN IF NOT EXISTS till text DEFAULT now()", "everywhere", "till"},
		{"ALTER TABLE moved ADD COLUMN IF NOT EXISTS k int DEFAULT 5, ADD COLUMN IF NOT EXISTS l timestamptz DEFAULT now() + interval '1 day'", "moved", "l"},
	} {
		if got, want := proxy.query(test.sql), direct.query(test.sql); !slices.Equal(got, want) {
			t.Errorf("%s\nsaid  %s\nwant  %s", test.sql, strings.Join(got, " | "), strings.Join(want, " | "))
		}
		known(test.table, test.column)
		for i, c := range append(b.shards, b.direct) {
			if got, want := one(t, c, defaults), one(t, b.direct, defaults); got != want {
				t.Errorf("%s: server %d has %s, want %s", test.sql, i, got, want)
			}
		}
	}
	for _, sql := range []string{"SELECT count(DISTINCT at), count(DISTINCT \"of day\"), count(DISTINCT l), count(*) FROM moved", "SELECT count(DISTINCT at), count(DISTINCT till) FROM everywhere"} {
		if got, want := proxy.query(sql), direct.query(sql); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", sql, got, want)
		}
	}
	if x, y := one(t, b.shards[0], "SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM everywhere e"), one(t, b.shards[1], "SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM everywhere e"); x != y {
		t.Error("the copies differ")
	}
	if got := proxy.query("ALTER TABLE moved ADD COLUMN IF NOT EXISTS at timestamptz DEFAULT now(), ADD COLUMN IF NOT EXISTS fresh timestamptz DEFAULT now()"); !strings.Contains(strings.Join(got, " "), "0A000") {
		t.Error(got)
	}
	if got := proxy.query("ALTER TABLE moved ADD COLUMN IF /* not here */ NOT EXISTS fresh timestamptz DEFAULT now()"); !strings.Contains(strings.Join(got, " "), "0A000") {
		t.Error(got)
	}
	// What is known is old: that is an error, or the same everywhere.
	stale := func(change, sql string, states ...string) {
		t.Helper()
		before := make([]string, 2)
		for i, c := range b.shards {
			must(t, c, change, pgx.QueryExecModeSimpleProtocol)
			before[i] = one(t, c, defaults)
		}
		_, err := b.proxy.Exec(t.Context(), sql)
		for i, c := range b.shards {
			after := one(t, c, defaults)
			switch {
			case err != nil && (!slices.Contains(states, sqlState(err)) || after != before[i]):
				t.Errorf("%s behind %s: %v, and server %d has %s, it had %s", sql, change, err, i, after, before[i])
			case err == nil && strings.Contains(after, "'20"):
				t.Errorf("%s behind %s: server %d has %s", sql, change, i, after)
			}
		}
	}
	stale("ALTER TABLE moved DROP COLUMN l", "ALTER TABLE moved ADD COLUMN IF NOT EXISTS l timestamptz DEFAULT now()", "22007")
	stale("ALTER TABLE moved ADD COLUMN late timestamptz DEFAULT '-infinity'", "ALTER TABLE moved ADD COLUMN IF NOT EXISTS late timestamptz DEFAULT now()", "42701")
}
