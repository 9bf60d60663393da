package proxy

import (
	"crypto/tls"
	"time"
)

// SessionInfo describes one session for operators.
type SessionInfo struct {
	ID              uint64
	PID             uint32 // of the cancel key, as the client knows it
	User, Database  string
	ApplicationName string
	Mode            Mode
	Phase           Phase
	Addr, LocalAddr string
	Connected       time.Time
	Since           time.Time // when Phase began, at most sweepInterval off
	TLS             string    // version and cipher suite; empty without
	Pinned          string    // why it keeps its server connection; empty when it does not
	Lease           *LeaseInfo
}

// LeaseInfo describes the server connection that a session holds.
type LeaseInfo struct {
	ID      uint64
	PID     uint32
	Node    int
	Address string
	Created time.Time
	TLS     string
}

// Phase says what a session does.
type Phase uint8

// The phases of a session, in the order of the internal ones.
const (
	PhaseIdle Phase = iota
	PhaseActive
	PhaseWaiting
	PhaseHeld
	PhaseIdleInTx
)

// Sessions describes every session that is logged in.
func (srv *Server) Sessions() []SessionInfo {
	var all []SessionInfo
	srv.each(func(s *session) {
		if p := phase(s.phase.Load()); p != phaseEnded {
			all = append(all, s.info(p))
		}
	})
	return all
}

func (s *session) info(p phase) SessionInfo {
	i := SessionInfo{
		ID: s.id, PID: s.key.PID, User: s.userName, Database: s.db.Name, Mode: s.mode, Phase: Phase(p),
		Addr: s.addr, LocalAddr: s.localAddr.Value(), Connected: s.started, Since: time.Unix(0, s.since.Load()), TLS: s.tlsName.Value(),
	}
	if name := s.appName.Load(); name != nil {
		i.ApplicationName = *name
	}
	if why := s.pinnedWhy.Load(); why != nil {
		i.Pinned = *why
	}
	if l := s.leased.Load(); l != nil {
		// Only what never changes after login: the lease is the session's.
		i.Lease = &LeaseInfo{ID: l.ID(), PID: l.PID, Node: l.Node, Address: l.Address(), Created: l.Created()}
		if l.TLS() != nil {
			i.Lease.TLS = "on"
		}
	}
	return i
}

// tlsName names version and cipher suite.
func tlsName(c *tls.Conn) string {
	if c == nil {
		return ""
	}
	st := c.ConnectionState()
	return tls.VersionName(st.Version) + "/" + tls.CipherSuiteName(st.CipherSuite)
}
