package proxy

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"shardproxy/wire"
)

// loopTask is a session's place on a loop. Nothing in it allocates.
type loopTask struct {
	loop    *loop
	session *session
	owner   wire.Waiter // itself, for sockets to point to
	parked  *worker     // holds the stack of a session that waits in its turn

	next   *loopTask // in loop.woken
	posted atomic.Bool

	queued, begun, ended bool
	client, server       bool // what is worth a read
}

func newLoopTask(l *loop, s *session) *loopTask {
	t := &loopTask{loop: l, session: s}
	t.owner = t
	return t
}

// wake implements task.
func (t *loopTask) wake() {
	if t.posted.Swap(true) {
		return // it will be run in any case
	}
	l := t.loop
	for {
		t.next = l.woken.Load()
		if l.woken.CompareAndSwap(t.next, t) {
			break
		}
	}
	l.poller.Wake()
}

// Ready implements wire.Waiter.
func (t *loopTask) Ready(s *wire.Socket, read, _ bool) {
	if s == t.session.client.Socket() {
		t.client = t.client || read
	} else {
		t.server = t.server || read
	}
	t.loop.enqueue(t)
}

// adopt implements task. A socket that cannot be served is closed, which the
// session finds out when it uses it.
func (t *loopTask) adopt(s *wire.Socket) {
	if err := t.loop.poller.Add(s); err != nil {
		t.unserved(s, err)
		return
	}
	s.SetOwner(&t.owner)
}

// release implements task.
func (t *loopTask) release(s *wire.Socket) { t.arm(s, interest{}) }

func (t *loopTask) unserved(s *wire.Socket, err error) {
	t.session.server.opt.Logger.Error("connection not served", "session", t.session.id, "error", err)
	_ = s.Close() // it is of no use
	t.wake()
}

// await implements task, for waits in the middle of a turn.
func (t *loopTask) await(c, s interest) (client, server bool) {
	t.watch(c, s)
	client, server = t.park()
	return client && c.read, server && s.read
}

// awaits implements task.
func (t *loopTask) awaits() bool { return true }

// awaitAny implements task.
func (t *loopTask) awaitAny(on []interest) {
	t.watch(interest{}, interest{})
	for _, i := range on {
		t.arm(i.socket, i)
	}
	t.park()
}

// park leaves the session's stack behind until the loop goes on with it.
func (t *loopTask) park() (client, server bool) {
	l := t.loop
	w := l.running
	if l.charge == w {
		l.charge = nil
	}
	t.parked = w
	w.yield(struct{}{})
	t.parked = nil
	client, server = t.client, t.server
	t.client, t.server = false, false
	return client, server
}

// watch says what is waited for.
func (t *loopTask) watch(c, s interest) {
	t.arm(t.session.client.Socket(), c)
	if lease := t.session.lease; lease != nil {
		t.arm(lease.Socket(), s)
	}
}

func (t *loopTask) arm(s *wire.Socket, i interest) {
	if s.Poller() != t.loop.poller {
		return // it was closed: see adopt
	}
	if err := t.loop.poller.Arm(s, i.read, i.write); err != nil {
		t.unserved(s, err)
	}
}

// aside implements task: f runs in a goroutine, and the session is parked.
func (t *loopTask) aside(f func()) {
	var done atomic.Bool
	var failure error
	go func() {
		defer func() {
			if p := recover(); p != nil {
				failure = fmt.Errorf("%v\n%s", p, debug.Stack())
			}
			done.Store(true)
			t.wake()
		}()
		f()
	}()
	for !done.Load() {
		t.await(interest{}, interest{})
	}
	if failure != nil {
		panic(failure)
	}
}

// lend gives the session what it needs while it is not at rest.
func (t *loopTask) lend() {
	l := t.loop
	if n := len(l.works); n > 0 {
		t.session.work, l.works = l.works[n-1], l.works[:n-1]
		return
	}
	t.session.work = &work{}
}

// takeBack takes what lend gave from a session at rest, or at its end.
func (t *loopTask) takeBack() {
	w := t.session.work
	t.session.work = nil
	if l := t.loop; len(l.works) < worksMax {
		w.reset()
		l.works = append(l.works, w)
	}
}

// turn goes on with the session until it waits.
func (t *loopTask) turn() {
	s := t.session
	if s.work == nil {
		t.lend()
	}
	defer t.survive()
	var err error
	if !t.begun {
		t.begun = true
		t.adopt(s.client.Socket())
		err = s.greet()
	}
	if err == nil {
		client, server := t.client, t.server
		t.client, t.server = false, false
		var c, sv interest
		if c, sv, err = s.turn(client, server); err == nil {
			if s.again {
				t.loop.later = append(t.loop.later, t)
			} else {
				t.watch(c, sv)
				if s.resting && s.work.unused() {
					t.takeBack()
				}
			}
			return
		}
	}
	s.leave(err)
	t.end()
}

func (t *loopTask) survive() {
	if t.ended {
		return
	}
	if p := recover(); p != nil {
		t.session.panicked(p)
		t.end()
	}
}

func (t *loopTask) end() {
	t.ended = true
	t.session.server.clients.Done()
}
