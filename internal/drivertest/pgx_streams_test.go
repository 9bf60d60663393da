package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func (c pgxClient) copy(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	execute(ctx, conn, "CREATE TABLE cp (id int PRIMARY KEY, v text, at timestamptz)")
	at := time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC)
	source := pgx.CopyFromSlice(2000, func(i int) ([]any, error) { return []any{i, fmt.Sprintf("v%d\t\n", i), at}, nil })
	w.say("%d", must(conn.CopyFrom(ctx, pgx.Identifier{"cp"}, []string{"id", "v", "at"}, source)))
	_, err := conn.CopyFrom(ctx, pgx.Identifier{"cp"}, []string{"id"}, pgx.CopyFromRows([][]any{{9000}, {1}, {9001}}))
	w.refused("duplicate", err)
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"cp"}, []string{"id"}, pgx.CopyFromFunc(func() ([]any, error) { return nil, errors.New("given up") }))
	w.say("given up: %v", err != nil)
	raw := conn.PgConn()
	var out bytes.Buffer
	for _, format := range []string{"text", "csv, HEADER", "binary"} {
		out.Reset()
		tag := must(raw.CopyTo(ctx, &out, "COPY (SELECT id, v FROM cp ORDER BY id) TO STDOUT (FORMAT "+format+")"))
		w.say("%s %s %d %s", format, tag, out.Len(), sum(out.Bytes()))
	}
	tag := must(raw.CopyFrom(ctx, strings.NewReader("7000,\"a\nb\",\n"), "COPY cp FROM STDIN (FORMAT csv)"))
	w.say("%s", tag)
	w.refused("bad row", must2(raw.CopyFrom(ctx, strings.NewReader(strings.Repeat("x\ty\n", 100000)), "COPY cp FROM STDIN")))
	w.refused("no table", must2(raw.CopyFrom(ctx, strings.NewReader("x"), "COPY missing FROM STDIN")))
	w.refused("to", must2(raw.CopyTo(ctx, io.Discard, "COPY missing TO STDOUT")))
	w.refused("to", must2(raw.CopyTo(ctx, io.Discard, "COPY (SELECT 1 / (3000 - i) FROM generate_series(1, 4000) i) TO STDOUT")))
	tx := must(conn.Begin(ctx))
	w.say("%d", must(tx.CopyFrom(ctx, pgx.Identifier{"cp"}, []string{"id"}, pgx.CopyFromRows([][]any{{9000}, {9001}}))))
	check(tx.Rollback(ctx))
	ask(ctx, w, conn, "SELECT count(*), sum(id) FROM cp")
	return nil
}

func (c pgxClient) cancel(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	for i, start := range []string{"SELECT 1", "BEGIN"} {
		execute(ctx, conn, start)
		mark := fmt.Sprintf("cancel me %d", i)
		cancelled, cancel := context.WithCancel(ctx)
		watched := make(chan error, 1)
		go func() {
			err := w.waitRunning(ctx, mark)
			cancel()
			watched <- err
		}()
		_, err := conn.Exec(cancelled, "SELECT pg_sleep(50) /* "+mark+" */")
		check(<-watched)
		w.refused("cancelled", err)
		w.say("closed %v, status %c", conn.IsClosed(), conn.PgConn().TxStatus())
		execute(ctx, conn, "ROLLBACK")
		ask(ctx, w, conn, "SELECT 1")
	}
	// In the middle of rows, which a client that reads none of them holds back.
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	rows := must(conn.Query(cancelled, "SELECT repeat('x', 1000), pg_sleep(0.0001) FROM generate_series(1, 1000000)"))
	w.say("a row: %v", rows.Next())
	cancel()
	for rows.Next() {
	}
	w.refused("rows", rows.Err())
	ask(ctx, w, conn, "SELECT 1")
	// A cancel request after the statement has ended cancels nothing.
	for range 20 {
		ask(ctx, &teller{}, conn, "SELECT 1")
		check(conn.PgConn().CancelRequest(ctx))
	}
	for range 20 {
		execute(ctx, conn, "SELECT 1")
	}
	return nil
}

