package pool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/pool"
	"shardproxy/wire"
)

func TestFirstComeFirstServed(t *testing.T) {
	b := sharedBench(t, policy(1))
	held := b.take()
	var queue []*waiter
	for range 5 {
		s, w := b.ask()
		if s != nil {
			t.Fatal("lent more than the size")
		}
		queue = append(queue, w)
	}
	if st := b.stat(); st.Waiting != 5 || st.Lent != 1 || st.Total != 1 {
		t.Errorf("%+v", st)
	}
	queue[1].ticket.Cancel() // leaves the queue
	for i, w := range queue {
		if i == 1 {
			continue
		}
		held.Release(pool.Clean)
		for later := i + 1; later < len(queue); later++ {
			if later != 1 && queue[later].ticket.Done() {
				t.Fatalf("waiter %d overtook waiter %d", later, i)
			}
		}
		s, err := w.result()
		if err != nil {
			t.Fatal(err)
		}
		held = s
	}
	// Who cancels after the grant gives the connection back.
	_, late := b.ask()
	held.Release(pool.Clean)
	late.ticket.Cancel()
	if b.Lent() != 0 || b.stat().Idle != 1 {
		t.Error(b.describe())
	}
	if queue[1].ticket.Since().IsZero() {
		t.Error("no time of arrival")
	}
}

func TestSizeReserveAndMinimum(t *testing.T) {
	pol := policy(2)
	pol.Min, pol.Reserve, pol.ReserveAfter = 1, 1, 10*time.Second
	b := sharedBench(t, pol)
	waitFor(t, "the minimum is opened unasked", func() bool { return b.stat().Idle == 1 })
	one, two := b.take(), b.take()
	_, third := b.ask()
	_, fourth := b.ask()
	if st := b.stat(); st.Total != 2 || st.Waiting != 2 {
		t.Errorf("%+v", st)
	}
	b.clock.ahead.Store(int64(11 * time.Second))
	s, err := third.result()
	if err != nil {
		t.Fatal(err)
	}
	if st := b.stat(); st.Total != 3 || fourth.ticket.Done() {
		t.Errorf("beyond the reserve: %+v", st)
	}
	fourth.ticket.Cancel()
	for _, s := range []*pool.Server{one, two, s} {
		s.Release(pool.Clean)
	}
	// All but the minimum go when they are idle for too long.
	b.clock.ahead.Add(int64(2 * time.Hour))
	waitFor(t, "idle connections are closed", func() bool { return b.stat().Total == 1 })
}

func TestLifeTime(t *testing.T) {
	pol := policy(2)
	pol.LifeTime, pol.IdleTimeout = time.Minute, 0
	b := sharedBench(t, pol)
	idle, lent := b.take(), b.take()
	idle.Release(pool.Clean)
	b.clock.ahead.Store(int64(2 * time.Minute))
	waitFor(t, "the idle one is closed", func() bool { return b.stat().Total == 1 })
	if got := run(t, lent, "SELECT 1"); got != "1" {
		t.Error("the lent one does not work: " + got)
	}
	lent.Release(pool.Clean)
	if st := b.stat(); st.Total != 0 {
		t.Errorf("%+v", st)
	}
}

func TestManyColdBorrowers(t *testing.T) {
	b := sharedBench(t, policy(20))
	start := time.Now()
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			s, w := b.ask()
			if s == nil {
				var err error
				if s, err = w.result(); err != nil {
					t.Error(err)
					return
				}
			}
			s.Release(pool.Clean)
		})
	}
	wg.Wait()
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("1,000 borrowers took %v", d)
	}
	if st := b.stat(); st.Total > 20 || b.Lent() != 0 {
		t.Error(b.describe())
	}
}

func TestLimits(t *testing.T) {
	pol := policy(5)
	pol.MaxServers, pol.MaxWaiting = 1, 1
	b := sharedBench(t, pol)
	held := b.take()
	_, w := b.ask()
	if _, _, err := b.user.Acquire(0, 0, func() {}); !errors.Is(err, pool.ErrQueueFull) {
		t.Errorf("a full queue: %v", err)
	}
	if st := b.stat(); st.Total != 1 || b.Totals().Shed != 1 {
		t.Error(b.describe())
	}
	held.Release(pool.Clean)
	s, err := w.result()
	if err != nil {
		t.Fatal(err)
	}
	s.Release(pool.Clean)
	wider := policy(5)
	b.SetPolicies(func(string) pool.Policy { return wider })
	one, two := b.take(), b.take()
	if one == two {
		t.Error("lent twice")
	}
	// The connection asked for is lent when it is idle.
	one.Release(pool.Clean)
	two.Release(pool.Clean)
	for _, want := range []*pool.Server{one, two, one} {
		s, _, err := b.user.Acquire(0, want.ID(), func() {})
		if err != nil || s != want {
			t.Fatalf("got %v, %v", s, err)
		}
		s.Release(pool.Clean)
	}
}

