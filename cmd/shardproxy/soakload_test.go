package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// soakLoads are all the uses there are.
func soakLoads() []soakLoad {
	const often, seldom = 10 * time.Millisecond, 150 * time.Millisecond
	return []soakLoad{
		{name: "keyed", clients: 2, stays: true, pace: often, step: (*soakClient).keyed},
		{name: "fan-out", clients: 2, stays: true, pace: often, step: (*soakClient).fansOut},
		{name: "transfer", clients: 3, stays: true, pace: often, step: (*soakClient).transfers},
		{name: "texts", clients: 2, stays: true, pace: often, step: (*soakClient).newTexts},
		{name: "prepare", clients: 1, pace: often, step: (*soakClient).prepares},
		{name: "copy", clients: 1, pace: 3 * often, step: (*soakClient).copies},
		{name: "cursor", clients: 1, pace: often, step: (*soakClient).cursors},
		{name: "portal", clients: 1, alone: true, pace: 3 * often, step: (*soakClient).portals},
		{name: "error", clients: 1, stays: true, pace: often, step: (*soakClient).errs},
		{name: "session state", clients: 2, pace: 3 * often, step: (*soakClient).sets},
		{name: "definition", clients: 1, pace: 2 * seldom, step: (*soakClient).defines},
		{name: "idle", clients: 3, stays: true, pace: 2 * time.Second, step: func(c *soakClient, _ context.Context) error { return c.does("SELECT 1") }},
		{name: "rate", user: "slow", clients: 2, pace: often, step: (*soakClient).keyed},
		{name: "come and go", clients: 2, alone: true, pace: often, step: (*soakClient).comes},
		{name: "wrong password", clients: 1, alone: true, pace: 5 * often, step: (*soakClient).guesses},
		{name: "hang up", clients: 2, alone: true, pace: 3 * often, step: (*soakClient).hangsUp},
		{name: "stranger", clients: 1, alone: true, pace: 3 * often, step: (*soakClient).babbles},
		{name: "cancel", clients: 1, alone: true, pace: 3 * often, step: (*soakClient).cancels},
		{name: "console", clients: 1, alone: true, pace: 5 * often, step: (*soakClient).shows},
		{name: "operator", clients: 1, alone: true, pace: seldom, step: (*soakClient).steers},
		{name: "admin page", clients: 1, alone: true, pace: 5 * often, step: (*soakClient).reads},
		{name: "dashboard", clients: 2, alone: true, pace: seldom, step: (*soakClient).watches},
	}
}

// keyed reads and writes rows of one account.
func (c *soakClient) keyed(context.Context) error {
	var err error
	switch k := c.account(); c.r.IntN(5) {
	case 0:
		_, _, err = c.query("UPDATE accounts SET owner = $2 WHERE id = $1", k, fmt.Sprint("owner ", c.r.IntN(1000)))
	case 1:
		_, _, err = c.query("INSERT INTO events VALUES ($1, $2, 'happened')", k, c.number())
	case 2:
		_, _, err = c.query("DELETE FROM events WHERE account = $1", k)
	case 3:
		_, _, err = c.query("SELECT a.owner, e.note FROM accounts a LEFT JOIN events e ON e.account = a.id WHERE a.id = $1", k)
	default:
		var rows [][]any
		if rows, _, err = c.query("SELECT balance FROM accounts WHERE id = $1", k); err == nil && len(rows) != 1 {
			err = fmt.Errorf("%w: account %d has %d rows", errSoak, k, len(rows))
		}
	}
	return err
}

// fansOut asks all shards, in each way in which such queries are answered.
func (c *soakClient) fansOut(context.Context) error {
	sql := c.pick(
		"SELECT id, owner FROM accounts ORDER BY id LIMIT 50",
		"SELECT id FROM accounts WHERE balance > 0",
		"SELECT owner, id FROM accounts ORDER BY owner DESC, id LIMIT 20 OFFSET 5",
		"SELECT count(*), sum(balance), min(owner) FROM accounts",
		"SELECT id % 7 AS part, count(*), avg(balance) FROM accounts GROUP BY 1 ORDER BY 1",
		"SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY id) AS n FROM accounts) q",
		"SELECT a.id, b.owner FROM accounts a JOIN accounts b ON b.id = a.id + 1 WHERE a.id < 100",
		"SELECT a.id, r.v FROM accounts a JOIN rates r ON r.id = a.id % 20 ORDER BY a.id LIMIT 30",
		"SELECT id FROM accounts WHERE id IN (1, 2, 3, 4, 5, 6, 7)",
		"UPDATE rates SET v = v + 1 WHERE id = 3",
		"EXPLAIN SELECT count(*) FROM accounts",
		"SET shardproxy.snapshot = off; SELECT count(*) FROM accounts; RESET shardproxy.snapshot",
	)
	if strings.HasPrefix(sql, "SET") {
		return c.does(strings.Split(sql, "; ")...)
	}
	return c.does(sql)
}

