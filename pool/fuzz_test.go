package pool

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"shardproxy/wire"
)

// What PostgreSQL 15 says to a login that needs no password, and to the reset of a
// connection: one at rest, and one in a transaction that has failed.
const (
	loginSaid = "R\x00\x00\x00\b\x00\x00\x00\x00S\x00\x00\x00\x16application_name\x00\x00S\x00\x00\x00\x19client_encoding\x00UTF8\x00" +
		"S\x00\x00\x00\x17DateStyle\x00ISO, MDY\x00S\x00\x00\x00&default_transaction_read_only\x00off\x00S\x00\x00\x00\x17in_hot_standby\x00off\x00" +
		"S\x00\x00\x00\x19integer_datetimes\x00on\x00S\x00\x00\x00\x1bIntervalStyle\x00postgres\x00S\x00\x00\x00\x14is_superuser\x00on\x00" +
		"S\x00\x00\x00\x19server_encoding\x00UTF8\x00S\x00\x00\x002server_version\x0015.18 (Debian 15.18-0+deb12u1)\x00" +
		"S\x00\x00\x00#session_authorization\x00postgres\x00S\x00\x00\x00#standard_conforming_strings\x00on\x00S\x00\x00\x00\x11TimeZone\x00UTC\x00" +
		"K\x00\x00\x00\f\x00\x00\x14\n\x95\xe9\xd2\x95Z\x00\x00\x00\x05I"
	resetSaid = "Z\x00\x00\x00\x05IN\x00\x00\x00lSWARNING\x00VWARNING\x00C25P01\x00Mthere is no transaction in progress\x00Fxact.c\x00" +
		"L4110\x00RUserAbortTransactionBlock\x00\x00C\x00\x00\x00\rROLLBACK\x00Z\x00\x00\x00\x05IC\x00\x00\x00\x10DISCARD ALL\x00Z\x00\x00\x00\x05I"
	failedSaid = "E\x00\x00\x00]SERROR\x00VERROR\x00C42601\x00Msyntax error at or near \"SELEC\"\x00P1\x00Fscan.l\x00L1188\x00Rscanner_yyerror\x00\x00" +
		"Z\x00\x00\x00\x05EC\x00\x00\x00\rROLLBACK\x00Z\x00\x00\x00\x05IC\x00\x00\x00\x10DISCARD ALL\x00Z\x00\x00\x00\x05I"
)

// idle ends an answer, behind which the server can be asked again.
const idle = "Z\x00\x00\x00\x05I"

// resetSeeds are answers to a reset, right ones and others.
var resetSeeds = []string{
	resetSaid, failedSaid, resetSaid[:len(resetSaid)-1], resetSaid[:len(resetSaid)-1] + "T", resetSaid + "N\x00\x00\x00\x05\x00", "",
	"Z\x00\x00\x00\x05IZ\x00\x00\x00\x05EZ\x00\x00\x00\x05I", "Z\x00\x00\x00\x04Z\x00\x00\x00\x05IZ\x00\x00\x00\x04", "Z\x00\x00\x00\x03",
	"N\xff\xff\xff\xff", "N\x00\x10\x00\x04", "N\x00\x10\x00\x05", "E\x00\x00\x00\x04Z\x00\x00\x00\x05IZ\x00\x00\x00\x05IZ\x00\x00\x00\x05I",
	"SAAAA", "S\x00\x00\x00\x09a\x00b\x00\x00" + resetSaid, "A\x00\x00\x00\x0a\x00\x00\x00\x01c\x00" + resetSaid,
}

// restsAfter says what awaitIdle must: whether p brings n times ReadyForQuery, no
// error and, in the end, an idle session; and how many bytes that takes.
func restsAfter(p []byte, n int) (ok bool, used int) {
	ok = true
	for rest := p; len(rest) >= 5; {
		size := int(rest[1])<<24 | int(rest[2])<<16 | int(rest[3])<<8 | int(rest[4])
		if size < 4 || size > 4+1<<20 || len(rest) < 1+size {
			return false, 0
		}
		kind, body := rest[0], rest[5:1+size]
		rest = rest[1+size:]
		ok = ok && kind != 'E'
		if kind == 'Z' {
			if n--; n == 0 {
				return ok && string(body) == "I", len(p) - len(rest) // used also when it is not
			}
		}
	}
	return false, 0
}

