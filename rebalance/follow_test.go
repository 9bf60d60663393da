package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/catalog"
	"shardproxy/internal/pgtest"
	"shardproxy/shardmap"
)

// carryPair is two servers, each one shard, with the same tables.
type carryPair struct {
	t              testing.TB
	source, target *pgtest.Node
	tables         []*Table
	slots          *Set
	user           string // who moves
	failed         <-chan struct{}
}

const carryTestSlots = 64

// newCarryPair starts two servers and makes the tables. keys says by table which columns are the sharding key.
func newCarryPair(t testing.TB, schema string, keys map[string][]string, slots ...shardmap.Slot) *carryPair {
	t.Helper()
	p := &carryPair{t: t, user: "postgres", slots: NewSet(slots, carryTestSlots)}
	settings := map[string]string{"wal_level": "logical", "max_prepared_transactions": "10"}
	p.source = pgtest.Start(t, pgtest.Options{Settings: settings}).Primary()
	p.target = pgtest.Start(t, pgtest.Options{Settings: settings}).Primary()
	p.target.Exec("app", "CREATE TYPE before AS ENUM ('x'); CREATE TABLE earlier (a int)") // so that OIDs differ
	for _, n := range []*pgtest.Node{p.source, p.target} {
		n.Exec("app", schema+`; CREATE SCHEMA shardproxy; CREATE TABLE shardproxy.move_progress (move text PRIMARY KEY, lsn pg_lsn NOT NULL)`)
	}
	p.loadTables(keys)
	return p
}

func (p *carryPair) loadTables(keys map[string][]string) {
	p.t.Helper()
	conn := pgtest.Connect(p.t, p.source.DSN("app", "postgres"))
	all, err := catalog.LoadTables(p.t.Context(), conn)
	if err != nil {
		p.t.Fatal(err)
	}
	p.tables = nil
	for _, of := range all.Tables() {
		key := keys[of.Name]
		if of.Root != nil {
			key = keys[of.Root.Name]
		}
		if key == nil || of.Schema != "public" || len(of.Children) > 0 {
			continue
		}
		table, err := NewTable(of, key, carryTestSlots)
		if err != nil {
			p.t.Fatal(err)
		}
		p.tables = append(p.tables, table)
	}
}

func (p *carryPair) options(move string) CarryOptions {
	connect := func(n *pgtest.Node) func(context.Context) (*pgx.Conn, error) {
		return func(ctx context.Context) (*pgx.Conn, error) { return pgx.Connect(ctx, n.DSN("app", p.user)) }
	}
	return CarryOptions{
		Move: move, Tables: p.tables, Slots: p.slots, Source: connect(p.source), Target: connect(p.target), Wait: 10 * time.Second,
		Replication: replicationTo(p.source.DSN("app", p.user) + "&replication=database"),
	}
}

func replicationTo(dsn string) func(context.Context) (*pgconn.PgConn, error) {
	return func(ctx context.Context) (*pgconn.PgConn, error) { return pgconn.Connect(ctx, dsn) }
}

func (p *carryPair) carry(move string) *Carry { return NewCarry(p.options(move)) }

