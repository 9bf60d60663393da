package rebalance

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

// preflightPair is two servers; each look at them has databases of its own.
type preflightPair struct {
	nodes [2]*pgtest.Node
	n     int
}

func newPreflightPair(t *testing.T, settings map[string]string) *preflightPair {
	t.Helper()
	all := map[string]string{"wal_level": "logical", "max_prepared_transactions": "10", "max_slot_wal_keep_size": "1GB"}
	for k, v := range settings {
		all[k] = v
	}
	return &preflightPair{nodes: [2]*pgtest.Node{pgtest.Start(t, pgtest.Options{Settings: all}).Primary(), pgtest.Start(t, pgtest.Options{Settings: all}).Primary()}}
}

// preflightLook is what is looked at.
type preflightLook struct {
	names   [2]string // of the databases
	user    string    // postgres when empty
	tables  []*Table  // loaded from the source when nil
	options PreflightOptions
	notes   bool // they are told, too
}

// databases makes two and runs SQL in them, common first.
func (p *preflightPair) databases(t *testing.T, common string, own [2]string, options [2]string) (names [2]string) {
	t.Helper()
	for i, node := range p.nodes {
		p.n++
		names[i] = fmt.Sprintf("p%d", p.n)
		node.Exec("postgres", "CREATE DATABASE "+names[i]+" "+options[i])
		for _, sql := range []string{common, own[i]} {
			if sql != "" {
				node.Exec(names[i], sql)
			}
		}
	}
	return names
}

// look returns the report as text, without what differs from run to run.
func (p *preflightPair) look(t *testing.T, l preflightLook) string {
	t.Helper()
	user := l.user
	if user == "" {
		user = "postgres"
	}
	var sides [2]*PreflightSide
	for i, node := range p.nodes {
		conn := pgtest.Connect(t, node.DSN(l.names[i], user))
		super := pgtest.Connect(t, node.DSN(l.names[i], "postgres"))
		c, err := catalog.LoadTables(t.Context(), super)
		if err != nil {
			t.Fatal(err)
		}
		if err := super.Close(t.Context()); err != nil {
			t.Error(err)
		}
		sides[i] = &PreflightSide{Shard: fmt.Sprintf("s%d", i), Conn: conn, Catalog: c}
	}
	tables := l.tables
	if tables == nil {
		tables = preflightTables(t, sides[0].Catalog)
	}
	r, err := Preflight(t.Context(), sides[0], sides[1], tables, preflightHalf(), l.options)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sides {
		if s.Conn.PgConn().TxStatus() != 'I' {
			t.Error("a transaction is open")
		}
	}
	if !l.notes {
		r.Notes = nil
	}
	return r.String()
}

// preflightTables are all that can be moved, by their columns k.
func preflightTables(t *testing.T, c *catalog.Catalog) (all []*Table) {
	t.Helper()
	for _, of := range c.Tables() {
		if of.Schema == "public" && (of.Kind == catalog.KindTable || of.Kind == catalog.KindPartition) {
			one, err := NewTable(of, []string{"k"}, compareSlots)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, one)
		}
	}
	return all
}

// preflightHalf are the slots that are to move: those of even numbers.
func preflightHalf() *Set {
	var half []shardmap.Slot
	for i := range compareSlots / 2 {
		half = append(half, shardmap.Slot(i*2))
	}
	return NewSet(half, compareSlots)
}

const preflightTable = "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, email text, note text); "

// Rows that move from the source, and rows of the target that stay there.
const (
	preflightMoves = "INSERT INTO t (id, k, email) SELECT i, i, 'm' || i || '@x' FROM generate_series(1, 400) i WHERE hashint8extended(i, 0) & 1 = 0; "
	preflightStays = "INSERT INTO t (id, k, email) SELECT 1000 + i, i, 's' || i || '@x' FROM generate_series(1, 400) i WHERE hashint8extended(i, 0) & 1 = 1; "
)

