package twopc

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// stepOf names the statement of a commit.
func stepOf(sql string) string {
	switch {
	case strings.Contains(sql, "PREPARE TRANSACTION"):
		return "prepare"
	case strings.Contains(sql, "decide("):
		return "decide"
	case sql == "COMMIT":
		return "commit"
	case strings.HasPrefix(sql, "COMMIT PREPARED"):
		return "commit prepared"
	}
	return ""
}

// point is where something happens: before a statement is sent, or after the
// server has carried it out and before the coordinator hears of it.
type point struct {
	step  string
	part  int
	after bool
}

func (p point) String() string {
	when := "before"
	if p.after {
		when = "after"
	}
	return fmt.Sprintf("%s %s of part %d", when, p.step, p.part)
}

func points() (all []point) {
	for _, p := range []point{{step: "prepare", part: 1}, {step: "prepare", part: 2}, {step: "decide"}, {step: "commit"},
		{step: "commit prepared", part: 1}, {step: "commit prepared", part: 2}} {
		all = append(all, p, point{p.step, p.part, true})
	}
	return all
}

// at calls f once, at a point.
func (p point) at(clients []*client, f func() error) {
	var once sync.Once
	hook := func(sql string) (err error) {
		if stepOf(sql) == p.step {
			once.Do(func() { err = f() })
		}
		return err
	}
	if c := clients[p.part]; p.after {
		c.after = hook
	} else {
		c.before = hook
	}
}

// outcomes are those that a fault at the point may lead to. Recovery by another
// process may take a slow commit away at any time before it is decided.
func (p point) outcomes() []Outcome {
	switch p.step {
	case "commit":
		return []Outcome{Unknown, RolledBack}
	case "commit prepared":
		return []Outcome{Committed, RolledBack}
	}
	return []Outcome{RolledBack}
}

// TestMatrix lets the coordinator's process, a connection or a server die at each
// point. Two resolvers, one of the coordinator's process, clean up.
func TestMatrix(t *testing.T) {
	f := newServers(t, 3)
	o := f.options()
	o.MinAge = 150 * time.Millisecond // more than a commit takes
	own, other := f.resolver(o), f.resolver(o)
	id := 0
	seen := map[Outcome]int{}
	var slowest time.Duration
	for _, fault := range []string{"gone", "cut", "kill"} {
		for _, p := range points() {
			id++
			t.Run(fault+" "+p.String(), func(t *testing.T) {
				parts, clients := f.begin(id)
				var outcome Outcome
				var took time.Duration
				switch fault {
				case "gone":
					outcome, took = f.gone(t, p, parts, clients)
				default:
					outcome, took = f.harmed(t, p, fault == "kill", own, parts, clients)
				}
				slowest = max(slowest, took)
				seen[outcome]++
				on := f.where(id)
				if bad := wrong(outcome, on); bad != "" {
					t.Errorf("%v: %s", outcome, bad)
				}
				// What the point itself says of the decision.
				decided := p.step == "commit prepared" || p.step == "commit" && p.after
				if made := strings.Contains(on, "1"); made != decided && outcome != RolledBack {
					t.Errorf("%v, the row is on %s", outcome, on)
				}
				for _, c := range clients {
					c.close()
				}
				f.clients = nil
			})
		}
	}
	if seen[Committed] < 8 || seen[Unknown] < 3 || seen[RolledBack] < 15 {
		t.Errorf("outcomes %v: the faults did not happen where they should", seen)
	}
	for _, r := range []*Resolver{own, other} {
		s := r.Stats()
		t.Logf("slowest %v, outcomes %v; %d rounds, %d committed, %d rolled back, %d tombstones", slowest.Round(time.Millisecond), seen, s.Rounds, s.Committed, s.RolledBack, s.Tombstones)
	}
}

// gone ends the coordinator's process at a point: its connections end, and no
// statement of it follows until everything is settled. What it would have told
// its client is returned. The coordinator's resolver is gone too.
func (f *fleet) gone(t *testing.T, p point, parts []Part, clients []*client) (Outcome, time.Duration) {
	reached, wake, done := make(chan struct{}), make(chan struct{}), make(chan Outcome, 1)
	p.at(clients, func() error {
		for _, c := range clients {
			c.cut()
		}
		close(reached)
		<-wake
		return errors.New("the process is gone")
	})
	go func() {
		outcome, _ := f.commit(t.Context(), nil, parts)
		done <- outcome
	}()
	select {
	case <-reached:
	case outcome := <-done: // recovery was first
		f.settled()
		return outcome, 0
	}
	began := time.Now()
	f.settled()
	took := time.Since(began)
	close(wake)
	outcome := <-done
	f.settled()
	return outcome, took
}

// harmed cuts a connection at a point, or kills its server and starts it again
// when the client has been told the outcome.
func (f *fleet) harmed(t *testing.T, p point, kill bool, own *Resolver, parts []Part, clients []*client) (Outcome, time.Duration) {
	fired := false
	node := f.shards[p.part].node
	p.at(clients, func() error {
		fired = true
		if kill {
			if err := node.Engine.Kill9(); err != nil {
				t.Error(err)
			}
		}
		clients[p.part].cut()
		return errors.New("cut")
	})
	outcome, err := f.commit(t.Context(), own, parts)
	if kill && fired {
		node.Start()
	}
	began := time.Now()
	f.settled()
	ok := false
	for _, o := range p.outcomes() {
		ok = ok || o == outcome
	}
	if !ok && fired {
		t.Errorf("outcome %v, %v", outcome, err)
	}
	return outcome, time.Since(began)
}
