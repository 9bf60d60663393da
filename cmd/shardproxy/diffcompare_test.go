package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// mode is how a statement is sent.
type mode struct {
	name    string
	exec    pgx.QueryExecMode
	results int16 // the format of results, where the protocol lets one choose
	raw     bool  // see askTyped
	// parameters is set for what without them is sent as in another mode.
	parameters bool
}

var modes = []mode{
	{name: "simple", exec: pgx.QueryExecModeSimpleProtocol},
	{name: "exec", exec: pgx.QueryExecModeExec},
	{name: "prepared", exec: pgx.QueryExecModeCacheStatement, results: pgx.BinaryFormatCode},
	{name: "described", exec: pgx.QueryExecModeCacheDescribe, results: pgx.BinaryFormatCode, parameters: true},
	{name: "typed", raw: true, parameters: true},
}

// answer is all that a client sees of a statement.
type answer struct {
	columns string
	rows    []string
	cells   [][]string // of the rows
	tag     string
	err     *pgconn.PgError
}

// ask runs one statement.
func ask(t testing.TB, c *pgx.Conn, m mode, sql string, args []any) (o answer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if m.raw {
		return read(t, sql, askTyped(ctx, c, sql, args))
	}
	all := []any{m.exec}
	if m.exec != pgx.QueryExecModeSimpleProtocol {
		all = append(all, pgx.QueryResultFormats{m.results})
	}
	rows, err := c.Query(ctx, sql, append(all, args...)...)
	if err != nil {
		o.fail(t, sql, err)
		return o
	}
	return read(t, sql, rows)
}

// rowsOf is what pgx gives, by whichever way.
type rowsOf interface {
	FieldDescriptions() []pgconn.FieldDescription
	Next() bool
	RawValues() [][]byte
	Err() error
	CommandTag() pgconn.CommandTag
}

func read(t testing.TB, sql string, rows rowsOf) (o answer) {
	t.Helper()
	for rows.Next() {
		var cells []string
		for _, v := range rows.RawValues() {
			if v == nil {
				cells = append(cells, "NULL")
			} else {
				cells = append(cells, fmt.Sprintf("%q", v))
			}
		}
		o.cells, o.rows = append(o.cells, cells), append(o.rows, strings.Join(append([]string{""}, cells...), "|"))
	}
	for _, f := range rows.FieldDescriptions() {
		o.columns += fmt.Sprintf("%s:%d:%d ", f.Name, f.DataTypeOID, f.TypeModifier)
	}
	o.tag = rows.CommandTag().String()
	if err := rows.Err(); err != nil {
		o.fail(t, sql, err)
	}
	return o
}

// fail notes an error. One that is not the server's is none of the statement's, or
// pgx found it before it sent anything: then it is the same on both sides.
func (o *answer) fail(t testing.TB, sql string, err error) {
	t.Helper()
	*o = answer{}
	if !errors.As(err, &o.err) {
		o.err = &pgconn.PgError{Code: "client", Message: err.Error()}
	}
}

// typedRows reads a pgconn result as rows.
type typedRows struct {
	*pgconn.ResultReader
	tag pgconn.CommandTag
	err error
}

func (r *typedRows) Next() bool {
	if r.NextRow() {
		return true
	}
	r.tag, r.err = r.Close()
	return false
}
func (r *typedRows) RawValues() [][]byte           { return r.Values() }
func (r *typedRows) Err() error                    { return r.err }
func (r *typedRows) CommandTag() pgconn.CommandTag { return r.tag }