func TestPreflightTables(t *testing.T) {
	pair := newPreflightPair(t, nil)
	for _, test := range []struct {
		name, common   string
		source, target string
		want           string
	}{
		{"nothing", preflightTable + "CREATE UNIQUE INDEX ON t (email); CREATE UNIQUE INDEX ON t (id, k)", preflightMoves, preflightStays, ""},
		{"no table", "", preflightTable, "", `
in the way: s1, "public"."t": the table does not exist (hint: shardproxy check --schema tells what the shards do not have alike)`},
		{"columns", "", "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, a int, b text, c text, d int NOT NULL, e int DEFAULT 1)",
			"CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, a bigint, b text COLLATE \"C\", d int, x int, e int DEFAULT 2)", `
in the way: s1, "public"."t": column a: its type is bigint, on shard s0 it is integer (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": column b: its collation is pg_catalog.C by bytes, on shard s0 it is pg_catalog.default (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": column c is missing, which shard s0 has: text (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": column d: its not null is no, on shard s0 it is yes (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": column x is one that shard s0 does not have: integer (hint: make the table alike on both shards; see shardproxy check --schema)
warning: s1, "public"."t": column e: its default is 2, on shard s0 it is 1 (hint: shardproxy check --schema tells what the shards do not have alike)`},
		{"generated", "", "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, a int GENERATED ALWAYS AS (k + 1) STORED)", "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, a int)", `
in the way: s1, "public"."t": column a: its default is none, on shard s0 it is generated (k + 1) (hint: make the table alike on both shards; see shardproxy check --schema)`},
		{"order of columns", "", "CREATE TABLE t (id int PRIMARY KEY, k int, a int)", "CREATE TABLE t (id int PRIMARY KEY, a int, k int)", `
warning: s1, "public"."t": table: its order of columns is id, a, k, on shard s0 it is id, k, a (hint: shardproxy check --schema tells what the shards do not have alike)`},
		{"indexes", "", "CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, a int UNIQUE, CHECK (a > 0)); CREATE INDEX i ON t (a)",
			"CREATE TABLE t (id int, k int NOT NULL, a int, PRIMARY KEY (id, k)); ALTER TABLE t ADD EXCLUDE USING btree (a WITH =)", `
in the way: s1, "public"."t": constraint t_a_check is missing, which shard s0 has: CHECK ((a > 0)) (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": index t_a_excl is one that shard s0 does not have: CREATE INDEX t_a_excl ON public.t USING btree (a) (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": index t_a_key is missing, which shard s0 has: CREATE UNIQUE INDEX t_a_key ON public.t USING btree (a) (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": index t_pkey: its definition is CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id, k), on shard s0 it is CREATE UNIQUE INDEX t_pkey ON public.t USING btree (id) (hint: make the table alike on both shards; see shardproxy check --schema)
in the way: s1, "public"."t": index t_pkey: its constraint is PRIMARY KEY (id, k), on shard s0 it is PRIMARY KEY (id) (hint: make the table alike on both shards; see shardproxy check --schema)
warning: s1, "public"."t": index i is missing, which shard s0 has: CREATE INDEX i ON public.t USING btree (a) (hint: shardproxy check --schema tells what the shards do not have alike)`},
		{"partitions", "CREATE TABLE p (id int, k int NOT NULL, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); ", "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
			"CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (20)", `
in the way: s1, "public"."p1": partition: its partition bound is FOR VALUES FROM (0) TO (20), on shard s0 it is FOR VALUES FROM (0) TO (10) (hint: make the table alike on both shards; see shardproxy check --schema)`},
		{"kinds", "", preflightTable, "CREATE UNLOGGED TABLE t (id int PRIMARY KEY, k int NOT NULL, email text, note text)", `
in the way: s1, "public"."t": table: its unlogged is yes, on shard s0 it is no (hint: make the table alike on both shards; see shardproxy check --schema)`},
		{"types", "", "CREATE TYPE mood AS ENUM ('a', 'b'); CREATE DOMAIN d AS int; CREATE TYPE unused AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, m mood[], d d)",
			"CREATE TYPE mood AS ENUM ('b', 'a'); CREATE DOMAIN d AS int CHECK (VALUE > 0); CREATE TYPE unused AS ENUM ('b'); CREATE TABLE t (id int PRIMARY KEY, k int NOT NULL, m mood[], d d)", `
in the way: s1: type public.d: its definition is d_check CHECK ((VALUE > 0)), on shard s0 it is none (hint: make the type alike on both shards)
in the way: s1: type public.mood: its definition is b; a, on shard s0 it is a; b (hint: make the type alike on both shards)`},
		{"what fires", preflightTable + "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); CREATE RULE r AS ON DELETE TO t DO ALSO NOTHING;",
			"ALTER TABLE t ENABLE REPLICA TRIGGER f; ALTER TABLE t ENABLE ALWAYS RULE r", "ALTER TABLE t ENABLE ALWAYS TRIGGER f", `
in the way: s0, "public"."t": rule r (ENABLE ALWAYS) would act on rows that are only carried over, a second time (hint: ALTER TABLE "public"."t" ENABLE RULE r, or disable it, while slots move)
in the way: s0, "public"."t": trigger f (ENABLE REPLICA) would act on rows that are only carried over, a second time (hint: ALTER TABLE "public"."t" ENABLE TRIGGER f, or disable it, while slots move)
in the way: s1, "public"."t": trigger f (ENABLE ALWAYS) would act on rows that are only carried over, a second time (hint: ALTER TABLE "public"."t" ENABLE TRIGGER f, or disable it, while slots move)`},
		{"a fence", preflightTable + "CREATE SCHEMA shardproxy; CREATE FUNCTION shardproxy.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';",
			"CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION shardproxy.f(); ALTER TABLE t ENABLE ALWAYS TRIGGER f", "", ""},
		{"publications", preflightTable + "CREATE TABLE p (id int, k int NOT NULL, PRIMARY KEY (id, k)) PARTITION BY RANGE (k); CREATE TABLE p1 PARTITION OF p DEFAULT;",
			"CREATE PUBLICATION root FOR TABLE p WITH (publish_via_partition_root = true); CREATE PUBLICATION shardproxy_move_1 FOR TABLE t",
			"CREATE PUBLICATION every FOR ALL TABLES; CREATE PUBLICATION schemas FOR TABLES IN SCHEMA public; CREATE PUBLICATION one FOR TABLE t", `
warning: s0: publication root tells its subscribers of rows that the move deletes here in the end ("public"."p1") (hint: see that the subscribers can do with rows that come from one shard and go from another)
warning: s1: publication every tells its subscribers of rows that the move copies here ("public"."p1", "public"."t") (hint: see that the subscribers can do with rows that come from one shard and go from another)
warning: s1: publication schemas tells its subscribers of rows that the move copies here ("public"."p1", "public"."t") (hint: see that the subscribers can do with rows that come from one shard and go from another)
warning: s1: publication one tells its subscribers of rows that the move copies here ("public"."t") (hint: see that the subscribers can do with rows that come from one shard and go from another)`},
		{"rows", preflightTable, preflightMoves, preflightStays + "INSERT INTO t (id, k) SELECT 5000 + id, k FROM (VALUES (1, 2), (2, 2), (3, 2)) v (id, k)", `
in the way: s1, "public"."t": 3 rows of the slots are there already (hint: they are left from a move that was given up, or do not belong there: no statement sees them; delete them when the owner of the slots has what is right)`},
		{"rows of a copy", preflightTable, preflightMoves, preflightStays + preflightMoves + "DELETE FROM t WHERE id < 1000 AND id NOT IN (SELECT id FROM t ORDER BY id LIMIT 3)", `
in the way: s1, "public"."t": 3 rows of the slots are there already (hint: they are left from a move that was given up, or do not belong there: no statement sees them; delete them when the owner of the slots has what is right)`},
		{"row security", preflightTable, "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON t USING (k > 0)", "", `
warning: s1, "public"."t": table: its row security is disabled, on shard s0 it is forced (hint: shardproxy check --schema tells what the shards do not have alike)
warning: s1, "public"."t": policy p is missing, which shard s0 has: FOR ALL TO public USING ((k > 0)) WITH CHECK () (hint: shardproxy check --schema tells what the shards do not have alike)`},
		{"keys", preflightTable, preflightMoves, preflightStays + "UPDATE t SET id = id - 1000 + 1 WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 3)", `
in the way: s1, "public"."t": 2 rows with values of unique index t_pkey that rows to be moved from shard s0 have, too: (id) = (5), (8) (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)`},
		{"many keys", preflightTable + "CREATE UNIQUE INDEX email ON t (lower(email), ('x' || note)) WHERE email <> ''; ", preflightMoves + "UPDATE t SET note = 'n'",
			preflightStays + "UPDATE t SET email = 'M' || n || '@x', note = 'n' FROM (SELECT id AS i, row_number() OVER (ORDER BY id) AS n FROM t) s WHERE i = id", `
in the way: s1, "public"."t": 99 rows with values of unique index email that rows to be moved from shard s0 have, too: (lower(email), (('x'::text || note))) = (m1@x,xn), (m2@x,xn), (m5@x,xn), (m6@x,xn), (m8@x,xn), (m9@x,xn), (m12@x,xn), (m13@x,xn), (m15@x,xn), (m17@x,xn), and 89 more (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)`},
		// The target's was restored from a dump, after which the same is printed otherwise.
		{"restored", preflightTable + "ALTER TABLE t ADD s varchar(5) DEFAULT 'a'; ", "ALTER TABLE t ADD CHECK (s IN ('a', 'b')); CREATE UNIQUE INDEX email ON t (email) WHERE s IN ('a', 'b'); " + preflightMoves + "UPDATE t SET email = 'same' WHERE id = (SELECT min(id) FROM t)",
			"ALTER TABLE t ADD CHECK (s::text = ANY (ARRAY['a'::varchar::text, 'b'::varchar::text])); CREATE UNIQUE INDEX email ON t (email) WHERE s::text = ANY (ARRAY['a'::varchar::text, 'b'::varchar::text]); " +
				preflightStays + "UPDATE t SET email = 'same' WHERE id = (SELECT min(id) FROM t)", `
in the way: s1, "public"."t": 1 row with values of unique index email that rows to be moved from shard s0 have, too: (email) = (same) (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)`},
		{"equal keys of another look", preflightTable + "CREATE TYPE mood AS ENUM ('a'); ALTER TABLE t ADD n numeric, ADD c char(5), ADD m mood, ADD ms mood[], ADD f float8; CREATE UNIQUE INDEX n ON t (n); CREATE UNIQUE INDEX c ON t (c); CREATE UNIQUE INDEX f ON t (f);",
			"CREATE UNIQUE INDEX m ON t (m, ms);" + preflightMoves + "UPDATE t SET n = 1.0, c = 'a', m = 'a', ms = '{a}', f = 0 WHERE id = (SELECT min(id) FROM t)",
			"CREATE TYPE shifts_numbers AS ENUM ('a'); CREATE UNIQUE INDEX m ON t (m, ms);" + preflightStays + "UPDATE t SET n = 1.00, c = 'a ', m = 'a', ms = '{a}', f = '-0' WHERE id = (SELECT min(id) FROM t)", `
in the way: s1, "public"."t": 1 row with values of unique index c that rows to be moved from shard s0 have, too: (c) = ("a    ") (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)
in the way: s1, "public"."t": 1 row with values of unique index f that rows to be moved from shard s0 have, too: (f) = (-0) (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)
in the way: s1, "public"."t": 1 row with values of unique index m that rows to be moved from shard s0 have, too: (m, ms) = (a,{a}) (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)
in the way: s1, "public"."t": 1 row with values of unique index n that rows to be moved from shard s0 have, too: (n) = (1.00) (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)`},
		{"nulls", preflightTable + "ALTER TABLE t ADD a int, ADD b int; CREATE UNIQUE INDEX a ON t (a, note); CREATE UNIQUE INDEX b ON t (b, note) NULLS NOT DISTINCT WHERE b > 0;",
			preflightMoves + "UPDATE t SET a = 1, b = 1 WHERE id = (SELECT min(id) FROM t)", preflightStays + "UPDATE t SET a = 1, b = 1 WHERE id = (SELECT min(id) FROM t)", `
in the way: s1, "public"."t": 1 row with values of unique index b that rows to be moved from shard s0 have, too: (b, note) = (1,) (hint: change them on one of the shards; only a unique constraint that has the sharding key is one over all shards)`},
		{"keys that are not compared", preflightTable + `CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TYPE pair AS (a int, b int); ALTER TABLE t ADD v varbit, ADD p pair, ADD i text COLLATE ci;
			CREATE UNIQUE INDEX v ON t (v); CREATE UNIQUE INDEX p ON t (p); CREATE UNIQUE INDEX pattern ON t (email text_pattern_ops); CREATE UNIQUE INDEX i ON t (i); ALTER TABLE t ADD EXCLUDE USING btree (note WITH =);`,
			preflightMoves + "UPDATE t SET v = id::bit(32)", preflightStays, `
warning: s1, "public"."t": unique index i lacks the sharding key, and whether both shards have the same values is not found out before: its collation is not deterministic (hint: a row that is in the way ends the move, which then names it)
warning: s1, "public"."t": unique index p lacks the sharding key, and whether both shards have the same values is not found out before: its values are of a type that two servers may hash differently (hint: a row that is in the way ends the move, which then names it)
warning: s1, "public"."t": unique index pattern lacks the sharding key, and whether both shards have the same values is not found out before: it compares by other operators than the type's own (hint: a row that is in the way ends the move, which then names it)
warning: s1, "public"."t": exclusion constraint t_note_excl lacks the sharding key: whether rows of both shards exclude each other is not found out before (hint: a row that is in the way ends the move, which then names it)
warning: s1, "public"."t": unique index v lacks the sharding key, and whether both shards have the same values is not found out before: its values have no hash function (hint: a row that is in the way ends the move, which then names it)`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := pair.look(t, preflightLook{names: pair.databases(t, test.common, [2]string{test.source, test.target}, [2]string{})})
			if got != strings.TrimSpace(test.want) {
				t.Errorf("found:\n%s\nwant:\n%s", got, strings.TrimSpace(test.want))
			}
		})
	}
}