// transfers moves an amount between accounts, which mostly are on two shards.
func (c *soakClient) transfers(context.Context) error {
	from, to := c.account(), c.account()
	take := fmt.Sprintf("UPDATE accounts SET balance = balance - 1 WHERE id = %d", from)
	give := fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = %d", to)
	switch c.r.IntN(6) {
	case 0:
		return c.does("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM accounts", take, give, "COMMIT")
	case 1:
		return c.does("BEGIN", "SAVEPOINT a", take, "ROLLBACK TO a", take, give, "RELEASE a", "COMMIT")
	case 2:
		if err := c.does("BEGIN", take, give); err != nil {
			return err
		}
		c.drop() // and with it the transaction
		return nil
	}
	return c.inBlock(take, give)
}

// newTexts asks what nobody has asked before: plans and statements that are kept give way to others.
func (c *soakClient) newTexts(context.Context) error {
	n := c.number()
	var err error
	switch c.r.IntN(3) {
	case 0:
		_, _, err = c.query(fmt.Sprintf("SELECT count(*) AS n%d FROM accounts WHERE owner <> $1", n), "nobody")
	case 1:
		_, _, err = c.query(fmt.Sprintf("SELECT id AS n%d FROM accounts ORDER BY id LIMIT $1", n), 5)
	default:
		_, _, err = c.query(fmt.Sprintf("SELECT owner AS n%d FROM accounts WHERE id = $1", n), c.account())
	}
	return err
}

// prepares makes statements of which the session may have 400, by either protocol, and forgets some.
func (c *soakClient) prepares(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), txBound)
	defer cancel()
	name, pc := fmt.Sprint("s", c.number()), c.conn.PgConn()
	var err error
	if c.r.IntN(2) == 0 {
		err = c.texts("PREPARE "+name+" AS SELECT v AS "+name+" FROM rates WHERE id = $1", "EXECUTE "+name+"(3)", c.pick("SELECT 1", "DEALLOCATE "+name, "DISCARD ALL"))
	} else if _, err = pc.Prepare(ctx, name, "SELECT count(*) AS "+name+" FROM accounts WHERE balance > $1", nil); err == nil {
		err = pc.ExecPrepared(ctx, name, [][]byte{[]byte("0")}, nil, nil).Read().Err
	}
	if sqlState(err) == "53400" {
		c.drop() // there is no room for another
		return nil
	}
	return err
}

// copies copies rows in and out, some of them badly, and not to their end.
func (c *soakClient) copies(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), txBound)
	defer cancel()
	pc, first := c.conn.PgConn(), c.number()*1000
	var rows strings.Builder
	for i := range 300 {
		fmt.Fprintf(&rows, "%d\t%d\t%s\n", c.account(), first+int64(i), strings.Repeat("x", 50))
	}
	var err error
	switch c.r.IntN(6) {
	case 0: // the client gives up
		broken := io.MultiReader(strings.NewReader(rows.String()), readerFunc(func([]byte) (int, error) { return 0, errSoakCopy }))
		if _, err = pc.CopyFrom(ctx, broken, "COPY bulk FROM STDIN"); errors.Is(err, errSoakCopy) || sqlState(err) == "57014" {
			err = nil
		}
	case 1: // the data are no rows
		if _, err = pc.CopyFrom(ctx, strings.NewReader(rows.String()+"1\tx\ty\n"), "COPY bulk FROM STDIN"); sqlState(err) == "22P02" {
			err = nil
		} else if err == nil {
			err = fmt.Errorf("%w: bad rows are copied", errSoak)
		}
	case 2:
		_, err = pc.CopyTo(ctx, io.Discard, "COPY accounts TO STDOUT")
	case 3:
		_, err = pc.CopyTo(ctx, io.Discard, fmt.Sprintf("COPY (SELECT id, owner FROM accounts WHERE id = %d) TO STDOUT (FORMAT csv)", c.account()))
	case 4: // the reader is gone in the middle
		wc := &failingWriter{left: 1000}
		if _, err = pc.CopyTo(ctx, wc, "COPY accounts TO STDOUT"); errors.Is(err, errSoakCopy) {
			c.drop()
			err = nil
		}
	default:
		if _, err = pc.CopyFrom(ctx, strings.NewReader(rows.String()), "COPY bulk FROM STDIN"); err == nil {
			err = c.does(fmt.Sprintf("DELETE FROM bulk WHERE id BETWEEN %d AND %d", first, first+999))
		}
	}
	return err
}

