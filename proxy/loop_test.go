//go:build linux

package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"shardproxy/internal/faultproxy"
	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/wire"
)

// startLoops is a proxy whose sessions run on loops, whatever drives those of
// the other tests.
func startLoops(t *testing.T, o fixtureOptions) *fixture {
	t.Helper()
	o.driver = proxy.DriverLoop
	f := startSteady(t, o)
	if n := f.srv.Loops(); n == 0 || o.loops > 0 && n != o.loops {
		t.Fatalf("%d loops", n)
	}
	return f
}

// TestCallsOfALoop counts the system calls of a statement on a loop: a read and a
// write for each side, and no change of what is waited for.
func TestCallsOfALoop(t *testing.T) {
	f := startLoops(t, fixtureOptions{size: 1})
	for _, s := range scripts() {
		t.Run(s.name, func(t *testing.T) {
			c := dialSteady(t, f.addr)
			must(t, c.turn(s.before))
			must(t, c.turn(s.turn))
			const turns = 300
			before, _, err := f.srv.LoopCalls()
			must(t, err)
			for range turns {
				must(t, c.turn(s.turn))
			}
			after, _, err := f.srv.LoopCalls()
			must(t, err)
			n := uint64(requests(s.turn)) * turns
			reads, writes, waits := after.Reads-before.Reads, after.Writes-before.Writes, after.Waits-before.Waits
			t.Logf("%d requests: %d reads, %d writes, %d waits, %d controls", n, reads, writes, waits, after.Controls-before.Controls)
			// A few wait for a busy machine longer than a raw wait does.
			if slack := n / 10; reads > 2*n+slack || writes > 2*n+slack || waits > 2*n+n/2 {
				t.Errorf("%d requests: %d reads, %d writes, %d waits", n, reads, writes, waits)
			}
			if c := after.Controls - before.Controls; c > 10 {
				t.Errorf("%d controls", c)
			}
		})
	}
}

