package exec_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/exec"
	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// arrayTypes are the columns of the rows that travel, with the OIDs of their arrays.
var arrayTypes = []struct {
	name         string
	oid, arrayOf uint32
	value        func(r *rand.Rand) string
}{
	{"int8", 20, 1016, func(r *rand.Rand) string { return fmt.Sprint(int64(r.Uint64()) >> r.IntN(64)) }},
	{"text", 25, 1009, func(r *rand.Rand) string {
		odd := []string{`"`, `\`, `{`, `}`, `,`, ` `, "\n", "\t", "\x01", "'", "NULL", "null", "é", "日", "\U0001F600", ";", "a", `\"`, `\\`}
		s := ""
		for range r.IntN(8) {
			s += odd[r.IntN(len(odd))]
		}
		if r.IntN(20) == 0 {
			s += string(bytes.Repeat([]byte(`x"\`), r.IntN(20000)))
		}
		return s
	}},
	{"numeric", 1700, 1231, func(r *rand.Rand) string {
		if r.IntN(10) == 0 {
			return []string{"NaN", "Infinity", "-Infinity"}[r.IntN(3)]
		}
		return fmt.Sprintf("%d.%0*d", int64(r.Uint64())>>r.IntN(64), 1+r.IntN(20), r.IntN(1000))
	}},
	{"bytea", 17, 1001, func(r *rand.Rand) string {
		b := make([]byte, r.IntN(30))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return fmt.Sprintf(`\x%x`, b)
	}},
	{"boolean", 16, 1000, func(r *rand.Rand) string { return []string{"t", "f"}[r.IntN(2)] }},
	{"timestamptz", 1184, 1185, func(r *rand.Rand) string { return fmt.Sprintf("2024-01-02 03:04:05.%06d+00", r.IntN(1000000)) }},
	{"box", 603, 1020, func(r *rand.Rand) string { return fmt.Sprintf("(%d,2),(%d,1)", r.IntN(9), -r.IntN(9)) }},
}

// TestArraysRoundTrip reads rows off a server, sends them back as arrays, and has the server compare.
func TestArraysRoundTrip(t *testing.T) {
	d := pgtest.Shared(t)
	conn := d.Connect("postgres").PgConn()
	ctx := t.Context()
	if _, err := conn.Exec(ctx, "CREATE TEMP TABLE src (ord int8, a int8, b text, c numeric, d bytea, e boolean, f timestamptz, g box)").ReadAll(); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for _, rows := range []int{0, 1, 2, 1000} {
		for _, nulls := range []int{0, 1, 4} {
			fillArrays(t, ctx, conn, r, rows, nulls)
			for _, binary := range []bool{false, true} {
				checkArrays(t, ctx, conn, rows, binary)
			}
		}
	}
}

// fillArrays makes new rows; one value of nulls is NULL, of 1 all, of 0 none.
func fillArrays(t *testing.T, ctx context.Context, conn *pgconn.PgConn, r *rand.Rand, rows, nulls int) {
	b := &pgconn.Batch{}
	b.ExecParams("TRUNCATE src", nil, nil, nil, nil)
	for i := range rows {
		values := [][]byte{fmt.Append(nil, i+1)}
		for _, ty := range arrayTypes {
			if nulls > 0 && r.IntN(nulls) == 0 {
				values = append(values, nil)
			} else {
				values = append(values, []byte(ty.value(r)))
			}
		}
		b.ExecParams("INSERT INTO src VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", values, nil, nil, nil)
	}
	if _, err := conn.ExecBatch(ctx, b).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

func checkArrays(t *testing.T, ctx context.Context, conn *pgconn.PgConn, rows int, binaryFormat bool) {
	format := int16(0)
	var columns []exec.ArrayColumn
	for _, ty := range arrayTypes {
		columns = append(columns, exec.ArrayColumn{Element: ty.oid, Binary: binaryFormat})
	}
	if binaryFormat {
		format = 1
	}
	budget := exec.NewBudget(1 << 30)
	arrays := exec.NewArrays(columns, budget)
	res := conn.ExecParams(ctx, "SELECT * FROM src ORDER BY ord", nil, nil, nil, []int16{format}).Read()
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	for _, fields := range res.Rows {
		body := row(fields...)[5:]
		if err := arrays.Add(body, 1); err != nil {
			t.Fatal(err)
		}
		clear(body)
	}
	if arrays.Rows() != rows {
		t.Fatalf("%d rows of %d", arrays.Rows(), rows)
	}
	var params [][]byte
	var oids []uint32
	for i, ty := range arrayTypes {
		p := arrays.AppendParam([]byte("before"), i)
		p = p[len("before"):]
		if len(p) != arrays.ParamSize(i) || int(binary.BigEndian.Uint32(p)) != len(p)-4 {
			t.Fatalf("%s: %d bytes, of a size of %d, say %d", ty.name, len(p), arrays.ParamSize(i), binary.BigEndian.Uint32(p))
		}
		params, oids = append(params, p[4:]), append(oids, ty.arrayOf)
	}
	res = conn.ExecParams(ctx, `SELECT count(*), count(*) FILTER (WHERE (s.a, s.b, s.c::text, s.d, s.e, s.f, s.g::text) IS DISTINCT FROM (u.a, u.b, u.c::text, u.d, u.e, u.f, u.g::text)
		OR s.ord IS NULL OR u.ord IS NULL)
		FROM src s FULL JOIN unnest($1, $2, $3, $4, $5, $6, $7) WITH ORDINALITY u(a, b, c, d, e, f, g, ord) ON s.ord = u.ord`, params, oids, []int16{format}, nil).Read()
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	if n, wrong := string(res.Rows[0][0]), string(res.Rows[0][1]); n != fmt.Sprint(rows) || wrong != "0" {
		t.Fatalf("binary %v: of %d rows %s came, %s wrong", binaryFormat, rows, n, wrong)
	}
	arrays.Release()
	if budget.Used() != 0 || arrays.Rows() != 0 {
		t.Fatalf("%d bytes and %d rows after Release", budget.Used(), arrays.Rows())
	}
}

func TestArraysBudget(t *testing.T) {
	columns := []exec.ArrayColumn{{Element: 20, Binary: true}, {Element: 25}}
	budget := exec.NewBudget(100 << 10)
	one, two := exec.NewArrays(columns, budget), exec.NewArrays(columns, budget)
	body := row(int8Value(1), bytes.Repeat([]byte("x"), 100))[5:]
	var err error
	for err == nil {
		if err = one.Add(body, 0); err == nil {
			err = two.Add(body, 0)
		}
	}
	if !errors.Is(err, exec.ErrBudget) || budget.Used() > 100<<10 || budget.Used() < 80<<10 {
		t.Fatalf("%v with %d used", err, budget.Used())
	}
	rows := one.Rows()
	sizes := [2]int{one.ParamSize(0), one.ParamSize(1)}
	if want := 4 + 20 + 12*rows; sizes[0] != want {
		t.Fatalf("%d bytes, not %d: a row that was refused was added in part", sizes[0], want)
	}
	two.Release()
	if err := one.Add(body, 0); err != nil || one.Rows() != rows+1 {
		t.Fatal(err)
	}
}

// TestArraysMemory holds what is allocated against what is used.
func TestArraysMemory(t *testing.T) {
	for _, binaryFormat := range []bool{false, true} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		budget := exec.NewBudget(1 << 30)
		a := exec.NewArrays([]exec.ArrayColumn{{Element: 20, Binary: binaryFormat}, {Element: 25, Binary: binaryFormat}}, budget)
		body := row([]byte("12345678"), bytes.Repeat([]byte("y"), 300))[5:]
		for n := range 100000 {
			if err := a.Add(body, 0); err != nil {
				t.Fatal(err)
			}
			used := a.ParamSize(0) + a.ParamSize(1)
			if limit := used + used/4; n > 1000 && budget.Used() > int64(limit) {
				t.Fatalf("%d rows: %d bytes held for %d", n, budget.Used(), used)
			}
		}
		runtime.ReadMemStats(&after)
		used := uint64(a.ParamSize(0) + a.ParamSize(1))
		if got := after.TotalAlloc - before.TotalAlloc; got > used+used/4 || got < uint64(budget.Used()) {
			t.Fatalf("%d bytes allocated for %d, %d of the budget", got, used, budget.Used())
		}
		runtime.KeepAlive(a)
	}
}

func TestArraysMalformed(t *testing.T) {
	a := exec.NewArrays([]exec.ArrayColumn{{Element: 20, Binary: true}, {Element: 25}}, exec.NewBudget(1<<20))
	fine := row(nil, int8Value(1), []byte("x"))[5:]
	for name, body := range map[string][]byte{
		"empty": {}, "one byte": {0}, "cut": fine[:len(fine)-1], "no fields": {0, 3}, "too few": row(nil, nil)[5:],
		"negative": {0, 3, 255, 255, 255, 255, 255, 255, 255, 254, 0, 0, 0, 0},
	} {
		err := a.Add(body, 1)
		var we *wire.Error
		if !errors.As(err, &we) || we.Code != "08P01" || a.Rows() != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.Add(fine, 1); err != nil {
		t.Fatal(err)
	}
	if p := a.AppendParam(nil, 1); string(p[4:]) != `{"x"}` {
		t.Fatalf("%q", p)
	}
}

func FuzzArrays(f *testing.F) {
	f.Add(row(nil, int8Value(1), []byte(`x"\`))[5:], 1)
	f.Add([]byte{0, 9, 0, 0, 0, 1}, 0)
	f.Fuzz(func(t *testing.T, body []byte, first int) {
		a := exec.NewArrays([]exec.ArrayColumn{{Element: 20, Binary: true}, {Element: 25}}, exec.NewBudget(1<<30))
		for range 3 {
			if a.Add(body, first) != nil {
				break
			}
		}
		for i := range 2 {
			if p := a.AppendParam(nil, i); len(p) != a.ParamSize(i) {
				t.Fatalf("%d bytes, not %d", len(p), a.ParamSize(i))
			}
		}
	})
}
