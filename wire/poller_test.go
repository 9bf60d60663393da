//go:build linux

package wire_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shardproxy/wire"
)

// told counts what an owner of sockets is told.
type told struct{ reads, writes int }

func (w *told) Ready(_ *wire.Socket, read, write bool) {
	if read {
		w.reads++
	}
	if write {
		w.writes++
	}
}

func newPoller(t testing.TB, hybrid bool) *wire.Poller {
	t.Helper()
	p, err := wire.NewPoller(hybrid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// owned returns a socket that p serves, who is told of it, and its peer.
func owned(t testing.TB, p *wire.Poller) (*wire.Socket, *told, net.Conn) {
	t.Helper()
	s, peer := socketPair(t, true)
	w := own(t, p, s)
	return s, w, peer
}

func own(t testing.TB, p *wire.Poller, s *wire.Socket) *told {
	t.Helper()
	if err := p.Add(s); err != nil {
		t.Fatal(err)
	}
	w := &told{}
	var owner wire.Waiter = w
	s.SetOwner(&owner)
	return w
}

func arm(t testing.TB, p *wire.Poller, s *wire.Socket, read, write bool) {
	t.Helper()
	if err := p.Arm(s, read, write); err != nil {
		t.Fatal(err)
	}
}

// deliver waits once and tells the owners; without block it gives the kernel time
// to bring what was sent.
func deliver(p *wire.Poller, block bool) (n int) {
	if !block {
		runtime.Gosched()
	}
	all := p.Wait(block)
	for _, r := range all {
		r.Owner.Ready(r.Socket, r.Read, r.Write)
	}
	return len(all)
}

func TestPollerTells(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		t.Run(fmt.Sprint(hybrid), func(t *testing.T) {
			p := newPoller(t, hybrid)
			s, w, peer := owned(t, p)
			arm(t, p, s, true, false)
			if deliver(p, false) != 0 {
				t.Fatal("told of nothing")
			}
			buf := make([]byte, 10)
			for range 3 {
				write(t, peer, []byte("x"))
				before := p.Calls()
				for w.reads == 0 {
					deliver(p, true)
				}
				// Level-triggered: what is not read is told again.
				if deliver(p, true); w.reads != 2 {
					t.Fatalf("told %d times", w.reads)
				}
				if n, err := s.Read(buf); n != 1 || err != nil {
					t.Fatal(n, err)
				}
				arm(t, p, s, true, false)
				after := p.Calls()
				if after.Controls != before.Controls || after.Reads-before.Reads != 1 {
					t.Errorf("%+v, then %+v", before, after)
				}
				w.reads = 0
			}
			peer.Close()
			for w.reads == 0 {
				deliver(p, true)
			}
			if _, err := s.Read(buf); err != io.EOF {
				t.Error(err)
			}
		})
	}
}

// TestPollerForgetsTheUnwanted shows that what nobody wants is told once to
// nobody and does not keep the loop busy, errors and hang-ups among it; and that
// it comes as soon as it is wanted again.
func TestPollerForgetsTheUnwanted(t *testing.T) {
	for _, hangsUp := range []bool{false, true} {
		t.Run(fmt.Sprint(hangsUp), func(t *testing.T) {
			p := newPoller(t, true)
			s, w, peer := owned(t, p)
			other, v, otherPeer := owned(t, p)
			arm(t, p, s, true, true)
			for w.writes == 0 {
				deliver(p, true)
			}
			arm(t, p, s, false, false)
			arm(t, p, other, true, false)
			write(t, peer, []byte("x"))
			if hangsUp {
				if err := peer.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
				peer.Close()
			}
			write(t, otherPeer, []byte("x"))
			*w = told{}
			waits, drain := p.Calls().Waits, make([]byte, 1)
			for v.reads == 0 || p.Calls().Waits-waits < 3 {
				deliver(p, true)
			}
			if _, err := other.Read(drain); err != nil {
				t.Fatal(err)
			}
			// Now nothing is left that would end a wait.
			time.AfterFunc(30*time.Millisecond, func() { write(t, otherPeer, []byte("y")) })
			waits, v.reads = p.Calls().Waits, 0
			for v.reads == 0 {
				deliver(p, true)
			}
			if n := p.Calls().Waits - waits; n > 5 {
				t.Errorf("%d waits for one event", n)
			}
			if *w != (told{}) {
				t.Errorf("told of what was not wanted: %+v", *w)
			}
			arm(t, p, s, true, false)
			for w.reads == 0 {
				deliver(p, true)
			}
		})
	}
}

// TestPollerWrites shows that room in a full socket is told of.
func TestPollerWrites(t *testing.T) {
	p := newPoller(t, true)
	s, w, peer := owned(t, p)
	big := make([]byte, 32<<20)
	if _, err := s.Write(big); err != nil || s.Pending() == 0 {
		t.Fatal(err, s.Pending())
	}
	got := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(peer, make([]byte, len(big)))
		got <- err
	}()
	for s.Pending() > 0 {
		arm(t, p, s, true, true)
		deliver(p, true)
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-got; err != nil || w.writes == 0 || w.reads > 0 {
		t.Error(err, *w)
	}
}

// TestPollerWithoutOwner shows how an idle server connection that speaks up is
// known: once, without a spinning loop, until somebody owns and waits for it again.
func TestPollerWithoutOwner(t *testing.T) {
	p := newPoller(t, true)
	s, w, peer := owned(t, p)
	if s.Silent(p) {
		t.Error("silent although nobody would have been told")
	}
	arm(t, p, s, true, false)
	s.Abandon()
	if !s.Silent(p) || s.Silent(nil) || s.Silent(newPoller(t, false)) {
		t.Error("not silent, or to one that does not serve it")
	}
	write(t, peer, []byte("x"))
	for s.Silent(p) {
		deliver(p, false)
	}
	if w.reads != 0 {
		t.Error("told a former owner")
	}
	if !s.Readable() {
		t.Error("not readable")
	}
	waits := p.Calls().Waits
	p.Drowse()
	time.AfterFunc(30*time.Millisecond, p.Wake)
	deliver(p, true)
	deliver(p, false)
	if n := p.Calls().Waits - waits; n > 4 {
		t.Errorf("%d waits", n)
	}
	w = own(t, p, s)
	arm(t, p, s, true, false)
	for w.reads == 0 {
		deliver(p, true)
	}
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if s.Abandon(); !s.Silent(p) {
		t.Error("not silent again")
	}
}

// TestPollerReusesNumbers closes sockets whose events are on their way, so that
// the numbers of their descriptors and slots are other sockets' by the time.
func TestPollerReusesNumbers(t *testing.T) {
	p := newPoller(t, true)
	for range 50 {
		s, w, peer := owned(t, p)
		arm(t, p, s, true, false)
		write(t, peer, []byte("x"))
		for !s.Readable() {
		}
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != wire.ErrClosed {
			t.Fatal(err)
		}
		next, v, _ := owned(t, p)
		arm(t, p, next, true, false)
		if deliver(p, false); v.reads+w.reads > 0 {
			t.Fatal("told of a socket that is gone")
		}
		next.Close()
	}
}

// TestPollersPassASocketOn moves a socket to and fro between two loops, with
// events at each moment, and closes others meanwhile.
func TestPollersPassASocketOn(t *testing.T) {
	pollers := [2]*wire.Poller{newPoller(t, true), newPoller(t, false)}
	turns := [2]chan *wire.Socket{make(chan *wire.Socket, 1), make(chan *wire.Socket, 1)}
	s, peer := socketPair(t, true)
	const rounds = 300
	var group sync.WaitGroup
	var over, failed atomic.Bool
	for i, p := range pollers {
		group.Go(func() {
			buf := make([]byte, 10)
			for range rounds {
				var mine *wire.Socket
				for mine == nil {
					p.Drowse()
					select {
					case mine = <-turns[i]:
					default:
						if failed.Load() {
							return
						}
						deliver(p, true) // nothing is ours now
					}
				}
				w := own(t, p, mine)
				arm(t, p, mine, true, false)
				for w.reads == 0 {
					deliver(p, true)
				}
				if n, err := mine.Read(buf); err != nil || n == 0 {
					t.Errorf("%d, %v", n, err)
					failed.Store(true)
					pollers[1-i].Wake()
					return
				}
				mine.Abandon()
				turns[1-i] <- mine
				pollers[1-i].Wake()
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !over.Load() {
			if _, err := peer.Write([]byte("x")); err != nil {
				return
			}
			<-time.After(50 * time.Microsecond) // what it writes comes at no moment in particular
		}
	}()
	turns[0] <- s
	pollers[0].Wake()
	group.Wait()
	over.Store(true)
	<-done
}

// TestWakeIsNotLost wakes a poller at every moment of its wait.
func TestWakeIsNotLost(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		p := newPoller(t, hybrid)
		var asked, seen atomic.Int64
		const turns = 20000
		err := returns(t, func() error {
			go func() {
				for i := range int64(turns) {
					asked.Store(i + 1)
					p.Wake()
					for seen.Load() <= i {
						runtime.Gosched()
					}
				}
			}()
			for seen.Load() < turns {
				p.Drowse()
				if asked.Load() == seen.Load() {
					p.Wait(true)
				} else {
					p.Wait(false)
				}
				seen.Store(asked.Load())
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestWaitLetsTheWorldStop measures how long what needs every processor waits for
// a loop, one that is busy and one that is not.
func TestWaitLetsTheWorldStop(t *testing.T) {
	if old := runtime.GOMAXPROCS(0); old < 2 { // a hybrid wait takes a processor for itself
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	}
	for _, busy := range []bool{true, false} {
		t.Run(fmt.Sprint("busy ", busy), func(t *testing.T) {
			p := newPoller(t, true)
			var over atomic.Bool
			var group sync.WaitGroup
			group.Go(func() {
				for !over.Load() {
					p.Drowse()
					if !over.Load() {
						p.Wait(true)
					}
				}
			})
			if busy {
				group.Go(func() {
					for !over.Load() {
						p.Wake()
						<-time.After(time.Millisecond) // within the limit of a raw wait
					}
				})
			}
			var took []time.Duration
			var stats runtime.MemStats
			for range 100 {
				begun := time.Now()
				runtime.ReadMemStats(&stats) // stops the world
				took = append(took, time.Since(begun))
				<-time.After(100 * time.Microsecond)
			}
			begun := time.Now()
			for range 10 {
				runtime.GC()
			}
			collections := time.Since(begun)
			over.Store(true)
			p.Wake()
			group.Wait()
			slices.Sort(took)
			t.Logf("to stop the world: median %v, longest %v; ten collections %v", took[50], took[99], collections)
			// Without a bound each would wait for the next event, or for ever. The
			// machine may be slow; the bound is of another order.
			if took[50] > 20*time.Millisecond || collections > 5*time.Second {
				t.Errorf("to stop the world: median %v, longest %v; ten collections %v", took[50], took[99], collections)
			}
		})
	}
}

// TestDetachedBlocks shows the blocking mode, which resets of server connections
// use, on a detached socket.
func TestDetachedBlocks(t *testing.T) {
	p := newPoller(t, true)
	s, _, peer := owned(t, p)
	if err := s.SetNonBlocking(false); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v", err)
	}
	if n, err := s.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("write: %d, %v", n, err)
	}
	go func() { _, _ = io.Copy(io.Discard, peer) }()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Write(make([]byte, 16<<20)); err != nil || n != 16<<20 {
		t.Errorf("write: %d, %v", n, err)
	}
	time.AfterFunc(10*time.Millisecond, func() { write(t, peer, []byte("x")) })
	if n, err := s.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("read: %d, %v", n, err)
	}
	if err := s.SetNonBlocking(true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != wire.ErrWouldBlock {
		t.Errorf("read: %v", err)
	}
	if err := s.CloseRead(); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read: %v", err)
	}
}

// TestDetachKeepsTheConnection shows that what was accepted may be closed after
// Detach, that it has left the runtime's poller, and what it refuses.
func TestDetachKeepsTheConnection(t *testing.T) {
	a, peer := tcpPair(t)
	s, err := wire.NewSocket(a)
	if err != nil {
		t.Fatal(err)
	}
	s.Unread([]byte("x"))
	if s.Detach() == nil {
		t.Error("bytes given back are lost")
	}
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Detach(), s.Detach()); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("not left: %v", err)
	}
	write(t, peer, []byte("y"))
	if n, err := s.Read(make([]byte, 10)); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := peer.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a copy of the descriptor is open: %v", err)
	}
	closed, _ := socketPair(t, true)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := closed.Detach(); err != wire.ErrClosed {
		t.Errorf("detached a closed socket: %v", err)
	}
}

// TestAddFails shows that a full table of descriptors costs the one socket.
func TestAddFails(t *testing.T) {
	p := newPoller(t, true)
	s, _ := socketPair(t, true)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	none := old
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err := p.Add(s)
	if e := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); e != nil {
		t.Fatal(e)
	}
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("%v", err)
	}
	if err := p.Add(s); err != nil {
		t.Errorf("not as it was: %v", err)
	}
}

// TestPollerAllocates measures the loop's own part of a statement.
func TestPollerAllocates(t *testing.T) {
	if raceEnabled {
		return
	}
	p := newPoller(t, true)
	s, w, peer := owned(t, p)
	arm(t, p, s, true, false)
	buf := make([]byte, 10)
	if n := testing.AllocsPerRun(1000, func() {
		write(t, peer, buf[:1])
		for w.reads == 0 {
			deliver(p, true)
		}
		w.reads = 0
		if _, err := s.Read(buf); err != nil {
			t.Fatal(err)
		}
		arm(t, p, s, true, false)
		p.Drowse()
		p.Wake()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
