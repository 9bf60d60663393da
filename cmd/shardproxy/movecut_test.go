package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// growth counts what clients were told of one row that only grows.
type growth struct {
	acked, unknown atomic.Int64
	reads, stale   atomic.Int64
	mu             sync.Mutex
	failed         map[string]int
}

// work writes and reads the account through one proxy until ctx ends. A read must show every write that was acknowledged before it began.
func (y *growth) work(ctx context.Context, c *txClient, account int64) {
	defer c.drop()
	for c.connected(ctx) {
		_, tag, err := c.query("UPDATE accounts SET balance = balance + 1 WHERE id = $1", account)
		switch {
		case err == nil && tag != "UPDATE 1":
			c.t.Errorf("a write through proxy %d: %s", c.id%2, tag)
		case err == nil:
			y.acked.Add(1)
		case sqlState(err) == "" || sqlState(err) == "08006" || sqlState(err) == "57P01":
			y.unknown.Add(1)
		default:
			y.fail(err)
		}
		before := y.acked.Load()
		if !c.connected(ctx) {
			return
		}
		rows, _, err := c.query("SELECT balance FROM accounts WHERE id = $1", account)
		if err != nil {
			y.fail(err)
			continue
		}
		y.reads.Add(1)
		if len(rows) != 1 || rows[0][0].(int64) < before {
			y.stale.Add(1)
			c.t.Errorf("a read through proxy %d shows %v, %d writes were acknowledged before", c.id%2, rows, before)
		}
	}
}

func (y *growth) fail(err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.failed[sqlState(err)]++
}

// TestMoveWithoutProxy moves a slot while a proxy with clients is cut off from the home shard, and from nothing else: the move does not wait for it for ever,
// and through that proxy nobody reads what is old or writes where it is lost.
func TestMoveWithoutProxy(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 3)
	var account int64
	for _, row := range s.shards[1].Primary().Rows("app", "SELECT k FROM lists ORDER BY k LIMIT 1") {
		_, _ = fmt.Sscan(row[0], &account) // a key of shard 1
	}
	must(t, s.proxies[0].connect(), "INSERT INTO accounts VALUES ($1, 0)", account)
	ctx, cancel := context.WithCancel(t.Context())
	y := &growth{failed: map[string]int{}}
	var clients sync.WaitGroup
	for i := range 4 {
		clients.Go(func() { y.work(ctx, &txClient{t: t, dsn: s.dsn(i % 2), id: i}, account) })
	}
	t.Cleanup(func() {
		cancel()
		clients.Wait()
	})
	eventually(t, "clients work", func() bool { return y.reads.Load() > 100 })
	s.wires[1][0].Stall()
	s.rebalance(t, "start", "--move-tenant", fmt.Sprint("accounts.id=", account), "--to", "s2")
	soon(t, 2*time.Minute, "the slot has moved", func() bool {
		return s.shards[0].Primary().Value("app", "SELECT phase FROM shardproxy.moves") == "done"
	})
	moved := y.reads.Load()
	eventually(t, "the other proxy goes on", func() bool { return y.reads.Load() > moved+100 })
	s.wires[1][0].Unstall()
	eventually(t, "the one that was cut off serves again", func() bool {
		_, err := s.proxies[1].connect().Exec(within(t, 10*time.Second), "UPDATE accounts SET balance = balance WHERE id = $1", account)
		return err == nil
	})
	cancel()
	clients.Wait()
	t.Logf("%d writes acknowledged, %d of unknown outcome, %d reads; failed: %v", y.acked.Load(), y.unknown.Load(), y.reads.Load(), y.failed)
	var balance int64
	_, _ = fmt.Sscan(s.shards[2].Primary().Value("app", fmt.Sprint("SELECT balance FROM accounts WHERE id = ", account)), &balance)
	if balance < y.acked.Load() || balance > y.acked.Load()+y.unknown.Load() {
		t.Errorf("the account has %d, of %d writes and %d of unknown outcome", balance, y.acked.Load(), y.unknown.Load())
	}
	s.settled()
	s.clean(t)
}

// TestJoinWithoutProxy has a shard join, and a slot move, while a proxy with a client is cut off from the home shard for long, and from nothing else: through that
// proxy nobody reads what is old, or writes where nobody looks.
func TestJoinWithoutProxy(t *testing.T) {
	t.Parallel()
	s := startSpareStage(t, 3, 2)
	account := s.keys[1][0]
	must(t, s.proxies[0].connect(), "INSERT INTO accounts VALUES ($1, 0)", account)
	read := func() (n int64, err error) {
		c := s.proxies[1].connect()
		defer c.Close(within(t, 5*time.Second))
		err = c.QueryRow(within(t, 15*time.Second), "SELECT balance FROM accounts WHERE id = $1", account).Scan(&n)
		return n, err
	}
	if n, err := read(); err != nil || n != 0 {
		t.Fatal(n, err)
	}
	s.wires[1][0].Stall()
	s.rebalance(t, "start", "--add", "s2", "--slots", s.slotOf(account), "--to", "s2")
	s.ends(t, "s2 has joined, and the slot has moved")
	must(t, s.proxies[0].connect(), "UPDATE accounts SET balance = 77 WHERE id = $1", account)
	if n, err := read(); err == nil && n != 77 || errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("a read through the proxy that is cut off: %d, %v", n, err)
	}
	_, err := s.proxies[1].connect().Exec(within(t, 15*time.Second), "INSERT INTO accounts VALUES ($1, 1)", account)
	if got := s.shards[1].Primary().Value("app", fmt.Sprint("SELECT count(*) FROM accounts WHERE id = ", account)); err == nil || got != "0" {
		t.Errorf("an INSERT through it: %v; the shard of before has %s of its rows", err, got)
	}
	s.wires[1][0].Unstall()
	eventually(t, "it serves again", func() bool {
		n, err := read()
		return err == nil && n == 77
	})
}

// slotOf is the slot of a key.
func (s *txStage) slotOf(key int64) string {
	return s.shards[0].Primary().Value("app", fmt.Sprintf("SELECT hashint8extended(%d, 0) & 4095", key))
}
