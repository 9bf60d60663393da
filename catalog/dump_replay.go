package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// recorder keeps what a server answers.
type recorder struct {
	Querier
	dump *Dump
}

// BeginTx implements Querier.
func (r recorder) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	tx, err := r.Querier.BeginTx(ctx, o)
	if err != nil {
		return nil, err
	}
	return recordedTx{tx, r.dump}, nil
}

type recordedTx struct {
	pgx.Tx
	dump *Dump
}

// Begin implements pgx.Tx.
func (t recordedTx) Begin(ctx context.Context) (pgx.Tx, error) {
	tx, err := t.Tx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return recordedTx{tx, t.dump}, nil
}

// Query implements pgx.Tx. All rows are read before it returns.
func (t recordedTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	rows, err := t.Tx.Query(ctx, sql, append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, args...)...)
	if err != nil {
		return nil, err
	}
	a := answer{Query: hashOf(sql, args)}
	if err := a.take(rows); err != nil {
		return nil, err
	}
	t.dump.answers = append(t.dump.answers, a)
	return a.replay(), nil
}

// QueryRow implements pgx.Tx.
func (t recordedTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := t.Query(ctx, sql, args...)
	return oneRow{rows, err}
}

// errOffline is what a dump does not have.
var errOffline = errors.New("a dump cannot be asked this")

// replay answers with what a dump holds, in order. It has what loading uses of a
// transaction; the rest is refused.
type replay struct {
	answers []answer
}

// BeginTx implements Querier.
func (r *replay) BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error) { return r, nil }

// Begin implements pgx.Tx.
func (r *replay) Begin(context.Context) (pgx.Tx, error) { return r, nil }

// Commit implements pgx.Tx.
func (r *replay) Commit(context.Context) error { return nil }

// Rollback implements pgx.Tx.
func (r *replay) Rollback(context.Context) error { return nil }

// Exec implements pgx.Tx: settings do not matter to what was said under them.
func (r *replay) Exec(context.Context, string, ...any) (pgconn.CommandTag, error) {
	return pgconn.CommandTag{}, nil
}

// Query implements pgx.Tx.
func (r *replay) Query(_ context.Context, sql string, args ...any) (pgx.Rows, error) {
	if len(r.answers) == 0 || r.answers[0].Query != hashOf(sql, args) {
		return nil, errOtherProgram
	}
	a := r.answers[0]
	r.answers = r.answers[1:]
	return a.replay(), nil
}

// QueryRow implements pgx.Tx.
func (r *replay) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := r.Query(ctx, sql, args...)
	return oneRow{rows, err}
}

// CopyFrom implements pgx.Tx.
func (r *replay) CopyFrom(context.Context, pgx.Identifier, []string, pgx.CopyFromSource) (int64, error) {
	return 0, errOffline
}

// SendBatch implements pgx.Tx; nothing calls it.
func (r *replay) SendBatch(context.Context, *pgx.Batch) pgx.BatchResults { return nil }

// LargeObjects implements pgx.Tx; nothing calls it.
func (r *replay) LargeObjects() pgx.LargeObjects { return pgx.LargeObjects{} }

// Prepare implements pgx.Tx.
func (r *replay) Prepare(context.Context, string, string) (*pgconn.StatementDescription, error) {
	return nil, errOffline
}

// Conn implements pgx.Tx.
func (r *replay) Conn() *pgx.Conn { return nil }

// oneRow is the first of some rows.
type oneRow struct {
	rows pgx.Rows
	err  error
}

// Scan implements pgx.Row.
func (r oneRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		return pgx.ErrNoRows
	}
	return r.rows.Scan(dest...)
}

// storedRows are the rows of an answer.
type storedRows struct {
	types  *pgtype.Map
	fields []pgconn.FieldDescription
	rows   [][]*string
	values [][]byte // of the row at hand
	err    error
}

// replay returns the rows as a server's.
func (a *answer) replay() *storedRows {
	r := &storedRows{types: pgtype.NewMap(), rows: a.Rows, values: make([][]byte, len(a.Types))}
	for _, oid := range a.Types {
		r.fields = append(r.fields, pgconn.FieldDescription{DataTypeOID: oid, Format: pgx.TextFormatCode})
	}
	return r
}

// Next implements pgx.Rows.
func (r *storedRows) Next() bool {
	if r.err != nil || len(r.rows) == 0 {
		return false
	}
	row := r.rows[0]
	if r.rows = r.rows[1:]; len(row) != len(r.values) {
		r.err = fmt.Errorf("a row has %d values, not %d", len(row), len(r.values))
		return false
	}
	for i, v := range row {
		if r.values[i] = nil; v != nil {
			r.values[i] = []byte(*v)
		}
	}
	return true
}

// Scan implements pgx.Rows.
func (r *storedRows) Scan(dest ...any) error {
	err := pgx.ScanRow(r.types, r.fields, r.values, dest...)
	if err != nil && r.err == nil {
		r.err = err
	}
	return err
}

// Close implements pgx.Rows.
func (r *storedRows) Close() { r.rows = nil }

// Err implements pgx.Rows.
func (r *storedRows) Err() error { return r.err }

// CommandTag implements pgx.Rows.
func (r *storedRows) CommandTag() pgconn.CommandTag { return pgconn.CommandTag{} }

// FieldDescriptions implements pgx.Rows.
func (r *storedRows) FieldDescriptions() []pgconn.FieldDescription { return r.fields }

// Values implements pgx.Rows.
func (r *storedRows) Values() ([]any, error) { return nil, errOffline }

// RawValues implements pgx.Rows.
func (r *storedRows) RawValues() [][]byte { return r.values }

// Conn implements pgx.Rows.
func (r *storedRows) Conn() *pgx.Conn { return nil }

// TypeMap implements pgx.Rows.
func (r *storedRows) TypeMap() *pgtype.Map { return r.types }