// copied prepares and copies, and returns where to follow from.
func (p *carryPair) copied(c *Carry) Origin {
	p.t.Helper()
	s, err := c.Prepare(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	defer s.Close()
	if err := c.Copy(p.t.Context(), s, 3); err != nil {
		p.t.Fatal(err)
	}
	return s.Origin
}

// follow runs Follow until the returned function is called, which returns its error. p.failed is closed when it ends.
func (p *carryPair) follow(c *Carry, o Origin) (stop func() error) {
	ctx, cancel := context.WithCancel(p.t.Context())
	ended := make(chan error, 1)
	failed := make(chan struct{})
	p.failed = failed
	go func() {
		err := c.Follow(ctx, o)
		if !errors.Is(err, context.Canceled) {
			p.t.Log("Follow:", err)
		}
		ended <- err
		close(failed)
	}()
	return func() error {
		cancel()
		err := <-ended
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
}

// catchUp waits until the target has what the source has now.
func (p *carryPair) catchUp(c *Carry) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	end, err := c.SourceEnd(ctx, pgtest.Connect(p.t, p.source.DSN("app", "postgres")))
	if err == nil {
		err = c.WaitFor(ctx, end)
	}
	if err != nil {
		p.t.Fatal(err, c.Position(), c.Counts())
	}
}

// rows returns the rows of a table as texts, those of the moving slots or the others.
func (p *carryPair) rows(n *pgtest.Node, t *Table, moving bool) []string {
	p.t.Helper()
	not := ""
	if !moving {
		not = "IS NOT TRUE"
	}
	where := "(" + t.SlotSQL("t.") + " = ANY (" + p.slots.ArraySQL() + ")) " + not
	return pgtest.Lines(n.Rows("app", "SELECT t::text FROM "+t.String()+" t WHERE "+where+" ORDER BY 1"))
}

// same fails unless the target has exactly the source's rows of the moving slots. It returns how many these are.
func (p *carryPair) same() (count int) {
	p.t.Helper()
	for _, t := range p.tables {
		a, b := p.rows(p.source, t, true), p.rows(p.target, t, true)
		count += len(a)
		have := map[string]int{}
		for _, row := range a {
			have[row]++
		}
		for _, row := range b {
			have[row]--
		}
		shown := 0
		for row, n := range have {
			if n != 0 && shown < 5 {
				shown++
				p.t.Errorf("%s: %d on the source more than on the target: %.300s", t, n, row)
			}
		}
	}
	return count
}

// keys returns integers of the moving slots, and of others.
func (p *carryPair) keys(n int) (inside, outside []int) {
	for k := 0; len(inside) < n || len(outside) < n; k++ {
		hash, err := shardmap.Int8.HashText([]byte(fmt.Sprint(k)))
		if err != nil {
			p.t.Fatal(err)
		}
		if p.slots.Has(shardmap.SlotOf(hash, carryTestSlots)) {
			inside = append(inside, k)
		} else {
			outside = append(outside, k)
		}
	}
	return inside[:n], outside[:n]
}

const typesSchema = `
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy, "very"');
CREATE TYPE pair AS (a int, b text, m mood);
CREATE DOMAIN amount AS numeric(12, 3) CHECK (VALUE > -1000000);
CREATE DOMAIN words AS text[];
CREATE TYPE span AS RANGE (subtype = float8);
CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS citext;
CREATE TABLE plain (tenant bigint, id bigint GENERATED ALWAYS AS IDENTITY, b bytea, n numeric, n2 numeric(10, 2), f4 float4, f8 float8, ts timestamp, tz timestamptz,
	d date, tt time, ttz timetz, i interval, u uuid, j json, jb jsonb, ia int[], ta text[], r int4range, ip inet, mac macaddr, bi bit(5), vb bit varying(7), c char(4), vc varchar(9),
	p point, bx box, x xml, money money, ok bool, i2 smallint, q "char", na name, v tsvector, lsn pg_lsn, doubled bigint GENERATED ALWAYS AS (tenant * 2) STORED, PRIMARY KEY (tenant, id));
CREATE TABLE odd (tenant bigint, "I d" citext, m mood, ma mood[], pr pair, pa pair[], am amount, wo words, sp span, h hstore, rc regclass, rt regtype, ci citext,
	gone int, PRIMARY KEY ("I d"));
ALTER TABLE odd DROP COLUMN gone;
ALTER TABLE odd REPLICA IDENTITY FULL;
CREATE TABLE parts (tenant bigint, id int, at date, note text, PRIMARY KEY (tenant, id, at)) PARTITION BY RANGE (at);
CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');
CREATE TABLE parts_new PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2040-01-01');
`

// typesRows inserts rows of the tenants from..to.
func typesRows(from, to int) string {
	return strings.NewReplacer("$from", fmt.Sprint(from), "$to", fmt.Sprint(to)).Replace(`
INSERT INTO plain (tenant, b, n, n2, f4, f8, ts, tz, d, tt, ttz, i, u, j, jb, ia, ta, r, ip, mac, bi, vb, c, vc, p, bx, x, money, ok, i2, q, na, v, lsn)
SELECT g, decode(md5(g::text), 'hex') || '\x00ff27'::bytea, g / 7.0, -g / 3.0, g / 3.0::float4, CASE g % 5 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' WHEN 2 THEN '-0' ELSE g / 3.0::float8 END,
	CASE g % 3 WHEN 0 THEN 'infinity' ELSE timestamp '2024-01-01 00:00:00.123456' + g * interval '1 day 1 us' END, timestamptz '0044-03-15 12:00:00 BC' + g * interval '1 hour',
	date '2024-02-29' + g, '23:59:59.999999', '01:02:03.4+05:30', make_interval(0, g, 0, -g, 3, 0, 0.5), md5(g::text)::uuid, ('{"a" : ' || g || ', "a":2}')::json, '{"b": [1, null]}', ARRAY[[g, NULL], [1, 2]],
	ARRAY['', 'NULL', NULL, 'a"b\c,{}', E'\n\t'], int4range(g, g + 5), '10.0.0.1/8', '08:00:2b:01:02:03', B'10101', B'1', 'a', 'äöü ' || g, point(g, 1e-300), '((1,2),(3,4))', ('<a>' || g || '</a>')::xml, g, g % 2 = 0, g % 100, 'x', 'na', 'a:1 b:2', '1/2'
FROM generate_series($from, $to) g;
INSERT INTO plain (tenant) SELECT g FROM generate_series($from, $to) g;
INSERT INTO odd SELECT g, 'Id ' || g, 'it''s ok', ARRAY['happy, "very"', NULL]::mood[], ROW(g, '(",', 'sad')::pair, ARRAY[ROW(1, NULL, NULL)::pair, NULL], g, ARRAY['x', 'y z'], span(g, NULL), 'a=>1, b=>NULL', 'plain', 'mood', 'Ci'
FROM generate_series($from, $to) g;
INSERT INTO parts SELECT g, g, date '2019-12-01' + g % 60, repeat('x', g % 100) FROM generate_series($from, $to) g;`)
}

// TestCarryTypes: rows of all types come over as they are, by COPY and by changes.
func TestCarryTypes(t *testing.T) {
	p := newCarryPair(t, typesSchema, map[string][]string{"plain": {"tenant"}, "odd": {"tenant"}, "parts": {"tenant"}}, 1, 5, 6, 7, 20, 21, 22, 40, 63)
	if len(p.tables) != 4 {
		t.Fatalf("%d tables", len(p.tables))
	}
	p.source.Exec("app", typesRows(1, 400))
	p.target.Exec("app", "SET session_replication_role = replica; INSERT INTO parts VALUES (0, -1, '2024-01-01', 'of the target')")
	c := p.carry("types")
	o := p.copied(c)
	if n := p.same(); n < 100 || c.Counts().CopiedRows != int64(n) {
		t.Errorf("%d rows, counted %+v", n, c.Counts())
	}
	stop := p.follow(c, o)
	p.source.Exec("app", typesRows(401, 800))
	for _, sql := range []string{
		"UPDATE plain SET f8 = f8 * 1.1, b = NULL, ts = ts + interval '1 us', money = money + 0.01::money WHERE tenant % 3 = 0",
		"UPDATE odd SET ma = m || ma, pr = ROW(tenant, NULL, 'sad')::pair, sp = '(,)' WHERE tenant % 3 = 0",
		"UPDATE odd SET \"I d\" = upper(\"I d\"::text) WHERE tenant % 3 = 1",
		"UPDATE odd SET tenant = tenant + 1000 WHERE tenant % 7 = 1",
		"UPDATE parts SET at = at + 30, note = 'moved' WHERE tenant % 2 = 0",
		"UPDATE plain SET tenant = tenant + 1 WHERE tenant % 11 = 0",
		"DELETE FROM plain WHERE tenant % 13 = 0", "DELETE FROM odd WHERE tenant % 13 = 0", "DELETE FROM parts WHERE tenant % 13 = 0",
	} {
		p.source.Exec("app", sql)
	}
	p.catchUp(c)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := p.same(); n < 200 || c.Counts().Missing != 0 {
		t.Errorf("%d rows, %+v", n, c.Counts())
	}
	if got := p.target.Value("app", "SELECT count(*) FROM parts WHERE id = -1"); got != "1" {
		t.Error("the target's own row is gone")
	}
	for _, want := range []struct {
		table  string
		binary bool
	}{{"plain", true}, {"odd", false}, {"parts_old", true}} {
		for _, f := range p.facts(c) {
			if binary, err := copyBinary(t.Context(), p.session(c), f); f.table.Name == want.table && (err != nil || binary != want.binary) {
				t.Errorf("%s is copied by its binary form: %v, %v", want.table, binary, err)
			}
		}
	}
	if err := c.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.ClearTarget(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, table := range p.tables {
		if rows := p.rows(p.target, table, true); len(rows) > 0 {
			t.Errorf("%s: %d rows are left", table, len(rows))
		}
	}
	p.clean()
}

func (p *carryPair) session(c *Carry) *carrySession {
	p.t.Helper()
	s, err := c.openSource(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(s.close)
	return s
}

func (p *carryPair) facts(c *Carry) []*carryFacts {
	p.t.Helper()
	facts, err := c.readFacts(p.t.Context(), p.session(c))
	if err != nil {
		p.t.Fatal(err)
	}
	return facts
}

// clean fails when the source has anything of a move.
func (p *carryPair) clean() {
	p.t.Helper()
	got := p.source.Value("app", "SELECT (SELECT count(*) FROM pg_publication) || ' ' || (SELECT count(*) FROM pg_replication_slots)")
	if got != "0 0" {
		p.t.Errorf("publications and replication slots left: %s", got)
	}
}
