package pool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
	"shardproxy/pool"
)

// tight is a bench with two nodes, which are the same server, and limits over
// several pools.
func tight(t testing.TB, maxServers int, pol pool.Policy) *bench {
	d := pgtest.Shared(t)
	return newBench(t, d.Node.Addr(), d.Name, pol, func(o *pool.Options) {
		o.MaxServers = maxServers
		o.Nodes = append(o.Nodes, o.Nodes[0])
	})
}

// as returns the same pools for another user.
func (b *bench) as(name string, pol pool.Policy) *bench {
	return &bench{Pools: b.Pools, t: b.t, name: name, user: b.For(name, "postgres", "", pol), node: b.node, clock: b.clock}
}

// on returns the same user's pool for another node.
func (b *bench) on(node int) *bench {
	other := *b
	other.node = node
	return &other
}

// queue asks for a connection that must not be there at once.
func (b *bench) queue() *waiter {
	b.t.Helper()
	s, w := b.ask()
	if s != nil {
		b.t.Fatal("lent at once")
	}
	return w
}

// get waits for a connection.
func (w *waiter) get(t testing.TB) *pool.Server {
	t.Helper()
	s, err := w.result()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func total(b *bench) (n int) {
	for _, st := range b.Stats() {
		n += st.Total
	}
	return n
}

// TestRoomFromIdle has one user's idle connections in the way of another's.
func TestRoomFromIdle(t *testing.T) {
	one := tight(t, 3, policy(5))
	two := one.as("two", policy(5))
	oldest := one.take()
	newer, newest := one.on(1).take(), one.take()
	first := oldest.ID()
	oldest.Release(pool.Clean)
	newer.Release(pool.Clean)
	newest.Release(pool.Clean)
	s := two.take()
	if n := total(one); n != 3 {
		t.Errorf("%d connections", n)
	}
	for _, i := range one.IdleServers() {
		if i.ID == first {
			t.Error("it was not the longest idle that was closed")
		}
	}
	s.Release(pool.Clean)
}

// TestRoomFromMinimum closes of what others are to keep only for somebody who
// has nothing.
func TestRoomFromMinimum(t *testing.T) {
	pol := policy(5)
	pol.Min = 2
	one := tight(t, 3, policy(5))
	one.as("keeps", pol) // on two nodes
	waitFor(t, "three of the minimum of four", func() bool { return len(one.IdleServers()) == 3 })
	s := one.take()
	more := one.queue()
	// Whoever looked for room for somebody who has nothing came by more first.
	none := one.as("none", policy(5)).take()
	if one.stat().Total != 1 || total(one) != 3 {
		t.Error("the minimum was closed for somebody who has a connection: " + one.describe())
	}
	none.Release(pool.Clean)
	more.get(t).Release(pool.Clean)
	s.Release(pool.Clean)
}

// TestRoomInOrder gives a freed place to the pool that has waited longest.
func TestRoomInOrder(t *testing.T) {
	one := tight(t, 1, policy(5))
	two, three := one.as("two", policy(5)), one.as("three", policy(5))
	for range 20 { // whatever the search for room is at
		held := one.take()
		w2 := two.queue()
		w3 := three.queue()
		w1 := one.queue()
		held.Release(pool.Dead)
		held = w2.get(t)
		if w3.ticket.Done() || w1.ticket.Done() {
			t.Fatal("two have the only connection")
		}
		held.Release(pool.Clean)
		held = w3.get(t)
		if w1.ticket.Done() {
			t.Fatal("two have the only connection")
		}
		w2 = two.queue()
		w2.ticket.Cancel() // who leaves is in nobody's way
		held.Release(pool.Clean)
		w1.get(t).Release(pool.Clean)
	}
	if total(one) != 1 {
		t.Error(one.describe())
	}
}

// TestRoomAtOnce has places change hands without waiting for maintenance to
// come by, and without anybody overtaking.
func TestRoomAtOnce(t *testing.T) {
	one := tight(t, 1, policy(5))
	two, three := one.as("two", policy(5)), one.as("three", policy(5))
	start := time.Now()
	for range 20 {
		held := one.take()
		w2 := two.queue()
		<-time.After(5 * time.Millisecond) // a look for room that finds none
		held.Release(pool.Clean)
		held = w2.get(t)
		w1 := one.queue()
		<-time.After(5 * time.Millisecond)
		held.Release(pool.Dead)
		w3 := three.queue() // before anybody has looked who comes next
		held = w1.get(t)
		if w3.ticket.Done() {
			t.Fatal("two have the only connection")
		}
		held.Release(pool.Clean)
		w3.get(t).Release(pool.Clean)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("80 changes of hands took %v", d)
	}
}

// busy keeps n borrowers at work until stop is called; served counts them.
func (b *bench) busy(n int) (served *atomic.Int64, stop func()) {
	var wg sync.WaitGroup
	served = &atomic.Int64{}
	var done atomic.Bool
	for range n {
		wg.Go(func() {
			for !done.Load() {
				s, w := b.ask()
				if s == nil {
					var err error
					if s, err = w.result(); err != nil {
						b.t.Error(err)
						return
					}
				}
				<-time.After(time.Millisecond) // the statement
				s.Release(pool.Clean)
				served.Add(1)
			}
		})
	}
	return served, func() {
		done.Store(true)
		wg.Wait()
	}
}

// TestRoomAmongBusy has pools that never have an idle connection: who comes
// late gets a share all the same, and then connections stay where they are. A
// single one changes hands, but not for every statement.
func TestRoomAmongBusy(t *testing.T) {
	user := policy(10)
	user.MaxServers = 2
	for _, test := range []struct {
		name   string
		max    int
		pol    pool.Policy
		others func(*bench) []*bench
		each   int // connections of each in the end; 0: there are too few
	}{
		{"database, two users", 4, policy(10), func(b *bench) []*bench { return []*bench{b.as("two", policy(10))} }, 2},
		{"database, four users", 4, policy(10), func(b *bench) []*bench {
			return []*bench{b.as("two", policy(10)), b.as("three", policy(10)), b.as("four", policy(10))}
		}, 1},
		{"database, one connection", 1, policy(10), func(b *bench) []*bench { return []*bench{b.as("two", policy(10))} }, 0},
		{"user, two nodes", 0, user, func(b *bench) []*bench { return []*bench{b.on(1)} }, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			one := tight(t, test.max, test.pol)
			served, stop := one.busy(12)
			defer stop()
			waitFor(t, "one has all and more waiting", func() bool {
				st := one.stat()
				return st.Dialling == 0 && st.Lent > 0 && st.Waiting > 5
			})
			all := []*atomic.Int64{served}
			for _, b := range test.others(one) {
				served, stop := b.busy(12)
				defer stop()
				all = append(all, served)
			}
			waitFor(t, "a share for each", func() bool {
				shares := 0
				for _, st := range one.Stats() {
					if st.Total == test.each && st.Total > 0 && st.Dialling == 0 {
						shares++
					}
				}
				return test.each == 0 || shares == len(all)
			})
			opened, start := one.Totals().Opened, time.Now()
			for i, served := range all {
				before := served.Load()
				waitFor(t, fmt.Sprintf("service for %d", i), func() bool { return served.Load() > before+50 })
			}
			opened = one.Totals().Opened - opened
			if most := 2 + int64(time.Since(start)/(100*time.Millisecond)); opened > most || test.each > 0 && opened > 0 {
				t.Errorf("%d connections opened in %v", opened, time.Since(start))
			}
		})
	}
}