// errSoakCopy is why a COPY is given up.
var errSoakCopy = errors.New("given up")

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// failingWriter takes so many bytes.
type failingWriter struct{ left int }

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errSoakCopy
	}
	return len(p), nil
}

// cursors fetches from cursors over one shard and several, and leaves some of them open.
func (c *soakClient) cursors(context.Context) error {
	all := []string{"BEGIN", "DECLARE c CURSOR FOR " + c.pick("SELECT id FROM accounts ORDER BY id", "SELECT owner, id FROM accounts ORDER BY owner, id", "SELECT * FROM accounts WHERE id = 7",
		"SELECT a.id FROM accounts a JOIN accounts b ON b.id = a.id + 1")}
	for range c.r.IntN(4) {
		all = append(all, c.pick("FETCH 10 FROM c", "FETCH FROM c", "MOVE 5 IN c", "FETCH ALL FROM c"))
	}
	return c.texts(append(all, c.pick("SELECT 1", "CLOSE c"), c.pick("COMMIT", "ROLLBACK"))...)
}

// errs does what is refused, or fails, on one shard and on several.
func (c *soakClient) errs(context.Context) error {
	for _, e := range [...][2]string{
		{"SELECT * FROM events LIMIT 3 FOR UPDATE", "0A000"},
		{"SELECT 1/0 FROM accounts WHERE id = 1", "22012"},
		{"SELECT 1/(id - 500) FROM accounts", "22012"},
		{"SELECT nothing FROM accounts WHERE id = 1", "42703"},
		{"SELECT * FROM nowhere", "42P01"},
		{"SELEC 1", "42601"},
		{"INSERT INTO accounts VALUES (1, 'again', 0)", "23505"},
		{"INSERT INTO events (id) VALUES (1)", "0A000 23502"},
		{"SELECT * FROM accounts WHERE id = 'abc'", "22P02"},
		{"UPDATE accounts SET id = id + 1", "23505"},
		{"SET shardproxy.route = 'nowhere'", "22023"},
		{fmt.Sprintf("/* new */ SELECT 1/0 AS n%d FROM accounts", c.number()), "22012"},
	} {
		if c.r.IntN(3) > 0 {
			continue
		}
		if err := c.refused(e[0], e[1]); err != nil {
			return err
		}
		// The same in a transaction, which has failed then.
		if err := c.does("BEGIN"); err != nil {
			return err
		}
		if err := c.refused(e[0], e[1]+" 25001"); err != nil {
			return err
		}
		if err := c.does("ROLLBACK"); err != nil {
			return err
		}
	}
	return nil
}

// sets has sessions hold what keeps a server connection, and lets it go or leaves with it.
func (c *soakClient) sets(context.Context) error {
	name := fmt.Sprint("t", c.number())
	var err error
	switch c.r.IntN(6) {
	case 0:
		err = c.does("CREATE TEMP TABLE "+name+" AS SELECT 1 AS one", "SELECT * FROM "+name, "DROP TABLE "+name)
	case 1:
		err = c.does("LISTEN "+name, "NOTIFY "+name, "UNLISTEN *")
	case 2:
		err = c.does("SELECT pg_advisory_lock("+name[1:]+")", "SELECT pg_advisory_unlock("+name[1:]+")")
	case 3:
		err = c.does("SET search_path = public, pg_temp", "SET work_mem = '5MB'", "SELECT count(*) FROM accounts", "RESET ALL")
	case 4:
		if err = c.does("SELECT set_config('app.it', '"+name+"', false)", "DISCARD ALL"); err == nil {
			c.drop() // the driver does not know that its statements are gone
		}
	default:
		err = c.does("CREATE TEMP TABLE "+name+" (v int)", "LISTEN "+name, "SELECT pg_advisory_lock("+name[1:]+")", "SET app.it = '"+name+"'")
		c.drop()
	}
	return err
}

// defines makes a table on all shards, uses it and drops it: the catalog is read anew, and plans go.
func (c *soakClient) defines(context.Context) error {
	name := fmt.Sprint("made", c.number())
	err := c.does("CREATE TABLE "+name+" (tenant_id bigint, id bigint, v text, PRIMARY KEY (tenant_id, id))", "CREATE INDEX ON "+name+" (v)",
		"ALTER TABLE "+name+" ADD COLUMN w int DEFAULT 7", "INSERT INTO "+name+" VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 1, 'c')", "SELECT count(*) FROM "+name)
	if c.conn == nil || c.conn.IsClosed() {
		if !c.connected(context.Background()) {
			return err
		}
	}
	return errors.Join(err, c.does("DROP TABLE IF EXISTS "+name))
}