// TestPreflightServers: what servers lack that are not made for moves, and what they are told of otherwise.
func TestPreflightServers(t *testing.T) {
	pair := newPreflightPair(t, map[string]string{"wal_level": "replica", "max_replication_slots": "0", "max_wal_senders": "0", "max_slot_wal_keep_size": "-1"})
	names := pair.databases(t, preflightTable, [2]string{}, [2]string{})
	preflightWant(t, pair.look(t, preflightLook{names: names}), `
in the way: s0: wal_level is replica: what changes there while rows are copied could not be followed (hint: set wal_level to logical and restart the server)
in the way: s0: no replication slot is free, of 0 (max_replication_slots) (hint: drop those that nobody uses (pg_replication_slots), or raise max_replication_slots and restart the server)
in the way: s0: no WAL sender is free, of 0 (max_wal_senders) (hint: raise max_wal_senders and restart the server, or end those that are not needed (pg_stat_replication))
in the way: s1: wal_level is replica: what changes there after the move could not be carried back (hint: set wal_level to logical and restart the server)
in the way: s1: no replication slot is free, of 0 (max_replication_slots) (hint: drop those that nobody uses (pg_replication_slots), or raise max_replication_slots and restart the server)
in the way: s1: no WAL sender is free, of 0 (max_wal_senders) (hint: raise max_wal_senders and restart the server, or end those that are not needed (pg_stat_replication))
warning: s0: max_slot_wal_keep_size is unlimited: a move that stands still keeps WAL until the disk is full; how much is free is not known: PostgreSQL does not tell (hint: set max_slot_wal_keep_size to what the disk can spare; a move that exceeds it begins anew)`)

	// Who knows how much is free.
	pair.nodes[0].Exec(names[0], "CREATE SCHEMA shardproxy; CREATE FUNCTION shardproxy.free_disk_bytes() RETURNS bigint LANGUAGE sql AS 'SELECT 5000000000'")
	preflightWant(t, preflightGrep(pair.look(t, preflightLook{names: names}), "max_slot_wal_keep_size"), `
warning: s0: max_slot_wal_keep_size is unlimited: a move that stands still keeps WAL until the disk is full; 4.7 GiB are free (hint: set max_slot_wal_keep_size to what the disk can spare; a move that exceeds it begins anew)`)
}

