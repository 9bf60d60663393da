package proxy

import (
	"sync/atomic"

	"shardproxy/wire"
)

// interest says what a parked session waits for on one socket.
type interest struct {
	socket      *wire.Socket
	read, write bool
}

// task is what drives a session: it parks it and lets others wake it.
type task interface {
	// await parks the session until a socket is ready for what is asked of it,
	// or wake was called since the last await returned. It may return early.
	// client and server tell which side is worth a read.
	await(c, s interest) (client, server bool)
	// wake makes the running or the next await return. Any goroutine may call it.
	wake()
	// adopt makes the readiness of a socket wake the session.
	adopt(*wire.Socket)
	// release ends what adopt began, for a while.
	release(*wire.Socket)
	// aside runs what takes long, and returns when it is done.
	aside(f func())
	// awaits reports whether awaitAny may be called.
	awaits() bool
	// awaitAny parks the session until one of several server connections is ready, or wake was called
	// since the last await returned. It may return early.
	awaitAny(on []interest)
}

// threadTask drives a session by a goroutine of its own. With one thing to
// wait for, the goroutine itself waits on the socket; with several, one watch
// goroutine a socket wakes it; with none, only a wake does. Nothing in it allocates.
type threadTask struct {
	signal chan struct{} // one slot, so that a wake between awaits is kept
	inline atomic.Pointer[wire.Socket]
	notify func()
}

func newThreadTask() *threadTask {
	t := &threadTask{signal: make(chan struct{}, 1)}
	t.notify = t.post
	return t
}

func (t *threadTask) adopt(s *wire.Socket) { s.SetNotify(&t.notify) }

// release has nothing to do: who waits for nothing on a socket is not told of it.
func (t *threadTask) release(*wire.Socket) {}

// aside has nobody to spare.
func (t *threadTask) aside(f func()) { f() }

// awaits implements task: each of several sockets would need a watch.
func (t *threadTask) awaits() bool { return false }

func (t *threadTask) awaitAny([]interest) {}

func (t *threadTask) post() {
	select {
	case t.signal <- struct{}{}:
	default:
	}
}

func (t *threadTask) wake() {
	t.post()
	if s := t.inline.Load(); s != nil {
		s.Interrupt()
	}
}

func (t *threadTask) await(c, s interest) (client, server bool) {
	if !c.write && !s.write && c.read != s.read {
		sock := c.socket
		if s.read {
			sock = s.socket
		}
		// A watch from an earlier await would take the interrupt for itself.
		if !sock.Watched() {
			ready := t.awaitInline(sock)
			return c.read && ready, s.read && ready
		}
	}
	for _, i := range [...]interest{c, s} {
		if i.read {
			i.socket.Watch(false)
		}
		if i.write {
			i.socket.Watch(true)
		}
	}
	<-t.signal
	return c.read, s.read
}

// awaitInline waits for the socket and reports whether it is worth a read.
func (t *threadTask) awaitInline(sock *wire.Socket) (ready bool) {
	t.inline.Store(sock)
	select {
	case <-t.signal:
	default:
		// A wake from here on interrupts the await. Any other error is found again
		// by the read.
		ready = sock.AwaitReadable() != wire.ErrInterrupted
	}
	t.inline.Store(nil)
	select {
	case <-t.signal:
	default:
	}
	return ready
}
