package pool_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
	"shardproxy/pool"
	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// bench is a pool over one real server, with a clock that the test can advance.
type bench struct {
	*pool.Pools
	t     testing.TB
	name  string
	user  *pool.User
	node  int
	clock *clock
}

// clock is the time of day, and how far it is put forward.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// policy returns limits that get in nobody's way.
func policy(size int) pool.Policy {
	return pool.Policy{Size: size, MaxDialing: 4, LifeTime: time.Hour, IdleTimeout: time.Hour, PreparedStatements: 3}
}

// newBench opens a pool of the superuser's connections to addr.
func newBench(t testing.TB, addr, database string, pol pool.Policy, change func(*pool.Options)) *bench {
	b := &bench{t: t, name: "tester", clock: &clock{}}
	opt := pool.Options{
		Nodes: []string{addr}, Buffers: &wire.Buffers{}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Target: pool.Target{Database: database, ConnectTimeout: 5 * time.Second, TLS: pool.TLS{Mode: "disable"}},
		Now:    b.clock.now,
	}
	if change != nil {
		change(&opt)
	}
	b.Pools = pool.New(opt)
	b.user = b.For("tester", "postgres", "", pol)
	b.Open()
	t.Cleanup(b.Close)
	return b
}

// sharedBench is newBench on a database of the test's own.
func sharedBench(t testing.TB, pol pool.Policy) *bench {
	d := pgtest.Shared(t)
	return newBench(t, d.Node.Addr(), d.Name, pol, nil)
}

// waiter is one borrower in the queue.
type waiter struct {
	ticket *pool.Ticket
	woken  chan struct{}
}

// ask acquires at once or queues.
func (b *bench) ask() (*pool.Server, *waiter) {
	b.t.Helper()
	w := &waiter{woken: make(chan struct{}, 1)}
	s, ticket, err := b.user.Acquire(b.node, 0, func() { w.woken <- struct{}{} })
	if err != nil {
		b.t.Fatal(err)
	}
	w.ticket = ticket
	return s, w
}

// result waits for what comes of the wait.
func (w *waiter) result() (*pool.Server, error) {
	select {
	case <-w.woken:
	case <-time.After(patience):
		return nil, errors.New("never woken")
	}
	if !w.ticket.Done() {
		return nil, errors.New("woken before it was done")
	}
	return w.ticket.Result()
}

// take borrows a connection, waiting for it.
func (b *bench) take() *pool.Server {
	b.t.Helper()
	s, w := b.ask()
	if s != nil {
		return s
	}
	s, err := w.result()
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// stat describes the user's pool for the node.
func (b *bench) stat() pool.Stat {
	for _, st := range b.Stats() {
		if st.User == b.name && st.Node == b.node {
			return st
		}
	}
	b.t.Fatal("no such pool")
	return pool.Stat{}
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// send writes frames to a borrowed connection.
func send(t testing.TB, s *pool.Server, frames []byte) {
	t.Helper()
	if err := s.Queue(frames); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// next reads one message of a borrowed connection.
func next(t testing.TB, s *pool.Server) (kind byte, body []byte) {
	t.Helper()
	for {
		kind, size, ok, err := s.Header(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		if ok && len(s.Buffered()) >= size {
			body = append(body, s.Buffered()[5:size]...)
			s.Discard(size)
			return kind, body
		}
		err = s.Fill(size)
		if errors.Is(err, wire.ErrWouldBlock) {
			err = s.Socket().AwaitReadable()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// run executes a simple query and returns the last row's first column.
func run(t testing.TB, s *pool.Server, sql string) string {
	t.Helper()
	send(t, s, wire.AppendQuery(nil, sql))
	value := ""
	for {
		switch kind, body := next(t, s); kind {
		case wire.MsgDataRow:
			value = string(body[6:])
		case wire.MsgErrorResponse:
			value = "ERROR " + wire.Field(body, 'C')
		case wire.MsgReadyForQuery:
			return value
		}
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// describe shows statistics in a failure.
func (b *bench) describe() string {
	return strings.TrimSpace(fmt.Sprintf("%+v %+v", b.Stats(), b.Totals()))
}

// IdleServers lists the connections that nobody borrows.
func (b *bench) IdleServers() (idle []pool.ServerStat) {
	for _, s := range b.Servers() {
		if s.State == pool.ServerIdle {
			idle = append(idle, s)
		}
	}
	return idle
}