// TestPreflightRoom compares what comes with what is free.
func TestPreflightRoom(t *testing.T) {
	pair := newPreflightPair(t, nil)
	names := pair.databases(t, preflightTable, [2]string{"INSERT INTO t (id, k, note) SELECT i, i, repeat('x', 100) FROM generate_series(1, 20000) i"}, [2]string{})
	if got := pair.look(t, preflightLook{names: names, notes: true}); !strings.Contains(got, "note: s1: about 1.") || !strings.Contains(got, "MiB of rows and indexes come, and as much WAL; how much disk is free is not known") {
		t.Error(got) // a half of 3.4 MiB
	}
	pair.nodes[1].Exec(names[1], "CREATE SCHEMA shardproxy; CREATE FUNCTION shardproxy.free_disk_bytes() RETURNS bigint LANGUAGE sql AS 'SELECT 2000000000'")
	if got := pair.look(t, preflightLook{names: names, notes: true}); !strings.Contains(got, "note: s1: about 1.") || !strings.Contains(got, "WAL; 1.9 GiB of its disk are free") {
		t.Error(got)
	}
	pair.nodes[1].Exec(names[1], "CREATE OR REPLACE FUNCTION shardproxy.free_disk_bytes() RETURNS bigint LANGUAGE sql AS 'SELECT 1000000'")
	if got := pair.look(t, preflightLook{names: names, notes: true}); !strings.HasPrefix(got, "in the way: s1: about 1.") || !strings.Contains(got, "976.6 KiB of its disk are free (hint: give it a larger disk") {
		t.Error(got)
	}
}

