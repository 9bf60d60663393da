package pool_test

import (
	"errors"
	"testing"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/pool"
	"shardproxy/wire"
)

func TestDialFailures(t *testing.T) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	told := make(chan error, 100)
	b := newBench(t, fp.Addr(), d.Name, policy(2), func(o *pool.Options) {
		o.OnDialError = func(_ int, err error) {
			select {
			case told <- err:
			default:
			}
		}
	})
	if err := fp.SetMode(faultproxy.Refuse); err != nil {
		t.Fatal(err)
	}
	var queue []*waiter
	for range 3 {
		_, w := b.ask()
		queue = append(queue, w)
	}
	for _, w := range queue {
		_, err := w.result()
		var de *pool.DialError
		if !errors.As(err, &de) || !de.SafeToRetry() || de.Address != fp.Addr() {
			t.Fatalf("got %v", err)
		}
	}
	if err := <-told; err == nil {
		t.Error("told of no error")
	}
	waitFor(t, "the last dial", func() bool { return b.stat().Dialling == 0 })
	if err := fp.SetMode(faultproxy.Normal); err != nil {
		t.Fatal(err)
	}
	b.Wake(0)
	b.take().Release(pool.Clean)
	if st := b.stat(); st.Total != 1 {
		t.Errorf("%+v", st)
	}
}

// TestLateDialFailure fails nobody whom the failed dial was not for.
func TestLateDialFailure(t *testing.T) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	hold := func(conn int, then faultproxy.Action) *faultproxy.Trigger {
		rule := faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.Startup, Conn: conn, Do: faultproxy.Hold()}
		held := fp.On(rule)
		rule.Do = then
		fp.On(rule)
		return held
	}
	refuse := faultproxy.Answer(wire.Fatal("28P01", "password authentication failed"))

	t.Run("login refused", func(t *testing.T) {
		pol := policy(2)
		pol.MaxDialing = 1
		b := newBench(t, fp.Addr(), d.Name, pol, nil)
		held := hold(fp.Accepted()+1, refuse)
		_, early := b.ask()
		<-held.Fired()
		_, late := b.ask()
		held.Release()
		if _, err := early.result(); err == nil {
			t.Error("who waited for the dial was not told")
		}
		s, err := late.result()
		if err != nil {
			t.Fatalf("who came later: %v", err)
		}
		s.Release(pool.Clean)
	})
	t.Run("while another is under way", func(t *testing.T) {
		b := newBench(t, fp.Addr(), d.Name, policy(2), nil)
		first := hold(fp.Accepted()+1, refuse)
		second := hold(fp.Accepted()+2, faultproxy.Action{})
		_, early := b.ask()
		<-first.Fired()
		_, late := b.ask()
		<-second.Fired()
		first.Release()
		if _, err := early.result(); err == nil {
			t.Error("who waited for the dial was not told")
		}
		second.Release()
		s, err := late.result()
		if err != nil {
			t.Fatalf("who came later: %v", err)
		}
		s.Release(pool.Clean)
	})
	t.Run("after a later one's success", func(t *testing.T) {
		b := newBench(t, fp.Addr(), d.Name, policy(2), nil)
		held := hold(fp.Accepted()+1, faultproxy.Kill())
		_, early := b.ask()
		<-held.Fired()
		_, late := b.ask()
		s, err := early.result() // from the second dial
		if err != nil {
			t.Fatal(err)
		}
		held.Release() // the first breaks
		other, err := late.result()
		if err != nil {
			t.Fatalf("who waits while the node is there: %v", err)
		}
		s.Release(pool.Clean)
		other.Release(pool.Clean)
	})
	t.Run("unreachable", func(t *testing.T) {
		pol := policy(2)
		pol.MaxDialing = 1
		b := newBench(t, fp.Addr(), d.Name, pol, nil)
		held := hold(fp.Accepted()+1, faultproxy.Kill())
		_, early := b.ask()
		<-held.Fired()
		_, late := b.ask()
		held.Release()
		for _, w := range []*waiter{early, late} {
			if _, err := w.result(); err == nil {
				t.Error("the node is gone, and one who waits was not told")
			}
		}
	})
}

// TestSaturation has a server that is full for a while: nobody fails.
func TestSaturation(t *testing.T) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	full := fp.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.Startup, Every: true,
		Do: faultproxy.Answer(wire.Fatal("53300", "sorry, too many clients already"))})
	b := newBench(t, fp.Addr(), d.Name, policy(2), nil)
	_, w := b.ask()
	waitFor(t, "several dials", func() bool { return full.Matches() >= 2 })
	if w.ticket.Done() {
		t.Fatal("a full server failed the queue")
	}
	full.Remove()
	s, err := w.result()
	if err != nil {
		t.Fatal(err)
	}
	s.Release(pool.Clean)
}

func TestRefusedLogin(t *testing.T) {
	d := pgtest.Shared(t)
	b := newBench(t, d.Node.Addr(), d.Name, policy(2), nil)
	b.user = b.For("tester", "app", "wrong", policy(2))
	_, w := b.ask()
	if _, err := w.result(); err == nil || pool.IsSaturated(err) {
		t.Errorf("a wrong password: %v", err)
	}
}