// FuzzAwaitIdle reads any answer to a reset, in large pieces and in single bytes:
// it takes no byte more than the answer has, and believes no other.
func FuzzAwaitIdle(f *testing.F) {
	for _, s := range resetSeeds {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, p []byte, n uint8) {
		want, used := restsAfter(p, int(n%4)+1)
		for name, pieces := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader} {
			in := bytes.NewReader(p)
			err := awaitIdle(pieces(in), int(n%4)+1)
			if (err == nil) != want {
				t.Fatalf("%s of %q: %v", name, p, err)
			}
			if took := len(p) - in.Len(); err == nil && took != used {
				t.Fatalf("%s of %q: took %d bytes of %d", name, p, took, used)
			}
		}
	})
}

// scripted is a server that says to each connection the same, whatever it is
// told: one thing to the login, the other to the reset.
type scripted struct {
	listener net.Listener
	wait     sync.WaitGroup

	mu           sync.Mutex
	login, reset []byte // reset is the answer to any query
	conns        map[net.Conn]struct{}
}

func newScripted(t testing.TB) (s *scripted, address string) {
	dir, err := os.MkdirTemp("", "said") // short, as addresses of sockets must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	s = &scripted{listener: l, conns: map[net.Conn]struct{}{}}
	s.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wait.Go(func() { s.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.say(nil, nil)
		s.wait.Wait()
	})
	return s, dir + ":5432"
}

// say ends all connections and changes what is said to the next.
func (s *scripted) say(login, reset []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.login, s.reset = login, reset
	for c := range s.conns {
		c.Close()
	}
}

func (s *scripted) serve(c net.Conn) {
	defer c.Close()
	in := bufio.NewReader(c)
	start, err := wire.ReadStartup(in, 1<<20)
	if err != nil || start.Kind != wire.StartupSession {
		return
	}
	s.mu.Lock()
	login, reset := s.login, s.reset
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	if _, err := c.Write(login); err != nil {
		return
	}
	if !strings.HasSuffix(string(login), idle) {
		return
	}
	for {
		kind, body, err := wire.ReadMessage(in, 1<<20)
		if err != nil || kind == wire.MsgTerminate {
			return
		}
		if kind != wire.MsgQuery || strings.HasPrefix(string(body), "ROLLBACK") {
			continue
		}
		if strings.HasPrefix(string(body), "-- ping") {
			// A slow login makes sure that nothing is left to read.
			_, _ = c.Write(wire.AppendReadyForQuery(wire.AppendEmpty(nil, wire.MsgEmptyQueryResponse), 'I'))
			continue
		}
		answers := 3 // a reset is answered at its end
		if strings.HasPrefix(string(body), "SELECT") {
			answers = 1
		}
		_, _ = c.Write(reset) // the end of the connection tells
		if _, used := restsAfter(reset, answers); used == 0 {
			return
		}
	}
}

// scriptedPool is a pool of the scripted server's connections.
func scriptedPool(t testing.TB, address string, timeout time.Duration) (*Pools, *User) {
	p := New(Options{
		Nodes: []string{address}, Buffers: &wire.Buffers{}, Logger: slog.New(slog.DiscardHandler), ResetTimeout: patience,
		Target: Target{Database: "app", ConnectTimeout: timeout, TLS: TLS{Mode: "disable"}},
	})
	u := p.For("app", "app", "secret", Policy{Size: 2, MaxDialing: 1, LifeTime: time.Hour, PreparedStatements: 3})
	t.Cleanup(p.Close)
	return p, u
}

const patience = 5 * time.Second

// errNothing says that there was neither a connection nor an error.
var errNothing = errors.New("neither a connection nor an error")

// borrow waits for a connection.
func borrow(u *User, wait time.Duration) (*Server, error) {
	woken := make(chan struct{}, 1)
	s, ticket, err := u.Acquire(0, 0, func() { woken <- struct{}{} })
	if err != nil || ticket == nil {
		return s, err
	}
	select {
	case <-woken:
		return ticket.Result()
	case <-time.After(wait):
		ticket.Cancel()
		return nil, errNothing
	}
}

// returned waits until no connection is being opened, on loan or being reset.
func returned(t testing.TB, p *Pools) {
	t.Helper()
	busy := func() bool {
		for _, st := range p.Stats() {
			if st.Dialling > 0 {
				return true
			}
		}
		return p.Lent() > 0
	}
	for end := time.Now().Add(2 * patience); busy(); {
		if time.Now().After(end) {
			t.Fatal("a dial or a reset does not end")
		}
		<-time.After(20 * time.Microsecond)
	}
}

