package twopc

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
)

// stall holds the coordinator at a point, alive, until the function it returns
// is called, which gives the outcome.
func (f *fleet) stall(t *testing.T, r *Resolver, p point, parts []Part, clients []*client) func() (Outcome, string) {
	t.Helper()
	reached, wake, done := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	p.at(clients, func() error {
		close(reached)
		<-wake
		return nil
	})
	var outcome Outcome
	go func() {
		var code string
		o, err := f.commit(t.Context(), r, parts)
		if outcome = o; err != nil {
			code = err.Code
		}
		done <- code
	}()
	<-reached
	if p.step == "decide" {
		f.waitPrepared()
	}
	return func() (Outcome, string) {
		close(wake)
		code := <-done
		return outcome, code
	}
}

// waitPrepared waits until something is prepared: that is done while the first
// part decides.
func (f *fleet) waitPrepared() {
	f.t.Helper()
	eventually(f.t, "prepared", func() bool { return f.prepared() > 0 })
}

// testLateCoordinator: recovery meets a coordinator of another process that is
// slow, not gone.
func testLateCoordinator(t *testing.T, f *fleet) {
	o := f.options()
	o.MinAge = time.Nanosecond
	recovery := f.closed(o)

	// Before it has written the decision recovery takes the transaction away.
	parts, clients := f.begin(1)
	resume := f.stall(t, nil, point{step: "decide"}, parts, clients)
	f.round(recovery)
	if f.prepared() != 0 || f.value(0, "SELECT committed FROM shardproxy.commits") != "false" || recovery.Stats().Tombstones != 1 {
		t.Error("recovery has not rolled back")
	}
	outcome, code := resume()
	if bad := wrong(outcome, f.where(1)); outcome != RolledBack || code != "40001" || bad != "" {
		t.Error(outcome, code, bad)
	}

	// With the decision written and not committed, recovery has to wait.
	parts, clients = f.begin(2)
	resume = f.stall(t, nil, point{step: "commit"}, parts, clients)
	f.round(recovery)
	if d := recovery.Stats().Doubts; f.prepared() != 1 || len(d) != 1 || !strings.Contains(d[0].Reason, "about to commit") || d[0].Owner != "buyer" || d[0].Age <= 0 {
		t.Errorf("%d prepared, doubts %+v", f.prepared(), d)
	}
	outcome, code = resume()
	if bad := wrong(outcome, f.where(2)); outcome != Committed || code != "" || bad != "" {
		t.Error(outcome, code, bad)
	}

	// After the decision both do the same.
	parts, clients = f.begin(3)
	resume = f.stall(t, nil, point{step: "commit prepared", part: 1}, parts, clients)
	f.round(recovery)
	if on := f.where(3); on != "11" {
		t.Errorf("recovery has not committed: %s", on)
	}
	if outcome, code = resume(); outcome != Committed || code != "" {
		t.Error(outcome, code)
	}

	// It leaves alone what its own process is at, and what is young.
	parts, clients = f.begin(4)
	resume = f.stall(t, recovery, point{step: "decide"}, parts, clients)
	f.round(recovery)
	o.MinAge = time.Hour
	patient := f.closed(o)
	f.round(patient)
	if s := patient.Stats().Shards[1]; f.prepared() != 1 || s.Prepared != 1 || s.InDoubt != 0 {
		t.Errorf("%d prepared, %+v", f.prepared(), s)
	}
	if outcome, code = resume(); outcome != Committed || f.where(4) != "11" {
		t.Error(outcome, code)
	}
}

// testLatePrepare: a PREPARE that was under way when its coordinator ended lands
// after recovery has looked.
func testLatePrepare(t *testing.T, f *fleet) {
	o := f.options()
	o.MinAge = time.Hour
	r := f.closed(o)
	parts, clients := f.begin(1)
	var late string
	point{step: "prepare", part: 2}.at(clients, func() error { return errors.New("lost") })
	outcome, _ := f.commit(t.Context(), r, parts)
	for _, sql := range clients[2].log {
		if stepOf(sql) == "prepare" {
			late = sql
		}
	}
	f.round(r)
	clients[2].before = nil
	f.must(clients[2], late)
	if f.prepared() != 1 {
		t.Fatal("it has not landed")
	}
	f.round(r) // its age is not waited for: this process knows that it is nobody's
	if bad := wrong(outcome, f.where(1)); f.prepared() != 0 || bad != "" {
		t.Error(f.prepared(), bad)
	}
}

