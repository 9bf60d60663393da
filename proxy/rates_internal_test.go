package proxy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestBucket: what comes within the burst does not wait, each behind it waits for its own turn, in
// order, and who would wait for too long takes nothing.
func TestBucket(t *testing.T) {
	const second = int64(time.Second)
	var b bucket
	cost, burst := tokens(1, 10, 3) // 10 a second, 3 at once
	now := 100 * second
	for i, want := range []int64{0, 0, 0, 100, 200, 300} {
		wait, ok := b.take(now, cost, burst, second)
		if !ok || wait != want*int64(time.Millisecond) {
			t.Errorf("take %d: %v, %t", i, time.Duration(wait), ok)
		}
	}
	if wait, ok := b.take(now, cost, burst, 350*int64(time.Millisecond)); ok || wait != 400*int64(time.Millisecond) {
		t.Error("what would wait for too long:", time.Duration(wait), ok)
	}
	b.giveBack(cost)
	if wait, _ := b.take(now, cost, burst, second); wait != 300*int64(time.Millisecond) {
		t.Error("what was refused has taken, or what was given back has not come:", time.Duration(wait))
	}
	if wait, ok := b.take(now+10*second, cost, burst, 0); !ok || wait != 0 || b.full(now+10*second) || !b.full(now+11*second) {
		t.Error("after a pause:", wait, ok)
	}
	// More than a burst at once: a full bucket lets it go, and the next pays for it.
	var bytes bucket
	cost, burst = tokens(5000, 1000, 0)
	if wait, _ := bytes.take(now, cost, burst, noLimit); wait != 0 {
		t.Error("first", time.Duration(wait))
	}
	cost, _ = tokens(1, 1000, 0)
	if wait, _ := bytes.take(now, cost, burst, noLimit); wait < 4*second || wait > 4*second+5e6 {
		t.Error("behind it", time.Duration(wait))
	}
}

// TestBucketHuge: whoever owes more than can be counted owes as much as can be, and a burst of any size is one.
func TestBucketHuge(t *testing.T) {
	const huge, now = int64(1) << 62, int64(2e18)
	var b bucket
	cost, burst := tokens(huge, 1, huge)
	if cost <= 0 || burst <= 0 {
		t.Fatal(cost, burst)
	}
	for i := range 100 {
		if wait, ok := b.take(now, cost, 1, noLimit); !ok || wait < 0 || i > 0 && wait < noLimit/2 {
			t.Fatal(i, wait, ok)
		}
	}
	if b.full(now) {
		t.Error("nothing is owed any more")
	}
	var other bucket
	if wait, ok := other.take(now, 1, burst, 0); !ok || wait != 0 {
		t.Error("within a burst:", wait, ok)
	}
}

// TestSessionRates: all limits hold together; one that refuses takes nothing of the others.
func TestSessionRates(t *testing.T) {
	const now = int64(1e18)
	var table rateTable
	r := &Rates{
		User:     func(name string) Rate { return map[string]Rate{"a": {Statements: 10, StatementBurst: 2}}[name] },
		Database: func(string) Rate { return Rate{Statements: 1000, StatementBurst: 3} },
		Address:  Rate{Logins: 1}, MaxAddresses: 2,
	}
	addr := netip.MustParseAddr("10.0.0.1")
	a, b := table.hold(r, "a", "db", addr, now), table.hold(r, "b", "db", netip.Addr{}, now)
	for i := range 2 {
		if wait, _, ok := a.take(rateStatements, 1, now, 0); wait != 0 || !ok {
			t.Error(i, wait, ok)
		}
	}
	for range 5 {
		if _, by, ok := a.take(rateStatements, 1, now, 0); ok || by != ofUser {
			t.Error("the user's limit is not what refuses:", rateOwnerNames[by], ok)
		}
	}
	if wait, _, ok := b.take(rateStatements, 1, now, 0); wait != 0 || !ok {
		t.Error("what one's own limit refused is gone from the database's:", wait, ok)
	}
	if _, by, ok := b.take(rateStatements, 1, now, 0); ok || by != ofDatabase {
		t.Error("the database's limit does not hold:", rateOwnerNames[by], ok)
	}
	if wait, by, ok := b.take(rateStatements, 1, now, int64(time.Second)); !ok || wait != int64(time.Millisecond) || by != ofDatabase {
		t.Error("it does not let wait:", wait, ok)
	}
	if table.hold(r, "b", "", netip.Addr{}, now) != nil || table.hold(nil, "a", "db", addr, now) != nil {
		t.Error("who is not bounded has buckets")
	}
	if s := table.hold(r, "", "", netip.MustParseAddr("::ffff:10.0.0.1"), now); s[ofAddress] != a[ofAddress] {
		t.Error("an IPv4 address in two forms is two")
	}
}

// TestRateTable: it is bounded, and forgets what is as good as new.
func TestRateTable(t *testing.T) {
	now := int64(1e18)
	var table rateTable
	r := &Rates{User: func(string) Rate { return Rate{} }, Database: func(string) Rate { return Rate{} }, Address: Rate{Logins: 1}, MaxAddresses: 100}
	var all []*sessionRates
	for i := range 1000 {
		s := table.hold(r, "u", "d", netip.MustParseAddr(fmt.Sprintf("2001:db8:0:%x::1", i)), now)
		s.take(rateLogins, 1, now, 0)
		all = append(all, s)
	}
	same := table.hold(r, "u", "d", netip.MustParseAddr("2001:db8:0:1::77"), now)
	if same[ofAddress] != all[1][ofAddress] || all[1][ofAddress] == all[2][ofAddress] || all[500][ofAddress] != all[501][ofAddress] {
		t.Error("a network of 64 bits is not one address, or those beyond the bound have buckets of their own")
	}
	if n := len(table.of[ofAddress]); n != 100 {
		t.Error(n, "addresses")
	}
	for _, s := range append(all, same) {
		table.drop(s)
	}
	table.hold(r, "u", "d", netip.MustParseAddr("10.0.0.1"), now+int64(500*time.Millisecond)) // too early
	if n := len(table.of[ofAddress]); n != 100 {
		t.Error(n, "addresses before they are full again")
	}
	table.hold(r, "u", "d", netip.MustParseAddr("10.0.0.1"), now+int64(3*time.Second))
	if n := len(table.of[ofAddress]); n != 1 {
		t.Error(n, "addresses are left when all are full again")
	}
}
