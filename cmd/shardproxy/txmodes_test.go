package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
)

// TestChain ends transactions over several shards with another of the same modes behind them.
func TestChain(t *testing.T) {
	s, c := startBank(t, 2)
	a, b := s.accountsApart()
	both := func() {
		t.Helper()
		must(t, c, fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = %d", a))
		must(t, c, fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = %d", b))
	}
	sum := func() string {
		t.Helper()
		return one(t, s.connect(), fmt.Sprintf("SELECT sum(balance)::text FROM accounts WHERE id IN (%d, %d)", a, b))
	}
	must(t, c, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	both()
	must(t, c, "COMMIT AND CHAIN")
	if got := sum(); got != "202" {
		t.Errorf("behind COMMIT AND CHAIN: %s", got)
	}
	if got := one(t, c, "SHOW transaction_isolation"); got != "repeatable read" {
		t.Errorf("the chained transaction is %s", got)
	}
	both()
	must(t, c, "ROLLBACK AND CHAIN")
	if got := sum(); got != "202" {
		t.Errorf("behind ROLLBACK AND CHAIN: %s", got)
	}
	fails(t, c, "SELECT 1/0 FROM accounts", "22012")
	must(t, c, "COMMIT AND CHAIN") // a ROLLBACK
	both()
	must(t, c, "COMMIT")
	if got := sum(); got != "204" {
		t.Errorf("in the end: %s", got)
	}
	fails(t, c, "COMMIT AND CHAIN", "25P01")
}

// TestNotifySpread: what a transaction over several shards notifies is sent if it commits, and only
// then, wherever it was said.
func TestNotifySpread(t *testing.T) {
	s, c := startBank(t, 2)
	a, b := s.accountsApart()
	heard := make(chan string, 100)
	cfg, err := pgx.ParseConfig(s.shards[0].Primary().DSN("app", "app"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { heard <- n.Payload }
	listener, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close(context.Background())
	must(t, listener, "LISTEN money")
	update := func(id int) string {
		return fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = %d", id)
	}
	for i, statements := range [][]string{
		{"NOTIFY money, '%d'", update(a), update(b)}, {update(a), "NOTIFY money, '%d'", update(b)}, {update(b), update(a), "NOTIFY money, '%d'"},
		{update(b), "SELECT pg_notify('money', '%d')", update(a)}, {update(b), "NOTIFY money, '%d'"},
	} {
		for _, end := range []string{"ROLLBACK", "COMMIT"} {
			must(t, c, "BEGIN")
			for _, sql := range statements {
				must(t, c, strings.Replace(sql, "%d", fmt.Sprint(i, end), 1))
			}
			must(t, c, end)
		}
		must(t, listener, "SELECT 1") // notifications come with what is said next
		select {
		case got := <-heard:
			if want := fmt.Sprint(i, "COMMIT"); got != want {
				t.Errorf("%v: heard %q, want %q", statements, got, want)
			}
		default:
			t.Errorf("%v: nothing was heard", statements)
		}
	}
	// In one pipeline; the other shard's connection is the lease when it commits.
	must(t, c, "BEGIN")
	pipeline := &pgx.Batch{}
	for _, sql := range []string{update(a), update(b), "NOTIFY money, 'piped'"} {
		pipeline.Queue(sql)
	}
	if err := c.SendBatch(within(t, txBound), pipeline).Close(); err != nil {
		t.Error(err)
	}
	must(t, c, update(b))
	must(t, c, "COMMIT")
	must(t, listener, "SELECT 1")
	select {
	case got := <-heard:
		if got != "piped" {
			t.Errorf("heard %q of a pipeline", got)
		}
	default:
		t.Error("a pipeline's notification was not heard")
	}
	if len(heard) > 0 {
		t.Errorf("and heard %q", <-heard)
	}
}

// TestCommitLeft: a client whose transaction is committed, and not everywhere yet, is told so.
func TestCommitLeft(t *testing.T) {
	s := startTxStage(t, 2)
	var notices []string
	cfg, err := pgx.ParseConfig(s.dsn(0))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		notices = append(notices, n.Severity+" "+n.Code+" "+n.Detail)
	}
	c, err := pgx.ConnectConfig(within(t, 20*time.Second), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	wire := s.wires[0][1]
	rule := wire.On(faultproxy.Rule{Kind: 'Q', Text: "COMMIT PREPARED", Do: faultproxy.CloseConn()})
	defer rule.Remove()
	must(t, c, "BEGIN")
	must(t, c, "UPDATE lists SET vals = vals || 7::bigint WHERE k = $1", s.keys[1][0])
	must(t, c, "UPDATE lists SET vals = vals || 7::bigint WHERE k = $1", s.keys[0][0])
	must(t, c, "COMMIT")
	if len(notices) != 1 || !strings.HasPrefix(notices[0], "WARNING 01000 ") || !strings.Contains(notices[0], "s1") {
		t.Errorf("the client was told %q", notices)
	}
	rule.Remove()
	eventually(t, "the other part is there", func() bool {
		return len(pgtest.Lines(s.shards[1].Primary().Rows("app", "SELECT 1 FROM lists WHERE vals <> '{}'"))) == 1
	})
}

// TestIsolationOfAll: every shard of a transaction has the isolation level that the client asked for, whatever stands
// behind its BEGIN; SERIALIZABLE, also as the default of a role, is refused over several.
func TestIsolationOfAll(t *testing.T) {
	t.Parallel()
	s, c := startBank(t, 2)
	a, b := s.accountsApart()
	must(t, c, "BEGIN -- here")
	must(t, c, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
	for _, id := range []int{a, b, a} {
		if got := one(t, c, fmt.Sprintf("SELECT current_setting('transaction_isolation') FROM accounts WHERE id = %d", id)); got != "repeatable read" {
			t.Errorf("account %d is read in a transaction that is %s", id, got)
		}
	}
	must(t, c, "ROLLBACK")
	for _, cl := range s.shards {
		cl.Primary().Exec("app", "ALTER ROLE app SET default_transaction_isolation = 'serializable'")
	}
	// Connections from before have the old default.
	must(t, s.connectTo(strings.Replace(s.dsn(), "/app?", "/shardproxy?", 1)), "RECONNECT")
	c = s.connect()
	update := func(id int) string {
		return fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = %d", id)
	}
	eventually(t, "the default is that of the role", func() bool {
		return one(t, c, fmt.Sprintf("SELECT current_setting('transaction_isolation') FROM accounts WHERE id = %d", a)) == "serializable" &&
			one(t, c, fmt.Sprintf("SELECT current_setting('transaction_isolation') FROM accounts WHERE id = %d", b)) == "serializable"
	})
	fails(t, c, "SELECT count(*) FROM accounts", "0A000")
	fails(t, c, "UPDATE accounts SET balance = balance", "0A000")
	for _, snapshot := range []string{"statement", "off"} {
		must(t, c, "SET shardproxy.snapshot = "+snapshot)
		must(t, c, "BEGIN")
		must(t, c, update(a))
		fails(t, c, update(b), "0A000")
		must(t, c, "ROLLBACK")
	}
	must(t, c, "SET default_transaction_isolation = 'read committed'")
	must(t, c, "SELECT count(*) FROM accounts")
	must(t, c, "BEGIN")
	must(t, c, update(a))
	must(t, c, update(b))
	must(t, c, "COMMIT")
}
