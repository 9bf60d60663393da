package wire_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"shardproxy/wire"
)

// connPair returns a plain Conn and its peer.
func connPair(t testing.TB, buffers *wire.Buffers) (*wire.Conn, net.Conn) {
	t.Helper()
	s, peer := socketPair(t, true)
	return wire.NewConn(s, nil, buffers), peer
}

// TestBufferAgainstModel compares the read buffer with a slice that holds
// everything that was ever sent.
func TestBufferAgainstModel(t *testing.T) {
	buffers := &wire.Buffers{}
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, peer := connPair(t, buffers)
		var all []byte
		read, filled, held := 0, 0, -1
		counter := byte(0)
		for range 1500 {
			switch n := r.IntN(20); {
			case n < 8:
				if sent := len(all); sent-filled < 100<<10 {
					p := make([]byte, r.IntN([]int{10, 1000, 70000}[r.IntN(3)]))
					for i := range p {
						p[i] = counter
						counter += 31
					}
					all = append(all, p...)
					write(t, peer, p)
				}
				was := len(c.Buffered())
				err := c.Fill([]int{0, 0, 5, 100, 70 << 10, 200 << 10}[r.IntN(6)])
				if err != nil && !errors.Is(err, wire.ErrWouldBlock) {
					t.Fatal(err)
				}
				if err == nil && len(c.Buffered()) == was {
					t.Fatalf("seed %d: read nothing and says nothing", seed)
				}
				filled += len(c.Buffered()) - was
			case n < 15:
				if b := len(c.Buffered()); b > 0 {
					n := 1 + r.IntN(b)
					if r.IntN(3) == 0 {
						n = b
					}
					c.Discard(n)
					read += n
				}
			case n < 17:
				c.Hold()
				held = read
			case n < 18:
				c.Rewind()
				if held >= 0 {
					read, held = held, -1
				}
			default:
				c.Release()
				held = -1
			}
			if got := c.Buffered(); !bytes.Equal(got, all[read:filled]) {
				t.Fatalf("seed %d: %d bytes buffered, want %d equal ones", seed, len(got), filled-read)
			}
			if want := max(0, read-held); held >= 0 && c.Held() != want || held < 0 && c.Held() != 0 {
				t.Fatalf("seed %d: holds %d, want %d", seed, c.Held(), want)
			}
			if c.Received() != uint64(filled) {
				t.Fatalf("received %d, want %d", c.Received(), filled)
			}
		}
		c.Drop()
		if len(c.Buffered()) != 0 {
			t.Error("dropped and still there")
		}
	}
}

// TestInsert puts bytes ahead of what is unread, wherever in its buffer that is.
func TestInsert(t *testing.T) {
	buffers := &wire.Buffers{}
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		c, peer := connPair(t, buffers)
		var want []byte
		counter := byte(0)
		some := func(n int) []byte {
			p := make([]byte, n)
			for i := range p {
				p[i] = counter
				counter += 37
			}
			return p
		}
		for range 200 {
			switch r.IntN(3) {
			case 0:
				p := some(1 + r.IntN(3000))
				write(t, peer, p)
				for want = append(want, p...); len(c.Buffered()) < len(want); {
					if err := c.Fill(0); err != nil && !errors.Is(err, wire.ErrWouldBlock) {
						t.Fatal(err)
					}
				}
			case 1:
				p := some(r.IntN([]int{10, 1000, 200_000}[r.IntN(3)]))
				c.Insert(p)
				want = append(bytes.Clone(p), want...)
			default:
				n := r.IntN(len(want) + 1)
				if r.IntN(4) == 0 {
					n = len(want)
				}
				c.Discard(n)
				want = want[n:]
			}
			if !bytes.Equal(c.Buffered(), want) {
				t.Fatalf("seed %d: %d bytes buffered, want %d, or they differ", seed, len(c.Buffered()), len(want))
			}
		}
	}
}