func TestRetire(t *testing.T) {
	b := sharedBench(t, policy(2))
	idle, lent := b.take(), b.take()
	idle.Release(pool.Clean)
	if lent.Stale() {
		t.Error("stale too early")
	}
	b.Retire(0)
	if st := b.stat(); st.Total != 1 || !lent.Stale() {
		t.Errorf("%+v", st)
	}
	if got := run(t, lent, "SELECT 1"); got != "1" {
		t.Error(got)
	}
	lent.Release(pool.Clean)
	if st := b.stat(); st.Total != 0 {
		t.Errorf("%+v", st)
	}
	s := b.take()
	if s.Stale() {
		t.Error("a new connection is stale")
	}
	s.Release(pool.Clean)
}

// TestDirty leaves all kinds of state behind; the next borrower of the same
// server process finds none of it.
func TestDirty(t *testing.T) {
	b := sharedBench(t, policy(1))
	for _, test := range []struct{ name, leave, probe, want string }{
		{"temporary table", "CREATE TEMP TABLE leak ()", "SELECT coalesce(to_regclass('pg_temp.leak')::text, 'none')", "none"},
		{"transaction", "BEGIN; CREATE TABLE leak ()", "SELECT coalesce(to_regclass('leak')::text, 'none')", "none"},
		{"failed transaction", "BEGIN; SELECT 1/0", "SELECT 1", "1"},
		{"LISTEN", "LISTEN leak", "SELECT count(*) FROM pg_listening_channels()", "0"},
		{"advisory lock", "SELECT pg_advisory_lock(1)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "0"},
		{"setting", "SET work_mem = '77MB'", "SELECT current_setting('work_mem') = '77MB'", "f"},
		{"role", "SET ROLE app", "SELECT current_user", "postgres"},
		{"session authorization", "SET SESSION AUTHORIZATION app", "SELECT session_user", "postgres"},
		{"statement", "PREPARE leak AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements", "0"},
		{"cursor", "DECLARE leak CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors", "0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := b.take()
			pid, resets := s.PID, b.Totals().Resets
			run(t, s, test.leave)
			s.Settings, s.Unnamed = pool.NewSettings([]pool.Setting{{Name: "work_mem", Text: "x"}}), 5
			s.Prepared(&pool.Statement{Name: "x"})
			s.Release(pool.Dirty)
			s = b.take()
			defer s.Release(pool.Clean)
			if got := run(t, s, test.probe); got != test.want {
				t.Errorf("%s: %s, want %s", test.probe, got, test.want)
			}
			if s.PID != pid || b.Totals().Resets != resets+1 {
				t.Error("it was not reset but closed")
			}
			if s.Settings != nil || s.Unnamed != 0 || s.PreparedCount() != 0 {
				t.Error("the record of what it holds was not reset")
			}
		})
	}
	t.Run("extended protocol after an error", func(t *testing.T) {
		s := b.take()
		pid := s.PID
		send(t, s, wire.AppendEmpty(wire.AppendFrame(nil, wire.MsgExecute, []byte("none\x00\x00\x00\x00\x00")), wire.MsgFlush))
		if kind, _ := next(t, s); kind != wire.MsgErrorResponse {
			t.Fatalf("%c", kind)
		}
		s.Release(pool.Dirty)
		s = b.take()
		defer s.Release(pool.Clean)
		if got := run(t, s, "SELECT 1"); got != "1" || s.PID != pid {
			t.Errorf("%s, process %d after %d", got, s.PID, pid)
		}
	})
}

// TestResetTimeout has a server that never answers the reset, while a watch of
// the last borrower is still under way: the connection is given up in time.
func TestResetTimeout(t *testing.T) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	b := newBench(t, fp.Addr(), d.Name, policy(1), func(o *pool.Options) { o.ResetTimeout = 200 * time.Millisecond })
	s := b.take()
	pid := s.PID
	silent := fp.On(faultproxy.Rule{From: faultproxy.FromServer, Every: true, Do: faultproxy.Drop()})
	s.Socket().Watch(false)
	s.Release(pool.Dirty)
	waitFor(t, "the connection is given up", func() bool { return b.stat().Total == 0 })
	silent.Remove()
	s = b.take()
	if s.PID == pid {
		t.Error("lent again")
	}
	s.Release(pool.Clean)
}

