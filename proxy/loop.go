package proxy

import (
	"iter"
	"slices"
	"sync/atomic"

	"shardproxy/wire"
)

// loop drives many sessions by one goroutine. It runs each session's turn when
// something has come for it: a session that has nothing to do has no stack.
//
// Now and then a session waits in the middle of its turn: for a server
// connection, at the gate, for a text that is parsed aside. Its stack must stay
// then. The loop itself therefore runs in a coroutine, a worker: the session's
// wait leaves that worker behind, parked, with the stack in it, and another worker
// goes on with the loop. When the wait is over, the one in charge switches to the
// parked one until the session's turn is over or it waits again.
//
// All fields but woken and stopping belong to whichever worker runs.
type loop struct {
	poller   *wire.Poller
	woken    atomic.Pointer[loopTask] // last first
	stopping atomic.Bool

	ready   []*loopTask // to be run, in this order
	at      int         // the next of them
	later   []*loopTask // to be run after what has come by then
	charge  *worker     // runs the loop
	running *worker     // runs: charge, or one that it has switched to
	spare   []*worker   // have nothing to do
	works   []*work     // are lent to sessions that are not at rest
	ended   bool
	looked  bool // for events, since sessions that were woken had their turn
}

// sparesMax bounds the workers that are kept for the next wait, worksMax the works.
const (
	sparesMax = 64
	worksMax  = 64
)

// worker is a coroutine.
type worker struct {
	resume func() (struct{}, bool)
	stop   func()
	yield  func(struct{}) bool
}

func newLoop(_ *Server, hybrid bool) (*loop, error) {
	p, err := wire.NewPoller(hybrid)
	if err != nil {
		return nil, err
	}
	return &loop{poller: p}, nil
}

// stop has run return; every session has ended before.
func (l *loop) stop() {
	l.stopping.Store(true)
	l.poller.Wake()
}

// run is the loop's goroutine.
func (l *loop) run() {
	for !l.ended {
		w := l.worker()
		l.charge, l.running = w, w
		w.resume() // until it leaves the charge to another
	}
	for _, w := range l.spare {
		w.stop()
	}
	l.poller.Close()
}

// worker returns one that has nothing to do.
func (l *loop) worker() *worker {
	if n := len(l.spare); n > 0 {
		w := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return w
	}
	w := &worker{}
	w.resume, w.stop = iter.Pull(func(yield func(struct{}) bool) {
		w.yield = yield
		for {
			l.work(w)
			if l.ended || len(l.spare) == sparesMax {
				return
			}
			l.spare = append(l.spare, w)
			if !yield(struct{}{}) {
				return
			}
		}
	})
	return w
}

// work runs sessions as long as w is in charge.
func (l *loop) work(w *worker) {
	for l.charge == w {
		if l.at == len(l.ready) {
			l.gather()
			continue
		}
		t := l.ready[l.at]
		l.ready[l.at] = nil
		l.at++
		l.step(t)
	}
}

// gather finds out which sessions can go on. Those that were woken by what others of
// this loop have just done, most of all given server connections back, go on at once:
// to look for events in between is a system call that brings few.
func (l *loop) gather() {
	l.ready, l.at = l.ready[:0], 0
	if l.looked && l.woken.Load() != nil {
		l.looked = false
		l.gatherWoken()
		return
	}
	l.looked = true
	l.poller.Drowse() // before the look at what has been woken
	if l.stopping.Load() {
		l.ended, l.charge = true, nil
		return
	}
	for _, r := range l.poller.Wait(l.woken.Load() == nil && len(l.later) == 0) {
		r.Owner.Ready(r.Socket, r.Read, r.Write)
	}
	for i, t := range l.later {
		l.enqueue(t)
		l.later[i] = nil
	}
	l.later = l.later[:0]
	l.gatherWoken()
}

// gatherWoken takes the sessions that were woken, in the order of their wake-ups.
func (l *loop) gatherWoken() {
	first := len(l.ready)
	for t := l.woken.Swap(nil); t != nil; {
		next := t.next
		t.next = nil
		t.posted.Store(false) // from here on a wake counts anew
		l.enqueue(t)
		t = next
	}
	slices.Reverse(l.ready[first:])
}

func (l *loop) enqueue(t *loopTask) {
	if !t.queued {
		t.queued = true
		l.ready = append(l.ready, t)
	}
}

// step goes on with a session.
func (l *loop) step(t *loopTask) {
	t.queued = false
	switch {
	case t.ended:
	case t.parked == nil:
		t.turn()
	default:
		w := l.running
		l.running = t.parked
		t.parked.resume()
		l.running = w
	}
}