func TestHeader(t *testing.T) {
	for _, test := range []struct {
		bytes string
		kind  byte
		size  int
		ok    bool
		bad   bool
	}{
		{"", 0, 0, false, false},
		{"Q\x00\x00\x00", 0, 0, false, false},
		{"Q\x00\x00\x00\x04", 'Q', 5, true, false},
		{"Q\x00\x00\x00\x63", 'Q', 100, true, false},
		{"Q\x00\x00\x00\x64", 'Q', 0, true, true},
		{"Q\x00\x00\x00\x03", 'Q', 0, true, true},
		{"Q\x00\x00\x00\x00", 'Q', 0, true, true},
		{"\x00\x7f\xff\xff\xff", 0, 0, true, true},
		{"Q\x80\x00\x00\x00", 'Q', 0, true, true},
		{"Q\xff\xff\xff\xff", 'Q', 0, true, true},
	} {
		c, peer := connPair(t, &wire.Buffers{})
		if test.bytes != "" {
			write(t, peer, []byte(test.bytes))
			for len(c.Buffered()) < len(test.bytes) {
				if err := c.Socket().AwaitReadable(); err != nil {
					t.Fatal(err)
				}
				if err := c.Fill(0); err != nil {
					t.Fatal(err)
				}
			}
		}
		kind, size, ok, err := c.Header(100)
		var we *wire.Error
		if test.bad {
			if !errors.As(err, &we) || we.Code != "08P01" || !we.IsFatal() || we.Detail == "" {
				t.Errorf("%q: %v", test.bytes, err)
			}
		} else if err != nil || size != test.size || ok != test.ok {
			t.Errorf("%q: size %d, %v, %v", test.bytes, size, ok, err)
		}
		if kind != test.kind {
			t.Errorf("%q: kind %d", test.bytes, kind)
		}
	}
}

// TestOutputOrder mixes small and large pieces and direct appends; the peer
// gets them in order.
func TestOutputOrder(t *testing.T) {
	c, peer := connPair(t, &wire.Buffers{})
	r := rand.New(rand.NewPCG(1, 2))
	var want []byte
	got := make(chan []byte, 1)
	const total = 8 << 20
	go func() {
		p, _ := io.ReadAll(peer)
		got <- p
	}()
	for i := 0; len(want) < total; i++ {
		p := bytes.Repeat([]byte{byte(i)}, r.IntN([]int{20, 3000, 100000}[r.IntN(3)]))
		want = append(want, p...)
		if r.IntN(2) == 0 {
			if err := c.Queue(p); err != nil {
				t.Fatal(err)
			}
		} else {
			c.SetOutput(append(c.Output(), p...))
			if len(p) > 0 && !c.Unflushed() {
				t.Fatal("nothing to flush after an append")
			}
		}
		if c.Sent() != uint64(len(want)) {
			t.Fatalf("sent %d, want %d", c.Sent(), len(want))
		}
		if r.IntN(4) == 0 {
			if err := c.Flush(); err != nil {
				t.Fatal(err)
			}
			if c.Unflushed() {
				t.Fatal("still unflushed")
			}
		}
	}
	drain(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, want) {
		t.Error("other bytes arrived")
	}
}

