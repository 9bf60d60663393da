package pool_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
	"shardproxy/pool"
	"shardproxy/wire"
)

// stream starts a simple query.
func stream(t testing.TB, s *pool.Server, sql string, o pool.StreamOptions) *pool.Stream {
	t.Helper()
	st, err := s.Stream(wire.AppendQuery(nil, sql), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() { // the pool would wait for it
			st.Break()
			_, _ = st.End()
		}
	})
	return st
}

// each calls f for every message in frames, which must be whole.
func each(t testing.TB, frames []byte, f func(kind byte, body []byte)) {
	t.Helper()
	for len(frames) > 0 {
		if len(frames) < 5 || len(frames) < 1+int(binary.BigEndian.Uint32(frames[1:])) {
			t.Fatalf("%d bytes are no whole message", len(frames))
		}
		n := 1 + int(binary.BigEndian.Uint32(frames[1:]))
		f(frames[0], frames[5:n])
		frames = frames[n:]
	}
}

// drain reads a stream to its end; values are the rows' first columns.
func drain(t testing.TB, st *pool.Stream, value func([]byte)) (kinds string, err error) {
	t.Helper()
	for {
		frames, err := st.Next()
		if err != nil {
			return kinds, err
		}
		if len(frames) == 0 {
			t.Fatal("nothing, and no error")
		}
		each(t, frames, func(kind byte, body []byte) {
			if kind == wire.MsgDataRow {
				value(body[6:])
			} else {
				kinds += string(kind)
			}
		})
	}
}

// works shows that the connection is as good as it was.
func works(t testing.TB, s *pool.Server) {
	t.Helper()
	if v := run(t, s, "SELECT 'fine'"); v != "fine" {
		t.Fatalf("afterwards the connection says %q", v)
	}
	if b := s.Buffered(); len(b) > 0 {
		t.Fatalf("%d bytes were left on the connection", len(b))
	}
}

func TestStreamRows(t *testing.T) {
	d := pgtest.Shared(t)
	for _, detached := range []bool{false, true} {
		b := newBench(t, d.Node.Addr(), d.Name, policy(1), nil)
		s := b.take()
		if detached {
			if err := s.Socket().Detach(); err != nil {
				t.Fatal(err)
			}
		}
		for _, rows := range []int{0, 1, 200, 200000} {
			st := stream(t, s, fmt.Sprintf("SELECT g, repeat('x', g %% 150) FROM generate_series(1, %d) g", rows), pool.StreamOptions{})
			got := 0
			kinds, err := drain(t, st, func(v []byte) {
				got++
				if want := fmt.Sprint(got); string(v[:len(want)]) != want {
					t.Fatalf("row %d is %q", got, v)
				}
			})
			if err != io.EOF || got != rows || kinds != "TC" {
				t.Fatalf("%d rows of %d, others %q: %v", got, rows, kinds, err)
			}
			if _, err := st.Next(); err != io.EOF {
				t.Fatalf("Next after the end: %v", err)
			}
			a, err := st.End()
			if err != nil || a.Tag != fmt.Sprintf("SELECT %d", rows) || a.Status != 'I' {
				t.Fatalf("%+v, %v", a, err)
			}
			if !detached {
				works(t, s)
			} else if err := s.Exec(t.Context(), "SELECT 1"); err != nil {
				t.Fatal(err)
			}
		}
		s.Release(pool.Clean)
	}
}

// TestStreamSizes has messages of all sizes around those of the blocks.
func TestStreamSizes(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Clean)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 6 {
		var sizes []string
		for range 60 {
			n := rng.IntN(200)
			switch rng.IntN(4) {
			case 0:
				n = 8<<10 - 64 + rng.IntN(128)
			case 1:
				n = 64<<10 - 64 + rng.IntN(128)
			case 2:
				n = rng.IntN(300 << 10)
			}
			sizes = append(sizes, fmt.Sprint(n))
		}
		st := stream(t, s, "SELECT repeat(chr(65 + (o % 20)::int), n) FROM unnest(ARRAY["+strings.Join(sizes, ",")+"]) WITH ORDINALITY u(n, o)", pool.StreamOptions{})
		i := 0
		_, err := drain(t, st, func(v []byte) {
			want := strings.Repeat(string(rune('A'+(i+1)%20)), atoi(t, sizes[i]))
			if string(v) != want {
				t.Fatalf("row %d of %s bytes has %d", i, sizes[i], len(v))
			}
			i++
		})
		if err != io.EOF || i != len(sizes) {
			t.Fatalf("%d rows: %v", i, err)
		}
		if _, err := st.End(); err != nil {
			t.Fatal(err)
		}
		works(t, s)
	}
}

