package router

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/catalog"
	"shardproxy/config"
	"shardproxy/internal/pgtest"
	"shardproxy/query"
	"shardproxy/shardmap"
)

// keyedCase is a statement that names one key, as clients send it.
type keyedCase struct {
	name, sql string
	bind      []byte // the body of Bind behind the names, nil of a simple query
}

func keyedCases() []keyedCase {
	key := binary.BigEndian.AppendUint32(nil, 4711)
	text := []byte{0, 0, 0, 1, 0, 0, 0, 4, '4', '7', '1', '1', 0, 0}
	return []keyedCase{
		{"select/text", "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;", nil},
		{"select/parameter", "SELECT abalance FROM pgbench_accounts WHERE aid = $1;", bindOf(key)},
		{"select/parameter-as-text", "SELECT abalance FROM pgbench_accounts WHERE aid = $1;", text},
		{"update/text", "UPDATE pgbench_accounts SET abalance = abalance + -7 WHERE aid = 4711;", nil},
		{"insert/text", "INSERT INTO pgbench_accounts (aid, bid) VALUES (4711, 7);", nil},
		{"insert/parameter", "INSERT INTO pgbench_accounts (aid, bid) VALUES ($1, $2);", bindOf(key, key)},
	}
}

// keyedRouter routes over two shards by a catalog that a server made.
func keyedRouter(tb testing.TB) (*Router, *Owners) {
	tb.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, pgtest.Shared(tb).DSN("postgres"))
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84))"); err != nil {
		tb.Fatal(err)
	}
	snapshot, err := catalog.LoadTables(ctx, conn)
	if err != nil {
		tb.Fatal(err)
	}
	const file = `listen: {address: "127.0.0.1:1"}
users: [{name: app, password: x}]
databases:
  app:
    shards: [{name: s0, nodes: ["127.0.0.1:2"]}, {name: s1, nodes: ["127.0.0.1:3"]}]
    tables: {pgbench_accounts: {key: aid}}
`
	parsed, err := config.Parse([]byte(file), "keyed.yaml")
	if err != nil {
		tb.Fatal(err)
	}
	shards := []string{"s0", "s1"}
	rows := make([]shardmap.Row, 4096)
	for i := range rows {
		rows[i] = shardmap.Row{Slot: int64(i), Shard: shards[i%2]}
	}
	m, err := shardmap.NewMap(1, len(rows), shards, rows)
	if err != nil {
		tb.Fatal(err)
	}
	owners, ok := NewOwners(m, shards)
	if !ok {
		tb.Fatal("the map names other shards")
	}
	return New(Options{Catalog: func() *catalog.Catalog { return snapshot }, Rules: &parsed.Databases[0]}), owners
}

// keyedScratch is what a session keeps from one statement to the next.
type keyedScratch struct {
	values Values
	normal query.Normal
}

// shardOf goes from the text to the number of the shard, as a session does.
func (k *keyedScratch) shardOf(r *Router, o *Owners, sql, bind []byte) (int, error) {
	p := r.Plan(sql, Context{SearchPath: `"$user", public`})
	v := &k.values
	v.Text, v.Literals, v.Types = sql, nil, v.Types[:0]
	if p.Literals() {
		k.normal.Scan(sql)
		v.Literals = k.normal.Literals
	}
	if !v.Bind(bind) && bind != nil {
		return AnyShard, fmt.Errorf("a bad Bind")
	}
	if !p.Splits() {
		return p.Shard(o, v)
	}
	rows, err := p.Rows(o, v)
	if err != nil {
		return AnyShard, err
	}
	return rows[0], nil
}

// All ways to say a key find the same shard, and none allocates when its text
// was seen before.
func TestKeyedHitsDoNotAllocate(t *testing.T) {
	r, owners := keyedRouter(t)
	h, err := shardmap.Value{Type: shardmap.Int4, Data: []byte("4711")}.HashFor(shardmap.Int4)
	if err != nil {
		t.Fatal(err)
	}
	want := owners.Of(h)
	for _, c := range keyedCases() {
		var k keyedScratch
		sql := []byte(c.sql)
		if got, err := k.shardOf(r, owners, sql, c.bind); err != nil || got != want {
			t.Errorf("%s: shard %d, %v", c.name, got, err)
		}
		before := r.Stats().Misses
		a := testing.AllocsPerRun(200, func() { _, _ = k.shardOf(r, owners, sql, c.bind) })
		if a != 0 && !raceEnabled { // the race detector makes sync.Pool forget
			t.Errorf("%s: %v allocations", c.name, a)
		}
		if misses := r.Stats().Misses - before; misses != 0 {
			t.Errorf("%s: planned %d times", c.name, misses)
		}
	}
}

// BenchmarkKeyedPlan goes from a text that was seen before to the shard.
func BenchmarkKeyedPlan(b *testing.B) {
	for _, c := range keyedCases() {
		b.Run(c.name, func(b *testing.B) {
			r, owners := keyedRouter(b)
			var k keyedScratch
			sql := []byte(c.sql)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.shardOf(r, owners, sql, c.bind); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