// TestPreflightRole: a role that is nobody, and one that lacks a single right.
func TestPreflightRole(t *testing.T) {
	pair := newPreflightPair(t, nil)
	names := pair.databases(t, preflightTable+"ALTER TABLE t ENABLE ROW LEVEL SECURITY; GRANT SELECT, INSERT ON t TO app; ", [2]string{}, [2]string{})
	for i, node := range pair.nodes {
		node.Exec(names[i], "REVOKE TEMPORARY ON DATABASE "+names[i]+" FROM PUBLIC")
	}
	other := pgtest.Connect(t, pair.nodes[0].DSN(names[0], "postgres"))
	if _, err := other.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	found := pair.look(t, preflightLook{names: names, user: "app"})
	preflightWant(t, regexp.MustCompile(`\d+ sessions?`).ReplaceAllString(found, "N sessions"), `
in the way: s0: the control user "app" may not replicate: what changes there while rows are copied could not be followed (hint: ALTER ROLE "app" REPLICATION, or use a superuser)
in the way: s0: the control user "app" may not create a publication (hint: GRANT CREATE ON DATABASE ... TO "app")
in the way: s0: the control user may not set session_replication_role: triggers and foreign keys would act on rows that move (hint: GRANT SET ON PARAMETER session_replication_role to it (PostgreSQL 15 and later), or use a superuser)
in the way: s1: the control user "app" may not replicate: what changes there after the move could not be carried back (hint: ALTER ROLE "app" REPLICATION, or use a superuser)
in the way: s1: the control user "app" may not create a publication (hint: GRANT CREATE ON DATABASE ... TO "app")
in the way: s1: the control user may not set session_replication_role: triggers and foreign keys would act on rows that move (hint: GRANT SET ON PARAMETER session_replication_role to it (PostgreSQL 15 and later), or use a superuser)
in the way: s0, "public"."t": the control user "app" does not own it, and can neither publish it nor guard it by a trigger (hint: GRANT the owner's role TO "app", or use a superuser)
in the way: s0, "public"."t": the control user "app" has no right of UPDATE, DELETE on it (hint: GRANT UPDATE, DELETE ON "public"."t" TO "app")
in the way: s0, "public"."t": row security hides rows from the control user "app" (hint: ALTER TABLE "public"."t" NO FORCE ROW LEVEL SECURITY for the owner, ALTER ROLE "app" BYPASSRLS, or use a superuser)
in the way: s1, "public"."t": the control user "app" does not own it, and can neither publish it nor guard it by a trigger (hint: GRANT the owner's role TO "app", or use a superuser)
in the way: s1, "public"."t": the control user "app" has no right of UPDATE, DELETE on it (hint: GRANT UPDATE, DELETE ON "public"."t" TO "app")
in the way: s1, "public"."t": row security hides rows from the control user "app" (hint: ALTER TABLE "public"."t" NO FORCE ROW LEVEL SECURITY for the owner, ALTER ROLE "app" BYPASSRLS, or use a superuser)
warning: s0: N sessions of other roles hidden from the control user: transactions for which the copy would have to wait cannot be named (hint: GRANT pg_read_all_stats TO "app")`)
	for i, node := range pair.nodes {
		node.Exec(names[i], fmt.Sprintf(`ALTER ROLE app REPLICATION; GRANT CREATE ON DATABASE %s TO app; GRANT SET ON PARAMETER session_replication_role TO app; GRANT pg_read_all_stats TO app;
			ALTER TABLE t OWNER TO app`, names[i]))
	}
	preflightWant(t, pair.look(t, preflightLook{names: names, user: "app"}), `
in the way: s1: the control user "app" may not make temporary tables, in which values of unique constraints would be compared (hint: GRANT TEMPORARY ON DATABASE ... TO "app")`)
	for i, node := range pair.nodes {
		node.Exec(names[i], "GRANT TEMPORARY ON DATABASE "+names[i]+" TO app; ALTER TABLE t FORCE ROW LEVEL SECURITY")
	}
	preflightWant(t, pair.look(t, preflightLook{names: names, user: "app"}), `
in the way: s0, "public"."t": row security hides rows from the control user "app" (hint: ALTER TABLE "public"."t" NO FORCE ROW LEVEL SECURITY for the owner, ALTER ROLE "app" BYPASSRLS, or use a superuser)
in the way: s1, "public"."t": row security hides rows from the control user "app" (hint: ALTER TABLE "public"."t" NO FORCE ROW LEVEL SECURITY for the owner, ALTER ROLE "app" BYPASSRLS, or use a superuser)`)
	for i, node := range pair.nodes {
		node.Exec(names[i], "ALTER TABLE t NO FORCE ROW LEVEL SECURITY; REVOKE DELETE ON t FROM app")
	}
	preflightWant(t, pair.look(t, preflightLook{names: names, user: "app"}), `
in the way: s0, "public"."t": the control user "app" has no right of DELETE on it (hint: GRANT DELETE ON "public"."t" TO "app")
in the way: s1, "public"."t": the control user "app" has no right of DELETE on it (hint: GRANT DELETE ON "public"."t" TO "app")`)
	for i, node := range pair.nodes {
		node.Exec(names[i], "GRANT DELETE ON t TO app")
	}
	preflightWant(t, pair.look(t, preflightLook{names: names, user: "app"}), ``)
}