func TestDead(t *testing.T) {
	b := sharedBench(t, policy(1))
	s := b.take()
	s.Release(pool.Dead)
	if st := b.stat(); st.Total != 0 {
		t.Errorf("%+v", st)
	}
	// One with unread bytes is dead whatever its borrower says.
	s = b.take()
	send(t, s, wire.AppendQuery(nil, "SELECT 1"))
	if err := s.Socket().AwaitReadable(); err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(0); err != nil {
		t.Fatal(err)
	}
	s.Release(pool.Clean)
	if st := b.stat(); st.Total != 0 {
		t.Errorf("%+v", st)
	}
	// One that has something to say while idle is not lent.
	s = b.take()
	pid := s.PID
	send(t, s, wire.AppendQuery(nil, "SELECT pg_sleep(0)"))
	s.Release(pool.Clean)
	waitFor(t, "its answer", func() bool {
		s := b.take()
		defer s.Release(pool.Clean)
		return s.PID != pid
	})
}

func TestReleasedTwice(t *testing.T) {
	b := sharedBench(t, policy(1))
	s := b.take()
	s.Release(pool.Clean)
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	s.Release(pool.Clean)
}

// TestCancelFence gives a connection back while a cancel request for it is on
// its way. Nobody gets it before the request has landed.
func TestCancelFence(t *testing.T) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	b := newBench(t, fp.Addr(), d.Name, policy(1), nil)
	s := b.take()
	pid := s.PID
	hold := fp.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.CancelRequest, Do: faultproxy.Hold()})
	done := make(chan struct{})
	s.Cancel(func() { close(done) })
	<-hold.Fired()
	s.Release(pool.Clean)
	got, w := b.ask()
	if all := b.Servers(); len(all) != 1 || all[0].State != pool.ServerParked {
		t.Errorf("%+v", all)
	}
	if got != nil || w.ticket.Done() || b.Lent() != 1 || b.stat().Parked != 1 {
		t.Fatalf("lent while a cancel request was under way: %s", b.describe())
	}
	hold.Release()
	<-done
	s, err := w.result()
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, s, "SELECT 1 FROM pg_sleep(0.1)"); got != "1" || s.PID != pid {
		t.Errorf("the next borrower gets %s from process %d", got, s.PID)
	}
	// One that could not be delivered makes the connection unfit.
	kill := fp.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.CancelRequest, Do: faultproxy.Kill()})
	failed := make(chan struct{})
	s.Cancel(func() { close(failed) })
	<-failed
	<-kill.Fired()
	s.Release(pool.Clean)
	if st := b.stat(); st.Total != 0 {
		t.Errorf("%+v", st)
	}
	s.Cancel(func() {}) // of one that is not lent: nothing
}

// TestCancelWorks cancels a statement.
func TestCancelWorks(t *testing.T) {
	d := pgtest.Shared(t)
	b := newBench(t, d.Node.Addr(), d.Name, policy(1), nil)
	s := b.take()
	send(t, s, wire.AppendQuery(nil, "SELECT pg_sleep(60)"))
	waitFor(t, "the statement runs", func() bool {
		return d.Value("SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND query LIKE '%sleep%'", int(s.PID)) == "1"
	})
	s.Cancel(nil)
	kind, body := next(t, s)
	for kind == wire.MsgRowDescription {
		kind, body = next(t, s)
	}
	if kind != wire.MsgErrorResponse || wire.Field(body, 'C') != "57014" {
		t.Errorf("%c %q", kind, body)
	}
	next(t, s)
	s.Release(pool.Clean)
}

func TestClose(t *testing.T) {
	b := sharedBench(t, policy(1))
	lent := b.take()
	_, w := b.ask()
	b.Close()
	b.Close()
	if _, err := w.result(); !errors.Is(err, pool.ErrClosed) {
		t.Errorf("who waits gets %v", err)
	}
	if _, _, err := b.user.Acquire(0, 0, func() {}); !errors.Is(err, pool.ErrClosed) {
		t.Errorf("who comes later gets %v", err)
	}
	lent.Cancel(nil)
	lent.Release(pool.Dirty)
	if st := b.stat(); st.Total != 0 {
		t.Errorf("%+v", st)
	}
}

