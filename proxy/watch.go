package proxy

import (
	"sync"
	"time"

	"shardproxy/pool"
)

// copyPoll is how often what runs on several shards looks whether it is still wanted, and a
// COPY that waits for its client whether a shard has refused it already.
const copyPoll = 100 * time.Millisecond

// killGrace is how long a client whose session is ended may take to read what it is told of that.
const killGrace = time.Second

// watcher looks after what a parked session has run on several connections at once, which
// block: it has it cancelled there when it is not wanted any more. Until its end nothing runs
// on them that must not be hit: its requests have been taken by then.
type watcher struct {
	s      *session
	leases []*pool.Server
	giveUp func() // is called, once, before anything is cancelled
	// leaves is set when nobody reads from the client: what it asked for is not wanted any more
	// when it goes away.
	leaves bool
}

// begin watches until the function that it returns is called.
func (w *watcher) begin() (end func()) {
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		w.watch(done)
	}()
	return func() {
		close(done)
		<-over
	}
}

// watch returns once nothing is under way to the servers.
func (w *watcher) watch(done <-chan struct{}) {
	tick := time.NewTicker(copyPoll)
	defer tick.Stop()
	var cancels sync.WaitGroup
	defer cancels.Wait()
	client, cancelled := w.s.client.Socket(), false
	var killed time.Time
	for {
		select {
		case <-done:
			return
		case <-w.s.server.ctx.Done():
			for _, l := range w.leases {
				_ = l.Socket().Shutdown() // it is lost either way
			}
			if w.leaves {
				_ = client.Shutdown()
			}
			<-done
			return
		case <-tick.C:
		}
		for _, l := range w.leases {
			if l.Abandoned() {
				_ = l.Socket().Shutdown() // as above
			}
		}
		left := w.leaves && client.HungUp()
		if !cancelled && (left || w.s.cancelWanted()) {
			cancelled = true
			w.giveUp() // a server that waits for data heeds no cancel request
			for _, l := range w.leases {
				cancels.Go(func() { cancelUntil(l, done) })
			}
		}
		if killed.IsZero() && w.s.control.Load()&controlKill != 0 {
			killed = time.Now()
		}
		if w.leaves && (left || !killed.IsZero() && time.Since(killed) > killGrace) {
			_ = client.Shutdown() // or it would be waited for
		}
	}
}

// cancelUntil has a server's work cancelled until it has ended: a request that comes before the
// statement has begun is lost. No request is under way when it returns.
func cancelUntil(l *pool.Server, ended <-chan struct{}) {
	for {
		taken := make(chan struct{})
		l.Cancel(func() { close(taken) })
		<-taken
		select {
		case <-ended:
			return
		case <-time.After(copyPoll):
		}
	}
}
