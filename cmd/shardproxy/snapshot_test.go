package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// accountsTable is sharded besides those of shardsText.
const accountsTable = "      accounts: {key: id}"

// accounts is how many accounts a bank has, each with 100.
const accounts = 40

// startBank starts the program with accounts on all of its shards.
func startBank(t *testing.T, shards int, more ...string) (s *shardedProgram, c *pgx.Conn) {
	s = startShards(t, shards, append([]string{accountsTable}, more...)...)
	c = s.connectLoaded()
	must(t, c, "CREATE TABLE accounts (id bigint PRIMARY KEY, balance int NOT NULL)")
	for i := range accounts {
		must(t, c, "INSERT INTO accounts VALUES ($1, 100)", i)
	}
	return s, c
}

// accountsApart returns two accounts that lie on different shards.
func (s *shardedProgram) accountsApart() (a, b int) {
	s.t.Helper()
	on := func(i int) string {
		return s.shards[0].Primary().Rows("app", fmt.Sprintf("SELECT count(*) FROM accounts WHERE id = %d", i))[0][0]
	}
	for b = 1; on(b) == on(0); b++ {
	}
	return 0, b
}

// transferring has tellers move money until stop is called, which returns how often they did.
func (s *shardedProgram) transferring(tellers int) (stop func() int64) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var done atomic.Int64
	for range tellers {
		c := s.connect()
		all.Go(func() {
			for ctx.Err() == nil {
				ids := rand.Perm(accounts)[:2]
				from, to := min(ids[0], ids[1]), max(ids[0], ids[1])
				amount := rand.IntN(21) - 10
				if err := transfer(context.Background(), c, from, to, amount); err != nil {
					s.t.Errorf("a transfer: %v", err)
					return
				}
				done.Add(1)
			}
		})
	}
	return func() int64 {
		cancel()
		all.Wait()
		return done.Load()
	}
}

func transfer(ctx context.Context, c *pgx.Conn, from, to, amount int) error {
	return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance - $2 WHERE id = $1", from, amount); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $2 WHERE id = $1", to, amount)
		return err
	})
}

// totals are ways to find out what all accounts have together, over all the ways in which a query
// is answered.
var totals = map[string]func(ctx context.Context, c *pgx.Conn) (int, error){
	"groups": func(ctx context.Context, c *pgx.Conn) (sum int, err error) {
		return sum, c.QueryRow(ctx, "SELECT sum(balance) FROM accounts").Scan(&sum)
	},
	"merge": func(ctx context.Context, c *pgx.Conn) (int, error) {
		return sumOf(c.Query(ctx, "SELECT balance FROM accounts ORDER BY id"))
	},
	"simple": func(ctx context.Context, c *pgx.Conn) (int, error) {
		return sumOf(c.Query(ctx, "SELECT balance FROM accounts", pgx.QueryExecModeSimpleProtocol))
	},
	"gather": func(ctx context.Context, c *pgx.Conn) (sum int, err error) {
		return sum, c.QueryRow(ctx, "SELECT sum(balance) FROM (SELECT balance, row_number() OVER (ORDER BY balance) FROM accounts) a").Scan(&sum)
	},
	"list": func(ctx context.Context, c *pgx.Conn) (int, error) {
		ids := make([]string, accounts)
		for i := range ids {
			ids[i] = strconv.Itoa(i)
		}
		return sumOf(c.Query(ctx, "SELECT balance FROM accounts WHERE id IN ("+strings.Join(ids, ", ")+")"))
	},
	"copy": func(ctx context.Context, c *pgx.Conn) (sum int, err error) {
		var b strings.Builder
		_, err = c.PgConn().CopyTo(ctx, &b, "COPY (SELECT balance FROM accounts) TO STDOUT")
		for line := range strings.FieldsSeq(b.String()) {
			n, _ := strconv.Atoi(line)
			sum += n
		}
		return sum, err
	},
	"transaction": func(ctx context.Context, c *pgx.Conn) (sum int, err error) {
		err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, "SELECT sum(balance) FROM accounts").Scan(&sum)
		})
		return sum, err
	},
	"repeatable": func(ctx context.Context, c *pgx.Conn) (sum int, err error) {
		err = pgx.BeginTxFunc(ctx, c, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) (err error) {
			sum, err = sumOf(tx.Query(ctx, "SELECT balance FROM accounts ORDER BY id"))
			return err
		})
		return sum, err
	},
}

func sumOf(rows pgx.Rows, err error) (sum int, _ error) {
	if err != nil {
		return 0, err
	}
	var n int
	_, err = pgx.ForEachRow(rows, []any{&n}, func() error { sum += n; return nil })
	return sum, err
}

// TestSnapshotTotals reads totals under transfers between shards: with shardproxy.snapshot = off some
// are wrong, which shows that the test can tell, and by default none is.
func TestSnapshotTotals(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"auto", "goroutine"} {
		t.Run(driver, func(t *testing.T) {
			s, _ := startBank(t, 2, "runtime: {driver: "+driver+"}")
			stop := s.transferring(4)
			wrongWithout(t, s)
			var readers sync.WaitGroup
			for name, total := range totals {
				c := s.connect()
				readers.Go(func() {
					n := 0
					for end := time.Now().Add(2 * time.Second); time.Now().Before(end); n++ {
						sum, err := total(within(t, 20*time.Second), c)
						if err != nil || sum != accounts*100 {
							t.Errorf("%s: a total of %d: %v", name, sum, err)
							return
						}
					}
					t.Logf("%s: %d totals", name, n)
				})
			}
			readers.Wait()
			if n := stop(); n < 10 {
				t.Errorf("%d transfers", n)
			}
		})
	}
}

