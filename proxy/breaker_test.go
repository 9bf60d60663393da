package proxy_test

import (
	"strings"
	"testing"
	"time"

	"shardproxy/gate"
)

// TestBreakerAndHeld: while a shard is left alone who comes is refused, and who was held before it was goes on when there is a primary.
func TestBreakerAndHeld(t *testing.T) {
	f := start(t, fixtureOptions{})
	c, other := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	sh := f.db.Shards[0]
	policy := *f.db.Policy()
	policy.Breaker = gate.BreakerOptions{Share: 0.1, Least: 3, Window: time.Second, OpenFor: time.Hour, OpenMax: time.Hour}
	f.db.SetPolicy(policy)
	sh.Gate.Close("a test")
	said := make(chan string, 1)
	go func() { said <- c.ask("SELECT 'it was held'") }()
	waitFor(t, func() bool { return sh.Gate.Stats().HeldNow == 1 })
	waitFor(t, func() bool {
		sh.Breaker.InVain("57P03")
		return sh.Breaker.Status().State == gate.BreakerOpen
	})
	began := time.Now()
	if got := other.ask("SELECT 1"); !strings.Contains(got, "57P03") || !strings.Contains(got, "left alone") {
		t.Errorf("another is told %s", got)
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("after %v", took)
	}
	select {
	case got := <-said:
		t.Fatalf("who was held is told %s", got)
	default:
	}
	sh.Gate.Open()
	if got := <-said; !strings.Contains(got, "it was held") {
		t.Errorf("who was held is told %s", got)
	}
}
