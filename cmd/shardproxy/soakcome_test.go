package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgcluster"
)

// meets logs in to a database by a connection of its own.
func (c *soakClient) meets(database string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), txBound)
	defer cancel()
	return pgx.Connect(ctx, c.ps.dsnOf("app", pgcluster.AppPassword, database))
}

// parts closes a connection politely.
func parts(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // it may be closed
}

// say runs a statement on a connection.
func say(conn *pgx.Conn, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), txBound)
	defer cancel()
	_, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %s hangs: %v", errSoak, sql, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// comes logs in for one statement, or none.
func (c *soakClient) comes(context.Context) error {
	conn, err := c.meets("app")
	if err != nil {
		return err
	}
	defer parts(conn)
	return say(conn, c.pick("", "SELECT 1", fmt.Sprintf("SELECT * FROM accounts WHERE id = %d", c.account()), "SELECT count(*) FROM accounts", "SET app.it = 'left'", "BEGIN"))
}

// guesses fails to log in, from many addresses: more than the proxy remembers.
func (c *soakClient) guesses(ctx context.Context) error {
	user, password, database := c.pick("app", "nobody", fmt.Sprint("n", c.r.IntN(200))), "wrong", c.pick("app", "app", "nowhere", "shardproxy")
	config, err := pgx.ParseConfig(c.ps.dsnOf(user, password, database))
	if err != nil {
		return err
	}
	from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(c.r.IntN(2)), byte(1+c.r.IntN(250)))}
	config.DialFunc = (&net.Dialer{LocalAddr: from}).DialContext
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), txBound)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	switch {
	case err == nil:
		parts(conn)
		return fmt.Errorf("%w: %s logs in to %s", errSoak, user, database)
	case slices.Contains([]string{"28P01", "3D000", "53300"}, sqlState(err)):
		return nil
	}
	return err
}

// hijacked is a session whose connection the test has.
func (c *soakClient) hijacked() (*pgconn.HijackedConn, error) {
	conn, err := c.meets("app")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), txBound)
	defer cancel()
	if err := conn.PgConn().SyncConn(ctx); err != nil {
		parts(conn)
		return nil, err
	}
	h, err := conn.PgConn().Hijack()
	if err != nil {
		return nil, err
	}
	return h, h.Conn.SetDeadline(time.Now().Add(txBound))
}

// hangsUp is gone in the middle of something.
func (c *soakClient) hangsUp(ctx context.Context) error {
	h, err := c.hijacked()
	if err != nil {
		return err
	}
	defer h.Conn.Close()
	for _, m := range [...][]message{
		{simple("SELECT pg_sleep(0.2) FROM accounts WHERE id = 1")},
		{simple("SELECT pg_sleep(0.001), id FROM accounts")},
		{simple("SELECT * FROM accounts, generate_series(1, 50)")},
		{simple("BEGIN; UPDATE accounts SET balance = balance WHERE id IN (1, 2, 3, 4, 5); SELECT pg_sleep(0.1)")},
		{simple("COPY bulk FROM STDIN"), &pgproto3.CopyData{Data: []byte("1\t1\tx\n")}},
		{simple("COPY accounts TO STDOUT")},
		{parse("", "SELECT id FROM accounts ORDER BY id"), bind("", ""), pieceOf("", 5), &pgproto3.Flush{}},
		{parse("a", "SELECT count(*) FROM accounts")},
		{simple("BEGIN"), simple("UPDATE accounts SET balance = balance WHERE id IN (1, 2, 3, 4, 5)"), simple("COMMIT")},
		{simple("SELECT a.id FROM accounts a JOIN accounts b ON b.id = a.id + 1")},
	}[c.r.IntN(10)] {
		h.Frontend.Send(m)
	}
	if err := h.Frontend.Flush(); err != nil {
		return err
	}
	soakPause(ctx, time.Duration(c.r.IntN(30))*time.Millisecond)
	return nil
}

// portals reads queries in pieces, and not to their end.
func (c *soakClient) portals(context.Context) error {
	h, err := c.hijacked()
	if err != nil {
		return err
	}
	defer h.Conn.Close()
	sql := c.pick("SELECT id FROM accounts ORDER BY id", "SELECT owner FROM accounts ORDER BY owner", "SELECT a.id FROM accounts a JOIN accounts b ON b.id = a.id + 1")
	for _, m := range []message{parse("", sql), bind("", ""), pieceOf("", 5), pieceOf("", 7), &pgproto3.Sync{}} {
		h.Frontend.Send(m)
	}
	if err := h.Frontend.Flush(); err != nil {
		return err
	}
	rows := 0
	for {
		m, err := h.Frontend.Receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.DataRow:
			rows++
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.ReadyForQuery:
			if rows != 12 {
				return fmt.Errorf("%w: %d rows of %s", errSoak, rows, sql)
			}
			return nil
		}
	}
}

// babbles is no client at all, or one that never logs in.
func (c *soakClient) babbles(ctx context.Context) error {
	nc, err := net.Dial("tcp", c.ps.addr)
	if err != nil {
		return err
	}
	defer nc.Close()
	_, _ = nc.Write([]byte(c.pick("", "GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x08\x04\xd2\x16\x2f", "\x00\x00\x00\x08\x04\xd2\x16\x2f\x16\x03\x01", "\xff\xff\xff\xff",
		"\x00\x00\x00\x11\x00\x03\x00\x00user\x00app\x00", "\x00\x00\x00\x12\x00\x03\x00\x00user\x00app\x00\x00", "\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x07\x00\x00\x00\x07")))
	soakPause(ctx, time.Duration(c.r.IntN(20))*time.Millisecond)
	return nil
}

