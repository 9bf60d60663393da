package proxy_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/proxy"
)

// TestStatementSize: what is larger than it may be reaches no server, in whatever way it comes; a transaction
// fails of it, and the session goes on. What is just as large as it may be runs.
func TestStatementSize(t *testing.T) {
	const most = 100_000
	for _, driver := range []proxy.Driver{proxy.DriverAuto, proxy.DriverGoroutine} {
		for _, mode := range []proxy.Mode{proxy.ModeTransaction, proxy.ModeSession} {
			f := start(t, fixtureOptions{driver: driver, mode: mode, size: 2, user: func(p *proxy.UserPolicy) { p.StatementMax = most }})
			c := f.connect("")
			ctx := ctx10(t)
			large := func(n int) string { return "SELECT length('" + strings.Repeat("x", n) + "')" }
			simple := func(sql string) error { _, err := c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); return err }
			bind := func(n int) error {
				return c.PgConn().ExecParams(ctx, "SELECT length($1::text)", [][]byte{[]byte(strings.Repeat("y", n))}, nil, nil, nil).Read().Err
			}
			ways := map[string]func(extra int) error{
				"simple": func(extra int) error { return simple(large(most - 18 + extra)) },
				"far":    func(extra int) error { return simple(large(most - 18 + 50*extra*most)) },
				"parse": func(extra int) error {
					return c.PgConn().ExecParams(ctx, large(most-21+extra), nil, nil, nil, nil).Read().Err
				},
				"bind": func(extra int) error { return bind(most - 12 + extra) },
				"pipeline": func(extra int) error {
					b := &pgconn.Batch{}
					b.ExecParams("SELECT 1", nil, nil, nil, nil)
					b.ExecParams(large(most-21+extra), nil, nil, nil, nil)
					b.ExecParams("SELECT 2", nil, nil, nil, nil)
					_, err := c.PgConn().ExecBatch(ctx, b).ReadAll()
					return err
				},
			}
			for name, way := range ways {
				for _, begin := range []string{"", "BEGIN"} {
					if begin != "" && simple(begin) != nil {
						t.Fatal("BEGIN")
					}
					if err := way(0); err != nil {
						t.Errorf("driver %v, mode %v, %s behind %q, as large as it may be: %v", driver, mode, name, begin, err)
					}
					if err := way(1); !hasState(err, "54000") {
						t.Errorf("driver %v, mode %v, %s behind %q: %v", driver, mode, name, begin, err)
					}
					want := byte('I')
					if begin != "" {
						want = 'E'
					}
					if got := c.PgConn().TxStatus(); got != want {
						t.Errorf("driver %v, mode %v, %s behind %q: the transaction is %c", driver, mode, name, begin, got)
					}
					if begin != "" && simple("ROLLBACK") != nil {
						t.Fatal("ROLLBACK")
					}
					if err := simple("SELECT 1"); err != nil {
						t.Fatalf("driver %v, mode %v, behind %s: %v", driver, mode, name, err)
					}
				}
			}
			p := c.PgConn().StartPipeline(context.Background())
			for _, sql := range []string{"SELECT 1", large(most), "SELECT 2"} {
				p.SendQueryParams(sql, nil, nil, nil, nil)
				if err := p.Sync(); err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for range 6 {
				switch res, err := p.GetResults(); r := res.(type) {
				case *pgconn.ResultReader:
					got = append(got, string(r.Read().Rows[0][0]))
				case *pgconn.PipelineSync:
				default:
					got = append(got, err.(*pgconn.PgError).Code)
				}
			}
			if err := p.Close(); err != nil || strings.Join(got, " ") != "1 54000 2" {
				t.Errorf("driver %v, mode %v, requests behind one another: %v, %v", driver, mode, got, err)
			}
		}
	}
}