// testDeciderAway: what the deciding shard cannot be asked about stays.
func testDeciderAway(t *testing.T, f *fleet) {
	o := f.options()
	var away atomic.Bool
	direct := o.Shards[0].Connect
	o.Shards[0].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		if away.Load() {
			return nil, errors.New("no route to it")
		}
		return direct(ctx)
	}
	registry := prometheus.NewPedanticRegistry()
	o.Registerer = registry
	r := f.resolver(o)
	away.Store(true)
	eventually(t, "a look at the other shards", func() bool { s := r.Stats(); return s.Rounds > 0 && s.Shards[1].Err == nil })
	for id, p := range []point{{step: "decide"}, {step: "commit", after: true}} {
		parts, clients := f.begin(id)
		p.at(clients, func() error { clients[0].cut(); return errors.New("cut") })
		clients[1].before = func(sql string) error {
			if strings.HasPrefix(sql, "ROLLBACK PREPARED") {
				clients[1].cut()
				return errors.New("cut")
			}
			return nil
		}
		clients[2].before = clients[1].before
		clients[2].after = func(sql string) error { return clients[1].before(sql) }
		if outcome, err := f.commit(t.Context(), r, parts); outcome == Committed {
			t.Fatal(outcome, err)
		}
	}
	eventually(t, "in doubt", func() bool {
		s := r.Stats()
		return s.Shards[1].InDoubt == 2 && s.Shards[2].InDoubt >= 1 && s.Shards[1].Oldest > 0
	})
	for _, d := range r.Stats().Doubts {
		if !strings.Contains(d.Reason, `shard "s0", which decides it, cannot be asked: no route to it`) {
			t.Errorf("%+v", d)
		}
	}
	if got := metric(t, registry, "shardproxy_twopc_in_doubt", "s1"); got != 2 {
		t.Errorf("shardproxy_twopc_in_doubt is %v", got)
	}
	away.Store(false)
	f.settled()
	if a, b := f.where(0), f.where(1); a != "000" || b != "111" {
		t.Errorf("the rows are on %s and %s", a, b)
	}
	eventually(t, "nothing is in doubt", func() bool {
		s := r.Stats()
		return len(s.Doubts) == 0 && s.Shards[1].InDoubt == 0 && s.Shards[0].Err == nil
	})
	eventually(t, "counted", func() bool { s := r.Stats(); return s.Committed > 0 && s.RolledBack > 0 })
	if s := r.Stats(); s.RolledBack < 1 || metric(t, registry, "shardproxy_twopc_shard_reachable", "s0") != 1 ||
		metric(t, registry, "shardproxy_twopc_resolved_total", "committed") != float64(s.Committed) {
		t.Errorf("%+v", s)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if families, err := registry.Gather(); err != nil || len(families) > 0 {
		t.Errorf("metrics outlive the resolver: %v, %v", families, err)
	}
}

// metric returns a sample with a label's value.
func metric(t *testing.T, r *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Errorf("no %s of %s", name, label)
	return 0
}

func testLife(t *testing.T, f *fleet) {
	o := f.options()
	for _, bad := range []func(*ResolverOptions){
		func(o *ResolverOptions) { o.Cluster = "it's" },
		func(o *ResolverOptions) { o.Shards = append(o.Shards, o.Shards[0]) },
		func(o *ResolverOptions) { o.Shards = []Shard{{Name: "x"}} },
	} {
		o := f.options()
		bad(&o)
		if _, err := NewResolver(o); err == nil {
			t.Errorf("no error for %+v", o)
		}
	}
	r := f.closed(o)
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	if err := r.Open(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	// With an interval of an hour only a poke makes a round.
	o.Interval = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	r = f.closed(o)
	if err := errors.Join(r.Open(ctx), r.Open(ctx)); err != nil {
		t.Error(err)
	}
	cancel() // bounds nothing
	eventually(t, "a first round", func() bool { return r.Stats().Rounds == 1 })
	r.Poke()
	eventually(t, "a second round", func() bool { return r.Stats().Rounds == 2 })
	parts, clients := f.begin(1)
	point{step: "commit prepared", part: 1}.at(clients, func() error { clients[1].cut(); return errors.New("cut") })
	if outcome, err := f.commit(t.Context(), r, parts); outcome != Committed || err != nil {
		t.Error(outcome, err)
	}
	f.settled() // without its age being waited for, or the interval
	if f.where(1) != "11" {
		t.Error(f.where(1))
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Error(err)
	}
	r.Poke()
	r.end("x", true)
}

// testCloseWhileAShardHangs: a server that does not answer does not keep Close.
func testCloseWhileAShardHangs(t *testing.T, f *fleet) {
	o := f.options()
	hangs := make(chan struct{}, 100)
	o.Shards[1].Connect = func(ctx context.Context) (*pgx.Conn, error) {
		hangs <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	o.Timeout = time.Hour
	r := f.resolver(o)
	<-hangs
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
