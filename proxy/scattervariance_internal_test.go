package proxy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// varied are types, and how their values are made.
var varied = []struct {
	sql  string
	sets int
	make func(r *rand.Rand) func() string
}{
	{"smallint", 1500, func(r *rand.Rand) func() string { return wholes(r, 16) }},
	{"integer", 1500, func(r *rand.Rand) func() string { return wholes(r, 32) }},
	{"bigint", 1500, func(r *rand.Rand) func() string { return wholes(r, 64) }},
	{"numeric", 6000, numerics},
}

// wholes makes numbers of up to so many bits, all of them near each other at times.
func wholes(r *rand.Rand, bits int) func() string {
	width := 1 + r.IntN(bits)
	near := int64(r.Uint64()) >> (65 - bits)
	if r.IntN(2) == 0 {
		near = 0
	}
	return func() string {
		v := int64(r.Uint64()) >> (64 - width)
		if near != 0 {
			v = near + v>>min(width-1, bits/2)/2
		}
		return fmt.Sprint(min(max(v, -1<<(bits-1)), 1<<(bits-1)-1))
	}
}

// numerics makes numbers of a few kinds: of one size or of many, with zeros behind, all alike, and those that are none.
func numerics(r *rand.Rand) func() string {
	size, scale, kind := r.IntN(60)-30, r.IntN(25), r.IntN(12)
	same := fmt.Sprintf("%d.%0*d", r.IntN(1000), 1+scale, r.IntN(100))
	return func() string {
		switch kind {
		case 0:
			return same + strings.Repeat("0", r.IntN(4))
		case 1:
			return fmt.Sprintf("%de%d", r.IntN(2000)-1000, r.IntN(300)-150)
		case 2:
			return fmt.Sprintf("%de%d", r.IntN(2000)-1000, -600+r.IntN(9))
		case 3:
			return fmt.Sprintf("%d.%d", r.IntN(3), r.IntN(10))
		case 4:
			return fmt.Sprintf("1000000000000000000000000000000.%0*d", 1+scale, r.IntN(3))
		case 5:
			if r.IntN(6) == 0 {
				return []string{"NaN", "Infinity", "-Infinity"}[r.IntN(3)]
			}
		}
		return fmt.Sprintf("%d.%0*de%d", r.IntN(2000)-1000, 1+scale, r.Uint64()>>r.IntN(64)%1000000, size)
	}
}

// TestVarianceLikeServer puts variances together from parts of many sets, and has the server compute them as well: the
// texts are equal.
func TestVarianceLikeServer(t *testing.T) {
	conn := pgtest.Shared(t).Connect("postgres")
	for i, ty := range varied {
		t.Run(ty.sql, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(i), 11))
			var rows [][]any
			for set := range ty.sets {
				value := ty.make(r)
				for range r.IntN(8) {
					row := []any{set, r.IntN(3), value()}
					if r.IntN(10) == 0 {
						row[2] = nil
					}
					rows = append(rows, row)
				}
			}
			testVariances(t, conn, ty.sql, rows)
		})
	}
}

func testVariances(t *testing.T, conn *pgx.Conn, typ string, rows [][]any) {
	ctx := t.Context()
	if _, err := conn.PgConn().Exec(ctx, "DROP TABLE IF EXISTS v; CREATE TEMP TABLE v (s int, shard int, x "+typ+"); CREATE TEMP TABLE IF NOT EXISTS given (s int, shard int, x text)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"given"}, []string{"s", "shard", "x"}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.PgConn().Exec(ctx, "INSERT INTO v SELECT s, shard, x::"+typ+" FROM given; TRUNCATE given").ReadAll(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"var_pop", "var_samp", "variance", "stddev_pop", "stddev_samp", "stddev"} {
		var sets, nulls, wrong int
		var example *string
		err := conn.QueryRow(ctx, `WITH parts AS (SELECT s, shard, sum(x) AS c1, sum(x::numeric * x::numeric) AS c2, count(x) AS c3 FROM v GROUP BY s, shard),
together AS (SELECT s, (`+variance(name, 1)+`)::text AS got FROM parts AS "shardproxy" GROUP BY s),
whole AS (SELECT s, `+name+`(x)::text AS want, array_agg(x)::text AS x FROM v GROUP BY s)
SELECT count(*), count(*) FILTER (WHERE want IS NULL), count(*) FILTER (WHERE want IS DISTINCT FROM got),
min(format('%s of %s is %s, not %s', s, x, want, got)) FILTER (WHERE want IS DISTINCT FROM got) FROM whole JOIN together USING (s)`).Scan(&sets, &nulls, &wrong, &example)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if wrong > 0 {
			t.Errorf("%s: %d of %d sets are wrong: %s", name, wrong, sets, *example)
		}
		if sets < 1000 || nulls == 0 || nulls > sets/2 {
			t.Errorf("%s: %d sets, %d without a result", name, sets, nulls)
		}
	}
}
