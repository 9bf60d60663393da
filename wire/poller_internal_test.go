//go:build linux

package wire

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

type tellNobody struct{ t *testing.T }

func (w tellNobody) Ready(*Socket, bool, bool) { w.t.Error("told") }

// TestSlotsOfClosedSockets shows that slots are used again, and that an event which
// was on its way when its socket was closed is nobody's.
func TestSlotsOfClosedSockets(t *testing.T) {
	p, err := NewPoller(false)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var owner Waiter = tellNobody{t}
	var late unix.EpollEvent
	for i := range 20 {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewSocket(nc)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Add(s); err != nil {
			t.Fatal(err)
		}
		s.SetOwner(&owner)
		if err := p.Arm(s, true, false); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			p.mu.Lock()
			p.noteLocked(&late)
			p.mu.Unlock()
			if len(p.ready) > 0 || s.armed == 0 {
				t.Fatal("an event of a socket that is gone is taken for another's")
			}
		}
		late = unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.slot), Pad: int32(p.slots[s.slot].gen)}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s.poller != nil || len(p.slots) > 2 || len(p.free) != 1 {
			t.Fatalf("%d slots, %d free", len(p.slots), len(p.free))
		}
	}
}
