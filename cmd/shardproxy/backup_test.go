package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"shardproxy/internal/pgtest"
	"shardproxy/metadata"
)

// ledgerTable is sharded: each transfer is written down on both sides, beside its accounts.
const ledgerTable = "      ledger: {key: account}"

// startLedger is a bank of three shards that keeps a ledger.
func startLedger(t *testing.T) *shardedProgram {
	s, c := startBank(t, 3, ledgerTable)
	must(t, c, "CREATE TABLE ledger (account bigint, transfer bigint, amount int NOT NULL, PRIMARY KEY (account, transfer))")
	return s
}

// booking is transfers that are being made.
type booking struct {
	stop func()
	last atomic.Int64

	mu   sync.Mutex
	done map[int64]bool // that were acknowledged
}

// book has tellers make transfers, and returns when some are acknowledged.
func (s *shardedProgram) book(tellers int) *booking {
	b := &booking{done: map[int64]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for range tellers {
		c := s.connect()
		all.Go(func() {
			for ctx.Err() == nil {
				if err := b.transfer(c); err != nil {
					s.t.Errorf("a transfer: %v", err)
					return
				}
			}
		})
	}
	b.stop = sync.OnceFunc(func() { cancel(); all.Wait() })
	s.t.Cleanup(b.stop)
	b.goOn(s.t)
	return b
}

func (b *booking) transfer(c *pgx.Conn) error {
	ids := rand.Perm(accounts)[:2]
	from, to := min(ids[0], ids[1]), max(ids[0], ids[1])
	amount, transfer := 1+rand.IntN(20), b.last.Add(1)
	ctx := context.Background()
	err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
		for id, by := range map[int]int{from: -amount, to: amount} {
			if _, err := tx.Exec(ctx, "INSERT INTO ledger VALUES ($1, $2, $3)", id, transfer, by); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance - $2 WHERE id = $1", from, amount); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "UPDATE accounts SET balance = balance + $2 WHERE id = $1", to, amount)
		return err
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done[transfer] = err == nil
	return err
}

// acknowledged returns the transfers that are committed for sure.
func (b *booking) acknowledged() (all []int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, ok := range b.done {
		if ok {
			all = append(all, id)
		}
	}
	return all
}

// goOn waits until more transfers are acknowledged.
func (b *booking) goOn(t testing.TB) {
	t.Helper()
	before := len(b.acknowledged())
	eventually(t, "transfers are made", func() bool { return len(b.acknowledged()) > before+30 })
}

// auditsBank looks for transfers that are there by half, for money that was made or lost, and for
// what was acknowledged and is not there.
func auditsBank(nodes []*pgtest.Node, database string, acknowledged []int64) (bad []string) {
	total, sides := 0, map[int64]int{}
	for _, n := range nodes {
		for _, row := range n.Rows(database, "SELECT balance FROM accounts") {
			var balance int
			_, _ = fmt.Sscan(row[0], &balance)
			total += balance
		}
		for _, row := range n.Rows(database, "SELECT transfer FROM ledger") {
			var id int64
			_, _ = fmt.Sscan(row[0], &id)
			sides[id]++
		}
	}
	if total != accounts*100 {
		bad = append(bad, fmt.Sprintf("all accounts together have %d", total))
	}
	for id, n := range sides {
		if n != 2 {
			bad = append(bad, fmt.Sprintf("transfer %d is there by %d rows", id, n))
		}
	}
	for _, id := range acknowledged {
		if sides[id] == 0 {
			bad = append(bad, fmt.Sprintf("transfer %d was acknowledged and is lost", id))
		}
	}
	return bad
}

// tool runs one of the program's commands on the configuration and returns what it printed, and
// its exit code.
func (px *proxied) tool(ctx context.Context, c *cobra.Command, args ...string) (out string, code int) {
	px.t.Helper()
	var b bytes.Buffer
	c.SetOut(&b)
	c.SetErr(&b)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(append([]string{"-c", px.path}, args...))
	err := c.ExecuteContext(ctx)
	var ee *exitError
	switch {
	case errors.As(err, &ee):
		return b.String() + ee.msg, ee.code
	case err != nil:
		return b.String() + err.Error(), 1
	}
	return b.String(), 0
}

// refuses has a command end with the code, and say the words.
func (px *proxied) refuses(code int, words string, c *cobra.Command, args ...string) {
	px.t.Helper()
	out, got := px.tool(within(px.t, time.Minute), c, args...)
	if got != code || !strings.Contains(out, words) {
		px.t.Errorf("%v: code %d\n%swant %d and %q", args, got, out, code, words)
	}
}

// TestAtOnce: the home shard comes last, and not at all when another fails; no part can be prepared
// meanwhile; what took longer than it may does not count.
func TestAtOnce(t *testing.T) {
	s := startShards(t, 3)
	ctx := within(t, time.Minute)
	cfg, err := load(s.path)
	if err != nil {
		t.Fatal(err)
	}
	links, err := openLinks(ctx, cfg, &cfg.Databases[0])
	if err != nil {
		t.Fatal(err)
	}
	defer links.close()
	var lock sync.Mutex
	var order []int
	var slow, broken int
	do := func(ctx context.Context, i int) error {
		var free bool
		err := links.all[i].conn.QueryRow(ctx, fmt.Sprintf("SELECT pg_try_advisory_xact_lock_shared(%d, %d)", metadata.FenceClass, metadata.FenceObject)).Scan(&free)
		if free || err != nil && ctx.Err() == nil {
			t.Errorf("shard %d is not held: %v", i, err)
		}
		if i == slow {
			<-time.After(400 * time.Millisecond)
		}
		lock.Lock()
		defer lock.Unlock()
		order = append(order, i)
		if i == broken {
			return errors.New("broken")
		}
		return nil
	}
	slow, broken = 1, -1
	if err := links.atOnce(ctx, &fenceFlags{10 * time.Second, 5 * time.Second}, do); err != nil || fmt.Sprint(order) != "[2 1 0]" {
		t.Errorf("order %v, %v", order, err)
	}
	order, broken = nil, 2
	if err := links.atOnce(ctx, &fenceFlags{10 * time.Second, 5 * time.Second}, do); err != nil || fmt.Sprint(order) != "[2 1]" {
		t.Errorf("order %v, %v", order, err)
	}
	broken = -1
	if err := links.atOnce(ctx, &fenceFlags{10 * time.Second, 200 * time.Millisecond}, do); err == nil || !strings.Contains(err.Error(), "--hold") {
		t.Errorf("too slow: %v", err)
	}
}
