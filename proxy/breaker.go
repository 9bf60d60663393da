package proxy

import (
	"errors"
	"time"

	"shardproxy/gate"
	"shardproxy/pool"
	"shardproxy/wire"
)

// A shard's breaker guards its primary: docs/design/limits.md. What counts against it is what clients are told and what
// is no overload: statements that waited for a primary in vain, connections that were lost, errors by which a
// server says that it is broken itself. Reads that a replica may answer go on.

// sick reports whether a server says by an error that it is broken: that its system fails it, or its
// data are corrupted. Files that are missing (58P01) or there already (58P02) are mostly those that a statement has named.
func sick(code string) bool {
	switch code {
	case "58000", "58030", "XX001", "XX002":
		return true
	}
	return false
}

// lost notes that the connection to a node was lost while a statement ran, of which the client is told.
func (sh *Shard) lost(node int, cause error) {
	sh.Nodes.Suspect(node, cause)
	sh.fails(node, "08006")
}

// fails notes a failure that speaks against a node.
func (sh *Shard) fails(node int, why string) {
	if p, ok := sh.Nodes.Primary(); !ok || p == node {
		sh.Breaker.Failed(why)
	}
}

// notesSick notes an error that a server has answered with, if it says that the server is broken.
func (s *session) notesSick(shard int, l *pool.Server, err error) {
	var e *wire.Error
	if err != nil && errors.As(err, &e) && e.Foreign && sick(e.Code) {
		s.db.Shards[shard].fails(l.Node, e.Code)
	}
}

// errBroken is what a statement is told that would need the primary of a shard which is left alone.
func (s *session) errBroken() *wire.Error {
	b := s.shard.Breaker.Status()
	e := wire.Errorf("57P03", "the shard is left alone for a while: too many statements have failed there").WithCause(errNoPrimary)
	if b.Tries > 0 {
		e = e.WithDetail("Shard %s: %d of %d failed within %v, the last with SQLSTATE %s.", s.shard.Name, b.Fails, b.Tries, s.db.Policy().Breaker.Window, b.Last)
	} else {
		e = e.WithDetail("Shard %s.", s.shard.Name)
	}
	if in := time.Until(b.Retry).Round(time.Second); b.State == gate.BreakerOpen && in > 0 {
		return e.WithHint("The statement was not executed. It may be tried again in %v. The database's breaker says when that is.", in)
	}
	return e.WithHint("The statement was not executed. It may be tried again shortly: the shard is being tried with some statements.")
}

// tickBreakers has the breakers of all shards draw their conclusions.
func (srv *Server) tickBreakers(now time.Time) {
	for _, db := range srv.settings.Load().Databases {
		o := db.Policy().Breaker
		for _, sh := range db.Shards {
			_, primary := sh.Nodes.Primary()
			if !sh.Breaker.Tick(o, primary && !sh.Gate.Closed(), now) {
				continue
			}
			b := sh.Breaker.Status()
			log := srv.opt.Logger.With("database", db.Name, "shard", sh.Name)
			switch b.State {
			case gate.BreakerOpen:
				log.Warn("circuit breaker opened", "tries", b.Tries, "failures", b.Fails, "sqlstate", b.Last, "until", b.Retry)
			case gate.BreakerHalfOpen:
				log.Info("circuit breaker tries the shard")
			default:
				log.Info("circuit breaker closed")
			}
		}
	}
}