func atoi(t testing.TB, s string) (n int) {
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStreamSlow reads nothing for a while: the server must wait, and no memory be used up.
func TestStreamSlow(t *testing.T) {
	d := pgtest.Shared(t)
	b := newBench(t, d.Node.Addr(), d.Name, policy(1), nil)
	s := b.take()
	defer s.Release(pool.Clean)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	st := stream(t, s, "SELECT g, repeat('x', 1000) FROM generate_series(1, 300000) g", pool.StreamOptions{})
	waitFor(t, "the server waits for the proxy", func() bool {
		return d.Value("SELECT wait_event FROM pg_stat_activity WHERE pid = $1", int32(s.PID)) == "ClientWrite"
	})
	<-st.Ready()
	frames, err := st.Next()
	if err != nil || frames[0] != wire.MsgRowDescription {
		t.Fatalf("%q, %v", frames[:1], err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if more := int64(after.HeapAlloc - before.HeapAlloc); more > 600<<10 {
		t.Fatalf("%d bytes held of an answer that nobody reads", more)
	}
	for range 200 {
		if _, err := st.Next(); err != nil {
			t.Fatal(err)
		}
	}
	s.Cancel(nil)
	a, err := st.End()
	var we *wire.Error
	if !errors.As(err, &we) || we.Code != "57014" || len(a.Error) == 0 || a.Status != 'I' {
		t.Fatalf("%+v, %v", a, err)
	}
	works(t, s)
}

func TestStreamError(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Clean)
	for _, pad := range []string{"''", "repeat('x', 9000)", "repeat('x', 100000)"} {
		st := stream(t, s, "SELECT 1/(5-g), "+pad+" FROM generate_series(1, 10) g", pool.StreamOptions{})
		got := 0
		_, err := drain(t, st, func([]byte) { got++ })
		var we *wire.Error
		if !errors.As(err, &we) || we.Code != "22012" || got != 4 {
			t.Fatalf("%d rows, then %v", got, err)
		}
		if _, again := st.Next(); again != err {
			t.Fatalf("the error did not stay: %v", again)
		}
		a, err := st.End()
		if !errors.As(err, &we) || wire.Field(a.Error, 'C') != "22012" || a.Status != 'I' {
			t.Fatalf("%+v, %v", a, err)
		}
		works(t, s)
	}
}

func TestStreamBreak(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Dead)
	st := stream(t, s, "SELECT pg_sleep(600)", pool.StreamOptions{})
	go st.Break()
	_, err := drain(t, st, func([]byte) {})
	var we *wire.Error
	if err == io.EOF || errors.As(err, &we) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a broken stream ends with %v", err)
	}
	if _, end := st.End(); end != err {
		t.Fatalf("End: %v", end)
	}
}

// TestStreamTerminated has the server end the session: Next says so in its words.
func TestStreamTerminated(t *testing.T) {
	d := pgtest.Shared(t)
	s := newBench(t, d.Node.Addr(), d.Name, policy(1), nil).take()
	defer s.Release(pool.Dead)
	st := stream(t, s, "SELECT 1; SELECT pg_sleep(600)", pool.StreamOptions{})
	d.Exec("SELECT pg_terminate_backend($1)", int32(s.PID))
	_, err := drain(t, st, func([]byte) {})
	var we *wire.Error
	if !errors.As(err, &we) || we.Code != "57P01" || !we.IsFatal() {
		t.Fatal(err)
	}
	if a, err := st.End(); !errors.As(err, &we) || wire.Field(a.Error, 'C') != "57P01" {
		t.Fatal(err)
	}
}

func TestStreamEndEarly(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Clean)
	for taken := range 4 {
		st := stream(t, s, "SELECT repeat('x', CASE g % 7 WHEN 0 THEN 100000 ELSE 500 END) FROM generate_series(1, 3000) g", pool.StreamOptions{})
		for range taken {
			if _, err := st.Next(); err != nil {
				t.Fatal(err)
			}
		}
		a, err := st.End()
		if err != nil || a.Tag != "SELECT 3000" || a.Status != 'I' {
			t.Fatalf("%+v, %v", a, err)
		}
		works(t, s)
	}
}

func TestStreamAside(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Dirty)
	st := stream(t, s, `BEGIN; SELECT 'a'; DO $$BEGIN RAISE NOTICE 'one'; END$$; SET application_name = 'other'; LISTEN c; NOTIFY c;
		DO $$BEGIN RAISE NOTICE 'two'; END$$; COMMIT; BEGIN; SELECT 'b'`, pool.StreamOptions{})
	var got []string
	kinds, err := drain(t, st, func(v []byte) { got = append(got, string(v)) })
	if err != io.EOF || strings.Join(got, "") != "ab" || kinds != "CTCCCCCCCCTC" {
		t.Fatalf("%q, others %q: %v", got, kinds, err)
	}
	a, err := st.End()
	if err != nil || a.Status != 'T' || a.Tag != "SELECT 1" {
		t.Fatalf("%+v, %v", a, err)
	}
	var notices []string
	each(t, a.Frames, func(kind byte, body []byte) { notices = append(notices, string(kind)+wire.Field(body, 'M')) })
	if strings.Join(notices, " ") != "None Ntwo" {
		t.Fatalf("notices: %q", notices)
	}
	if !bytes.Contains(a.Reported, []byte("application_name\x00other\x00")) {
		t.Fatalf("reported: %q", a.Reported)
	}
}