// TestPreflightTransactions names those that a replication slot would wait for, and not those that only read.
func TestPreflightTransactions(t *testing.T) {
	pair := newPreflightPair(t, nil)
	names := pair.databases(t, preflightTable, [2]string{}, [2]string{})
	reader, writer := pgtest.Connect(t, pair.nodes[0].DSN(names[0], "postgres")), pgtest.Connect(t, pair.nodes[0].DSN("postgres", "postgres"))
	for sql, conn := range map[string]*pgx.Conn{"BEGIN; SELECT 1": reader, "BEGIN; SET LOCAL application_name = 'import'; SELECT txid_current()": writer} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	preparer := pgtest.Connect(t, pair.nodes[0].DSN(names[0], "postgres"))
	if _, err := preparer.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1, 1); PREPARE TRANSACTION 'left'"); err != nil {
		t.Fatal(err)
	}
	if got := pair.look(t, preflightLook{names: names}); got != "" {
		t.Error("nothing is old:", got)
	}
	got := pair.look(t, preflightLook{names: names, options: PreflightOptions{Old: time.Microsecond}})
	got = regexp.MustCompile(`process \d+`).ReplaceAllString(regexp.MustCompile(`\d\d:\d\d:\d\d ago`).ReplaceAllString(got, "TIME ago"), "process N")
	preflightWant(t, got, `
in the way: s0: the copy cannot begin before its end: prepared transaction 'left' of postgres in p1, prepared TIME ago (hint: COMMIT PREPARED or ROLLBACK PREPARED it; one of shardproxy's own is resolved by its proxies)
in the way: s0: the copy cannot begin before its end: the transaction of postgres in postgres (process N, import), begun TIME ago (hint: wait for its end, or end it (pg_terminate_backend))`)
	for sql, conn := range map[string]*pgx.Conn{"ROLLBACK": writer, "ROLLBACK PREPARED 'left'": preparer} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPreflightUnlike: databases that hold text in another way.
