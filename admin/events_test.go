package admin

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shardproxy/failover"
	"shardproxy/gate"
)

// TestEvents: what differs between two looks is noted once, the newest first.
func TestEvents(t *testing.T) {
	now, c := clockAt(), &chronicle{}
	p := Process{Listening: true}
	node := func(address string, role failover.Role, health failover.Health, reason string) failover.NodeStatus {
		return failover.NodeStatus{Address: address, Role: role, Health: health, Reason: reason, Since: now}
	}
	shop := func(primary failover.NodeID, paused bool, g gate.Stats, nodes ...failover.NodeStatus) Database {
		return Database{Name: "shop", Paused: paused, Shards: []Shard{{Name: "s0", Gate: g, Nodes: &failover.Snapshot{Primary: primary, NoPrimary: "a is down", Timeline: 4, Nodes: nodes}}}}
	}
	told := 0
	look := func(name string, d Database, want ...string) {
		t.Helper()
		now = now.Add(time.Second)
		c.look(p, []Database{d}, now)
		var got []string
		all := c.page().Events
		for _, e := range all[:len(all)-told] {
			got = append(got, e.Class+" "+e.Shard+" "+e.Text)
		}
		told = len(all)
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	open, closed := gate.Stats{}, gate.Stats{Closed: true, Reason: "a switchover"}
	a, b := node("a", failover.RolePrimary, failover.Up, ""), node("b", failover.RoleReplica, failover.Up, "")
	look("the first look", shop(0, false, open, a, b))
	look("nothing", shop(0, false, open, a, b))
	a = node("a", failover.RoleUnknown, failover.Down, "does not answer")
	look("killed", shop(failover.NoNode, false, closed, a, b), "warn s0 a is down: does not answer", "bad s0 no primary: a is down")
	b = node("b", failover.RolePrimary, failover.Up, "")
	look("promoted", shop(1, false, open, a, b), "warn s0 b is a primary, was a replica", "good s0 b is the primary, on timeline 4")
	a = node("a", failover.RoleReplica, failover.Up, "")
	look("back", shop(1, false, open, a, b), "good s0 a is up, was down")
	look("paused", shop(1, true, open, a, b), "warn  paused")
	look("resumed, held", shop(1, false, closed, a, b), "warn s0 statements are held: a switchover", "good  resumed")
	look("let go", shop(1, false, open, a, b), "good s0 held statements go on")
	broken := shop(1, false, open, a, b)
	broken.Shards[0].Breaker = gate.BreakerStatus{State: gate.BreakerOpen, Opened: 1, Tries: 9, Fails: 8, Last: "58030"}
	look("a breaker opens", broken, "bad s0 left alone: 8 of 9 statements failed, the last with 58030; the circuit breaker is open")
	broken.Shards = slices.Clone(broken.Shards)
	broken.Shards[0].Breaker.State = gate.BreakerHalfOpen
	look("is half open", broken)
	broken = shop(1, false, open, a, b)
	broken.Shards[0].Breaker.Opened = 1
	look("closes", broken, "good s0 the circuit breaker is closed")
	broken = shop(1, false, open, a, b)
	broken.Shards[0].Breaker.Opened = 2
	look("has opened and closed", broken, "good s0 the circuit breaker is closed")
	a.Role, b.Role = failover.RolePrimary, failover.RoleReplica
	look("switched over", shop(0, false, open, a, b), "warn s0 b is a replica, was a primary", "warn s0 a is a primary, was a replica", "warn s0 the primary is a instead of b, on timeline 4")
	p.Reloads++
	look("reloaded", shop(0, false, open, a, b), "good  the configuration was reloaded")
	p.Reloads, p.ReloadFailures, p.ReloadError = p.Reloads+1, 1, "line 3"
	look("not reloaded", shop(0, false, open, a, b), "warn  a reload failed: line 3")
	p.Draining = true
	look("ending", shop(0, false, open, a, b), "bad  a shutdown has begun")
	for i := range 3 * eventsKept { // bounded
		c.look(p, []Database{shop(0, i%2 == 0, open, a, b)}, now)
	}
	if all := c.page().Events; len(all) != eventsKept || cap(c.events) > 4*eventsKept {
		t.Errorf("%d events are kept", len(all))
	}
	c.look(p, []Database{{Name: "new"}}, now)
	for i, e := range c.page().Events[1:] {
		if e.At.After(c.page().Events[i].At) {
			t.Errorf("event %d is later than the one before it", i+1)
		}
	}
	if e := c.page().Events[0]; fmt.Sprint(e.Database, e.Text) != "newthe database came with a reload" {
		t.Errorf("%+v", e)
	}
}