// TestStreamKeepsRest has something follow the answer in the same read, and the answer be read
// in part before: what follows stays on the connection.
func TestStreamKeepsRest(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Clean)
	send(t, s, wire.AppendQuery(wire.AppendQuery(nil, "SELECT 'one'"), "SELECT 'two'"))
	ready := wire.AppendReadyForQuery(nil, 'I')
	for bytes.Count(s.Buffered(), ready) < 2 {
		err := s.Fill(len(s.Buffered()) + 1)
		if errors.Is(err, wire.ErrWouldBlock) {
			err = s.Socket().AwaitReadable()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st := stream(t, s, "SELECT 'three'", pool.StreamOptions{})
	if _, err := st.End(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(s.Buffered(), []byte("two")) || bytes.Contains(s.Buffered(), []byte("one")) {
		t.Fatalf("behind the answer there is %q", s.Buffered())
	}
	for kinds := ""; kinds != "TDCZTDCZ"; {
		kind, _ := next(t, s)
		if kinds += string(kind); len(kinds) > 8 {
			t.Fatalf("behind the answer came %q", kinds)
		}
	}
	works(t, s)
}

func TestStreamTooLarge(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Clean)
	for _, size := range []int{1000, 200000} {
		limit := size/2 + 100
		st := stream(t, s, fmt.Sprintf("SELECT repeat('x', CASE g WHEN 5 THEN %d ELSE %d END) FROM generate_series(1, 9) g", size, size/2), pool.StreamOptions{MessageMax: limit})
		got := 0
		_, err := drain(t, st, func([]byte) { got++ })
		var we *wire.Error
		if !errors.As(err, &we) || we.Code != "54000" || we.IsFatal() || got != 4 {
			t.Fatalf("%d rows, then %v", got, err)
		}
		if a, err := st.End(); !errors.As(err, &we) || we.Code != "54000" || a.Status != 'I' || a.Error != nil {
			t.Fatalf("%+v, %v", a, err)
		}
		works(t, s)
	}
}

// TestStreamLargeRequest is answered before the server has read it all, with more than the sockets hold.
func TestStreamLargeRequest(t *testing.T) {
	s := sharedBench(t, policy(1)).take()
	defer s.Release(pool.Clean)
	pad := strings.Repeat(" ", 2000)
	var frames []byte
	const requests = 5000
	for i := range requests {
		frames = wire.AppendParse(frames, "", []byte(fmt.Sprintf("SELECT '%d', repeat('y', 2000)%s\x00\x00\x00", i, pad)))
		frames = wire.AppendFrame(frames, wire.MsgBind, make([]byte, 8))
		frames = wire.AppendFrame(frames, wire.MsgExecute, make([]byte, 5))
	}
	frames = wire.AppendEmpty(frames, wire.MsgSync)
	st, err := s.Stream(frames, pool.StreamOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	if _, err := drain(t, st, func([]byte) { got++ }); err != io.EOF || got != requests {
		t.Fatalf("%d rows, then %v", got, err)
	}
	if _, err := st.End(); err != nil {
		t.Fatal(err)
	}
	works(t, s)
}

func TestStreamOverTLS(t *testing.T) {
	c := pgtest.Start(t, pgtest.Options{TLS: true})
	b := newBench(t, c.Primary().Addr(), "app", policy(1), func(o *pool.Options) { o.Target.TLS.Mode = "require" })
	s := b.take()
	defer s.Release(pool.Clean)
	if s.TLS() == nil {
		t.Fatal("no TLS")
	}
	for range 3 {
		st := stream(t, s, "SELECT g, repeat('x', 1000 * (g % 100)) FROM generate_series(1, 1000) g", pool.StreamOptions{})
		got := 0
		if _, err := drain(t, st, func([]byte) { got++ }); err != io.EOF || got != 1000 {
			t.Fatalf("%d rows, then %v", got, err)
		}
		if a, err := st.End(); err != nil || a.Tag != "SELECT 1000" {
			t.Fatalf("%+v, %v", a, err)
		}
		works(t, s)
	}
}

// TestStreamsTogether waits for the first of several.
func TestStreamsTogether(t *testing.T) {
	b := sharedBench(t, policy(2))
	slow, fast := b.take(), b.take()
	defer slow.Release(pool.Clean)
	defer fast.Release(pool.Clean)
	one := stream(t, slow, "SELECT pg_sleep(600)", pool.StreamOptions{})
	two := stream(t, fast, "SELECT g FROM generate_series(1, 100000) g", pool.StreamOptions{})
	for got := 0; got < 100000; {
		select {
		case <-one.Ready():
			t.Fatal("the slow one is ready")
		case <-two.Ready():
		case <-time.After(patience):
			t.Fatal("never ready")
		}
		frames, err := two.Next()
		if err != nil {
			t.Fatal(err)
		}
		each(t, frames, func(kind byte, _ []byte) {
			if kind == wire.MsgDataRow {
				got++
			}
		})
	}
	if _, err := two.End(); err != nil {
		t.Fatal(err)
	}
	slow.Cancel(nil)
	var we *wire.Error
	if _, err := one.End(); !errors.As(err, &we) || we.Code != "57014" {
		t.Fatal(err)
	}
	works(t, slow)
	works(t, fast)
}
