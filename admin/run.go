package admin

import (
	"context"
	"errors"
	"slices"

	"shardproxy/audit"
	"shardproxy/wire"
)

// compile parses a text and finds its command.
func (s *session) compile(sql string) (*prepared, *wire.Error) {
	r, e := parse(sql)
	if e != nil {
		return nil, e
	}
	if r == (request{}) {
		return &prepared{}, nil
	}
	cmd, e := s.console.commands.find(r, sql)
	if e != nil {
		return nil, e
	}
	st := &prepared{request: r, command: cmd}
	if r.rows != nil {
		if cmd.columns == nil {
			return nil, wire.Errorf("42601", "%s has no rows to choose from", cmd.name)
		}
		if st.chooser, e = r.rows.bind(cmd.columns); e != nil {
			return nil, e
		}
	}
	return st, nil
}

// mayRun says whether the state of the transaction lets the statement run.
func (s *session) mayRun(st *prepared) *wire.Error {
	ends := []string{"commit", "end", "rollback", "abort"}
	switch {
	case st.command == nil:
		return nil
	case s.tx == 'E' && !slices.Contains(ends, st.request.verb):
		return wire.Errorf("25P02", "current transaction is aborted, commands ignored until end of transaction block")
	case s.tx != 'I' && st.command.needs == maySteer:
		return wire.Errorf("25001", "%s cannot run inside a transaction block", st.command.name).
			WithHint("Nothing that it does can be rolled back. Use autocommit.")
	}
	return nil
}

// run carries a command out if the client may and the transaction lets it.
// Commands that steer are logged, whatever comes of them.
func (s *session) run(st *prepared) (result, *wire.Error) {
	cmd := st.command
	if !cmd.needs.heldBy(s.id) {
		e := wire.Errorf("42501", "permission denied: %s is for admin users", cmd.name)
		s.notes("console command refused", "command", st.request.text(), "error", e.Message)
		s.audits(st, audit.Order{Outcome: audit.Refused}, e)
		s.console.metrics.count(cmd, e)
		return result{}, e
	}
	if e := s.mayRun(st); e != nil {
		return result{}, e
	}
	ctx, end := s.begin(cmd)
	defer end()
	if cmd.needs == maySteer {
		s.notes("console command", "command", st.request.text())
		s.audits(st, audit.Order{Outcome: audit.Begun}, nil)
	}
	began := s.console.opt.Clock()
	res, e := cmd.run(ctx, s, st.request)
	if st.chooser != nil && e == nil {
		res.rows = st.chooser.choose(res.rows)
	}
	s.console.metrics.count(cmd, e)
	if cmd.needs == maySteer {
		took := s.console.opt.Clock().Sub(began)
		if e != nil {
			var cause error
			if errors.Unwrap(e) != nil {
				cause = errors.Unwrap(e)
			}
			s.notes("console command failed", "command", st.request.text(), "error", e.Message, "detail", e.Detail, "cause", cause, "took", took)
			s.audits(st, audit.Order{Outcome: audit.Failed, Took: took}, e)
		} else {
			s.notes("console command done", "command", st.request.text(), "took", took)
			line := audit.Order{Outcome: audit.Done, Took: took}
			if res.notice != nil {
				line.Said = res.notice.Message
			}
			s.audits(st, line, nil)
		}
	}
	return res, e
}

// begin returns the context of a command, which a cancel request ends, and so
// does the client's going when the command is one that waits. Others are not
// left half done.
func (s *session) begin(cmd *command) (context.Context, func()) {
	parent := s.serverCtx
	if cmd.waits {
		parent = s.ctx
	}
	ctx, cancel := context.WithCancel(parent)
	s.mu.Lock()
	s.cancel = cancel
	s.mu.Unlock()
	return ctx, func() {
		s.mu.Lock()
		s.cancel = nil
		s.mu.Unlock()
		cancel()
	}
}

// cancelCommand ends the command that runs, if one does. Any goroutine may call it.
func (s *session) cancelCommand() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel()
	}
}

// notes logs what an operator did.
func (s *session) notes(what string, args ...any) {
	s.console.opt.Logger.Info(what, append([]any{"user", s.id.User, "client", s.addr, "console", s.number}, args...)...)
}

// audits writes it down.
func (s *session) audits(st *prepared, line audit.Order, e *wire.Error) {
	line.Session, line.By, line.Text = audit.Session{User: s.id.User, Database: s.database, Client: s.addr}, "console", st.request.text()
	if e != nil {
		line.SQLState, line.Reason = e.Code, e.Message
	}
	s.console.opt.Audit.Order(&line)
}

// text returns the request as the log has it.
func (r request) text() (text string) {
	t := r.verb
	if r.verb == "block" || r.verb == "unblock" {
		if r.name, r.arg, r.hasArg = r.shownStatement(), "", false; r.term > 0 {
			defer func() { text += " for " + r.term.String() }()
		}
	}
	if r.name != "" {
		t += " " + r.name
	}
	if r.hasArg {
		t += " " + r.arg
	}
	if r.plan != nil {
		t += r.plan.text()
	}
	if r.force {
		t += " force"
	}
	if r.hasIn {
		t += " in " + r.in
	}
	return t
}
