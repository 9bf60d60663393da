package wire_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"shardproxy/wire"
)

// serve runs a poller's loop until the function that it returns is called.
func serve(t *testing.T, p *wire.Poller) (stop func()) {
	t.Helper()
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			p.Drowse()
			select {
			case <-end:
				return
			default:
			}
			deliver(p, true)
		}
	}()
	return func() {
		close(end)
		p.Wake()
		<-ended
	}
}

func blocks(t *testing.T, s *wire.Socket) {
	t.Helper()
	if err := s.SetNonBlocking(false); err != nil {
		t.Fatal(err)
	}
}

// TestBlockedByPoller: who reads and writes in blocking mode is told by the poller that serves the socket,
// once, and the owner, who has the socket again behind that, of nothing that came meanwhile.
func TestBlockedByPoller(t *testing.T) {
	for _, hybrid := range []bool{false, true} {
		p := newPoller(t, hybrid)
		s, w, peer := owned(t, p)
		arm(t, p, s, true, false) // as it was when it had the session's attention
		blocks(t, s)
		stop := serve(t, p)
		buf := make([]byte, 10)
		for range 20 {
			go func() {
				<-time.After(2 * time.Millisecond)
				_, _ = peer.Write([]byte("x"))
			}()
			if n, err := s.Read(buf); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		// Both ways at once, more than the buffers of both sides take.
		big := bytes.Repeat([]byte("y"), 16<<20)
		go func() { _, _ = io.Copy(peer, peer) }()
		got := make(chan int64, 1)
		go func() {
			n, _ := io.Copy(io.Discard, io.LimitReader(s, int64(len(big))))
			got <- n
		}()
		if n, err := s.Write(big); n != len(big) || err != nil || <-got != int64(len(big)) {
			t.Fatal(n, err)
		}
		stop()
		if w.reads+w.writes > 0 {
			t.Errorf("the owner was told %d times", w.reads+w.writes)
		}
		if c := p.Calls(); c.Waits > 2000 {
			t.Errorf("told of the same again and again: %+v", c)
		}
		if err := s.SetNonBlocking(true); err != nil {
			t.Fatal(err)
		}
		arm(t, p, s, true, false)
		write(t, peer, []byte("x"))
		for w.reads == 0 {
			deliver(p, true)
		}
	}
}

// TestBlockedUntil: a blocked read ends with its deadline, with the connection, and goes on without its poller.
func TestBlockedUntil(t *testing.T) {
	p := newPoller(t, false)
	s, _, peer := owned(t, p)
	blocks(t, s)
	stop := serve(t, p)
	buf := make([]byte, 10)
	began := time.Now()
	for _, d := range []time.Duration{-time.Second, 10 * time.Millisecond, 250 * time.Millisecond} {
		if err := s.SetReadDeadline(time.Now().Add(d)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 260*time.Millisecond || took > 2*time.Second {
		t.Errorf("ended after %v", took)
	}
	if err := s.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := s.Read(buf)
		read <- err
	}()
	<-time.After(20 * time.Millisecond)
	stop()
	p.Close()
	write(t, peer, []byte("x"))
	if err := <-read; err != nil {
		t.Error(err)
	}
	go func() {
		_, err := s.Read(buf)
		read <- err
	}()
	<-time.After(20 * time.Millisecond)
	if err := s.Shutdown(); err != nil {
		t.Error(err)
	}
	if err := <-read; err != io.EOF {
		t.Error(err)
	}
}