// TestCallsOfAQueue counts how often a loop looks for events when statements wait for
// the only server connection: for the client's and for the server's. Who gets the
// connection next goes on without a look.
func TestCallsOfAQueue(t *testing.T) {
	f := startLoops(t, fixtureOptions{size: 1})
	var clients []*steadyClient
	for range 4 {
		clients = append(clients, dialSteady(t, f.addr))
	}
	q := frames(fQuery("SELECT v FROM steady WHERE id = 5"))
	all := func(turns int) {
		var wg sync.WaitGroup
		for _, c := range clients {
			wg.Go(func() {
				for range turns {
					if err := c.turn(q); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	all(50)
	const turns = 500
	before, _, err := f.srv.LoopCalls()
	must(t, err)
	all(turns)
	after, _, err := f.srv.LoopCalls()
	must(t, err)
	n, waits := uint64(turns*len(clients)), after.Waits-before.Waits
	t.Logf("%d statements: %d waits", n, waits)
	if waits > 2*n+n/4 {
		t.Errorf("%d statements: %d waits", n, waits)
	}
}

// flood writes p again and again, and drops what comes, until c is closed.
func flood(c net.Conn, p []byte) *sync.WaitGroup {
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(io.Discard, c) }) // ends with the connection
	wg.Go(func() {
		for {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	})
	return &wg
}

// TestFloodsLeaveRoom lets one client keep its session busy without end, in
// several ways, and looks how long another's statements take on the same loop.
func TestFloodsLeaveRoom(t *testing.T) {
	many := func(f frame) []byte { return bytes.Repeat(f.bytes(), 64<<10/len(f.bytes())) }
	parses := func() (p []byte) {
		for i := range 2000 {
			p = append(p, frames(fParse("", fmt.Sprintf("SELECT %d AS c%d", i, i)), fSync())...)
		}
		return p
	}
	for _, kind := range []struct {
		name   string
		tls    bool
		before string
		flood  []byte
	}{
		{"syncs", false, "", many(fSync())},
		{"syncs under TLS", true, "", many(fSync())},
		{"parses", false, "", parses()},
		{"queries", false, "", many(fQuery("SELECT 1"))},
		{"queries under TLS", true, "", many(fQuery("SELECT 1"))},
		{"copy data", false, "COPY sink FROM STDIN", many(fCopyData("12345\n"))},
		{"rows", false, "", frames(fQuery("SELECT i FROM generate_series(1, 1000000) i"))},
	} {
		t.Run(kind.name, func(t *testing.T) {
			f := startLoops(t, fixtureOptions{size: 2})
			f.withTLS()
			steady := dialSteady(t, f.addr)
			must(t, steady.SetDeadline(time.Now().Add(time.Minute)))
			must(t, steady.turn(frames(fQuery("CREATE UNLOGGED TABLE sink (v int)"))))
			nc, err := net.Dial("tcp", f.addr)
			must(t, err)
			if kind.tls {
				_, err = nc.Write(wire.AppendSSLRequest(nil))
				must(t, err)
				_, err = io.ReadFull(nc, make([]byte, 1))
				must(t, err)
				nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true}) // the test's own certificate
			}
			raw := newRaw(nc)
			must(t, raw.login("postgres", "app"))
			if kind.before != "" {
				_, err := nc.Write(fQuery(kind.before).bytes())
				must(t, err)
				_, err = raw.until('G', 1)
				must(t, err)
			}
			wg := flood(nc, kind.flood)
			defer wg.Wait()
			defer nc.Close()
			q := frames(fQuery("SELECT 1"))
			var took []time.Duration
			for range 100 {
				begun := time.Now()
				must(t, steady.turn(q))
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			t.Logf("median %v, longest %v", took[50], took[99])
			// A session that never gave way would let the others wait for ever; the
			// rest is the machine's, which the servers and this test share.
			if took[50] > 250*time.Millisecond {
				t.Errorf("median %v, longest %v", took[50], took[99])
			}
		})
	}
}

// slowPlanner panics at some texts and takes long for others.
type slowPlanner struct {
	proxy.Planner
	enter, leave chan struct{}
}

func (p slowPlanner) Plan(sql []byte, ctx router.Context) *router.Plan {
	switch {
	case bytes.Contains(sql, []byte("bad text")):
		panic("bad text")
	case bytes.Contains(sql, []byte("slow text")):
		p.enter <- struct{}{}
		<-p.leave
	}
	return p.Planner.Plan(sql, ctx)
}

// TestPanicOnALoop shows that a session that panics ends alone, wherever it does,
// and gives its server connection back.
func TestPanicOnALoop(t *testing.T) {
	f := startLoops(t, fixtureOptions{size: 1, planner: func(p proxy.Planner) proxy.Planner { return slowPlanner{Planner: p} }})
	other := mustDial(t, f.addr, "app")
	for _, text := range []string{"SELECT 1 AS \"bad text\"", "SELECT 2 AS \"bad text\"" + strings.Repeat(", 1", router.LongText)} {
		for _, begin := range []bool{false, true} {
			c := mustDial(t, f.addr, "app")
			if begin {
				c.do(t, "BEGIN")
			}
			if got := c.ask(text); !strings.Contains(got, "END") {
				t.Errorf("got %s", got)
			}
			other.mustAsk(t, "SELECT 'alive'", "alive")
		}
	}
	waitFor(t, func() bool { return f.db.Clients() == 2 && f.db.Shards[0].Pools.Lent() == 0 }) // other, and who made the table
}

// TestLongTextsAside shows that nobody waits while a long text is parsed, and that
// the session whose text it is can do without a stack of its own afterwards.
func TestLongTextsAside(t *testing.T) {
	p := slowPlanner{enter: make(chan struct{}), leave: make(chan struct{})}
	f := startLoops(t, fixtureOptions{planner: func(next proxy.Planner) proxy.Planner {
		p.Planner = next
		return p
	}})
	c, other := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	text := "SELECT length('slow text" + strings.Repeat("x", router.LongText) + "')"
	got := make(chan string, 1)
	go func() { got <- c.ask(text) }()
	<-p.enter
	for range 10 {
		other.mustAsk(t, "SELECT 'alive'", "alive")
	}
	close(p.leave)
	if s := <-got; !strings.Contains(s, fmt.Sprint(router.LongText+len("slow text"))) {
		t.Error(s)
	}
	c.mustAsk(t, "SELECT 'after'", "after")
}

// TestWaitersOnALoop lets many sessions wait in the middle of their turns, for the
// only server connection, and ends each wait in another way.
func TestWaitersOnALoop(t *testing.T) {
	f := startLoops(t, fixtureOptions{size: 1})
	holder := mustDial(t, f.addr, "app")
	holder.do(t, "BEGIN")
	const each = 20
	var patient, gone, cancelled []*rawClient
	for _, kind := range []*[]*rawClient{&patient, &gone, &cancelled} {
		for range each {
			c := mustDial(t, f.addr, "app")
			_, err := c.Write(fQuery("SELECT 'mine'").bytes())
			must(t, err)
			*kind = append(*kind, c)
		}
	}
	await := func(n int) {
		t.Helper()
		waitFor(t, func() bool {
			waiting := 0
			for _, s := range f.srv.Sessions() {
				if s.Phase == proxy.PhaseWaiting {
					waiting++
				}
			}
			return waiting == n
		})
	}
	await(3 * each)
	for _, c := range gone {
		c.Close()
	}
	await(2 * each)
	for _, c := range cancelled {
		cancelRaw(t, f.addr, c)
		if got := c.say(1); !contains(got, "57014") {
			t.Error(got)
		}
	}
	await(each)
	holder.do(t, "COMMIT")
	for _, c := range patient {
		if got := c.say(1); !contains(got, "mine") {
			t.Error(got)
		}
	}
	waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 })
	// What held their stacks is kept for the next, within bounds.
	if _, spares, err := f.srv.LoopCalls(); err != nil || spares == 0 || spares > 64 {
		t.Errorf("%d spare workers, %v", spares, err)
	}
}

// TestMoreWhileQueued has a client send on while its request waits for the only server
// connection, more than a buffer takes, and ends what waits then.
func TestMoreWhileQueued(t *testing.T) {
	f := startLoops(t, fixtureOptions{size: 1})
	queued := func(n int) {
		t.Helper()
		waitFor(t, func() bool { return f.db.Shards[0].Pools.Stats()[0].Waiting == n })
	}
	reads := func() uint64 {
		calls, _, err := f.srv.LoopCalls()
		must(t, err)
		return calls.Reads
	}
	holder, waiter := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	const more, size = 30, 5000
	for range 3 {
		holder.do(t, "BEGIN")
		_, err := waiter.Write(frames(segment("SELECT 'first'")...))
		must(t, err)
		queued(1)
		var rest []byte
		for i := range more {
			rest = append(rest, frames(segment(fmt.Sprintf("SELECT length('%s') + %d", strings.Repeat("x", size), i))...)...)
		}
		before := reads()
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := waiter.Write(rest)
			if err != nil {
				t.Error(err)
			}
		})
		waitFor(t, func() bool { return reads() > before }) // and what is read is kept
		queued(1)
		holder.do(t, "COMMIT")
		got := waiter.say(1 + more)
		wg.Wait()
		if !contains(got, "first") || !contains(got, fmt.Sprint(size)) || !contains(got, fmt.Sprint(size+more-1)) || contains(got, "E ") {
			t.Error(got)
		}
	}
	holder.do(t, "BEGIN")
	_, err := waiter.Write(fQuery("SELECT 1").bytes())
	must(t, err)
	queued(1)
	f.srv.Kill("")
	if got := waiter.say(1); !contains(got, "57P01") {
		t.Error(got)
	}
	queued(0)
}