func TestPreflightUnlike(t *testing.T) {
	pair := newPreflightPair(t, nil)
	names := pair.databases(t, preflightTable, [2]string{}, [2]string{"", "TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'POSIX' LC_CTYPE 'POSIX'"})
	preflightWant(t, pair.look(t, preflightLook{names: names}), `
in the way: s1: its encoding is LATIN1, that of shard s0 is UTF8 (hint: make the shard's database anew with the same encoding)
warning: s1, "public"."t": collation default of a column is "c C C" here and "c C.UTF-8 C.UTF-8" on shard s0 (hint: use the same version of the collation's library on all shards)`)
	names = pair.databases(t, "CREATE TABLE t (id int PRIMARY KEY, k text); CREATE TABLE u (id text COLLATE \"C\" PRIMARY KEY, k int, v text UNIQUE); CREATE TABLE w (id text COLLATE \"C\" PRIMARY KEY, k int)",
		[2]string{}, [2]string{"", "TEMPLATE template0 LC_COLLATE 'POSIX'"})
	preflightWant(t, pair.look(t, preflightLook{names: names}), `
in the way: s1, "public"."t": its sharding key is of text of collation default, which is "c C C.UTF-8" here and "c C.UTF-8 C.UTF-8" on shard s0 (hint: use the same version of the collation's library on all shards, and REINDEX)
in the way: s1, "public"."u": index u_v_key is of text of collation default, which is "c C C.UTF-8" here and "c C.UTF-8 C.UTF-8" on shard s0 (hint: use the same version of the collation's library on all shards, and REINDEX)`)
	// One major version is all that is here.
	p := &preflight{source: &PreflightSide{Shard: "s0", facts: preflightFacts{version: 150004}}, target: &PreflightSide{Shard: "s1", facts: preflightFacts{version: 160001}}, report: &PreflightReport{}}
	p.alike()
	preflightWant(t, p.report.String(), `
in the way: s1: it has PostgreSQL 16, shard s0 has 15: rows are carried in the server's own format (hint: upgrade all shards to one major version first)`)
}

