package wire_test

import (
	"net"
	"testing"
	"time"
)

// TestDeadlineIsNetError: crypto/tls reads on behind an error that says it is a timeout
// itself, and not behind one that wraps it.
func TestDeadlineIsNetError(t *testing.T) {
	s, _ := socketPair(t, false)
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := s.Read(make([]byte, 1))
	if e, ok := err.(net.Error); !ok || !e.Timeout() {
		t.Errorf("%T %v", err, err)
	}
}