// drain flushes until the peer has everything.
func drain(t *testing.T, c *wire.Conn) {
	t.Helper()
	for c.Pending() > 0 {
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
		if c.Pending() > 0 {
			if err := returns(t, c.Socket().AwaitWritable); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFillAtTheEnd(t *testing.T) {
	c, peer := connPair(t, &wire.Buffers{})
	if err := c.Fill(0); !errors.Is(err, wire.ErrWouldBlock) {
		t.Errorf("got %v", err)
	}
	peer.Close()
	if err := c.Socket().AwaitReadable(); err != nil {
		t.Fatal(err)
	}
	if err := c.Fill(0); err != io.EOF {
		t.Errorf("got %v", err)
	}
}

// slowWire keeps what is written to it until the test wants it sent.
type slowWire struct {
	net.Conn
	keep bool
	kept []byte
}

func (w *slowWire) Write(p []byte) (int, error) {
	if w.keep {
		w.kept = append(w.kept, p...)
		return len(p), nil
	}
	return w.Conn.Write(p)
}

func serverTLS(t testing.TB, maxVersion uint16) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MaxVersion: maxVersion}
}

// tlsPair returns a Conn under TLS, in non-blocking mode, and its client.
func tlsPair(t *testing.T, version uint16) (*wire.Conn, *tls.Conn, *slowWire) {
	t.Helper()
	s, peer := socketPair(t, false)
	slow := &slowWire{Conn: peer}
	// The certificate is the test's own and self-signed.
	client := tls.Client(slow, &tls.Config{InsecureSkipVerify: true})
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	server := tls.Server(s, serverTLS(t, version))
	if err := server.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.SetNonBlocking(true); err != nil {
		t.Fatal(err)
	}
	return wire.NewConn(s, server, &wire.Buffers{}), client, slow
}

// TestTLSRecordsInPieces sends records byte by byte to a Conn that looks after
// each: it waits for the rest, and loses nothing.
func TestTLSRecordsInPieces(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c, client, slow := tlsPair(t, version)
		if c.TLS() == nil {
			t.Fatal("no TLS")
		}
		slow.keep = true
		want := bytes.Repeat([]byte("some text, "), 40)
		write(t, client, want[:100])
		write(t, client, want[100:101])
		write(t, client, want[101:])
		var got []byte
		for i := range slow.kept {
			write(t, slow.Conn, slow.kept[i:i+1])
			if err := returns(t, c.Socket().AwaitReadable); err != nil {
				t.Fatal(err)
			}
			for {
				err := c.Fill(0)
				if errors.Is(err, wire.ErrWouldBlock) {
					if c.More() {
						t.Fatal("claims more after it found nothing")
					}
					break
				}
				if err != nil {
					t.Fatalf("byte %d of %d: %v", i, len(slow.kept), err)
				}
				if !c.More() {
					t.Fatal("forgets what the TLS layer may hold")
				}
				got = append(got, c.Buffered()...)
				c.Discard(len(c.Buffered()))
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%x: %d bytes, want %d", version, len(got), len(want))
		}
		client.Close()
		c.Close()
	}
}

// TestTLSOutput writes more than the peer takes; nothing waits, nothing is lost.
func TestTLSOutput(t *testing.T) {
	c, client, _ := tlsPair(t, tls.VersionTLS13)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	for at := 0; at < len(want); at += 1 << 19 {
		if err := c.Queue(want[at : at+1<<19]); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Flush(); err != nil || c.Pending() == 0 {
		t.Fatal(c.Pending(), err)
	}
	got := make(chan []byte, 1)
	go func() {
		p, _ := io.ReadAll(client)
		got <- p
	}()
	drain(t, c)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-got, want) {
		t.Error("other bytes arrived")
	}
}

// TestRelayAllocates measures the steady state of a relay: one frame in, one
// frame out.
func TestRelayAllocates(t *testing.T) {
	if raceEnabled {
		return // sync.Pool drops at random then
	}
	buffers := &wire.Buffers{}
	from, client := connPair(t, buffers)
	to, server := connPair(t, buffers)
	frame := wire.AppendQuery(nil, "SELECT 1")
	arrived := make([]byte, len(frame))
	relay := func() {
		if _, err := client.Write(frame); err != nil {
			t.Fatal(err)
		}
		for from.Fill(0) != nil {
		}
		_, size, ok, err := from.Header(1 << 20)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := to.Queue(from.Buffered()[:size]); err != nil {
			t.Fatal(err)
		}
		from.Discard(size)
		if err := to.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(server, arrived); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(2000, relay); n != 0 {
		t.Errorf("%v allocations per frame", n)
	}
}
