package proxy

import (
	"context"
	"net"
	"sync"
	"time"
)

// Bounds of a hand-over.
const (
	handOverQuiet = 500 * time.Millisecond // without a login under way
	handOverTime  = 5 * time.Second        // for the logins that are
	handOverLook  = 20 * time.Millisecond
)

// Leaver is a listener on an address that other processes listen on too.
type Leaver interface {
	net.Listener
	// Leave has new clients go to the others, gives Accept time to take those who
	// came here before, and closes the listener; when ctx ends, at once.
	Leave(ctx context.Context)
}

// handOver leaves the addresses that are shared with other processes, and serves
// those who came here meanwhile like everybody: for them no shutdown has begun.
// It returns when none of them is logging in, and they have had time for a first
// statement. Without such addresses it does nothing.
func (srv *Server) handOver(ctx context.Context) {
	var leaving sync.WaitGroup
	shared := false
	srv.mu.Lock()
	for _, l := range srv.listeners {
		if l, ok := l.(Leaver); ok {
			shared = true
			leaving.Go(func() { l.Leave(ctx) })
		}
	}
	srv.mu.Unlock()
	leaving.Wait()
	if !shared {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	tick := time.NewTicker(handOverLook)
	defer tick.Stop()
	for quiet := time.Duration(0); quiet < handOverQuiet; quiet += handOverLook {
		if srv.LoggingIn() > 0 {
			quiet = 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