// cancels ends a statement of its own that would take long.
func (c *soakClient) cancels(ctx context.Context) error {
	conn, err := c.meets("app")
	if err != nil {
		return err
	}
	defer parts(conn)
	over, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		// Until it is over: the first requests may come before there is anything to cancel.
		for wait := 20 * time.Millisecond; wait <= 2*time.Second; wait *= 2 {
			select {
			case <-over:
				return
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
			_ = conn.PgConn().CancelRequest(bounded)
			cancel()
		}
	}()
	err = say(conn, c.pick("SELECT pg_sleep(2) FROM accounts WHERE id = 1", "SELECT pg_sleep(0.01) FROM accounts", "SELECT pg_sleep(2)",
		"BEGIN; UPDATE accounts SET balance = balance WHERE id IN (1, 2, 3, 4); SELECT pg_sleep(2)"))
	close(over)
	<-asked
	if sqlState(err) == "57014" {
		return nil
	}
	return err // none when the round was over
}

// shows looks at everything that the console has.
func (c *soakClient) shows(context.Context) error {
	conn, err := c.meets("shardproxy")
	if err != nil {
		return err
	}
	defer parts(conn)
	for range 5 {
		what := c.pick("POOLS", "CLIENTS", "SERVERS", "NODES", "SHARDS", "SLOTS", "MOVES", "MOVE_HISTORY", "PROXIES", "GATES", "EVENTS", "SETTINGS", "QUERIES", "HOT", "HOT_KEYS", "PLANS",
			"ERRORS", "BLOCKS", "TABLES", "TWOPC", "DATABASES", "STATE", "VERSION", "CONFIG", "LISTS", "STATS", "TOTALS", "USERS", "SOCKETS", "MEM", "PREPARED", "HELP")
		if err := say(conn, "SHOW "+what); err != nil {
			return err
		}
	}
	return nil
}

// steers does what operators do. What is done to other clients is theirs to bear.
func (c *soakClient) steers(context.Context) error {
	conn, err := c.meets("shardproxy")
	if err != nil {
		return err
	}
	defer parts(conn)
	switch c.r.IntN(8) {
	case 0, 1:
		changes := [][2]string{{"size: 8", "size: 5"}, {"wait: 300ms", "wait: 2s"}, {"hot_keys: true", "hot_keys: false"}, {"statements: 30", "statements: 60"},
			{"session_statements: 400", "session_statements: 300"}, {"    keys: [", "    blocks: [SELECT 'it' AS blocked]\n    keys: ["}, {"max_addresses: 100", "max_addresses: 50"}}
		change := changes[c.r.IntN(len(changes))]
		c.ps.write(strings.Replace(c.text, change[0], change[1], 1))
		return say(conn, "RELOAD")
	case 2:
		return c.blocks(conn)
	case 3:
		return say(conn, "RECONNECT app")
	case 4:
		return say(conn, "WAIT_CLOSE app")
	case 5:
		return c.kills(conn)
	case 6:
		node := c.shards[c.r.IntN(2)].Replicas()[0].Addr()
		if err := say(conn, "BAN NODE '"+node+"'"); err != nil {
			return err
		}
		return say(conn, "UNBAN NODE '"+node+"'")
	default:
		if err := say(conn, "DRAIN"); err != nil {
			return err
		}
		return say(conn, "DRAIN OFF")
	}
}

// blocks has statements blocked for a while, one of which somebody tries.
func (c *soakClient) blocks(console *pgx.Conn) error {
	sql := fmt.Sprintf("SELECT count(*) AS n%d FROM accounts", c.number())
	term := c.pick("1s", "1h")
	began := time.Now()
	if err := say(console, "BLOCK '"+sql+"' IN app FOR "+term); err != nil {
		return err
	}
	conn, err := c.meets("app")
	if err != nil {
		return err
	}
	defer parts(conn)
	if err = say(conn, sql); err == nil {
		if term == "1s" && time.Since(began) >= time.Second {
			return nil // the machine is slow
		}
		return fmt.Errorf("%w: a blocked statement runs", errSoak)
	}
	if sqlState(err) == "42501" {
		return nil
	}
	return err
}

// kills ends one client, whoever it is.
func (c *soakClient) kills(console *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), txBound)
	defer cancel()
	all, err := console.PgConn().Exec(ctx, "SHOW CLIENTS WHERE database = 'app'").ReadAll()
	if err != nil || len(all[0].Rows) == 0 {
		return err
	}
	at := slices.IndexFunc(all[0].FieldDescriptions, func(f pgconn.FieldDescription) bool { return f.Name == "id" })
	if err = say(console, "KILL_CLIENT "+string(all[0].Rows[c.r.IntN(len(all[0].Rows))][at])); sqlState(err) == "42704" {
		return nil // it has left by itself
	}
	return err
}

// reads asks for a page of the admin address.
func (c *soakClient) reads(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_, err := c.askAdmin(ctx, c.pick("/metrics", "/metrics", "/livez", "/", "/assets/dashboard.js", "/api/v1/status", "/api/v1/slots", "/api/v1/moves",
		"/api/v1/proxies", "/api/v1/doubts", "/api/v1/events", "/api/v1/statements", "/api/v1/history", "/api/v1/session"))
	return err
}

// watches looks at the dashboard's events for a while, or has them sent and reads nothing.
func (c *soakClient) watches(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(100+c.r.IntN(1500))*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.ps.admin+"/api/v1/live", nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth("app", pgcluster.AppPassword)
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %s", errSoak, res.Status)
	}
	if c.r.IntN(3) == 0 {
		<-ctx.Done()
		return nil
	}
	_, _ = io.Copy(io.Discard, res.Body) // until ctx ends
	return nil
}
