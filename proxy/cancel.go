package proxy

import (
	"crypto/subtle"
	"sync/atomic"
	"time"

	"shardproxy/wire"
)

// Cancels counts the cancel requests that came, by whose session they named, and
// those of other processes that named one here.
type Cancels struct{ Own, Passed, Unknown, Received int64 }

type cancelCounts struct{ own, passed, unknown atomic.Int64 }

func (srv *Server) cancelled() Cancels {
	c := Cancels{Own: srv.cancels.own.Load(), Passed: srv.cancels.passed.Load(), Unknown: srv.cancels.unknown.Load()}
	if srv.opt.Peers != nil {
		c.Received = srv.opt.Peers.received.Load()
	}
	return c
}

// OpenPeers begins to serve the cancel requests that other processes pass on. It
// must come before clients do, who may have such.
func (srv *Server) OpenPeers() error {
	if srv.opt.Peers == nil {
		return nil
	}
	return srv.opt.Peers.open(srv.cancelOwn)
}

// Peers returns the other processes that cancel requests are passed on to.
func (srv *Server) Peers() []Peer { return srv.opt.Peers.List() }

// cancel deals with a client's cancel request, here or in another process.
func (srv *Server) cancel(key wire.CancelKey) {
	switch {
	case srv.cancelOwn(key):
		srv.cancels.own.Add(1)
	case srv.opt.Peers != nil && srv.opt.Peers.passOn(srv.ctx, key):
		srv.cancels.passed.Add(1)
	default:
		srv.cancels.unknown.Add(1)
		srv.opt.Logger.Info("cancel request for no session", "pid", key.PID)
	}
}

// cancelOwn passes a cancel request on to the session of ours that it names and
// waits, within bounds, until the server has been told, as clients expect of
// PostgreSQL. It reports whether there is such a session.
func (srv *Server) cancelOwn(key wire.CancelKey) bool {
	srv.mu.Lock()
	s := srv.sessions[key.PID]
	srv.mu.Unlock()
	if s == nil || subtle.ConstantTimeCompare([]byte(s.key.Secret), []byte(key.Secret)) != 1 {
		return srv.opt.Console != nil && srv.opt.Console.Cancel(key)
	}
	done := s.cancels.add()
	s.signal(controlCancel)
	select {
	case <-done:
	case <-time.After(5 * time.Second):
	case <-srv.ctx.Done():
	}
	return true
}