func (c pgxClient) listen(ctx context.Context, w *teller) error {
	listener, sender := c.connect(ctx, w), c.connect(ctx, w)
	defer listener.Close(ctx)
	defer sender.Close(ctx)
	hear := func() {
		n := must(listener.WaitForNotification(ctx))
		w.say("%s %.20q %d", n.Channel, n.Payload, len(n.Payload))
	}
	execute(ctx, listener, "LISTEN news")
	execute(ctx, listener, `LISTEN "Odd Channel"`)
	execute(ctx, sender, "NOTIFY news, 'one'")
	hear()
	tx := must(sender.Begin(ctx))
	must(tx.Exec(ctx, "SELECT pg_notify($1, $2)", "Odd Channel", strings.Repeat("x", 7999)))
	must(tx.Exec(ctx, "NOTIFY other"))
	check(tx.Commit(ctx))
	hear()
	tx = must(sender.Begin(ctx))
	must(tx.Exec(ctx, "NOTIFY news, 'never'"))
	check(tx.Rollback(ctx))
	ask(ctx, w, listener, "SELECT 1")
	execute(ctx, listener, "NOTIFY news, 'self'")
	hear()
	execute(ctx, listener, "UNLISTEN news")
	execute(ctx, sender, "NOTIFY news, 'unheard'")
	execute(ctx, sender, `NOTIFY "Odd Channel"`)
	hear() // what was not to be heard was sent before it
	return nil
}

// listenRace sends each notification right after the LISTEN, or an UNLISTEN of
// another channel, while the proxy may be busy with the listener's connection.
func (c pgxClient) listenRace(ctx context.Context, w *teller) error {
	listener, sender := c.connect(ctx, w), c.connect(ctx, w)
	defer listener.Close(ctx)
	defer sender.Close(ctx)
	heard := 0
	for i := range 100 {
		channel := fmt.Sprintf("race_%d", i)
		execute(ctx, listener, "LISTEN "+channel)
		for _, payload := range []string{"after LISTEN", "after UNLISTEN"} {
			execute(ctx, sender, "SELECT pg_notify($1, $2)", channel, payload)
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			n, err := listener.WaitForNotification(short)
			cancel()
			if err != nil {
				return fmt.Errorf("round %d, %s: %w", i, payload, err)
			}
			if n.Channel == channel && n.Payload == payload {
				heard++
			}
			execute(ctx, listener, "UNLISTEN another")
		}
		execute(ctx, listener, "UNLISTEN "+channel)
	}
	w.say("heard %d", heard)
	return nil
}

func (c pgxClient) batch(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	execute(ctx, conn, "CREATE TABLE ba (id int PRIMARY KEY)")
	send := func(from, to int, middle string) {
		var b pgx.Batch
		for i := from; i < to; i++ {
			b.Queue("INSERT INTO ba VALUES ($1)", i)
			if i == (from+to)/2 && middle != "" {
				b.Queue(middle)
			}
			b.Queue("SELECT count(*) FROM ba WHERE id < $1", i+1)
		}
		results := conn.SendBatch(ctx, &b)
		for i := range b.Len() {
			if _, err := results.Exec(); err != nil {
				w.refused(fmt.Sprintf("statement %d", i), err)
				break
			}
		}
		w.say("close: %v", results.Close() != nil)
		ask(ctx, w, conn, "SELECT count(*), max(id) FROM ba")
	}
	send(0, 100, "")
	send(100, 150, "SELECT 1/0")
	send(200, 250, "")
	tx := must(conn.Begin(ctx))
	send(300, 320, "")
	w.say("status %c", conn.PgConn().TxStatus())
	check(tx.Rollback(ctx))
	ask(ctx, w, conn, "SELECT count(*) FROM ba")
	return nil
}

func (c pgxClient) churn(ctx context.Context, w *teller) error {
	config := must(pgxpool.ParseConfig(w.dsn("pool_max_conns=24 pool_max_conn_lifetime=1s")))
	config.ConnConfig.DefaultQueryExecMode = c.mode
	pool := must(pgxpool.NewWithConfig(ctx, config))
	defer pool.Close()
	must(pool.Exec(ctx, "CREATE TABLE ch (who int, what int)"))
	var failures atomic.Int64
	var wg sync.WaitGroup
	for who := range 24 {
		wg.Go(func() {
			for what := range 40 {
				_, err := pool.Exec(ctx, "INSERT INTO ch VALUES ($1, $2)", who, what)
				if err == nil && what%8 == 0 {
					err = c.hello(ctx, w)
				}
				if err != nil && failures.Add(1) == 1 {
					w.say("%v", err)
				}
			}
		})
	}
	wg.Wait()
	w.say("failures %d", failures.Load())
	tx := must(pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite}))
	var count, sum int
	check(tx.QueryRow(ctx, "SELECT count(*), sum(what) FROM ch").Scan(&count, &sum))
	w.say("%d %d", count, sum)
	return tx.Rollback(ctx)
}

