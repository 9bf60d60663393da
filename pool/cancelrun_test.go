package pool_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/pool"
	"shardproxy/wire"
)

// TestRunCancelLate runs a statement that ends while a cancel request for it is on its way: the
// next one is not hit.
func TestRunCancelLate(t *testing.T) {
	for waits, run := range pool.RunsOf {
		t.Run(fmt.Sprint(waits), func(t *testing.T) { testRunCancelLate(t, run) })
	}
}

type runFunc = func(context.Context, *pool.Server, []byte, pool.RunOptions) (pool.Answer, error)

func testRunCancelLate(t *testing.T, run runFunc) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	b := newBench(t, fp.Addr(), d.Name, policy(1), nil)
	s := b.take()
	hold := fp.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.CancelRequest, Do: faultproxy.Hold()})
	go func() {
		<-hold.Fired()
		<-time.After(700 * time.Millisecond)
		hold.Release()
	}()
	o := pool.RunOptions{Cancelled: func() bool { return true }}
	if _, err := run(t.Context(), s, wire.AppendQuery(nil, "SELECT pg_sleep(0.5)"), o); err != nil {
		t.Errorf("it ended before the request came: %v", err)
	}
	if err := s.Exec(t.Context(), "SELECT pg_sleep(0.4)"); err != nil {
		t.Errorf("what came behind it: %v", err)
	}
	s.Release(pool.Clean)
}

// TestRunCancelEarly loses the first cancel request: another one is sent.
func TestRunCancelEarly(t *testing.T) {
	for waits, run := range pool.RunsOf {
		t.Run(fmt.Sprint(waits), func(t *testing.T) { testRunCancelEarly(t, run) })
	}
}

func testRunCancelEarly(t *testing.T, run runFunc) {
	d := pgtest.Shared(t)
	fp := faultproxy.Start(t, faultproxy.Options{Target: d.Node.Addr()})
	b := newBench(t, fp.Addr(), d.Name, policy(1), nil)
	s := b.take()
	drop := fp.On(faultproxy.Rule{From: faultproxy.FromClient, Kind: faultproxy.CancelRequest, Do: faultproxy.CloseConn()})
	var asked atomic.Int32
	began := time.Now()
	o := pool.RunOptions{Cancelled: func() bool { return asked.Add(1) == 1 }} // it says so once
	_, err := run(t.Context(), s, wire.AppendQuery(nil, "SELECT pg_sleep(5)"), o)
	var we *wire.Error
	if !errors.As(err, &we) || we.Code != "57014" || time.Since(began) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
	<-drop.Fired()
	s.Release(pool.Clean)
}
