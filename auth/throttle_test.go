package auth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shardproxy/config"
	"shardproxy/wire"
)

func testThrottle(t testing.TB, limits config.Throttle) *throttle {
	t.Helper()
	th, err := newThrottle(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	th.configure(limits)
	return th
}

var testLimits = config.Throttle{Delay: 100 * time.Millisecond, MaxDelay: 10 * time.Second, ForgetAfter: 10 * time.Minute, MaxAddresses: 3}

// waited returns how long one attempt is held up.
func waited(t testing.TB, th *throttle, addr string) time.Duration {
	t.Helper()
	start := time.Now()
	if err := th.wait(context.Background(), netip.MustParseAddr(addr)); err != nil {
		t.Fatal(err)
	}
	return time.Since(start)
}

func TestThrottleGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := testThrottle(t, testLimits)
		addr := netip.MustParseAddr("192.0.2.1")
		for i, want := range []time.Duration{0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000} {
			if got := waited(t, th, addr.String()); got != want*time.Millisecond {
				t.Fatalf("after %d failures an attempt waited %v, want %v", i, got, want*time.Millisecond)
			}
			th.failed(addr)
		}
		if got := waited(t, th, "192.0.2.2"); got != 0 {
			t.Errorf("another address waited %v", got)
		}
		th.succeeded(addr)
		if got := waited(t, th, addr.String()); got != 0 {
			t.Errorf("after a success an attempt waited %v", got)
		}
	})
}

func TestThrottleForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := testThrottle(t, testLimits)
		addr := netip.MustParseAddr("192.0.2.1")
		for range 20 {
			th.failed(addr)
		}
		time.Sleep(testLimits.ForgetAfter - time.Nanosecond)
		th.failed(addr)
		if got := waited(t, th, addr.String()); got != 10*time.Second {
			t.Errorf("forgotten too early: %v", got)
		}
		time.Sleep(testLimits.ForgetAfter)
		if got := waited(t, th, addr.String()); got != 0 {
			t.Errorf("not forgotten: %v", got)
		}
		if n, _, _ := th.counts(); n != 0 {
			t.Errorf("%d addresses remembered", n)
		}
	})
}

// TestThrottleParallel: many connections at once do not guess faster.
func TestThrottleParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := testThrottle(t, testLimits)
		addr := netip.MustParseAddr("192.0.2.1")
		for range patience {
			th.failed(addr) // distance 1.6 s, longest wait 30 s
		}
		start := time.Now()
		var mu sync.Mutex
		var let []time.Duration
		refused := 0
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				err := th.wait(context.Background(), addr)
				mu.Lock()
				defer mu.Unlock()
				var we *wire.Error
				switch {
				case err == nil:
					let = append(let, time.Since(start))
				case errors.As(err, &we) && we.Code == "53300":
					refused++
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if len(let) != 18 || refused != 32 { // 1.6 s, 3.2 s, ... 28.8 s
			t.Fatalf("%d attempts got through, %d were refused", len(let), refused)
		}
		for i, at := range let {
			if want := time.Duration(i+1) * 1600 * time.Millisecond; at != want {
				t.Errorf("attempt %d got through after %v, want %v", i+1, at, want)
			}
		}
		if _, w, r := th.counts(); w != 18 || r != 32 {
			t.Errorf("counted %d waits, %d refusals", w, r)
		}
	})
}

// TestThrottleStorm: a thousand clients behind one failure all get in as soon
// as the first of them has logged in.
func TestThrottleStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := testThrottle(t, testLimits)
		addr := netip.MustParseAddr("192.0.2.1")
		th.failed(addr)
		start := time.Now()
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				if err := th.wait(context.Background(), addr); err != nil {
					t.Error(err)
				}
				th.succeeded(addr)
			})
		}
		all.Wait()
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("the storm took %v", took)
		}
	})
}

func TestThrottleKeysAndBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := testThrottle(t, testLimits)
		th.failed(netip.MustParseAddr("2001:db8:1:2:3::4"))
		if got := waited(t, th, "2001:db8:1:2:ffff::"); got == 0 {
			t.Error("an IPv6 neighbour in the same /64 does not wait")
		}
		if got := waited(t, th, "2001:db8:1:3::4"); got != 0 {
			t.Errorf("another /64 waits %v", got)
		}
		for i := range 10 {
			th.failed(netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i)))
		}
		if n, _, _ := th.counts(); n != 3 {
			t.Errorf("%d addresses are remembered, the bound is 3", n)
		}
		if got := waited(t, th, "192.0.2.9"); got == 0 {
			t.Error("the latest was forgotten")
		}
		if got := waited(t, th, "192.0.2.1"); got != 0 {
			t.Error("the oldest was not")
		}
		if err := th.wait(context.Background(), netip.Addr{}); err != nil {
			t.Error(err)
		}
		th.failed(netip.Addr{})
		th.succeeded(netip.Addr{})
		smaller := testLimits
		smaller.MaxAddresses = 1
		th.configure(smaller)
		if n, _, _ := th.counts(); n != 1 {
			t.Errorf("%d addresses are remembered after a reload, the bound is 1", n)
		}
		off := testLimits
		off.Delay = 0
		th.configure(off)
		if got := waited(t, th, "192.0.2.9"); got != 0 {
			t.Errorf("waits %v though it is off", got)
		}
	})
}

func TestThrottleContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := testThrottle(t, testLimits)
		addr := netip.MustParseAddr("192.0.2.1")
		for range 10 {
			th.failed(addr)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := th.wait(ctx, addr); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestThrottledLogin: the delay is in Authenticate's way, and only for
// passwords.
func TestThrottledLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := settings(config.MethodSCRAM, plain("app", "secret"))
		a := mustNew(t, Options{Config: cfg})
		attempt := func(user, password string) (time.Duration, *wire.Error) {
			c := client(user, password)
			c.addr = netip.MustParseAddrPort("[::ffff:192.0.2.1]:5")
			start := time.Now()
			_, err := login(t, a, c, user)
			return time.Since(start), err
		}
		for i, want := range []time.Duration{0, 100, 200} {
			if took, err := attempt("app", "wrong"); err == nil || took != want*time.Millisecond {
				t.Errorf("attempt %d: %v after %v", i, err, took)
			}
		}
		if took, err := attempt("ghost", "wrong"); err == nil || took != 400*time.Millisecond {
			t.Errorf("another user: %v after %v", err, took)
		}
		if took, err := attempt("app", "secret"); err != nil || took != 800*time.Millisecond {
			t.Errorf("the right password: %v after %v", err, took)
		}
		if took, err := attempt("app", "wrong"); err == nil || took != 0 {
			t.Errorf("after a success: %v after %v", err, took)
		}
		cfg = settings(config.MethodTrust, plain("app", "secret"))
		if err := a.Update(cfg); err != nil {
			t.Fatal(err)
		}
		if took, err := attempt("app", ""); err != nil || took != 0 {
			t.Errorf("trust: %v after %v", err, took)
		}
	})
}