// TestRoomOfAUser has a user's own limit between its nodes: the replica's idle
// connection goes for the primary, and nobody else's does.
func TestRoomOfAUser(t *testing.T) {
	pol := policy(5)
	pol.MaxServers = 1
	one := tight(t, 0, pol)
	other := one.as("other", policy(5))
	stays := other.take()
	stays.Release(pool.Clean)
	one.on(1).take().Release(pool.Clean)
	s := one.take()
	if n := total(one); n != 2 || len(one.IdleServers()) != 1 || one.IdleServers()[0].ID != stays.ID() {
		t.Error(one.describe())
	}
	// A wider limit lets in who waits.
	wider := pol
	wider.MaxServers = 2
	start := time.Now()
	for n := range 16 {
		one.SetPolicies(func(string) pool.Policy { return pol })
		w := one.on(1).queue()
		<-time.After(5 * time.Millisecond) // a look for room that finds none
		if n%2 == 0 {
			one.SetPolicies(func(string) pool.Policy { return wider })
		} else {
			one.For("tester", "postgres", "", wider)
		}
		w.get(t).Release(pool.Dead)
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("it took %v, as if only maintenance had seen the limits", d)
	}
	s.Release(pool.Clean)
}

// TestRoomAfterFailures counts right whatever becomes of a dial.
func TestRoomAfterFailures(t *testing.T) {
	one := tight(t, 1, policy(5))
	wrong := *one
	wrong.user = one.For("wrong", "app", "wrong", policy(5))
	for range 3 {
		if _, err := wrong.queue().result(); err == nil {
			t.Fatal("logged in with a wrong password")
		}
		s := one.take()
		w := wrong.queue()
		s.Release(pool.Clean)
		if _, err := w.result(); err == nil {
			t.Fatal("logged in with a wrong password")
		}
	}
	one.Retire(0)
	one.take().Release(pool.Dirty)
	two := one.as("two", policy(5))
	two.take().Release(pool.Clean)
	if total(one) != 1 {
		t.Error(one.describe())
	}
}

// TestRoomTorture lets users and nodes fight for a few connections. There are
// never more of them on loan, and in the end everybody was served.
func TestRoomTorture(t *testing.T) {
	const limit = 3
	pol := policy(2)
	pol.Min, pol.MaxServers = 1, 2
	one := tight(t, limit, pol)
	users := []*bench{one, one.as("two", pol), one.as("three", policy(3)), one.as("four", policy(1))}
	var lent, served atomic.Int64
	end := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	for n := range 24 {
		b := users[n%len(users)].on(n / len(users) % 2)
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 2))
			for time.Now().Before(end) {
				s, w := b.ask()
				if s == nil {
					if r.IntN(10) == 0 {
						w.ticket.Cancel()
						continue
					}
					var err error
					if s, err = w.result(); err != nil {
						if !errors.As(err, new(*pool.DialError)) {
							t.Errorf("%v: %s", err, one.describe())
							return
						}
						continue
					}
				}
				if lent.Add(1) > limit {
					t.Error("more on loan than the limit allows")
				}
				if r.IntN(3) == 0 {
					<-time.After(time.Duration(r.IntN(2000)) * time.Microsecond)
				}
				lent.Add(-1)
				s.Release([]pool.Fate{pool.Clean, pool.Clean, pool.Clean, pool.Dirty, pool.Dead}[r.IntN(5)])
				served.Add(1)
				switch r.IntN(300) {
				case 0:
					b.Retire(r.IntN(2))
				case 1:
					b.SetPolicies(func(string) pool.Policy { return pol })
				}
			}
		})
	}
	wg.Wait()
	waitFor(t, "everything comes back", func() bool { return one.Lent() == 0 })
	if total(one) > limit || served.Load() < 100 {
		t.Errorf("%d served, %s", served.Load(), one.describe())
	}
	for _, b := range users { // and nobody is shut out for good
		b.take().Release(pool.Clean)
	}
}
