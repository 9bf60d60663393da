package wire_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/wire"
)

func TestNonBlockingRead(t *testing.T) {
	s, peer := socketPair(t, true)
	p := make([]byte, 10)
	n, err := s.Read(p)
	if n != 0 || !errors.Is(err, wire.ErrWouldBlock) {
		t.Fatalf("%d, %v", n, err)
	}
	var ne net.Error
	if !errors.As(err, &ne) || !ne.Timeout() || err.Error() == "" {
		t.Error("crypto/tls takes this error for the end")
	}
	if s.Readable() {
		t.Error("readable without bytes")
	}
	write(t, peer, []byte("hello world"))
	if err := s.AwaitReadable(); err != nil || !s.Readable() {
		t.Fatal(err)
	}
	s.Unread([]byte("given back, "))
	var got []byte
	for len(got) < len("given back, hello world") {
		n, err := s.Read(p)
		if err != nil && !errors.Is(err, wire.ErrWouldBlock) {
			t.Fatal(err)
		}
		got = append(got, p[:n]...)
	}
	if string(got) != "given back, hello world" {
		t.Errorf("%q", got)
	}
	if n, err := s.Read(nil); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	peer.Close()
	if err := s.AwaitReadable(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(p); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestWriteNeverWaits(t *testing.T) {
	s, peer := socketPair(t, true)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	for at := 0; at < len(want); at += 1 << 20 {
		if n, err := s.Write(want[at : at+1<<20]); n != 1<<20 || err != nil {
			t.Fatal(n, err)
		}
	}
	if s.Pending() == 0 {
		t.Fatal("a peer that does not read took everything")
	}
	pending := s.Pending()
	if err := s.Flush(); err != nil || s.Pending() > pending {
		t.Fatal(s.Pending(), err)
	}
	got := make(chan []byte, 1)
	go func() {
		p, _ := io.ReadAll(io.LimitReader(peer, int64(len(want))))
		got <- p
	}()
	for s.Pending() > 0 {
		if err := returns(t, s.AwaitWritable); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(<-got, want) {
		t.Error("bytes were lost or turned round")
	}
	peer.Close()
	for err := error(nil); err == nil; {
		_, err = s.Write(want[:1<<16])
	}
}

func TestSocketClosed(t *testing.T) {
	s, _ := socketPair(t, true)
	waiting := make(chan error, 2)
	go func() { waiting <- s.AwaitReadable() }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := returns(t, func() error { return <-waiting }); err == nil {
		t.Log("the await ended before it began to wait")
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, err := s.Write([]byte("x")); !errors.Is(err, wire.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if !s.Readable() {
		t.Error("a closed socket must not look idle")
	}
}

func TestCloseRead(t *testing.T) {
	s, _ := socketPair(t, true)
	waiting := make(chan error, 1)
	go func() { waiting <- s.AwaitReadable() }()
	if err := s.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if err := returns(t, func() error { return <-waiting }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
}

func TestNoFileDescriptor(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := wire.NewSocket(a); err == nil {
		t.Error("a pipe is no socket")
	}
}

// TestInterrupt wakes an await, before and while it waits, without harm to the
// bytes.
func TestInterrupt(t *testing.T) {
	s, peer := socketPair(t, true)
	for range 100 {
		s.Interrupt()
		if err := returns(t, s.AwaitReadable); err != wire.ErrInterrupted {
			t.Fatal(err)
		}
		waiting := make(chan error, 1)
		go func() { waiting <- s.AwaitReadable() }()
		s.Interrupt()
		if err := returns(t, func() error { return <-waiting }); err != wire.ErrInterrupted {
			t.Fatal(err)
		}
	}
	write(t, peer, []byte("x"))
	s.Interrupt()
	p := make([]byte, 1)
	if err := returns(t, s.AwaitReadable); err != wire.ErrInterrupted {
		t.Fatal(err)
	}
	// It is as it was: with a byte to read, and then without.
	if err := returns(t, s.AwaitReadable); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(p); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- s.AwaitReadable() }()
	write(t, peer, p)
	if err := returns(t, func() error { return <-waiting }); err != nil {
		t.Fatal(err)
	}
}

// TestInterruptRace interrupts at any moment; every byte still arrives.
func TestInterruptRace(t *testing.T) {
	s, peer := socketPair(t, true)
	const total = 20000
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			s.Interrupt()
		}
	})
	wg.Go(func() {
		for range total / 10 {
			if _, err := peer.Write([]byte("0123456789")); err != nil {
				t.Error(err)
				return
			}
		}
	})
	p := make([]byte, 7)
	for got := 0; got < total; {
		if err := returns(t, s.AwaitReadable); err != nil && err != wire.ErrInterrupted {
			t.Fatal(err)
		}
		n, err := s.Read(p)
		if err != nil && !errors.Is(err, wire.ErrWouldBlock) {
			t.Fatal(err)
		}
		got += n
	}
	stop.Store(true)
	wg.Wait()
}

// TestDeadlineSurvivesWatch has a watch of a former user under way while a
// blocking read with a deadline waits: the deadline holds.
func TestDeadlineSurvivesWatch(t *testing.T) {
	s, _ := socketPair(t, true)
	for range 30 { // the watch begins to wait at different moments
		s.Watch(false)
		if err := s.SetNonBlocking(false); err != nil {
			t.Fatal(err)
		}
		if err := s.SetDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		s.Interrupt()
		err := returns(t, func() error {
			_, err := s.Read(make([]byte, 1))
			return err
		})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if err := s.SetNonBlocking(true); err != nil {
			t.Fatal(err)
		}
	}
	// An interrupt works again: for the last watch, which would take it from the
	// await, and then for the await.
	for s.Watched() {
		s.Interrupt()
		<-time.After(time.Millisecond)
	}
	s.Interrupt()
	if err := returns(t, s.AwaitReadable); err != wire.ErrInterrupted {
		t.Error(err)
	}
}

// TestDeadlineBesideInterrupt sets deadlines while others interrupt and await at any
// moment: no deadline comes early, and none is lost.
func TestDeadlineBesideInterrupt(t *testing.T) {
	s, _ := socketPair(t, true)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for _, disturb := range []func(){s.Interrupt, func() { _ = s.AwaitReadable() }} {
		wg.Go(func() {
			for !stop.Load() {
				disturb()
			}
		})
	}
	defer func() {
		stop.Store(true)
		s.Close()
		wg.Wait()
	}()
	for range 1000 {
		const wait = time.Millisecond
		if err := s.SetNonBlocking(false); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if err := s.SetDeadline(begun.Add(wait)); err != nil {
			t.Fatal(err)
		}
		err := returns(t, func() error {
			_, err := s.Read(make([]byte, 1))
			return err
		})
		if took := time.Since(begun); !errors.Is(err, os.ErrDeadlineExceeded) || took < wait {
			t.Fatalf("got %v behind %v", err, took)
		}
		if err := s.SetNonBlocking(true); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatch(t *testing.T) {
	s, peer := socketPair(t, true)
	told := make(chan struct{}, 10)
	tell := func() { told <- struct{}{} }
	s.SetNotify(&tell)
	s.Watch(false)
	s.Watch(false) // is watching once
	if !s.Watched() {
		t.Error("not watched")
	}
	select {
	case <-told:
		t.Fatal("told of nothing")
	default:
	}
	write(t, peer, []byte("x"))
	if err := returns(t, func() error { <-told; return nil }); err != nil {
		t.Fatal(err)
	}
	if s.Watched() || len(told) != 0 {
		t.Error("told twice, or still watched")
	}
	s.Watch(true) // writable at once
	if err := returns(t, func() error { <-told; return nil }); err != nil {
		t.Fatal(err)
	}
	// Whoever is to be told may change while a watch runs.
	if _, err := s.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	s.Watch(false)
	other := make(chan struct{}, 1)
	tellOther := func() { other <- struct{}{} }
	s.SetNotify(&tellOther)
	peer.Close()
	if err := returns(t, func() error { <-other; return nil }); err != nil {
		t.Fatal(err)
	}
	s.SetNotify(nil)
	s.Watch(false) // the end is readable; nobody is told
	if err := returns(t, func() error {
		for s.Watched() {
			<-time.After(time.Millisecond)
		}
		return nil
	}); err != nil || len(told)+len(other) != 0 {
		t.Error("told somebody")
	}
}

// TestWatchRace runs watches, interrupts, reads and a close at once.
func TestWatchRace(t *testing.T) {
	for range 20 {
		s, peer := socketPair(t, true)
		nothing := func() {}
		s.SetNotify(&nothing)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for i := range 200 {
					s.Watch(i%2 == 0)
					s.Interrupt()
				}
			})
		}
		wg.Go(func() {
			for range 50 {
				if _, err := peer.Write([]byte("x")); err != nil {
					return
				}
			}
			peer.Close()
		})
		p := make([]byte, 3)
		for err := error(nil); err == nil || errors.Is(err, wire.ErrWouldBlock); {
			_, err = s.Read(p)
		}
		s.Close()
		wg.Wait()
		for s.Watched() {
			<-time.After(time.Millisecond)
		}
	}
}

func TestBlockingMode(t *testing.T) {
	s, peer := socketPair(t, false)
	write(t, s, []byte("there"))
	if got := readAll(t, peer, 5); string(got) != "there" {
		t.Errorf("%q", got)
	}
	if err := s.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetWriteDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if s.LocalAddr().String() != peer.RemoteAddr().String() || s.RemoteAddr().String() != peer.LocalAddr().String() {
		t.Error("wrong addresses")
	}
}
