package proxy

import (
	"errors"
	"runtime"
	"runtime/debug"

	"shardproxy/pool"
	"shardproxy/wire"
)

// Driver says what runs the sessions.
type Driver uint8

const (
	// DriverAuto is DriverLoop where the system has it, else DriverGoroutine.
	DriverAuto Driver = iota
	// DriverLoop runs all sessions on a few event loops.
	DriverLoop
	// DriverGoroutine runs each session by a goroutine of its own.
	DriverGoroutine
)

// openLoops starts the event loops. Where there can be none, goroutines drive
// the sessions.
func (srv *Server) openLoops() {
	if srv.opt.Driver == DriverGoroutine || srv.opt.Driver == DriverAuto && !wire.PollerSupported {
		return
	}
	processors := runtime.GOMAXPROCS(0)
	n := srv.opt.Loops
	if n <= 0 {
		n = max(1, processors/4)
	}
	for range n {
		// A loop that waits past the scheduler has a processor for itself.
		l, err := newLoop(srv, !srv.opt.PlainWait && processors > n)
		if err != nil {
			srv.opt.Logger.Warn("no event loop; goroutines drive the sessions", "error", err)
			break
		}
		srv.loops = append(srv.loops, l)
		srv.tasks.Go(l.run)
	}
}

// driver gives a session what drives it. The function it returns begins the
// session; it returns when the session has ended or a loop has taken it over.
func (srv *Server) driver(s *session) func() {
	if len(srv.loops) == 0 {
		s.work = &work{}
		s.task = newThreadTask()
		return func() { s.serve() }
	}
	l := srv.loops[int(srv.nextLoop.Add(1))%len(srv.loops)]
	t := newLoopTask(l, s)
	s.task, s.near = t, l.poller
	return func() {
		// Here, for the caller closes what it accepted.
		if err := s.client.Socket().Detach(); err != nil {
			s.work = &work{}
			s.leave(s.clientError(err))
			return
		}
		srv.clients.Add(1) // until the loop has ended the session
		t.wake()
	}
}

// serve runs the session by this goroutine, from its greeting to its end.
func (s *session) serve() {
	defer s.survive()
	s.task.adopt(s.client.Socket())
	err := s.greet()
	if err == nil {
		err = s.run()
	}
	s.leave(err)
}

// leave ends the session, telling the client why.
func (s *session) leave(err error) {
	if !errors.Is(err, errEnded) {
		s.farewell(err)
	}
	s.end()
}

// survive ends a session that panicked; to be deferred.
func (s *session) survive() {
	if p := recover(); p != nil {
		s.panicked(p)
	}
}

// panicked ends a session that cannot go on. One client's input must never end
// the process.
func (s *session) panicked(p any) {
	s.server.opt.Logger.Error("session panicked", "session", s.id, "panic", p, "stack", string(debug.Stack()))
	defer func() {
		if p := recover(); p != nil {
			s.server.opt.Logger.Error("end of a session panicked", "session", s.id, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if s.lease != nil {
		s.giveBack(pool.Dead)
	}
	s.end()
}
