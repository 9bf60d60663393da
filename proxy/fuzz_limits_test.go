package proxy_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// TestEndlessParameters has a server answer the settings of a login with more and
// more parameters: the login ends, and what is remembered of them is bounded.
func TestEndlessParameters(t *testing.T) {
	d := fakeDriven(t, pgtest.Shared(t), proxy.DriverAuto)
	for _, size := range []int{1, 1000, 1 << 20} {
		n := 0
		d.fake.say(speech{conns: 1, more: func() (out []byte) {
			for len(out) < 64<<10 {
				n++
				out = wire.AppendParameterStatus(out, fmt.Sprint("p", n), strings.Repeat("x", size))
			}
			return out
		}})
		before := heapAllocs()
		c := d.dial(t)
		if err := c.login("postgres", "app", "application_name", fmt.Sprint("size ", size)); err == nil || !strings.Contains(err.Error(), "08P01") {
			t.Errorf("parameters of %d bytes: %v", size, err)
		}
		c.Close()
		if !d.free() {
			t.Error("does not end")
		}
		if cost := heapAllocs() - before; cost > 200<<20 {
			t.Errorf("parameters of %d bytes take %d MiB", size, cost>>20)
		}
	}
}

// TestLongNames: neither a name nor an error that is full of names of ours may
// become much more than it is.
func TestLongNames(t *testing.T) {
	d := fakeDriven(t, pgtest.Shared(t), proxy.DriverAuto)
	c := d.dial(t)
	defer c.Close()
	if err := c.login("postgres", "app"); err != nil {
		t.Fatal(err)
	}
	const names = 7000 // in an error of half a record
	d.fake.say(speech{conns: 1, then: thenServes, wait: 10 * time.Second, data: bytes.Join([][]byte{
		record(recordWait, nil), record('1', nil),
		record('E', []byte("SERROR\x00VERROR\x00CP0001\x00M"+strings.Repeat(`"_sp_1"`, names)+"\x00\x00")), record('Z', []byte("I")),
	}, nil)})
	name := strings.Repeat("n", 8000)
	before := heapAllocs()
	lines := c.say(1, fParse(name, "SELECT 1"), fBind("", name), fExecute("", 0), fSync())
	if cost := heapAllocs() - before; cost > 32<<20 || !contains(lines, "P0001") {
		t.Errorf("takes %d MiB: %.200q", cost>>20, lines)
	}
	if got := c.say(1, fParse(strings.Repeat("n", 9000), "SELECT 1"), fSync()); !contains(got, "08P01") {
		t.Errorf("a long name: %q", got)
	}
}