// TestIdleClientsTakeNoGoroutine shows what a client costs that waits.
func TestIdleClientsTakeNoGoroutine(t *testing.T) {
	f := startLoops(t, fixtureOptions{size: 2})
	before := runtime.NumGoroutine()
	for i := range 100 {
		c := dialSteady(t, f.addr)
		switch i % 3 {
		case 0:
			must(t, c.turn(frames(fQuery("SELECT 1"))))
		case 1:
			_, err := c.Write([]byte{'Q', 0}) // a piece of a frame
			must(t, err)
		}
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+10 })
}

// TestSeveralLoops runs sessions on several loops that pass server connections to
// each other, while these break.
func TestSeveralLoops(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprint("plain ", plain), func(t *testing.T) {
			cluster := pgtest.Start(t, pgtest.Options{})
			faults := faultproxy.Start(t, faultproxy.Options{Target: cluster.Primary().Addr()})
			f := startLoops(t, fixtureOptions{size: 3, loops: 3, plainWait: plain, nodes: []string{faults.Addr()}})
			end := time.Now().Add(3 * time.Second)
			var wg sync.WaitGroup
			for i := range 12 {
				wg.Go(func() {
					var c *rawClient
					for n := 0; time.Now().Before(end) && !t.Failed(); n++ {
						if c == nil {
							var err error
							if c, err = dialRaw(f.addr, "postgres", "app"); err != nil {
								continue // its server connection broke
							}
						}
						want := fmt.Sprintf("%d of %d", n, i)
						got := c.ask("SELECT '" + want + "'")
						switch {
						case strings.Contains(got, want):
						case strings.Contains(got, "08006") || strings.Contains(got, "08007"):
						case strings.Contains(got, "END"):
							c.Close()
							c = nil
						default:
							t.Errorf("want %q, got %s", want, got)
						}
						if n%50 == 49 && c != nil {
							c.Close()
							c = nil
						}
					}
					if c != nil {
						c.Close()
					}
				})
			}
			wg.Go(func() {
				for time.Now().Before(end) {
					<-time.After(200 * time.Millisecond) // the pace of the faults
					faults.KillAll()
				}
			})
			wg.Wait()
			waitFor(t, func() bool { return f.db.Clients() == 1 && f.db.Shards[0].Pools.Lent() == 0 })
		})
	}
}

