package proxy

import (
	"errors"
	"io"
	"net"
	"time"

	"shardproxy/audit"
	"shardproxy/query"
	"shardproxy/router"
	"shardproxy/tally"
	"shardproxy/wire"
)

// Who has done what is written down, as far as it is wanted: docs/design/audit.md.

// auditsAs returns whose doing it is.
func (s *session) auditsAs() audit.Session {
	return audit.Session{Number: s.id, User: s.userName, Database: s.db.Name, Client: s.addr}
}

// audits writes a statement down that is over, if it is of those that are. e may be nil: no statement ran.
func (s *session) audits(e *tally.Entry, shard int, outcome string) {
	to := s.server.opt.Audit
	if e == nil || !to.Wants(e.Does()) {
		return
	}
	t := &s.tallying
	line := audit.Statement{Session: s.auditsAs(), Does: e.Does(), Text: e.Text, Outcome: outcome, Rows: t.rows}
	if e.Fingerprint != 0 {
		line.Fingerprint = query.FingerprintName(e.Fingerprint)
	}
	if outcome != audit.Done && t.slow != nil {
		line.SQLState = t.slow.code
	}
	if outcome != audit.Refused {
		line.Shards = s.namesOf(shard)
	}
	to.Statement(&line)
}

// namesOf names a shard, or those of the last statement that ran on several.
func (s *session) namesOf(shard int) string {
	switch {
	case shard >= 0 && shard < len(s.db.Shards):
		return s.db.Shards[shard].Name
	case shard != tally.Several:
		return ""
	}
	n := s.tallying.slow
	if n == nil {
		n = &slowNotes{}
	}
	return s.namesOn(n.on)
}

// auditsEnd writes a statement down whose last reply has been relayed, or made.
func (s *session) auditsEnd(e *tally.Entry, shard int) {
	outcome := audit.Done
	if s.tallying.failed {
		outcome = audit.Failed
	}
	s.audits(e, shard, outcome)
}

// auditsRefused writes a statement down that is sent nowhere, and whose client is about to be told why.
func (s *session) auditsRefused(e *tally.Entry, why *wire.Error) {
	s.notesForAudit()
	if n := s.tallying.slow; n != nil {
		n.code = why.Code
	}
	s.audits(e, 0, audit.Refused)
}

// auditsKept writes a query down that was answered from what is kept.
func (s *session) auditsKept(p *router.Plan) {
	e := s.tallyOf(p)
	if to := s.server.opt.Audit; e != nil && to.Wants(e.Does()) {
		to.Statement(&audit.Statement{
			Session: s.auditsAs(), Does: e.Does(), Text: e.Text, Fingerprint: query.FingerprintName(e.Fingerprint), Outcome: audit.Done, Kept: true,
		})
	}
}

// auditsCut writes down what is under way in a session that ends.
func (s *session) auditsCut() {
	if t := &s.tallying; t.entry != nil {
		s.audits(t.entry, int(t.shard), audit.Unknown)
	}
	s.auditsOwed()
}

// auditsOwed writes down what is under way on a server that is lost: nobody knows whether it has run.
func (s *session) auditsOwed() {
	if !s.server.opt.Audit.Wants(tally.DoesAll) {
		return
	}
	for i := s.owed.head; i < len(s.owed.items); i++ {
		if e := &s.owed.items[i]; e.runs() && e.instead == nil {
			s.audits(s.tallyOf(e.plan), s.index, audit.Unknown)
		}
	}
}

// notesForAudit makes the place for what a line tells of a statement besides, if any is to be.
func (s *session) notesForAudit() {
	if s.tallying.slow == nil && s.server.opt.Audit.Wants(tally.DoesAll) {
		s.tallying.slow = &slowNotes{}
	}
}

// auditsLogin writes down that a client is in.
func (srv *Server) auditsLogin(c *stream, who audit.Session, console bool) {
	srv.opt.Audit.Login(&audit.Login{Session: who, By: c.method, TLS: tlsName(c.tls), App: c.application, Outcome: audit.Done, Console: console})
}

// auditsRefusal writes down that a client was turned away.
func (srv *Server) auditsRefusal(c *stream, err error) {
	line := audit.Login{
		Session: audit.Session{User: c.user, Database: c.database, Client: peer(c.socket.RemoteAddr())}, By: c.method,
		TLS: tlsName(c.tls), App: c.application, Outcome: audit.Refused, Reason: err.Error(),
	}
	var e *wire.Error
	if errors.As(err, &e) {
		line.SQLState = e.Code
	}
	srv.opt.Audit.Login(&line)
}

// leaves reports whether a connection ended that had said nothing, or in the middle: a port check, or a client that changed its mind.
func leaves(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) }

// auditsLogout writes down that a session is over.
func (s *session) auditsLogout() {
	if to := s.server.opt.Audit; to != nil {
		who := s.auditsAs()
		to.Logout(&who, time.Since(s.started))
	}
}
