package drivertest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"shardproxy/internal/clientrun"
)

// TestPq runs lib/pq under database/sql, as nearly all of its users do.
func TestPq(t *testing.T) {
	compare(t, "pq", func(l leg, _ []string) (string, error) {
		return runSections(l, []goSection{
			{"connection", pqConnection},
			{"types", pqTypes},
			{"prepared", pqPrepared},
			{"transactions", pqTransactions},
			{"errors", pqErrors},
			{"copy", pqCopy},
			{"cancel", pqCancel},
			{"listen", pqListen},
			{"churn", pqChurn},
			{"large", pqLarge},
		})
	})
}

// pqOpen returns a handle that keeps one connection.
func pqOpen(w *teller, more string) *sql.DB {
	db := must(sql.Open("postgres", w.dsn(more)))
	db.SetMaxOpenConns(1)
	return db
}

// pqAsk writes a query's rows.
func pqAsk(ctx context.Context, w *teller, db interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}, query string, args ...any) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		w.refused(query, err)
		return
	}
	defer rows.Close()
	columns := must(rows.Columns())
	for rows.Next() {
		row, targets := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			targets[i] = &row[i]
		}
		check(rows.Scan(targets...))
		for i, v := range row {
			if b, ok := v.([]byte); ok {
				row[i] = fmt.Sprintf("%q", b)
			}
		}
		w.say("%s %v %v", query, columns, row)
	}
	if rows.Err() != nil {
		w.refused(query, rows.Err())
	}
}

func pqConnection(ctx context.Context, w *teller) error {
	for _, more := range []string{"", "application_name=mine search_path=a,b statement_timeout=1234", "sslmode=disable", "sslmode=require binary_parameters=yes"} {
		db := pqOpen(w, more)
		for _, query := range []string{"SELECT current_user, 1 + 1", "SHOW application_name", "SHOW search_path", "SHOW statement_timeout", "SHOW client_encoding", "SHOW datestyle"} {
			pqAsk(ctx, w, db, query)
		}
		check(db.Close())
	}
	for _, wrong := range []string{"password=wrong", "user=nobody_here", "dbname=no_such_database", "sslrootcert=" + w.wrongCA} {
		db := pqOpen(w, wrong)
		err := db.PingContext(ctx)
		var refusal *pq.Error
		if errors.As(err, &refusal) {
			w.refused(wrong, err)
		} else {
			w.say("%.10s: refused here: %v", wrong, err != nil)
		}
		check(db.Close())
	}
	return nil
}

func pqTypes(ctx context.Context, w *teller) error {
	for _, binary := range []string{"no", "yes"} {
		db := pqOpen(w, "binary_parameters="+binary)
		for _, v := range []struct {
			name  string
			value any
		}{
			{"bool", true}, {"int2", -32768}, {"int8", int64(math.MinInt64)}, {"numeric", "-12345678901234567890.123456789"}, {"float8", 0.1}, {"float8", math.Inf(1)},
			{"text", ""}, {"text", "héllo 世界 😀 'quoted' \\ $1 ?"}, {"char(5)", "abc"}, {"bytea", []byte{0, 1, 254, 255}}, {"date", time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)},
			{"timestamptz", time.Date(2024, 7, 1, 12, 0, 0, 123456000, time.UTC)}, {"uuid", "12345678-1234-5678-1234-567812345678"}, {"jsonb", `{"a": [1, null]}`},
			{"int[]", pq.Array([]int64{1, 2, 3})}, {"text[]", pq.Array([]string{"a", `q"\,{}`})}, {"text", nil},
		} {
			pqAsk(ctx, w, db, "SELECT $1::"+v.name+", pg_typeof($1::"+v.name+")", v.value)
		}
		check(db.Close())
	}
	return nil
}

