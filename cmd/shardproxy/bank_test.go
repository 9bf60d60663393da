package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/internal/listappend"
)

// The bank: accounts on all shards, between which money moves. Each transfer is written
// down on both sides, beside the account that it changes.
const (
	bankAccounts = 40
	bankBalance  = 1000
	bankTotal    = bankAccounts * bankBalance
)

// bank is the workload and what is known of it.
type bank struct {
	t    testing.TB
	s    *txStage
	set  []string // what each client sets
	seed uint64
	next atomic.Int64
	// committed has all transfers be READ COMMITTED, and none be in another one's way: nothing is to fail.
	committed bool

	mu        sync.Mutex
	transfers map[int64]listappend.Outcome // by number
	states    map[string]int               // how transfers and reads ended
	reads     int                          // totals that were read
	wrong     []string                     // totals that were not what they must be
	slowest   time.Duration
}

// openBank makes the accounts.
func (s *txStage) openBank(t testing.TB, set ...string) *bank {
	t.Helper()
	b := &bank{t: t, s: s, set: set, seed: uint64(testNumber(t, "SHARDPROXY_TEST_SEED", 1)), transfers: map[int64]listappend.Outcome{}, states: map[string]int{}}
	for _, cl := range s.shards[:s.made] {
		cl.Primary().Exec("app", "TRUNCATE accounts, ledger")
	}
	var rows []string
	for id := range bankAccounts {
		rows = append(rows, fmt.Sprintf("(%d, %d)", id, bankBalance))
	}
	must(t, s.proxies[0].connect(), "INSERT INTO accounts VALUES "+strings.Join(rows, ", "))
	return b
}

// hasDone says whether so many transfers were acknowledged, and totals read.
func (b *bank) hasDone(transfers, reads int) func() bool {
	return func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.states["transfer ok "] >= transfers && b.reads >= reads
	}
}

