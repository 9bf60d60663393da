package drivertest

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

func (c pgxClient) types(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	var number pgtype.Numeric
	check(number.Scan("-12345678901234567890.123456789"))
	everyByte := make([]byte, 256)
	for i := range everyByte {
		everyByte[i] = byte(i)
	}
	zone := time.FixedZone("", 7200)
	for _, v := range []struct {
		name  string
		value any
	}{
		{"bool", true}, {"int2", int16(-32768)}, {"int4", int32(math.MaxInt32)}, {"int8", int64(math.MinInt64)}, {"numeric", number},
		{"numeric", pgtype.Numeric{NaN: true, Valid: true}}, {"float4", float32(1.5)}, {"float8", 0.1}, {"float8", math.Inf(1)}, {"float8", math.Inf(-1)},
		{"text", ""}, {"text", "héllo 世界 😀 'quoted' \\ $1 ?"}, {"varchar(5)", "abc"}, {"char(5)", "abc"}, {"bytea", []byte{}}, {"bytea", everyByte},
		{"date", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)}, {"timestamp", time.Date(1999, 12, 31, 23, 59, 59, 123456000, time.UTC)},
		{"timestamptz", time.Date(2024, 7, 1, 12, 0, 0, 0, zone)}, {"interval", pgtype.Interval{Months: 1, Days: 2, Microseconds: 3, Valid: true}},
		{"time", pgtype.Time{Microseconds: 86399999999, Valid: true}}, {"uuid", pgtype.UUID{Bytes: [16]byte{1, 2, 3, 15: 255}, Valid: true}},
		{"jsonb", map[string]any{"a": []any{1, nil, "x"}}}, {"json", "[1, 2]"}, {"int4[]", []int32{1, 2, 3}}, {"int4[]", []int32{}}, {"text[]", []string{"a", `q"\,{}`, ""}},
		{"inet", netip.MustParsePrefix("192.168.0.1/32")}, {"cidr", netip.MustParsePrefix("10.0.0.0/8")},
		{"int4range", pgtype.Range[int32]{Lower: 1, Upper: 10, LowerType: pgtype.Inclusive, UpperType: pgtype.Exclusive, Valid: true}},
		{"point", pgtype.Point{P: pgtype.Vec2{X: 1, Y: -2.5}, Valid: true}}, {"bit(4)", pgtype.Bits{Bytes: []byte{0xA0}, Len: 4, Valid: true}},
		{"int4", nil}, {"text", nil}, {"bytea", nil},
	} {
		query := fmt.Sprintf("SELECT $1::%s, pg_typeof($1::%s)::text, ($1::%s)::text", v.name, v.name, v.name)
		rows, err := conn.Query(ctx, query, v.value)
		if err != nil { // of the driver: not every mode can send every value
			w.say("%s: %v", v.name, err)
			continue
		}
		for rows.Next() {
			row, err := rows.Values()
			check(err)
			field := rows.FieldDescriptions()[0]
			if at, ok := row[0].(time.Time); ok {
				row[0] = at.UTC() // the driver's local zone is not the matter
			}
			w.say("%s %#v %v %v oid %d size %d modifier %d", v.name, row[0], row[1], row[2], field.DataTypeOID, field.DataTypeSize, field.TypeModifier)
		}
		if rows.Err() != nil {
			w.refused(v.name, rows.Err())
		}
	}
	return nil
}

// pairOf is a value of the composite type pair.
type pairOf struct {
	A int32
	B string
}

func (c pgxClient) ownTypes(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	for _, statement := range []string{
		"CREATE TYPE mood AS ENUM ('sad', 'happy')", "CREATE TYPE pair AS (a int, b text)", "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
		"CREATE TABLE own (m mood, p pair, d positive, ms mood[])",
	} {
		execute(ctx, conn, statement)
	}
	types := must(conn.LoadTypes(ctx, []string{"mood", "pair", "_mood"}))
	conn.TypeMap().RegisterTypes(types)
	w.say("%d types", len(types))
	insert := "INSERT INTO own VALUES ($1, $2::pair, $3, $4::mood[])"
	if c.mode == pgx.QueryExecModeExec || c.mode == pgx.QueryExecModeSimpleProtocol {
		// These modes learn no types from the server: values are told as text.
		must(conn.Exec(ctx, insert, "happy", `(1,"x,y")`, 5, "{sad,happy}"))
	} else {
		must(conn.Exec(ctx, insert, "happy", pairOf{1, "x,y"}, 5, []string{"sad", "happy"}))
	}
	ask(ctx, w, conn, "SELECT m, p::text, d, ms FROM own WHERE m > $1", "sad")
	w.refused("domain", must2(conn.Exec(ctx, "INSERT INTO own (d) VALUES ($1)", -1)))
	w.refused("enum", must2(conn.Exec(ctx, "INSERT INTO own (m) VALUES ($1)", "angry")))
	return nil
}