func pqPrepared(ctx context.Context, w *teller) error {
	first, second := pqOpen(w, ""), pqOpen(w, "")
	defer first.Close()
	defer second.Close()
	must(first.ExecContext(ctx, "CREATE TABLE p AS SELECT i AS id, 'v' || i AS v FROM generate_series(1, 100) i"))
	a := must(first.PrepareContext(ctx, "SELECT v FROM p WHERE id = $1"))
	b := must(second.PrepareContext(ctx, "SELECT $1::int + 1 WHERE $1 > 0"))
	for i := 1; i <= 50; i++ {
		tx := must(first.BeginTx(ctx, nil))
		var v string
		var n int
		check(tx.StmtContext(ctx, a).QueryRowContext(ctx, i).Scan(&v))
		check(b.QueryRowContext(ctx, i).Scan(&n))
		if v != fmt.Sprintf("v%d", i) || n != i+1 {
			w.say("%s: %d: %q %d", clientrun.FailureMark, i, v, n)
		}
		check(tx.Commit())
	}
	star := must(first.PrepareContext(ctx, "SELECT * FROM p WHERE id = $1"))
	check(star.QueryRowContext(ctx, 1).Scan(new(int), new(string)))
	must(first.ExecContext(ctx, "ALTER TABLE p ADD COLUMN w int DEFAULT 7"))
	rows, err := star.QueryContext(ctx, 1)
	if err == nil {
		w.say("columns %v", must(rows.Columns()))
		for rows.Next() {
			w.say("a row")
		}
		err = rows.Err()
		check(rows.Close())
	}
	if err != nil {
		w.refused("after ALTER", err)
	}
	var v string
	check(a.QueryRowContext(ctx, 2).Scan(&v))
	w.say("%s", v)
	for _, s := range []*sql.Stmt{a, b, star} {
		check(s.Close())
	}
	w.refused("prepare", must2(first.PrepareContext(ctx, "SELECT * FROM missing")))
	pqAsk(ctx, w, first, "SELECT count(*) FROM p WHERE id < $1", 10)
	return nil
}

func pqTransactions(ctx context.Context, w *teller) error {
	db := pqOpen(w, "")
	defer db.Close()
	must(db.ExecContext(ctx, "CREATE TABLE tx (id int PRIMARY KEY)"))
	for _, o := range []*sql.TxOptions{nil, {Isolation: sql.LevelSerializable}, {Isolation: sql.LevelRepeatableRead}, {ReadOnly: true}} {
		tx := must(db.BeginTx(ctx, o))
		pqAsk(ctx, w, tx, "SHOW transaction_isolation")
		pqAsk(ctx, w, tx, "SHOW transaction_read_only")
		_, err := tx.ExecContext(ctx, "INSERT INTO tx VALUES ($1)", 1)
		if err != nil {
			w.refused("insert", err)
		}
		check(tx.Rollback())
	}
	tx := must(db.BeginTx(ctx, nil))
	must(tx.ExecContext(ctx, "INSERT INTO tx VALUES (1)"))
	must(tx.ExecContext(ctx, "SAVEPOINT a"))
	w.refused("duplicate", must2(tx.ExecContext(ctx, "INSERT INTO tx VALUES ($1)", 1)))
	w.refused("after it", must2(tx.ExecContext(ctx, "SELECT 1")))
	must(tx.ExecContext(ctx, "ROLLBACK TO a"))
	must(tx.ExecContext(ctx, "INSERT INTO tx VALUES (2)"))
	check(tx.Commit())
	tx = must(db.BeginTx(ctx, nil))
	w.refused("division", must2(tx.ExecContext(ctx, "SELECT 1/0")))
	w.say("commit of a failed transaction: %v", tx.Commit())
	pqAsk(ctx, w, db, "SELECT count(*), sum(id) FROM tx")
	return nil
}

func pqErrors(ctx context.Context, w *teller) error {
	db := pqOpen(w, "")
	defer db.Close()
	must(db.ExecContext(ctx, "CREATE TABLE er (id int PRIMARY KEY, v int NOT NULL)"))
	for _, statement := range []string{"SELEC 1", "SELECT 1/0", "SELECT * FROM missing", "INSERT INTO er VALUES (1, NULL)", "SELECT 1; SELECT 1/0"} {
		w.refused(statement, must2(db.ExecContext(ctx, statement)))
		pqAsk(ctx, w, db, "SELECT count(*) FROM er")
	}
	w.refused("parameter", must2(db.ExecContext(ctx, "INSERT INTO er VALUES ($1, $2)", 1, "x")))
	pqAsk(ctx, w, db, "SELECT 1; SELECT 2")
	must(db.ExecContext(ctx, ""))
	pqAsk(ctx, w, db, "SELECT 1 / (100 - i) FROM generate_series(98, 200) i")
	pqAsk(ctx, w, db, "SELECT 'still here'")
	return nil
}

