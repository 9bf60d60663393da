package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"
)

// dialTimeout bounds connecting to the target.
const dialTimeout = 10 * time.Second

// Options of a Proxy.
type Options struct {
	// Target is the server's TCP address.
	Target string
	// RefuseTLS answers SSLRequest and GSSENCRequest with N itself, so that
	// clients that only prefer TLS go on without and rules see their messages.
	RefuseTLS bool
}

// Proxy relays connections to one target.
type Proxy struct {
	options Options
	counts  *counts

	mu       sync.Mutex
	door     *door
	mode     Mode
	target   string
	triggers []*Trigger
	conns    map[*conn]bool
	hung     []net.Conn
	accepted int
	flow     chan struct{} // closed while messages may flow
	closed   bool

	stop    context.CancelFunc // ends dials
	dialing context.Context
	running sync.WaitGroup // accept loops and connections
}

// New returns a proxy that does not listen yet.
func New(o Options) *Proxy {
	p := &Proxy{options: o, target: o.Target, counts: newCounts(), conns: map[*conn]bool{}, flow: make(chan struct{})}
	close(p.flow)
	return p
}

// Start returns a proxy that listens before target until the test ends.
func Start(t testing.TB, o Options) *Proxy {
	t.Helper()
	p := New(o)
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// Open starts to listen on a free port of 127.0.0.1.
func (p *Proxy) Open() error {
	d, err := openDoor()
	if err != nil {
		return fmt.Errorf("faultproxy: %w", err)
	}
	p.mu.Lock()
	p.door = d
	p.mode = Refuse
	p.dialing, p.stop = context.WithCancel(context.Background())
	p.mu.Unlock()
	return p.SetMode(Normal)
}

// Addr returns "127.0.0.1:port"; it never changes.
func (p *Proxy) Addr() string { return fmt.Sprintf("127.0.0.1:%d", p.Port()) }

// Port returns the port; it never changes.
func (p *Proxy) Port() int { return p.door.port }

// SetTarget changes the server that new connections go to.
func (p *Proxy) SetTarget(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// SetMode changes what happens to new connections. Connections that were left
// hanging stay so until Close.
func (p *Proxy) SetMode(mode Mode) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errors.New("faultproxy: closed")
	}
	p.door.shut()
	p.mode = mode
	var err error
	switch mode {
	case Normal, Hang:
		if err = p.door.listen(1024); err == nil {
			listener := p.door.listener
			p.running.Go(func() { p.accept(listener) })
		}
	case Blackhole:
		err = p.door.blackhole(p.dialing, p.Addr())
	case Refuse:
	}
	if err != nil {
		return fmt.Errorf("faultproxy: %w", err)
	}
	return nil
}

// On puts a rule to work. It panics on a rule that cannot be carried out,
// which is a mistake in the test.
func (p *Proxy) On(r Rule) *Trigger {
	if err := r.check(); err != nil {
		panic(err)
	}
	t := &Trigger{rule: r, fired: make(chan struct{}), free: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.triggers = append(p.triggers, t)
	return t
}

// Stall stops the flow in both directions of all connections, new ones too,
// without closing anything, as a network that loses everything does.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flow:
		p.flow = make(chan struct{})
	default:
	}
}

// Unstall lets everything flow again; nothing was lost.
func (p *Proxy) Unstall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.flow:
	default:
		close(p.flow)
	}
}

func (p *Proxy) flowing() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flow
}

// KillAll resets all connections that are open now and returns their number.
func (p *Proxy) KillAll() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.end(true)
	}
	return len(p.conns)
}

// Accepted returns how many connections were accepted until now.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// OpenConns returns how many connections are open now.
func (p *Proxy) OpenConns() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// Count returns how many messages of a kind (or Any) came from a side.
func (p *Proxy) Count(from Direction, kind byte) int { return p.counts.get(from, kind) }

// WaitCount waits until at least n messages of a kind came from a side.
func (p *Proxy) WaitCount(ctx context.Context, from Direction, kind byte, n int) error {
	if err := p.counts.wait(ctx, from, kind, n); err != nil {
		return fmt.Errorf("faultproxy: waiting for %d times %s of the %s, have %d: %w", n, kindName(kind), from, p.Count(from, kind), err)
	}
	return nil
}

// Close ends everything and waits. It may be called again.
func (p *Proxy) Close() {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		if p.door != nil {
			p.door.close()
			p.stop()
		}
		for c := range p.conns {
			c.end(true)
		}
		for _, h := range p.hung {
			h.Close()
		}
	}
	p.mu.Unlock()
	p.running.Wait()
}

// judge counts a message and returns the rules that fire at it.
func (p *Proxy) judge(from Direction, conn int, m message) []*Trigger {
	p.counts.add(from, m.kind)
	p.mu.Lock()
	triggers := p.triggers
	p.mu.Unlock()
	var fire []*Trigger
	for _, t := range triggers {
		if t.fires(from, conn, m) {
			fire = append(fire, t)
		}
	}
	return fire
}

// accept takes connections until its listener is closed.
func (p *Proxy) accept(listener *net.TCPListener) {
	for {
		client, err := listener.AcceptTCP()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.accepted++
		number, mode, target := p.accepted, p.mode, p.target
		switch {
		case p.closed:
			client.Close()
		case mode == Hang:
			p.hung = append(p.hung, client)
		default:
			p.running.Go(func() { p.serve(client, number, target) })
		}
		p.mu.Unlock()
	}
}

// serve relays one connection. A target that cannot be reached shows to the
// client as a reset.
func (p *Proxy) serve(client *net.TCPConn, number int, target string) {
	server, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(p.dialing, "tcp", target)
	if err != nil {
		_ = client.SetLinger(0)
		client.Close()
		return
	}
	c := &conn{proxy: p, number: number, client: client, server: server.(*net.TCPConn), expect: newExpectations(), over: make(chan struct{})}
	p.mu.Lock()
	if p.closed {
		c.end(true)
	}
	p.conns[c] = true // removed below, when the connection has ended
	p.mu.Unlock()
	c.run()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
}