// onBoth runs a command on both sides.
func (b *both) onBoth(t testing.TB, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, c := range []*pgx.Conn{b.proxy, b.direct} {
		if _, err := c.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// typedText is a parameter in text whose type is declared by its number.
type typedText struct {
	oid  uint32
	text string
}

// askTyped declares the parameters' types, and sends in binary what has such a form.
func askTyped(ctx context.Context, c *pgx.Conn, sql string, args []any) *typedRows {
	oids, formats, values := make([]uint32, len(args)), make([]int16, len(args)), make([][]byte, len(args))
	for i, a := range args {
		if a == nil {
			continue
		}
		if typed, ok := a.(typedText); ok {
			oids[i], values[i] = typed.oid, []byte(typed.text)
			continue
		}
		_, isText := a.(string)
		if ty, ok := c.TypeMap().TypeForValue(a); ok && !isText {
			oids[i], formats[i] = ty.OID, pgx.BinaryFormatCode
			values[i], _ = c.TypeMap().Encode(ty.OID, pgx.BinaryFormatCode, a, nil)
		} else {
			values[i] = fmt.Append(nil, a)
		}
	}
	return &typedRows{ResultReader: c.PgConn().ExecParams(ctx, sql, values, oids, formats, nil)}
}

// refusals are the beginnings of what the program says when it refuses.
var refusals = []string{
	"this statement cannot be run over several shards: ",
	"the value of the key cannot be understood: ",
	"COPY of rows on several shards must be sent as a simple query",
	"this statement cannot be finished over several shards: ",
	"the statements of this request lie on several shards",
	"the transaction runs on another shard than this statement",
	"the session is tied to another shard than that of this statement",
	"no shard is named for ",
	"the rows of this INSERT ",
	"what runs on all shards must be sent alone",
	"a value that stands for the time of the moment may differ",
	"this command cannot be run in a transaction over several shards",
	"the value that was drawn last is not known",
	"rows were left out, and the order of the others in RETURNING is not known",
}

// nullKey begins the refusal of a row without its key, which has PostgreSQL's code
// for what is the same thing where the key is NOT NULL.
const nullKey = "the key of table "

// refused returns why the program refuses the statement, "" when it does not.
func (o *answer) refused() string {
	switch {
	case o.err != nil && o.err.Code == "23502" && strings.HasPrefix(o.err.Message, nullKey):
		return o.err.Message
	case o.err == nil || o.err.Code != "0A000":
		return ""
	}
	for _, begin := range refusals {
		if strings.HasPrefix(o.err.Message, begin) {
			return strings.TrimPrefix(strings.TrimPrefix(o.err.Message, refusals[0]), "the value of the key cannot be ")
		}
	}
	return ""
}

// difference says how got is not what it should be; "" when it is. Rows are
// compared in their order only when it is said to be ordered.
func difference(got, want *answer, ordered bool) string {
	if want.err != nil || got.err != nil {
		g, w := errorText(got.err), errorText(want.err)
		if g != w {
			return "error " + g + ", should be " + w
		}
		return ""
	}
	g, w := got.rows, want.rows
	if !ordered {
		g, w = slices.Sorted(slices.Values(g)), slices.Sorted(slices.Values(w))
	}
	switch {
	case got.columns != want.columns:
		return fmt.Sprintf("columns %s, should be %s", got.columns, want.columns)
	case !slices.Equal(g, w):
		return fmt.Sprintf("%d rows, should be %d%s%s", len(g), len(w), some("\nlacks ", w, g), some("\nhas ", g, w))
	case got.tag != want.tag:
		return fmt.Sprintf("tag %s, should be %s", got.tag, want.tag)
	}
	return ""
}

func errorText(e *pgconn.PgError) string {
	if e == nil {
		return "none"
	}
	return e.Code + " " + e.Message
}

// some lists a few of the rows that others lack.
func some(title string, rows, others []string) string {
	const most = 3
	count := map[string]int{}
	for _, r := range others {
		count[r]++
	}
	var out strings.Builder
	n := 0
	for _, r := range rows {
		if count[r]--; count[r] >= 0 {
			continue
		}
		if n++; n > most {
			return out.String() + title + "more"
		}
		out.WriteString(title + r)
	}
	return out.String()
}

// fingerprint is of a table's rows, in whichever order.
type fingerprint struct {
	rows int64
	sum  string
}

func (f *fingerprint) add(o fingerprint) {
	f.rows += o.rows
	a, _ := new(big.Int).SetString("0"+strings.TrimPrefix(f.sum, "-"), 10)
	b, _ := new(big.Int).SetString("0"+strings.TrimPrefix(o.sum, "-"), 10)
	if strings.HasPrefix(f.sum, "-") {
		a.Neg(a)
	}
	if strings.HasPrefix(o.sum, "-") {
		b.Neg(b)
	}
	f.sum = a.Add(a, b).String()
}

// everyRow is the condition of all rows of a table.
func everyRow(comparedTable) string { return "" }

func (b *both) fingerprints(c *pgx.Conn, where func(comparedTable) string) []fingerprint {
	t := b.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	rows, err := c.Query(ctx, fingerprintSQL(b.tables, where))
	if err != nil {
		t.Fatal(err)
	}
	all := make([]fingerprint, len(b.tables))
	for rows.Next() {
		var i int
		var f fingerprint
		if err := rows.Scan(&i, &f.rows, &f.sum); err != nil {
			t.Fatal(err)
		}
		all[i] = f
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// save keeps what all tables hold now; restore puts it back. Both go to the servers
// themselves.
func (b *both) save() {
	b.copies = nil
	for _, c := range slices.Concat(b.shards, []*pgx.Conn{b.owner}) {
		for _, t := range b.tables {
			var out bytes.Buffer
			if _, err := c.PgConn().CopyTo(within(b.t, time.Minute), &out, "COPY (SELECT * FROM "+t.name+") TO STDOUT"); err != nil {
				b.t.Fatal(err)
			}
			b.copies = append(b.copies, out.Bytes())
		}
	}
}

func (b *both) restore() {
	b.t.Helper()
	var names []string
	for _, t := range b.tables {
		names = append(names, t.name)
	}
	i := 0
	for _, c := range slices.Concat(b.shards, []*pgx.Conn{b.owner}) {
		must(b.t, c, "TRUNCATE "+strings.Join(names, ", "))
		for _, name := range names {
			if _, err := c.PgConn().CopyFrom(within(b.t, time.Minute), bytes.NewReader(b.copies[i]), "COPY "+name+" FROM STDIN"); err != nil {
				b.t.Fatal(err)
			}
			i++
		}
	}
	if b.strays != nil {
		b.strays.put()
	}
}
