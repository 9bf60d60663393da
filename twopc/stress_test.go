package twopc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// testStress commits from several sessions at once, cuts connections at random
// points and has two resolvers at work that leave nobody any time.
func testStress(t *testing.T, f *fleet) {
	o := f.options()
	o.Interval, o.MinAge = 4*time.Millisecond, time.Millisecond
	own, other := f.resolver(o), f.resolver(o)
	type end struct {
		id      int
		outcome Outcome
	}
	var mu sync.Mutex
	var ends []end
	counts := map[Outcome]int{}
	var group sync.WaitGroup
	for worker := range 4 {
		var ready [][]Part
		for n := range 8 {
			parts, clients := f.begin(worker*100 + n)
			rand.Shuffle(len(parts), func(i, j int) {
				parts[i], parts[j] = parts[j], parts[i]
				clients[i], clients[j] = clients[j], clients[i]
			})
			if p := points()[rand.N(len(points()))]; n%2 == 0 {
				p.at(clients, func() error { clients[p.part].cut(); return errors.New("cut") })
			}
			ready = append(ready, parts)
		}
		group.Go(func() {
			for n, parts := range ready {
				outcome, _ := f.commit(t.Context(), own, parts)
				mu.Lock()
				ends = append(ends, end{worker*100 + n, outcome})
				counts[outcome]++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	f.settled()
	for _, e := range ends {
		if bad := wrong(e.outcome, f.where(e.id)); bad != "" {
			t.Errorf("transaction %d, %v: %s", e.id, e.outcome, bad)
		}
	}
	a, b := own.Stats(), other.Stats()
	t.Logf("outcomes %v; parts finished by recovery: %d, tombstones %d", counts, a.Committed+a.RolledBack+b.Committed+b.RolledBack, a.Tombstones+b.Tombstones)
}

// testCheckers: the checkers of these tests see what they are there for. Each
// client lies at a point: it does not do what the coordinator hears it has done.
func testCheckers(t *testing.T, f *fleet) {
	r := f.resolver(f.options())
	for id, test := range []struct {
		what string
		lie  func(clients []*client)
		want string
	}{
		{"a part does not prepare", func(clients []*client) { clients[1].before = insteadOf(clients[1], "prepare", "ROLLBACK") }, "half a transaction: 101"},
		{"a part commits early", func(clients []*client) {
			clients[2].before = insteadOf(clients[2], "prepare", "COMMIT")
			clients[0].before = func(sql string) error {
				if stepOf(sql) == "decide" {
					clients[0].cut()
					return errors.New("cut")
				}
				return nil
			}
		}, "half a transaction: 001"},
		{"the decision is not made", func(clients []*client) { clients[0].before = insteadOf(clients[0], "commit", "ROLLBACK") }, "half a transaction: 011"},
		{"the decision is not written", func(clients []*client) {
			clients[0].before = insteadOf(clients[0], "decide", "SELECT 1")
			for _, c := range clients[1:] {
				c.before = func(sql string) error {
					if stepOf(sql) == "commit prepared" {
						c.cut()
						return errors.New("cut")
					}
					return nil
				}
			}
		}, "half a transaction: 100"},
	} {
		parts, clients := f.begin(id)
		test.lie(clients)
		outcome, _ := f.commit(t.Context(), r, parts)
		f.settled()
		if got := wrong(outcome, f.where(id)); !strings.Contains(got, test.want) {
			t.Errorf("%s: %v, %q, want %q", test.what, outcome, got, test.want)
		}
	}
	for _, test := range []struct {
		outcome Outcome
		on      string
		ok      bool
	}{{Committed, "11", true}, {Committed, "00", false}, {RolledBack, "00", true}, {RolledBack, "11", false}, {Unknown, "00", true}, {Unknown, "11", true}, {Unknown, "01", false}} {
		if got := wrong(test.outcome, test.on) == ""; got != test.ok {
			t.Errorf("%v", test)
		}
	}
}

// insteadOf sends another statement in the place of a step, and says that it
// was done.
func insteadOf(c *client, step, sql string) func(string) error {
	done := false
	return func(asked string) error {
		if done || stepOf(asked) != step {
			return nil
		}
		done = true
		if _, err := c.pg.Exec(context.Background(), sql).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
		return errDone
	}
}
