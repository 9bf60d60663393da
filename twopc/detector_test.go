package twopc

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// watcher is a detector as one proxy has it, and what it was told to cancel.
type watcher struct {
	*Detector
	mu      sync.Mutex
	victims []Victim
	took    bool // what Cancel says
}

// watch opens one that is told of suspects all the while.
func (f *fleet) watch(suspects ...Suspect) *watcher {
	f.t.Helper()
	w := &watcher{took: true}
	o := DetectorOptions{Cluster: f.cluster, Timeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler), Cancel: func(v Victim) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.victims = append(w.victims, v)
		return w.took
	}}
	for i, s := range f.shards {
		connect := s.control()
		if i == len(f.shards)-1 { // one shard does not answer
			connect = func(ctx context.Context) (*pgx.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		o.Shards = append(o.Shards, Shard{Name: s.name, Connect: connect})
	}
	var err error
	if w.Detector, err = NewDetector(o); err != nil {
		f.t.Fatal(err)
	}
	if err := w.Open(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				w.Hunt(suspects)
			}
		}
	}()
	f.t.Cleanup(func() {
		close(stop)
		<-stopped
		began := time.Now()
		if err := w.Close(); err != nil || time.Since(began) > 2*time.Second {
			f.t.Errorf("Close: %v, after %v", err, time.Since(began))
		}
	})
	return w
}

func (w *watcher) seen() []Victim {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.victims
}

// part begins a part of a transaction.
func (f *fleet) part(shard int, m Mark) *client {
	f.t.Helper()
	c := f.client(shard)
	f.must(c, "BEGIN; SELECT "+m.Lock())
	return c
}

// TestDetector: two transactions of two proxies wait for each other on two of three shards,
// which are databases of one server. The third does not answer.
func TestDetector(t *testing.T) {
	f := newFleet(t, 3)
	const old, young Mark = 0x80000001, 7
	// Clients log in as somebody else than they act as: see client.
	f.shards[0].node.Exec("postgres", "GRANT pg_read_all_stats TO app")
	defer f.shards[0].node.Exec("postgres", "REVOKE pg_read_all_stats FROM app")
	old0, old1 := f.part(0, old), f.part(1, old)
	f.must(old0, "INSERT INTO t VALUES (1)")
	young1, young0 := f.part(1, young), f.part(0, young)
	f.must(young1, "INSERT INTO t VALUES (1)")
	first, second := f.watch(Suspect{Mark: old, Since: 3}), f.watch(Suspect{Mark: young, Since: 4})
	var waits sync.WaitGroup
	var oldErr, youngErr error
	waits.Go(func() { oldErr = old1.Exec(context.Background(), "INSERT INTO t VALUES (1)") })
	eventually(t, "both look while one waits", func() bool { return first.Looks() > 1 && second.Looks() > 1 })
	if n := len(first.seen()) + len(second.seen()); n > 0 {
		t.Errorf("%d victims before anybody waits in a circle", n)
	}
	began := time.Now()
	waits.Go(func() { youngErr = young0.Exec(context.Background(), "INSERT INTO t VALUES (1)") })
	eventually(t, "there is a victim", func() bool { return len(second.seen()) > 0 })
	if took := time.Since(began); took < DefaultDeadlockTimeout {
		t.Errorf("after %v, when the servers may have found it themselves", took)
	}
	v := second.seen()[0]
	if v.Mark != young || v.Since != 4 || v.Shard != f.shards[0].name || v.PID != young0.pg.PID() || strings.Count(v.Detail, "\n") != 1 ||
		!strings.Contains(v.Detail, fmt.Sprintf("process %d of transaction %s", young0.pg.PID(), young)) {
		t.Errorf("victim %+v", v)
	}
	if err := young0.pg.CancelRequest(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.must(young1, "ROLLBACK")
	waits.Wait()
	if oldErr != nil || youngErr == nil {
		t.Errorf("the older one: %v, the younger one: %v", oldErr, youngErr)
	}
	found := len(second.seen())
	looks := second.Looks()
	eventually(t, "it looks again", func() bool { return second.Looks() > looks+1 })
	if len(second.seen()) > found || len(first.seen()) > 0 {
		t.Errorf("victims %+v and %+v", first.seen(), second.seen())
	}
}

// TestDetectorPrepared: the older one is prepared on one shard, and is to be committed.
func TestDetectorPrepared(t *testing.T) {
	f := newFleet(t, 3)
	const commits, other Mark = 5, 4
	other1, other0 := f.part(1, other), f.part(0, other)
	f.must(other1, "INSERT INTO t VALUES (1)")
	commits0, commits1 := f.part(0, commits), f.part(1, commits)
	f.must(commits0, "INSERT INTO t VALUES (1)")
	name := partName(newGID(f.cluster, f.shards[1].name), 1)
	f.must(commits0, durable+"PREPARE TRANSACTION '"+name+"'")
	var waits sync.WaitGroup
	waits.Go(func() { _ = commits1.Exec(context.Background(), durable+"INSERT INTO t VALUES (1)") })
	waits.Go(func() { _ = other0.Exec(context.Background(), "INSERT INTO t VALUES (1)") })
	w := f.watch(Suspect{Mark: commits}, Suspect{Mark: other})
	eventually(t, "there is a victim", func() bool { return len(w.seen()) > 0 })
	v := w.seen()[0]
	if v.Mark != other || v.PID != other0.pg.PID() || !strings.Contains(v.Detail, "blocked by prepared transaction "+name+" of transaction "+commits.String()) {
		t.Errorf("victim %+v", v)
	}
	f.do(0, "ROLLBACK PREPARED '"+name+"'")
	f.must(other1, "ROLLBACK")
	waits.Wait()
}