func heapAllocs() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// FuzzConnection lets a server say anything to a login and to a reset. There is a
// connection or an error, in time, and one is lent again only after the answer that
// a reset must have, and nothing behind it.
func FuzzConnection(f *testing.F) {
	for i, s := range resetSeeds {
		f.Add([]byte(loginSaid), []byte(s), i%2 == 0)
	}
	for _, s := range []string{
		loginSaid[:len(loginSaid)-1], loginSaid + "S\x00\x00\x00\x09a\x00b\x00\x00", loginSaid + "E\x00\x00\x00\x04", "",
		"R\x00\x00\x00\x17\x00\x00\x00\nSCRAM-SHA-256\x00\x00", "R\x00\x00\x00\x0c\x00\x00\x00\x05salt" + loginSaid, "R\x00\x00\x00\x08\x00\x00\x00\x03" + loginSaid,
		"E\x00\x00\x00\x25SFATAL\x00VFATAL\x00C53300\x00Mtoo many\x00\x00\x00", "E\x00\x00\x00\x05\x00", "N\x7f\xff\xff\xff", "S\x3f\xff\xff\xff", "SSSSS",
		"v\x00\x00\x00\x0c\x00\x03\x00\x00\x00\x00\x00\x00" + loginSaid, "v\x00\x00\x00\x0c\x00\x03\x00\x00\xff\xff\xff\xff" + loginSaid,
		"R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x04Z\x00\x00\x00\x05I", "R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I",
	} {
		f.Add([]byte(s), []byte(resetSaid), true)
	}
	server, address := newScripted(f)
	p, u := scriptedPool(f, address, 100*time.Millisecond) // for one that never says the last of it
	f.Fuzz(func(t *testing.T, login, reset []byte, detached bool) {
		server.say(login, reset)
		before := heapAllocs()
		wait := patience
		if bytes.Contains(login, []byte("53300")) {
			wait = time.Millisecond // who waits for a server that is full gets no error
		}
		s, err := borrow(u, wait)
		switch err {
		case nil:
			if detached && s.Socket().Detach() != nil {
				t.Fatal("not detached")
			}
			s.Release(Dirty)
			returned(t, p)
			ok, used := restsAfter(reset, 3)
			again, err := borrow(u, patience)
			switch {
			case err == errNothing:
				t.Error(err)
			case err != nil: // the new one was too slow
			case again == s && !ok:
				t.Errorf("lent again after %q", reset)
			case again == s && used < len(reset):
				t.Errorf("lent again with %q to read", reset[used:])
			case again != s && ok && used == len(reset) && bytes.HasSuffix(login, []byte(idle)):
				t.Error("not lent again")
			}
			if again != nil {
				again.Release(Dead)
			}
		case errNothing:
			if wait == patience {
				t.Error(err)
			}
		}
		returned(t, p)
		p.Retire(0) // and what failed is tried again at once
		if cost := heapAllocs() - before; cost > 16<<20 {
			t.Errorf("takes %d MiB of memory", cost>>20)
		}
	})
}

// TestEndlessAnswers has a server say more than anybody can want to know.
func TestEndlessAnswers(t *testing.T) {
	notices := wire.AppendFrame(nil, wire.MsgNoticeResponse, make([]byte, 256<<10))
	t.Run("reset", func(t *testing.T) {
		for _, detached := range []bool{false, true} {
			p, u := endless(t, []byte(loginSaid), func(int) []byte { return notices })
			p.opt.ResetTimeout = 50 * time.Millisecond
			s, err := borrow(u, patience)
			if err != nil {
				t.Fatal(err)
			}
			if detached && s.Socket().Detach() != nil {
				t.Fatal("not detached")
			}
			s.Release(Dirty)
			returned(t, p)
			p.Retire(0)
		}
	})
	t.Run("login", func(t *testing.T) {
		_, u := endless(t, nil, func(n int) []byte {
			var out []byte
			for i := range 1000 {
				out = wire.AppendParameterStatus(out, "p"+string(rune(1000*n+i)), "v")
			}
			return out
		})
		before := heapAllocs()
		if _, err := borrow(u, patience); err == nil {
			t.Error("let in")
		}
		if cost := heapAllocs() - before; cost > 64<<20 {
			t.Errorf("takes %d MiB of memory", cost>>20)
		}
	})
}

// endless is a pool before a server that goes on for ever once it has said begin.
func endless(t *testing.T, begin []byte, more func(n int) []byte) (*Pools, *User) {
	dir, err := os.MkdirTemp("", "said")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				if _, err := wire.ReadStartup(in, 1<<20); err != nil {
					return
				}
				if len(begin) > 0 {
					if _, err := c.Write(begin); err != nil {
						return
					}
					if _, _, err := wire.ReadMessage(in, 1<<20); err != nil {
						return
					}
				}
				for n := 0; ; n++ {
					if _, err := c.Write(more(n)); errors.Is(err, net.ErrClosed) || err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		wait.Wait()
		os.RemoveAll(dir)
	})
	return scriptedPool(t, dir+":5432", time.Second)
}