// TestPreflightWhere: the same database twice, standbys.
func TestPreflightWhere(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{Replicas: 1, Settings: map[string]string{"wal_level": "logical", "max_slot_wal_keep_size": "1GB"}})
	pair := &preflightPair{nodes: [2]*pgtest.Node{c.Primary(), c.Primary()}}
	c.Primary().Exec("postgres", "CREATE DATABASE one")
	c.Primary().Exec("one", preflightTable)
	c.Primary().Exec("one", "SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
	c.CatchUp()
	preflightWant(t, pair.look(t, preflightLook{names: [2]string{"one", "one"}}), `
in the way: s1: it is the same database as shard s0, or a physical copy of it (hint: move to another shard)`)
	pair.nodes[1] = c.Replicas()[0]
	preflightWant(t, pair.look(t, preflightLook{names: [2]string{"one", "one"}}), `
in the way: s1: it is the same database as shard s0, or a physical copy of it (hint: move to another shard)`)
	pair.nodes[1] = pgtest.Start(t, pgtest.Options{Settings: map[string]string{"wal_level": "logical"}}).Primary()
	pair.nodes[1].Exec("postgres", "CREATE DATABASE one")
	pair.nodes[1].Exec("one", preflightTable)
	preflightWant(t, preflightGrep(pair.look(t, preflightLook{names: [2]string{"one", "one"}, notes: true}), "note: s0"), `
note: s0: standbys follow it (replica1) and do not have the move's replication slot: when one is promoted while rows are copied or followed, the copy begins anew (hint: plan no switchover while slots move)
note: s0: others decode its changes, too (replication slots cdc)`)
	// To a standby.
	pair.nodes[0], pair.nodes[1] = pair.nodes[1], c.Replicas()[0]
	preflightWant(t, preflightGrep(pair.look(t, preflightLook{names: [2]string{"one", "one"}}), "in the way"), `
in the way: s1: the server is a standby (hint: the shard has no primary, or the connection did not lead to it)`)
}

// preflightWant compares a report with lines.
func preflightWant(t *testing.T, got, want string) {
	t.Helper()
	if got != strings.TrimSpace(want) {
		t.Errorf("found:\n%s\nwant:\n%s", got, strings.TrimSpace(want))
	}
}

// preflightGrep leaves the lines that have some text.
func preflightGrep(report, text string) string {
	lines := slices.DeleteFunc(strings.Split(report, "\n"), func(line string) bool { return !strings.Contains(line, text) })
	return strings.Join(lines, "\n")
}