func pqCopy(ctx context.Context, w *teller) error {
	db := pqOpen(w, "")
	defer db.Close()
	must(db.ExecContext(ctx, "CREATE TABLE cp (id int PRIMARY KEY, v text, b bytea)"))
	fill := func(ids ...int) error {
		tx := must(db.BeginTx(ctx, nil))
		defer tx.Rollback() // no matter after Commit
		s := must(tx.PrepareContext(ctx, "COPY cp (id, v, b) FROM STDIN"))
		for _, id := range ids {
			if _, err := s.ExecContext(ctx, id, "v\t\n\\", []byte{0, 255}); err != nil {
				return err
			}
		}
		if _, err := s.ExecContext(ctx); err != nil {
			return err
		}
		check(s.Close())
		return tx.Commit()
	}
	var ids []int
	for i := range 5000 {
		ids = append(ids, i)
	}
	check(fill(ids...))
	w.refused("duplicate", fill(6000, 1, 6001))
	check(fill(7000))
	pqAsk(ctx, w, db, "SELECT count(*), sum(id), sum(length(v)), sum(length(b)) FROM cp")
	return nil
}

func pqCancel(ctx context.Context, w *teller) error {
	db := pqOpen(w, "")
	defer db.Close()
	cancelled, cancel := context.WithCancel(ctx)
	watched := make(chan error, 1)
	go func() {
		err := w.waitRunning(ctx, "cancel me")
		cancel()
		watched <- err
	}()
	_, err := db.ExecContext(cancelled, "SELECT pg_sleep(20) /* cancel me */")
	check(<-watched)
	var refusal *pq.Error
	w.say("cancelled: %v", err != nil && (errors.Is(err, context.Canceled) || errors.As(err, &refusal) && refusal.Code == "57014"))
	pqAsk(ctx, w, db, "SELECT 1")
	must(db.ExecContext(ctx, "SET statement_timeout = 20"))
	w.refused("timeout", must2(db.ExecContext(ctx, "SELECT pg_sleep(20)")))
	must(db.ExecContext(ctx, "RESET statement_timeout"))
	pqAsk(ctx, w, db, "SELECT 2")
	return nil
}

func pqListen(ctx context.Context, w *teller) error {
	db := pqOpen(w, "")
	defer db.Close()
	var events []string
	var mu sync.Mutex
	listener := pq.NewListener(w.dsn(""), time.Second, time.Second, func(event pq.ListenerEventType, err error) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, fmt.Sprint(event, err))
	})
	defer listener.Close()
	hear := func() error {
		select {
		case n := <-listener.Notify:
			w.say("%s %.20q", n.Channel, n.Extra)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	check(listener.Listen("news"))
	check(listener.Listen("Odd Channel"))
	must(db.ExecContext(ctx, "SELECT pg_notify($1, $2)", "news", "one"))
	check(hear())
	must(db.ExecContext(ctx, `NOTIFY "Odd Channel", 'two'`))
	check(hear())
	check(listener.Ping())
	check(listener.Unlisten("news"))
	must(db.ExecContext(ctx, "NOTIFY news, 'unheard'"))
	must(db.ExecContext(ctx, `NOTIFY "Odd Channel", 'last'`))
	check(hear())
	check(listener.UnlistenAll())
	mu.Lock()
	defer mu.Unlock()
	w.say("%v", events)
	return nil
}

func pqChurn(ctx context.Context, w *teller) error {
	db := must(sql.Open("postgres", w.dsn("")))
	defer db.Close()
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(2) // the others are closed after each statement
	must(db.ExecContext(ctx, "CREATE TABLE ch (a int)"))
	var failures atomic.Int64
	var wg sync.WaitGroup
	for who := range 16 {
		wg.Go(func() {
			for range 15 {
				if _, err := db.ExecContext(ctx, "INSERT INTO ch VALUES ($1)", who); err != nil && failures.Add(1) == 1 {
					w.say("%v", err)
				}
			}
		})
	}
	wg.Wait()
	tx := must(db.BeginTx(ctx, nil))
	defer tx.Rollback() // it only reads
	w.say("failures %d", failures.Load())
	pqAsk(ctx, w, tx, "SELECT count(*), sum(a) FROM ch")
	return nil
}

func pqLarge(ctx context.Context, w *teller) error {
	db := pqOpen(w, "")
	defer db.Close()
	must(db.ExecContext(ctx, "CREATE TABLE lg (t text)"))
	must(db.ExecContext(ctx, "ALTER TABLE lg ALTER t SET STORAGE EXTERNAL"))
	text := strings.Repeat("0123456789", bigBytes/10)
	must(db.ExecContext(ctx, "INSERT INTO lg VALUES ($1)", text))
	var back []byte
	check(db.QueryRowContext(ctx, "SELECT t FROM lg").Scan(&back))
	w.say("%d %v", len(back), bytes.Equal(back, []byte(text)))
	must(db.ExecContext(ctx, "TRUNCATE lg"))
	return nil
}
