package wire_test

import (
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// tcpPair returns both ends of a connection over loopback.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled := make(chan net.Conn, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
		}
		dialled <- c
	}()
	a, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	b = <-dialled
	t.Cleanup(func() {
		a.Close()
		b.Close()
	})
	return a, b
}

// socketPair returns a Socket and its peer.
func socketPair(t testing.TB, nonBlocking bool) (*wire.Socket, net.Conn) {
	t.Helper()
	a, b := tcpPair(t)
	s, err := wire.NewSocket(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetNonBlocking(nonBlocking); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, b
}

func write(t testing.TB, c io.Writer, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
}

// readAll reads n bytes and gives up after patience.
func readAll(t testing.TB, c net.Conn, n int) []byte {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, n)
	if got, err := io.ReadFull(c, p); err != nil {
		t.Fatalf("%d of %d bytes: %v", got, n, err)
	}
	return p
}

// returns reports what f returns, or fails when it does not return.
func returns(t testing.TB, f func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		t.Fatal("does not return")
		return nil
	}
}