func (c pgxClient) prepared(ctx context.Context, w *teller) error {
	first, second := c.connect(ctx, w), c.connect(ctx, w)
	defer first.Close(ctx)
	defer second.Close(ctx)
	execute(ctx, first, "CREATE TABLE p (id int PRIMARY KEY, v text)")
	execute(ctx, first, "INSERT INTO p SELECT i, 'v' || i FROM generate_series(1, 100) i")
	wrong := 0
	for i := 1; i <= 60; i++ {
		for _, conn := range []*pgx.Conn{first, second} {
			tx := must(conn.Begin(ctx))
			var got string
			check(tx.QueryRow(ctx, "SELECT v FROM p WHERE id = $1", i).Scan(&got))
			if got != fmt.Sprintf("v%d", i) {
				wrong++
			}
			must(tx.Exec(ctx, "UPDATE p SET v = v WHERE id = $1", i))
			check(tx.Commit(ctx))
			check(conn.QueryRow(ctx, "SELECT $1::int + $2::int", i, i).Scan(new(int)))
		}
	}
	w.say("wrong %d", wrong)
	// More statements than the driver's cache and a server connection hold.
	total := 0
	for round := range 2 {
		for i := range 600 {
			var got int
			check(first.QueryRow(ctx, fmt.Sprintf("SELECT $1::int + %d", i), round).Scan(&got))
			total += got
		}
	}
	w.say("total %d", total)
	// One text, several types of its parameter.
	for _, v := range []any{int32(1), int64(1) << 40, "text", 1.5, true, nil, int32(2)} {
		rows, err := values(ctx, first, "SELECT $1::text, $2::int", fmt.Sprint(v), 5)
		check(err)
		w.say("%s", rows)
	}
	return nil
}

func (c pgxClient) preparedAlter(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	execute(ctx, conn, "CREATE TABLE pa (id int PRIMARY KEY, v text)")
	execute(ctx, conn, "INSERT INTO pa VALUES (1, 'one')")
	const star, named = "SELECT * FROM pa WHERE id = $1", "SELECT id, v FROM pa WHERE id = $1"
	for range 3 {
		ask(ctx, w, conn, star, 1)
		ask(ctx, w, conn, named, 1)
	}
	for _, change := range []string{
		"ALTER TABLE pa ADD COLUMN w int DEFAULT 7", "ALTER TABLE pa ALTER COLUMN v TYPE varchar(20)", "CREATE INDEX ON pa (v)",
		"ALTER TABLE pa ALTER COLUMN id TYPE bigint", "ALTER TABLE pa DROP COLUMN v", "DROP TABLE pa",
		"CREATE TABLE pa AS SELECT 1 AS id, 'again' AS v",
	} {
		execute(ctx, conn, change)
		// The driver forgets a statement that failed and describes it anew.
		for range 2 {
			ask(ctx, w, conn, star, 1)
			ask(ctx, w, conn, named, 1)
		}
	}
	return nil
}

func (c pgxClient) explicitlyPrepared(ctx context.Context, w *teller) error {
	conn, other := c.connect(ctx, w), c.connect(ctx, w)
	defer conn.Close(ctx)
	defer other.Close(ctx)
	description := must(conn.Prepare(ctx, "mine", "SELECT $1::int + $2, 'x'::varchar(7) AS named"))
	w.say("%v %s", description.ParamOIDs, description.Fields[1].Name)
	must(other.Prepare(ctx, "mine", "SELECT 'of the other ' || $1"))
	for i := range 10 {
		for _, f := range []func(){
			func() { ask(ctx, w, conn, "mine", i, 1) },
			func() { ask(ctx, w, other, "mine", "client") },
		} {
			f()
		}
	}
	// Prepared in a transaction that is rolled back it stays.
	tx := must(conn.Begin(ctx))
	must(tx.Prepare(ctx, "inside", "SELECT 42 + $1::int"))
	check(tx.Rollback(ctx))
	ask(ctx, w, conn, "inside", 1)
	w.refused("prepare", must2(conn.Prepare(ctx, "broken", "SELECT * FROM missing WHERE id = $1")))
	check(conn.Deallocate(ctx, "mine"))
	must(conn.Prepare(ctx, "mine", "SELECT 'second'"))
	ask(ctx, w, conn, "mine")
	check(conn.DeallocateAll(ctx))
	w.refused("by name only", conn.PgConn().ExecPrepared(ctx, "mine", nil, nil, nil).Read().Err)
	w.refused("by name only", conn.PgConn().ExecPrepared(ctx, "inside", nil, nil, nil).Read().Err)
	ask(ctx, w, other, "mine", "client, still")
	return nil
}