// TestServerThatSpokeIsNotLent shows that a server connection that ends while it is
// idle is known on a loop, although nobody looks before it is lent.
func TestServerThatSpokeIsNotLent(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Options{})
	faults := faultproxy.Start(t, faultproxy.Options{Target: cluster.Primary().Addr()})
	f := startLoops(t, fixtureOptions{size: 2, nodes: []string{faults.Addr()}})
	c := mustDial(t, f.addr, "app")
	for range 50 {
		c.mustAsk(t, "UPDATE steady SET v = v WHERE id = 1", "UPDATE 1") // is not tried again
		faults.KillAll()
		waitFor(t, func() bool { return faults.OpenConns() == 0 })
	}
}

// TestShutdownWithLoops ends sessions of all kinds at once.
func TestShutdownWithLoops(t *testing.T) {
	f := startLoops(t, fixtureOptions{size: 1, loops: 2})
	var all []*rawClient
	for range 10 {
		all = append(all, mustDial(t, f.addr, "app"))
	}
	all[0].do(t, "BEGIN")
	for _, c := range all[1:5] {
		if _, err := c.Write(fQuery("SELECT 1").bytes()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	f.srv.Shutdown(ctx, proxy.WaitForServers)
	for i, c := range all {
		got := c.say(1)
		if !contains(got, "57P01") {
			t.Errorf("%d: %v", i, got)
		}
	}
	f.srv.Close()
	if _, err := net.Dial("tcp", f.addr); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("listens still: %v", err)
	}
}
