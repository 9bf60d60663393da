package proxy

import (
	"net"

	"shardproxy/wire"
)

// probe asks a loop for its counts on the loop's own goroutine.
type probe struct {
	loop   *loop
	counts chan wire.Calls
	spares chan int
}

// Ready implements wire.Waiter.
func (p *probe) Ready(s *wire.Socket, _, _ bool) {
	_ = s.Close() // it has served
	p.counts <- p.loop.poller.Calls()
	p.spares <- len(p.loop.spare)
}

// LoopCalls returns the sums of the loops' counts, and how many coroutines wait
// for work; nothing when there are no loops.
func (srv *Server) LoopCalls() (all wire.Calls, spares int, err error) {
	for _, l := range srv.loops {
		p := &probe{l, make(chan wire.Calls, 1), make(chan int, 1)}
		if err := p.ask(); err != nil {
			return all, 0, err
		}
		c := <-p.counts
		all.Waits += c.Waits
		all.Controls += c.Controls
		all.Reads += c.Reads
		all.Writes += c.Writes
		spares += <-p.spares
	}
	return all, spares, nil
}

func (p *probe) ask() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return err
	}
	b, err := l.Accept()
	if err != nil {
		return err
	}
	defer b.Close()
	s, err := wire.NewSocket(a)
	if err != nil {
		return err
	}
	if err := p.loop.poller.Add(s); err != nil {
		return err
	}
	var owner wire.Waiter = p
	s.SetOwner(&owner)
	if err := p.loop.poller.Arm(s, true, false); err != nil {
		return err
	}
	_, err = b.Write([]byte("x"))
	return err
}

// Loops returns how many loops drive the sessions.
func (srv *Server) Loops() int { return len(srv.loops) }