// wrongWithout reads without the fence until a total is wrong.
func wrongWithout(t *testing.T, s *shardedProgram) {
	t.Helper()
	c := s.connect()
	must(t, c, "SET shardproxy.snapshot = off")
	for end := time.Now().Add(30 * time.Second); ; {
		sum, err := totals["merge"](within(t, 20*time.Second), c)
		if err != nil || time.Now().After(end) {
			t.Fatal("no total was wrong without the fence: the test shows nothing", err)
		}
		if sum != accounts*100 {
			return
		}
	}
}

// TestSnapshotThird takes transactions that have read and written on two shards to a third: what they
// did stays, and so does what they saw.
func TestSnapshotThird(t *testing.T) {
	s, c := startBank(t, 3)
	var ids []int // one account on each shard
	for _, sh := range s.shards {
		var id int
		fmt.Sscan(sh.Primary().Rows("app", "SELECT min(id) FROM accounts")[0][0], &id)
		ids = append(ids, id)
	}
	two := fmt.Sprintf("SELECT id, balance FROM accounts WHERE id IN (%d, %d)", ids[0], ids[1])
	third := fmt.Sprintf("SELECT balance FROM accounts WHERE id = %d", ids[2])
	for _, isolation := range []string{"READ COMMITTED", "REPEATABLE READ"} {
		must(t, c, "UPDATE accounts SET balance = 100")
		must(t, c, "BEGIN ISOLATION LEVEL "+isolation)
		must(t, c, two)
		must(t, c, fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id IN (%d, %d)", ids[0], ids[1]))
		must(t, c, third)
		must(t, c, "COMMIT")
		if got := one(t, c, fmt.Sprintf("SELECT sum(balance)::text FROM accounts WHERE id IN (%d, %d)", ids[0], ids[1])); got != "202" {
			t.Errorf("%s: two updates made 200 %s", isolation, got)
		}
	}
	other := s.connect()
	must(t, c, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	must(t, c, two)
	must(t, other, fmt.Sprintf("UPDATE accounts SET balance = 7 WHERE id = %d", ids[0]))
	must(t, other, fmt.Sprintf("UPDATE accounts SET balance = 7 WHERE id = %d", ids[1]))
	must(t, c, third)
	if got := one(t, c, fmt.Sprintf("SELECT sum(balance)::text FROM accounts WHERE id IN (%d, %d)", ids[0], ids[1])); got != "202" {
		t.Errorf("what was 202 is %s in the same snapshot", got)
	}
	must(t, c, "COMMIT")
}

// TestSnapshotRepeatable: a transaction under REPEATABLE READ that comes to another shard does not see
// there what it has not seen before.
func TestSnapshotRepeatable(t *testing.T) {
	s, c := startBank(t, 2)
	a, b := s.accountsApart()
	reads := func(id int) string {
		return fmt.Sprintf("SELECT balance::text FROM accounts WHERE id = %d", id)
	}
	other := s.connect()
	move := func() {
		t.Helper()
		if err := transfer(t.Context(), other, a, b, 10); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(isolation string) {
		t.Helper()
		must(t, c, "BEGIN ISOLATION LEVEL "+isolation)
	}
	begin("REPEATABLE READ")
	if got := one(t, c, reads(a)) + " " + one(t, c, reads(b)); got != "100 100" {
		t.Error(got)
	}
	must(t, c, "COMMIT")

	begin("REPEATABLE READ")
	must(t, c, reads(a))
	move()
	fails(t, c, reads(b), "40001")
	fails(t, c, reads(a), "25P02")
	must(t, c, "ROLLBACK")

	begin("REPEATABLE READ") // both ways
	must(t, c, reads(b))
	move()
	fails(t, c, reads(a), "40001")
	must(t, c, "ROLLBACK")

	begin("REPEATABLE READ") // what one shard alone has committed is no reason
	must(t, c, reads(a))
	must(t, other, fmt.Sprintf("UPDATE accounts SET balance = balance WHERE id = %d", a))
	if got := one(t, c, reads(a)) + " " + one(t, c, reads(b)); got != "80 120" {
		t.Error(got)
	}
	move()
	if got := one(t, c, reads(a)) + " " + one(t, c, reads(b)) + " " + one(t, c, "SELECT sum(balance)::text FROM accounts"); got != "80 120 4000" {
		t.Error(got)
	}
	must(t, c, "COMMIT")

	must(t, c, "SET default_transaction_isolation = 'repeatable read'")
	must(t, c, "BEGIN")
	must(t, c, reads(a))
	move()
	fails(t, c, "SELECT sum(balance) FROM accounts", "40001")
	must(t, c, "ROLLBACK")
	must(t, c, "SELECT sum(balance) FROM accounts")
	must(t, c, "RESET default_transaction_isolation")

	begin("READ COMMITTED")
	must(t, c, reads(a))
	move()
	if got := one(t, c, "SELECT sum(balance)::text FROM accounts"); got != "4000" {
		t.Error(got)
	}
	must(t, c, "COMMIT")

	begin("REPEATABLE READ")
	must(t, c, "SET LOCAL shardproxy.snapshot = off")
	before := one(t, c, reads(a))
	move()
	if after := one(t, c, reads(b)); before+" "+after != "50 160" {
		t.Error(before, after)
	}
	must(t, c, "COMMIT")
	fails(t, c, "SET shardproxy.snapshot = often", "22023")
}