// TestTorture lets many borrowers do everything at once. No connection is ever
// in two hands.
func TestTorture(t *testing.T) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	pol := policy(4)
	pol.Min = 1
	b := newBench(t, fp.Addr(), d.Name, pol, nil)
	var mu sync.Mutex
	hands := map[uint64]bool{}
	end := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			for time.Now().Before(end) {
				s, w := b.ask()
				if s == nil {
					if r.IntN(5) == 0 {
						w.ticket.Cancel()
						continue
					}
					var err error
					if s, err = w.result(); err != nil {
						continue // a dial was killed
					}
				}
				mu.Lock()
				if hands[s.ID()] {
					t.Error("in two hands")
				}
				hands[s.ID()] = true
				mu.Unlock()
				switch r.IntN(6) {
				case 0:
					s.Cancel(nil)
				case 1:
					s.Socket().Watch(false)
				}
				mu.Lock()
				delete(hands, s.ID())
				mu.Unlock()
				s.Release([]pool.Fate{pool.Clean, pool.Clean, pool.Clean, pool.Dirty, pool.Dead}[r.IntN(5)])
				switch r.IntN(200) {
				case 0:
					b.Retire(0)
				case 1:
					fp.KillAll()
				}
			}
		})
	}
	wg.Wait()
	waitFor(t, "everything comes back", func() bool { return b.Lent() == 0 && b.stat().Dialling == 0 })
	if st := b.stat(); st.Total != st.Idle || st.Total > 4 || st.Waiting != 0 {
		t.Error(b.describe())
	}
	s := b.take()
	if got := run(t, s, "SELECT 1"); got != "1" {
		t.Error(got)
	}
	s.Release(pool.Clean)
}

func TestDescriptions(t *testing.T) {
	b := sharedBench(t, policy(2))
	s := b.take()
	if s.User() != "postgres" || s.Address() == "" || s.Created().IsZero() || s.Key().PID != s.PID || len(s.Key().Secret) != 4 {
		t.Errorf("%v", s)
	}
	if s.Reported.Values["server_version"] == "" || s.Reported.Values["client_encoding"] == "" {
		t.Errorf("%v", s.Reported.Values)
	}
	other := b.take()
	if other.Reported != s.Reported {
		t.Error("equal reports are not shared")
	}
	s.Release(pool.Clean)
	other.Release(pool.Clean)
	idle := b.IdleServers()
	if len(idle) != 2 || idle[0].PID == idle[1].PID || idle[0].TLS {
		t.Errorf("%+v", idle)
	}
	for _, i := range b.Servers() {
		if i.State != pool.ServerIdle || i.LocalAddr == "" || i.LocalAddr == i.Address || i.User != b.user.Name {
			t.Errorf("%+v", i)
		}
	}
	if b.user.ServerUser() != "postgres" {
		t.Error(b.user.ServerUser())
	}
}

// TestPrepared follows which statements a connection has: the least recently
// used one makes room.
func TestPrepared(t *testing.T) {
	b := sharedBench(t, policy(1)) // of three statements
	s := b.take()
	defer s.Release(pool.Dirty)
	var st []*pool.Statement
	for i := range 5 {
		st = append(st, &pool.Statement{Name: fmt.Sprint(i)})
	}
	for i := range 3 {
		if old := s.Prepared(st[i]); old != nil {
			t.Errorf("evicted %s with room left", old.Name)
		}
	}
	if all := b.Servers(); len(all) != 1 || all[0].Prepared != 3 || all[0].State != pool.ServerLent || all[0].ID != s.ID() {
		t.Errorf("%+v", all)
	}
	if !s.Has(st[0]) || s.Has(st[3]) { // 0 is now the latest
		t.Error("wrong knowledge")
	}
	if old := s.Prepared(st[0]); old != nil {
		t.Errorf("evicted %s for one that was there", old.Name)
	}
	if old := s.Prepared(st[3]); old != st[1] {
		t.Errorf("evicted %v", old)
	}
	s.Forget(st[2])
	if old := s.Prepared(st[4]); old != nil || s.PreparedCount() != 3 {
		t.Errorf("evicted %v of %d", old, s.PreparedCount())
	}
	s.Unnamed = 7
	s.ForgetAll()
	if s.PreparedCount() != 0 || s.Unnamed != 0 || s.Has(st[4]) {
		t.Error("not forgotten")
	}
}
