package proxy

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Rate bounds what one user, database or client address may take in a second. 0 is no bound.
// A burst is what may be taken at once after a pause; 0 is what a second gives.
type Rate struct {
	Statements, StatementBurst int
	Logins, LoginBurst         int
	Bytes, BytesBurst          int64 // from and to clients
}

// Rates are the bounds of all; nil where there are none. It is read-only.
type Rates struct {
	User, Database func(name string) Rate
	Address        Rate
	// Wait is for how long a statement or a login waits at most; what would wait longer is refused.
	Wait time.Duration
	// MaxAddresses bounds the addresses that are told apart.
	MaxAddresses int
}

// bucket is a token bucket: the time until which its tokens are spent, in Unix nanoseconds
// (the generic cell rate algorithm). Who takes is given a place behind all who came before.
type bucket struct{ spent atomic.Int64 }

// take takes tokens that cost so many nanoseconds, burst of which may be had at once, and
// returns how long to wait for them. ok is false, and nothing is taken, when that is longer than most.
func (b *bucket) take(now, cost, burst, most int64) (wait int64, ok bool) {
	for {
		was := b.spent.Load()
		next := min(max(was, now)+cost, now+2*noLimit) // nobody owes more
		// What costs more than a burst is let go by a full bucket.
		if wait = max(next-max(burst, cost)-now, 0); wait > most {
			return wait, false
		}
		if b.spent.CompareAndSwap(was, next) {
			return wait, true
		}
	}
}

// giveBack takes back what take has taken.
func (b *bucket) giveBack(cost int64) { b.spent.Add(-cost) }

// full reports whether nothing is spent: it is as good as a new one.
func (b *bucket) full(now int64) bool { return b.spent.Load() <= now }

// tokens returns what n tokens cost, and a burst, in nanoseconds, noLimit at most; 0 where there is no bound.
func tokens(n, perSecond, atOnce int64) (cost, burst int64) {
	if perSecond <= 0 {
		return 0, 0
	}
	if atOnce <= 0 {
		atOnce = perSecond
	}
	each := float64(time.Second) / float64(perSecond)
	return int64(min(float64(n)*each, float64(noLimit))), int64(min(float64(atOnce)*each, float64(noLimit)))
}

// noLimit is a wait that nothing exceeds, in nanoseconds.
const noLimit = int64(1) << 60

// buckets are those of one user, database or address.
type buckets struct {
	rate                      atomic.Pointer[Rate]
	statements, logins, bytes bucket
	holders                   int // sessions and logins; under rateTable.mu
}

func (b *buckets) full(now int64) bool {
	return b.statements.full(now) && b.logins.full(now) && b.bytes.full(now)
}

// What buckets are of, as metrics and errors name it.
const (
	ofUser = iota
	ofDatabase
	ofAddress
	rateOwners
)

var rateOwnerNames = [rateOwners]string{"user", "database", "address"}

// What is limited.
const (
	rateStatements = iota
	rateLogins
	rateBytes
	rateKinds
)

var rateKindNames = [rateKinds]string{"statements", "logins", "bytes"}

// limitOf returns the bucket of a kind, and what n tokens of it cost; cost 0: no bound.
func (b *buckets) limitOf(kind int, n int64) (of *bucket, cost, burst int64) {
	r := b.rate.Load()
	switch kind {
	case rateStatements:
		cost, burst = tokens(n, int64(r.Statements), int64(r.StatementBurst))
		return &b.statements, cost, burst
	case rateLogins:
		cost, burst = tokens(n, int64(r.Logins), int64(r.LoginBurst))
		return &b.logins, cost, burst
	}
	cost, burst = tokens(n, r.Bytes, r.BytesBurst)
	return &b.bytes, cost, burst
}

// sessionRates are the buckets that bound a session, nil where nothing does.
type sessionRates [rateOwners]*buckets