// run has clients at work until ctx ends.
func (b *bank) run(ctx context.Context, writers, readers int) {
	var group sync.WaitGroup
	for i := range writers + readers {
		c := &txClient{t: b.t, dsn: b.s.dsn(i), id: i, set: b.set}
		r := rand.New(rand.NewPCG(b.seed, uint64(1000+i)))
		group.Go(func() {
			defer c.drop()
			for c.connected(ctx) {
				if i < writers {
					b.transfer(c, r)
				} else {
					b.read(c, r)
				}
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.slowest = max(b.slowest, time.Duration(c.longest.Load()))
		})
	}
	group.Wait()
}

// transfer moves money from one account to another.
func (b *bank) transfer(c *txClient, r *rand.Rand) {
	id, amount := b.next.Add(1), 1+r.Int64N(9)
	from, to := r.Int64N(bankAccounts), r.Int64N(bankAccounts-1)
	if to >= from {
		to++
	}
	// In the order of the accounts: transfers do not wait for each other in a circle, but
	// for some.
	sides := [][2]int64{{from, -amount}, {to, amount}}
	if from > to && (b.committed || r.IntN(20) > 0) {
		slices.Reverse(sides)
	}
	o, err := c.transaction(b.mode(r), func() error {
		for _, side := range sides {
			if _, tag, err := c.query("UPDATE accounts SET balance = balance + $1 WHERE id = $2", side[1], side[0]); err != nil {
				return err
			} else if tag != "UPDATE 1" {
				b.t.Errorf("account %d: %s", side[0], tag)
			}
		}
		if r.IntN(2) == 0 {
			_, _, err := c.query(fmt.Sprintf("INSERT INTO ledger VALUES (%d, %d, %d), (%d, %d, %d)", id, sides[0][0], sides[0][1], id, sides[1][0], sides[1][1]))
			return err
		}
		for _, side := range sides {
			if _, _, err := c.query("INSERT INTO ledger VALUES ($1, $2, $3)", id, side[0], side[1]); err != nil {
				return err
			}
		}
		return nil
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.transfers[id] = o
	b.states["transfer "+o.String()+" "+sqlState(err)]++
}

func (b *bank) mode(r *rand.Rand) string {
	if b.committed {
		return ""
	}
	return [...]string{"", "", repeatable}[r.IntN(3)]
}

// read reads the total in one of the ways in which such a query is answered.
func (b *bank) read(c *txClient, r *rand.Rand) {
	ways := []string{
		"SELECT sum(balance)::bigint FROM accounts",
		"SELECT balance FROM accounts",
		"SELECT sum(b)::bigint FROM (SELECT balance AS b, row_number() OVER (ORDER BY id) FROM accounts) x",
		fmt.Sprintf("SELECT sum(amount)::bigint + %d FROM ledger HAVING count(*) %% 2 = 0", bankTotal),
	}
	way := ways[r.IntN(len(ways))]
	var totals []int64
	one := func() error {
		rows, _, err := c.query(way)
		if err != nil {
			return err
		}
		total := int64(0)
		for _, row := range rows {
			v, isNull := row[0].(int64)
			if !isNull && len(rows) == 1 {
				return nil // the ledger is empty
			}
			total += v
		}
		totals = append(totals, total)
		return nil
	}
	var err error
	if r.IntN(4) > 0 {
		err = one()
	} else {
		// Twice the same in one snapshot, with a keyed read between.
		_, err = c.transaction(repeatable, func() error {
			if err := one(); err != nil {
				return err
			}
			if _, _, err := c.query("SELECT balance FROM accounts WHERE id = $1", r.IntN(bankAccounts)); err != nil {
				return err
			}
			way = ways[r.IntN(3)]
			return one()
		})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.states["read failed "+sqlState(err)]++
	}
	for _, total := range totals {
		b.reads++
		if total != bankTotal {
			b.wrong = append(b.wrong, fmt.Sprintf("%d by %s", total, way))
		}
	}
}

// audit compares the servers' rows with what the clients were told: what was
// acknowledged is there on both sides, what was refused on none.
func (b *bank) audit() (bad []string) {
	b.t.Helper()
	type entry struct{ rows, sum int64 }
	ledger := map[int64]entry{}
	balance := map[int64]int64{}
	for _, cl := range b.s.shards {
		for _, row := range cl.Primary().Rows("app", "SELECT transfer, account, amount FROM ledger") {
			var id, account, amount int64
			_, _ = fmt.Sscan(strings.Join(row, " "), &id, &account, &amount)
			ledger[id] = entry{ledger[id].rows + 1, ledger[id].sum + amount}
			balance[account] -= amount
		}
		for _, row := range cl.Primary().Rows("app", "SELECT id, balance FROM accounts") {
			var id, have int64
			_, _ = fmt.Sscan(strings.Join(row, " "), &id, &have)
			balance[id] += have - bankBalance
		}
	}
	for id, o := range b.transfers {
		e := ledger[id]
		delete(ledger, id)
		switch {
		case e.rows != 0 && (e.rows != 2 || e.sum != 0):
			bad = append(bad, fmt.Sprintf("transfer %d (%v) is there by %d rows, sum %d", id, o, e.rows, e.sum))
		case o == listappend.OK && e.rows == 0:
			bad = append(bad, fmt.Sprintf("transfer %d was acknowledged and is lost", id))
		case o == listappend.Failed && e.rows != 0:
			bad = append(bad, fmt.Sprintf("transfer %d was refused and is there", id))
		}
	}
	for id := range ledger {
		bad = append(bad, fmt.Sprintf("transfer %d was made by nobody", id))
	}
	for account, difference := range balance {
		if difference != 0 {
			bad = append(bad, fmt.Sprintf("account %d is off by %d from its ledger", account, difference))
		}
	}
	return bad
}

// told returns the numbers of what happened.
func (b *bank) told() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(b.states)) {
		all = append(all, fmt.Sprintf("%s %d", k, b.states[k]))
	}
	return fmt.Sprintf("%d totals read, %d wrong; %s; the longest statement took %v", b.reads, len(b.wrong), strings.Join(all, ", "), b.slowest.Round(time.Millisecond))
}

// TestBank moves money over four shards through two proxies, which are killed, whose
// connections are cut, and one of whose servers crashes. SHARDPROXY_TEST_TOTALS is how
// many totals are read at least.
func TestBank(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 4)
	b := s.openBank(t)
	s.bankUnderHarm(t, b)
	for i, bad := range b.wrong {
		if i < 5 {
			t.Error("a wrong total:", bad)
		}
	}
}

// bankUnderHarm runs the bank for a while, and judges what is left.
func (s *txStage) bankUnderHarm(t *testing.T, b *bank) {
	totals := testNumber(t, "SHARDPROXY_TEST_TOTALS", 60)
	ctx, cancel := lasting(t, 6*time.Second, time.Duration(totals)*100*time.Millisecond, b.hasDone(60, totals))
	defer cancel()
	readers, pace := 4, time.Duration(1)
	if totals > 1000 {
		readers, pace = 12, 4
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.run(ctx, 6, readers)
	}()
	harmed := s.harm(ctx, rand.New(rand.NewPCG(b.seed, 98)), pace, cutWires(), crashServer(), cutWires(), killProxy())
	<-done
	took := s.settled()
	t.Logf("%s; settled after %v", harmed, took.Round(time.Millisecond))
	t.Log(b.told())
	for _, bad := range b.audit() {
		t.Error(bad)
	}
}

// TestBankOff: without snapshots of one moment totals are wrong, which the test must see.
func TestBankOff(t *testing.T) {
	t.Parallel()
	s := startTxStage(t, 4)
	b := s.openBank(t, "SET shardproxy.snapshot = 'off'")
	ctx, cancel := lasting(t, time.Second, 0, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.wrong) > 0
	})
	defer cancel()
	b.run(ctx, 6, 4)
	s.settled()
	t.Log(b.told())
	if len(b.wrong) == 0 {
		t.Error("no total is wrong")
	}
	for _, bad := range b.audit() {
		t.Error(bad)
	}
}
