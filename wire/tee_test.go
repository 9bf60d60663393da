package wire_test

import (
	"io"
	"strings"
	"testing"

	"shardproxy/wire"
)

// TestTee: a copy has what is queued, small and large, and not what is taken back.
func TestTee(t *testing.T) {
	c, peer := connPair(t, &wire.Buffers{})
	go func() { _, _ = io.Copy(io.Discard, peer) }() // until it is closed
	say := func(s string) {
		if err := c.Queue([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	first := 0
	tee := wire.Tee{Max: 100_000, First: func() { first++ }}
	say("before ")
	c.Tee(&tee)
	say("one ")
	c.SetOutput(append(c.Output(), "two "...))
	c.SetOutput(c.Output()[:len(c.Output())-4])
	say("three ")
	large := strings.Repeat("x", 50_000)
	say(large)
	say("four")
	c.Tee(nil)
	say("behind")
	if got := string(tee.Bytes); got != "one three "+large+"four" || tee.Over || first != 1 {
		t.Errorf("%d bytes, over %t, first %d times", len(got), tee.Over, first)
	}
	// What was there before is taken back, too.
	tee = wire.Tee{Max: 100}
	c.Tee(&tee)
	say("more")
	c.SetOutput(c.Output()[:0])
	if say("x"); !tee.Over || tee.Bytes != nil {
		t.Errorf("%q of what is unknown", tee.Bytes)
	}
	tee = wire.Tee{Max: 10}
	c.Tee(&tee)
	if say("0123456789"); tee.Over || string(tee.Bytes) != "0123456789" {
		t.Errorf("%q, over %t", tee.Bytes, tee.Over)
	}
	if say("0"); !tee.Over || tee.Bytes != nil {
		t.Errorf("%q, over %t", tee.Bytes, tee.Over)
	}
}
