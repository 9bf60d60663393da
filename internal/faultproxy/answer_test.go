package faultproxy_test

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/faultproxy"
	"shardproxy/wire"
)

var madeUp = faultproxy.Answer(wire.Errorf("XX001", "made up"))

// TestAnswer: the client sees the error, and its connection goes on.
func TestAnswer(t *testing.T) {
	for _, test := range []struct {
		name string
		mode string
		rule faultproxy.Rule
	}{
		{"query", "simple_protocol", faultproxy.Rule{Kind: 'Q', Do: madeUp}},
		{"parse", "exec", faultproxy.Rule{Kind: 'P', Do: madeUp}},
		{"bind", "exec", faultproxy.Rule{Kind: 'B', Do: madeUp}},
		{"describe", "exec", faultproxy.Rule{Kind: 'D', Do: madeUp}},
		{"execute", "exec", faultproxy.Rule{Kind: 'E', Do: madeUp}},
		{"answer to a query", "simple_protocol", faultproxy.Rule{From: faultproxy.FromServer, Kind: 'C', Do: madeUp}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := start(t)
			config, err := pgx.ParseConfig(f.dsn + "&default_query_exec_mode=" + test.mode)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := pgx.ConnectConfig(soon(t), config)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(soon(t))
			f.On(test.rule)
			if _, err := conn.Exec(soon(t), "SELECT $1::int", 1); code(err) != "XX001" {
				t.Errorf("error %v, want XX001", err)
			}
			var n int
			if err := conn.QueryRow(soon(t), "SELECT $1::int", 2).Scan(&n); err != nil || n != 2 {
				t.Errorf("after the error: %d, %v", n, err)
			}
		})
	}
}

// TestAnswerInPipeline: answers of earlier statements come before the error,
// later ones of the batch are swallowed, the next batch goes on.
func TestAnswerInPipeline(t *testing.T) {
	for _, kind := range []byte{'P', 'B', 'D', 'E'} {
		t.Run(string(kind), func(t *testing.T) {
			f := start(t)
			conn := f.connect().PgConn()
			// The second statement's message is the second of its kind.
			f.On(faultproxy.Rule{Kind: kind, Nth: 2, Do: madeUp})
			pipeline := conn.StartPipeline(soon(t))
			send := func(sql string) { pipeline.SendQueryParams(sql, nil, nil, nil, nil) }
			send("SELECT 'one'")
			send("SELECT 'two'")
			send("SELECT 'three'")
			if err := pipeline.Sync(); err != nil {
				t.Fatal(err)
			}
			send("SELECT 'four'")
			if err := pipeline.Sync(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for {
				results, err := pipeline.GetResults()
				if err != nil {
					got = append(got, code(err))
					if code(err) == "" {
						t.Fatal(err)
					}
					continue
				}
				if results == nil {
					break
				}
				switch r := results.(type) {
				case *pgconn.ResultReader:
					result := r.Read()
					if result.Err != nil {
						got = append(got, code(result.Err))
						break
					}
					got = append(got, string(result.Rows[0][0]))
				case *pgconn.PipelineSync:
					got = append(got, "sync")
				}
			}
			if want := []string{"one", "XX001", "sync", "four", "sync"}; !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if err := pipeline.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnswerFatal(t *testing.T) {
	f := start(t)
	shutdown := faultproxy.Answer(wire.Fatal("57P01", "terminating connection"))
	for _, rule := range []faultproxy.Rule{
		{Kind: 'Q', Do: shutdown},
		{From: faultproxy.FromServer, Kind: 'T', Do: shutdown},
	} {
		conn := f.connect()
		f.On(rule)
		if _, err := conn.Exec(soon(t), "SELECT 1"); code(err) != "57P01" {
			t.Errorf("error %v, want 57P01", err)
		}
		if !conn.IsClosed() {
			t.Error("the connection lives on")
		}
	}
	f.On(faultproxy.Rule{Kind: faultproxy.Startup, Do: faultproxy.Answer(wire.Fatal("53300", "too many clients"))})
	if _, err := pgx.Connect(soon(t), f.dsn); code(err) != "53300" {
		t.Errorf("error %v, want 53300", err)
	}
}

func TestRulesRefused(t *testing.T) {
	p := faultproxy.New(faultproxy.Options{})
	for _, rule := range []faultproxy.Rule{
		{Kind: 'd', Do: madeUp},
		{Kind: faultproxy.Any, Do: madeUp},
		{Kind: 'S', Do: madeUp},
		{Kind: 'Q', Do: faultproxy.Answer(nil)},
		{Kind: 'Q', After: true, Do: madeUp},
		{Kind: 'Q', After: true, Do: faultproxy.Drop()},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("rule %+v was accepted", rule)
				}
			}()
			p.On(rule)
		}()
	}
}
