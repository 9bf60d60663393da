package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestWriteSkew: of two transactions that each read both of two rows on different shards and
// write one of them, both may commit, as under REPEATABLE READ on one server; with FOR SHARE
// only one does.
func TestWriteSkew(t *testing.T) {
	t.Parallel()
	s, c := startBank(t, 2)
	a, b := s.accountsApart()
	clients := []*pgx.Conn{s.connect(), s.connect()}
	// withdraw takes 100 from an account if both together have 200, in step with the other's.
	withdraw := func(c *pgx.Conn, from int, level, lock string, read *sync.WaitGroup) (err error) {
		var once sync.Once
		defer once.Do(read.Done)
		defer func() {
			end := "COMMIT"
			if err != nil {
				end = "ROLLBACK"
			}
			if _, failed := c.Exec(within(t, txBound), end); err == nil {
				err = failed
			}
		}()
		if _, err = c.Exec(within(t, txBound), "BEGIN ISOLATION LEVEL "+level); err != nil {
			return err
		}
		rows, err := c.Query(within(t, txBound), fmt.Sprintf("SELECT balance FROM accounts WHERE id IN (%d, %d) %s", a, b, lock))
		if err != nil {
			return err
		}
		balances, err := pgx.CollectRows(rows, pgx.RowTo[int])
		if err != nil {
			return err
		}
		once.Do(read.Done)
		read.Wait()
		if balances[0]+balances[1] < 200 {
			return fmt.Errorf("%v is not enough", balances)
		}
		_, err = c.Exec(within(t, txBound), fmt.Sprintf("UPDATE accounts SET balance = balance - 100 WHERE id = %d", from))
		return err
	}
	for _, test := range []struct {
		level, lock string
		commit      int
	}{
		{"REPEATABLE READ", "", 2}, {"REPEATABLE READ", "FOR SHARE", 1}, {"READ COMMITTED", "FOR SHARE", 1},
	} {
		for range 5 {
			must(t, c, fmt.Sprintf("UPDATE accounts SET balance = 100 WHERE id IN (%d, %d)", a, b))
			var read, done sync.WaitGroup
			read.Add(2)
			var errs [2]error
			for i, from := range []int{a, b} {
				done.Go(func() { errs[i] = withdraw(clients[i], from, test.level, test.lock, &read) })
			}
			done.Wait()
			committed := 0
			for _, err := range errs {
				switch state := sqlState(err); {
				case err == nil:
					committed++
				case state != "40P01" && state != "40001":
					t.Fatalf("%s %s: %v", test.level, test.lock, err)
				}
			}
			left := one(t, c, fmt.Sprintf("SELECT sum(balance)::text FROM accounts WHERE id IN (%d, %d)", a, b))
			if committed != test.commit || left != fmt.Sprint(200-100*committed) {
				t.Errorf("%s %s: %d committed, %s is left: %v", test.level, test.lock, committed, left, errs)
			}
		}
	}
}

// TestCannotPrepare: what PostgreSQL would not prepare is refused when it is said, or when the
// second shard is written, and not by COMMIT.
func TestCannotPrepare(t *testing.T) {
	t.Parallel()
	s, c := startBank(t, 2)
	a, b := s.accountsApart()
	update := func(id int) string {
		return fmt.Sprintf("UPDATE accounts SET balance = balance + 1 WHERE id = %d", id)
	}
	refused := func(what, hint string, statements ...string) {
		t.Helper()
		must(t, c, "BEGIN")
		defer must(t, c, "ROLLBACK")
		for i, sql := range statements {
			_, err := c.Exec(within(t, txBound), sql)
			if err == nil {
				continue
			}
			var pe *pgconn.PgError
			if !errors.As(err, &pe) || pe.Code != "0A000" || i == 0 || !strings.Contains(pe.Hint, hint) {
				t.Errorf("%s: %s: %v, %+v", what, sql, err, pe)
			}
			return
		}
		t.Errorf("%s: nothing of %q was refused", what, statements)
	}
	for _, sql := range []string{
		"CREATE TEMP TABLE own (i int)",
		"CREATE TEMP TABLE own AS SELECT 1 AS i",
		"LISTEN money",
		fmt.Sprintf("DECLARE kept CURSOR WITH HOLD FOR SELECT * FROM accounts WHERE id = %d", a),
		"SELECT pg_export_snapshot()",
	} {
		refused(sql, "one that stays on one shard", update(a), update(b), sql)
		refused(sql, "on to another shard", sql, update(a), update(b))
		refused(sql, "on to another shard", update(a), sql, update(b))
	}
	refused("prepare", "COMMIT prepares", update(a), update(b), "PREPARE TRANSACTION 'mine'")
	if got := one(t, c, fmt.Sprintf("SELECT sum(balance)::text FROM accounts WHERE id IN (%d, %d)", a, b)); got != "200" {
		t.Errorf("in the end: %s", got)
	}
}