// hello is a client that connects, asks one thing and leaves without a word,
// half the time in a transaction.
func (c pgxClient) hello(ctx context.Context, w *teller) error {
	conn, err := pgx.ConnectConfig(ctx, c.config(w, ""))
	if err != nil {
		return err
	}
	if _, err = conn.Exec(ctx, "BEGIN"); err == nil {
		_, err = conn.Exec(ctx, "INSERT INTO ch VALUES (-1, -1)")
	}
	return errors.Join(err, conn.PgConn().Conn().Close())
}

func (c pgxClient) portals(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	tx := must(conn.Begin(ctx))
	must(tx.Exec(ctx, "DECLARE c SCROLL CURSOR FOR SELECT i FROM generate_series(1, 1000) i"))
	for _, fetch := range []string{"FETCH 2 FROM c", "FETCH ABSOLUTE 500 FROM c", "FETCH BACKWARD 2 FROM c", "MOVE 10 FROM c", "FETCH c"} {
		ask(ctx, w, conn, fetch)
	}
	check(tx.Commit(ctx))
	ask(ctx, w, conn, "FETCH c")
	execute(ctx, conn, "DECLARE held CURSOR WITH HOLD FOR SELECT i FROM generate_series(1, 10) i")
	for range 3 {
		ask(ctx, w, conn, "FETCH held")
		ask(ctx, w, conn, "SELECT 1")
	}
	execute(ctx, conn, "CLOSE held")
	ask(ctx, w, conn, "FETCH held")
	return nil
}

func (c pgxClient) sessionState(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	var others []*pgx.Conn
	for range 3 {
		other := c.connect(ctx, w)
		defer other.Close(ctx)
		others = append(others, other)
	}
	stir := func() { // lets the others use the server connections
		for _, other := range others {
			execute(ctx, other, "BEGIN")
			execute(ctx, other, "SELECT 1")
		}
		for _, other := range others {
			execute(ctx, other, "ROLLBACK")
		}
	}
	execute(ctx, conn, "SET work_mem = '5MB'")
	execute(ctx, conn, "SELECT set_config('my.variable', $1, false)", "kept")
	execute(ctx, conn, "SET TimeZone = 'Asia/Tokyo'")
	execute(ctx, conn, "CREATE TEMP TABLE tmp (a int)")
	stir()
	for range 3 {
		execute(ctx, conn, "INSERT INTO tmp VALUES ($1)", 1)
		ask(ctx, w, conn, "SELECT count(*), current_setting('work_mem'), current_setting('my.variable') FROM tmp")
		w.say("%s", conn.PgConn().ParameterStatus("TimeZone"))
		stir()
	}
	for _, other := range others {
		ask(ctx, w, other, "SELECT current_setting('work_mem'), coalesce(current_setting('my.variable', true), ''), to_regclass('tmp')::text")
	}
	execute(ctx, conn, "DISCARD ALL")
	stir()
	ask(ctx, w, conn, "SELECT current_setting('work_mem'), to_regclass('tmp')::text")
	w.say("%s", conn.PgConn().ParameterStatus("TimeZone"))
	return nil
}

func (c pgxClient) large(ctx context.Context, w *teller) error {
	conn := c.connect(ctx, w)
	defer conn.Close(ctx)
	execute(ctx, conn, "CREATE TABLE lg (b bytea)")
	execute(ctx, conn, "ALTER TABLE lg ALTER b SET STORAGE EXTERNAL") // no time for compression
	data := bytes.Repeat([]byte("0123456789"), bigBytes/10)
	execute(ctx, conn, "INSERT INTO lg VALUES ($1)", data)
	var back []byte
	check(conn.QueryRow(ctx, "SELECT b FROM lg").Scan(&back))
	w.say("%d %s", len(back), sum(back))
	check(conn.QueryRow(ctx, "SELECT b FROM lg, generate_series(1, 1)").Scan(&back))
	w.say("%d %s", len(back), sum(back))
	execute(ctx, conn, "TRUNCATE lg")
	return nil
}
