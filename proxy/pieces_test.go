package proxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"shardproxy/proxy"
	"shardproxy/wire"
)

// TestCopyAndRowsInPieces copies data in, in frames and in writes of any size,
// and reads it back as copy data and as rows: every byte in its order.
func TestCopyAndRowsInPieces(t *testing.T) {
	f := start(t, fixtureOptions{})
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			c, err := dialRaw(f.addr, "postgres", "app")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.do(t, "DROP TABLE IF EXISTS pieces; CREATE TABLE pieces (id int, v text)")
			data := someRows(r, 3000)
			out := fQuery("COPY pieces FROM STDIN").bytes()
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+r.IntN([]int{3, 200, 9000, 150_000}[r.IntN(4)]))
				out = append(out, fCopyData(string(rest[:n])).bytes()...)
				rest = rest[n:]
				if r.IntN(20) == 0 {
					out = append(out, fFlush().bytes()...)
				}
			}
			out = append(out, fCopyDone().bytes()...)
			out = append(out, fQuery("COPY (SELECT * FROM pieces ORDER BY id) TO STDOUT").bytes()...)
			out = append(out, fQuery("SELECT v FROM pieces ORDER BY id").bytes()...)
			go func() {
				for len(out) > 0 {
					n := min(len(out), 1+r.IntN([]int{10, 5000, 100_000}[r.IntN(3)]))
					if _, err := c.Write(out[:n]); err != nil {
						return // the reader finds out
					}
					out = out[n:]
				}
			}()
			if _, err := c.until('Z', 1); err != nil {
				t.Fatal(err)
			}
			if got := c.bodies(t, wire.MsgCopyData); !bytes.Equal(bytes.Join(got, nil), data) {
				t.Errorf("%d bytes of copy data differ from %d", len(bytes.Join(got, nil)), len(data))
			}
			lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
			rows := c.bodies(t, wire.MsgDataRow)
			if len(rows) != len(lines) {
				t.Fatalf("%d rows of %d", len(rows), len(lines))
			}
			for i, row := range rows {
				if _, v, _ := strings.Cut(lines[i], "\t"); string(row[6:]) != v {
					t.Fatalf("row %d differs", i)
				}
			}
			waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 }) // nothing is still to come
		})
	}
}

// someRows makes rows of an id and a text, most of them short, some very long.
func someRows(r *rand.Rand, n int) (data []byte) {
	for i := range n {
		size := r.IntN(200)
		switch r.IntN(300) {
		case 0:
			size = r.IntN(300_000)
		case 1:
			size = 60_000 + r.IntN(10_000) // about a buffer
		}
		data = fmt.Appendf(data, "%d\t%s\n", i, bytes.Repeat([]byte{byte('a' + i%26)}, size))
	}
	return data
}

// bodies returns those of one kind up to the next ReadyForQuery.
func (c *rawClient) bodies(t *testing.T, want byte) (all [][]byte) {
	t.Helper()
	for {
		kind, body, err := c.receive(rawTimeout)
		if err != nil {
			t.Fatal(err)
		}
		switch kind {
		case want:
			all = append(all, bytes.Clone(body))
		case 'Z':
			return all
		case 'E':
			t.Fatalf("%s %s", wire.Field(body, 'C'), wire.Field(body, 'M'))
		}
	}
}

// TestCopyFrameOverTheLimit sends a frame that is refused behind others of the
// same read: what came before it still counts, and the session ends.
func TestCopyFrameOverTheLimit(t *testing.T) {
	f := start(t, fixtureOptions{})
	for _, size := range []uint32{3, 1<<30 + 1} {
		c, err := dialRaw(f.addr, "postgres", "app")
		if err != nil {
			t.Fatal(err)
		}
		c.do(t, "CREATE TEMP TABLE limits (v text)")
		if _, err := c.Write(fQuery("COPY limits FROM STDIN").bytes()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.until(wire.MsgCopyInResponse, 1); err != nil {
			t.Fatal(err)
		}
		out := fCopyData("a\nb\n").bytes()
		out = binary.BigEndian.AppendUint32(append(out, wire.MsgCopyData), size)
		if _, err := c.Write(append(out, "c\n"...)); err != nil {
			t.Fatal(err)
		}
		if got, err := c.until('E', 1); err != nil || wire.Field(got, 'C') != "08P01" {
			t.Errorf("length %d: %q, %v", size, got, err)
		}
		c.Close()
	}
}

// TestErrorsReachASilentClient has the server speak first while the session waits
// for its client: in the middle of copy data, and in a transaction.
func TestErrorsReachASilentClient(t *testing.T) {
	f := start(t, fixtureOptions{})
	c, err := dialRaw(f.addr, "postgres", "app")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.do(t, "CREATE TEMP TABLE silent (id int)")
	// More than a server keeps back before it looks.
	bad := "not a number\n" + strings.Repeat("1\n", 10000)
	if _, err := c.Write(fQuery("COPY silent FROM STDIN").bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.until(wire.MsgCopyInResponse, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(fCopyData(bad).bytes()); err != nil {
		t.Fatal(err)
	}
	if got, err := c.until('E', 1); err != nil || wire.Field(got, 'C') != "22P02" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := c.until('Z', 1); err != nil { // or what follows is taken for answered one too early
		t.Fatal(err)
	}
	c.do(t, "BEGIN")
	other, err := dialRaw(f.addr, "postgres", "app")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if got := c.ask("SELECT pg_backend_pid()"); strings.Contains(got, "E ") {
		t.Fatal(got)
	}
	lent := func() int { return f.db.Shards[0].Pools.Lent() }
	before := lent()
	other.do(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()")
	waitFor(t, func() bool { return lent() < before })
}

// TestEveryWaitEnds has one session wait for a server, in vain, again and again.
func TestEveryWaitEnds(t *testing.T) {
	f := start(t, fixtureOptions{size: 1, policy: func(p *proxy.DatabasePolicy) { p.WaitTimeout = time.Second }})
	holder, waiter := f.connect(""), f.connect("&default_query_exec_mode=simple_protocol")
	exec(t, holder, "BEGIN")
	for range 3 {
		if _, err := waiter.Exec(ctx10(t), "SELECT 1"); codeOf(err) != "53300" {
			t.Fatal(err)
		}
	}
	exec(t, holder, "COMMIT")
	exec(t, waiter, "SELECT 1")
}
