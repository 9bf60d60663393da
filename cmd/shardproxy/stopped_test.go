package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// attempt is one insert: when it began, how long it took and how it ended.
type attempt struct {
	id    int
	begun time.Time
	took  time.Duration
	state string // "" for success
}

// steady inserts numbers on a connection of its own until it is told to stop.
type steady struct {
	mu  sync.Mutex
	all []attempt
}

func (s *steady) run(t *testing.T, c *pgx.Conn, first int, stop <-chan struct{}) {
	for id := first; ; id++ {
		select {
		case <-stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		a := attempt{id: id, begun: time.Now()}
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		_, err := c.Exec(ctx, "INSERT INTO written VALUES ($1)", id)
		cancel()
		a.took = time.Since(a.begun)
		if a.state = sqlState(err); err != nil && a.state == "" {
			a.state = err.Error()
		}
		s.mu.Lock()
		s.all = append(s.all, a)
		s.mu.Unlock()
		if c.IsClosed() {
			t.Errorf("a writer lost its session: %v", err)
			return
		}
	}
}

// done returns the attempts that have ended.
func (s *steady) done() []attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// TestStoppedPrimary stops all processes of the primary under writes, as a
// machine that hangs: connections stay open and nothing answers. Nothing may
// wait for ever, a promoted replica takes over, and when the old primary wakes
// up it is left alone.
//
// The bounds follow from the settings below. A silent node is out after
// fail_after probes, each of probe_interval and probe_timeout at most: 1.4 s. Who
// dials it finds out after connect_timeout, 2 s. Then hold_timeout begins, 1 s.
func TestStoppedPrimary(t *testing.T) {
	t.Parallel()
	cl := pgtest.Start(t, pgtest.Options{Replicas: 2, Settings: map[string]string{"synchronous_commit": "remote_apply"}})
	// What is acknowledged is then on both replicas; the promoted one stands alone.
	cl.Primary().Set("synchronous_standby_names", "ANY 2 (*)")
	text := strings.Replace(processText, "connect_timeout: 2s}", "connect_timeout: 2s}\n    failover: "+
		"{probe_interval: 200ms, probe_timeout: 500ms, fail_after: 2, recover_after: 1, hold_timeout: 1s}\n"+
		"    reads: {read_only_functions: [inet_server_port]}", 1)
	ps := startProcessAt(t, "app", cl.Nodes(), text)
	const finds, hold, slack = 2 * time.Second, time.Second, 2 * time.Second
	old, heir, other := cl.Primary(), cl.Replicas()[0], cl.Replicas()[1]
	must(t, ps.connect(), "CREATE TABLE written (id int PRIMARY KEY)")
	must(t, ps.connect(), "CREATE TABLE fixed AS SELECT generate_series(1, 1000) AS id")
	cl.CatchUp()
	reads := ps.connect()
	eventually(t, "reads run on a replica", func() bool { return serverPort(t, reads) != old.Port() })

	stop := make(chan struct{})
	var wg sync.WaitGroup
	writers := make([]*steady, 8)
	for i := range writers {
		writers[i] = &steady{}
		c := ps.connect()
		wg.Go(func() { writers[i].run(t, c, i*1_000_000, stop) })
	}
	idle := ps.connect() // in a transaction that the stopped server holds
	must(t, idle, "BEGIN")
	must(t, idle, "INSERT INTO written VALUES (-1)")
	eventually(t, "writes flow", func() bool {
		// One that was still at its Parse would be told 08006.
		return !slices.ContainsFunc(writers, func(w *steady) bool { return len(w.done()) <= 10 })
	})

	stopping := time.Now()
	old.Pause()
	stopped := time.Now()
	// Who comes now waits and is refused: the node is out and there is no other.
	late := ps.connect()
	result := make(chan error, 1)
	wg.Go(func() {
		_, err := late.Exec(context.Background(), "INSERT INTO written VALUES (-2)")
		result <- err
	})
	// What the stopped server was asked it never answers.
	asked := make(chan error, 1)
	wg.Go(func() {
		_, err := idle.Exec(context.Background(), "INSERT INTO written VALUES (-4)")
		asked <- err
	})
	eventually(t, "the node is out", func() bool { return ps.node(old, "down") })
	out := time.Since(stopping)
	if limit := finds + slack; out > limit {
		t.Errorf("the node was out %v after the primary had stopped, not within %v", out, limit)
	}
	err := <-result
	refused := time.Since(stopping)
	lateState := sqlState(err)
	switch lateState {
	case "57P03", "08001": // it was not sent
	case "08007": // it was, on a connection that was idle
	default:
		t.Errorf("a write without a primary: %v", err)
	}
	if err := <-asked; sqlState(err) != "08006" {
		t.Errorf("in the transaction that the stopped server holds: %v", err)
	}
	if limit := finds + hold + slack; max(refused, time.Since(stopping)) > limit {
		t.Errorf("it was refused %v after the primary had stopped, not within %v", refused, limit)
	}
	for range 20 {
		if port := serverPort(t, reads); port == old.Port() {
			t.Error("a read ran on the stopped primary")
		}
	}
	fails(t, late, "INSERT INTO written VALUES (-3)", "57P03")

	promoting := time.Now()
	heir.Promote()
	promoted := time.Now()
	firstAfter := func() (least time.Duration) {
		for _, w := range writers {
			for _, a := range w.done() {
				if d := a.begun.Add(a.took).Sub(promoted); a.state == "" && a.begun.After(stopped) && (least == 0 || d < least) {
					least = d
				}
			}
		}
		return least
	}
	eventually(t, "writes go on", func() bool { return firstAfter() != 0 })
	if resumed := firstAfter(); resumed > 2*time.Second {
		t.Errorf("writes went on %v after the promotion", resumed)
	}
	eventually(t, "every writer is served again", func() bool {
		for _, w := range writers {
			all := w.done()
			if last := all[len(all)-1]; last.state != "" || last.begun.Before(promoted) {
				return false
			}
		}
		return true
	})
	served := time.Since(promoted)
	if served > 3*time.Second {
		t.Errorf("the last writer was served %v after the promotion", served)
	}
	fails(t, idle, "INSERT INTO written VALUES (-6)", "25P02")
	must(t, idle, "ROLLBACK")
	must(t, idle, "INSERT INTO written VALUES (-5)")

	// The old primary wakes up and still takes itself for one.
	woken := time.Now()
	old.Resume()
	eventually(t, "the old primary is refused", func() bool { return ps.node(old, "refused") })
	reads2 := ps.connect()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		for _, c := range []*pgx.Conn{reads, reads2} {
			if port := serverPort(t, c); port == old.Port() {
				t.Fatal("a read ran on the old primary")
			}
		}
	}
	close(stop)
	wg.Wait()

	// What each insert was told against what both servers hold.
	onNew, onOld := numbers(heir), numbers(old)
	states := map[string]int{}
	var longest, longestBefore time.Duration
	for _, w := range writers {
		for _, a := range w.done() {
			states[a.state]++
			ended := a.begun.Add(a.took)
			switch {
			case ended.After(stopped) && a.begun.Before(promoted):
				longest = max(longest, a.took)
			case ended.Before(stopped):
				longestBefore = max(longestBefore, a.took)
			}
			switch {
			case a.state == "" && !onNew[a.id]:
				t.Errorf("insert %d was acknowledged and is lost", a.id)
			case (a.state == "57P03" || a.state == "08006") && (onNew[a.id] || onOld[a.id]):
				t.Errorf("insert %d was said not to have run and is there", a.id)
			case a.begun.After(promoted) && onOld[a.id]:
				t.Errorf("insert %d of after the promotion is on the old primary", a.id)
			case a.begun.After(woken) && a.state != "":
				t.Errorf("insert %d failed after the old primary had woken up: %s", a.id, a.state)
			}
		}
	}
	for _, id := range []int{-5, -4, -3, -2, -1} {
		if onOld[id] && (id != -2 || lateState != "08007") || onNew[id] != (id == -5) {
			t.Errorf("row %d: on the old primary %v, on the new one %v", id, onOld[id], onNew[id])
		}
	}
	// 08006: the server was lost while it was asked something of ours first, such as what the
	// statement looks like now. Nothing of the client's had been sent.
	if extra := slices.DeleteFunc(slices.Collect(maps.Keys(states)), func(s string) bool { return s == "" || s == "08007" || s == "57P03" || s == "08006" }); len(extra) > 0 {
		t.Errorf("writers met %q", extra)
	}
	if got := other.Value("app", "SELECT pg_is_in_recovery()"); got != "t" {
		t.Errorf("the other replica is in recovery: %s", got)
	}
	t.Logf("the node was out after %v; a write that came after the stop was refused after %v; promotion took %v; writes went on %v after it, all writers after %v; longest write %v (before: %v); outcomes %v",
		out, refused, promoted.Sub(promoting), firstAfter(), served, longest, longestBefore, states)
}

// node reports whether SHOW NODES says that the node takes no writes and why:
// down, or refused for its timeline.
func (ps *process) node(n *pgtest.Node, health string) bool {
	for _, row := range ps.console("SHOW NODES") {
		if row[2] == n.Addr() {
			return row[4] == health && row[6] == "0" && (health == "down" || strings.Contains(row[5], "timeline"))
		}
	}
	return false
}

// numbers are the rows of written on a node.
func numbers(n *pgtest.Node) map[int]bool {
	got := map[int]bool{}
	for _, row := range n.Rows("app", "SELECT id FROM written") {
		var id int
		if _, err := fmt.Sscan(row[0], &id); err == nil {
			got[id] = true
		}
	}
	return got
}