// take takes n tokens of a kind from all of them, or from none. by says whose makes it wait, or
// refuses: ok is false then.
func (r *sessionRates) take(kind int, n, now, most int64) (wait int64, by int, ok bool) {
	var taken [rateOwners]int64
	for i, b := range r {
		if b == nil {
			continue
		}
		of, cost, burst := b.limitOf(kind, n)
		if cost == 0 {
			continue
		}
		w, got := of.take(now, cost, burst, most)
		if !got {
			for j := range i {
				if taken[j] > 0 {
					of, _, _ := r[j].limitOf(kind, n)
					of.giveBack(taken[j])
				}
			}
			return w, i, false
		}
		taken[i] = cost
		if w > wait {
			wait, by = w, i
		}
	}
	return wait, by, true
}

// rateTable has the buckets of all. An entry that nobody holds and that is full again goes.
type rateTable struct {
	mu      sync.Mutex
	of      [rateOwners]map[any]*buckets // by name, or by netip.Addr
	others  *buckets                     // of all addresses for which there is no place
	swept   int64
	waited  [rateKinds][rateOwners]atomic.Int64
	refused [rateKinds][rateOwners]atomic.Int64
}

// hold returns the buckets that bound a user's use of a database from an address, nil when
// nothing does; invalid: the client has none. user and database may be "", of whom it is then not asked. drop gives them back.
func (t *rateTable) hold(r *Rates, user, database string, addr netip.Addr, now int64) *sessionRates {
	if r == nil {
		return nil
	}
	var s sessionRates
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweepLocked(now)
	if user != "" {
		s[ofUser] = t.getLocked(ofUser, user, r.User(user), 0)
	}
	if database != "" {
		s[ofDatabase] = t.getLocked(ofDatabase, database, r.Database(database), 0)
	}
	if addr.IsValid() {
		s[ofAddress] = t.getLocked(ofAddress, networkOf(addr), r.Address, r.MaxAddresses)
	}
	if s == (sessionRates{}) {
		return nil
	}
	return &s
}

// getLocked returns buckets with one more holder, nil when the rate bounds nothing.
func (t *rateTable) getLocked(of int, key any, r Rate, most int) *buckets {
	if r == (Rate{}) {
		return nil
	}
	b := t.of[of][key]
	if b == nil && most > 0 && len(t.of[of]) >= most {
		if t.others == nil {
			t.others = &buckets{}
		}
		b = t.others
	}
	if b == nil {
		b = &buckets{}
		if t.of[of] == nil {
			t.of[of] = map[any]*buckets{}
		}
		t.of[of][key] = b
	}
	b.rate.Store(&r)
	b.holders++
	return b
}

func (t *rateTable) drop(s *sessionRates) {
	if s == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range s {
		if b != nil {
			b.holders--
		}
	}
}

// sweepLocked forgets, at most once a second, entries that are as good as new.
func (t *rateTable) sweepLocked(now int64) {
	if now-t.swept < int64(time.Second) {
		return
	}
	t.swept = now
	for _, of := range t.of {
		for key, b := range of {
			if b.holders == 0 && b.full(now) {
				delete(of, key)
			}
		}
	}
}

// networkOf returns what counts as one address: of IPv6 the network of 64 bits that a site has.
func networkOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a
	}
	p, _ := a.Prefix(64) // never fails for IPv6
	return p.Addr()
}

// Limited counts what a rate has held back.
type Limited struct {
	// Kind is statements, logins or bytes; By is user, database or address.
	Kind, By        string
	Waited, Refused int64
}

// Limited returns the counts by kind and by whose rate it was; all are there.
func (srv *Server) Limited() (all []Limited) {
	for kind, name := range rateKindNames {
		for by, owner := range rateOwnerNames {
			all = append(all, Limited{name, owner, srv.rates.waited[kind][by].Load(), srv.rates.refused[kind][by].Load()})
		}
	}
	return all
}
