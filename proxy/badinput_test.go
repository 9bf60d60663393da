package proxy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"shardproxy/auth"
	"shardproxy/pool"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// lastWords reads up to the end of the connection and returns the SQLSTATE of
// the last error, "" when there was none.
func lastWords(t *testing.T, c *rawClient) (code string) {
	t.Helper()
	for {
		kind, body, err := c.receive(rawTimeout)
		var ne net.Error
		switch {
		case err == nil && kind == 'E':
			code = wire.Field(body, 'C')
		case err == nil:
		case asNetError(err, &ne) && ne.Timeout():
			t.Fatalf("neither an answer nor an end after %v", rawTimeout)
		default:
			return code
		}
	}
}

// waitFree waits until no server connection is on loan and no client is left.
func (f *fixture) waitFree() {
	f.t.Helper()
	waitFor(f.t, func() bool { return f.db.Shards[0].Pools.Lent() == 0 && f.db.Clients() == 0 })
}

// alive checks that a new client is served.
func (f *fixture) alive() {
	f.t.Helper()
	c := mustDial(f.t, f.addr, "app")
	defer c.Close()
	got, err := c.converse(nil, 1<<20)
	if err != nil || len(got) == 0 || !strings.HasPrefix(got[len(got)-1], "Z") {
		f.t.Fatalf("a new client is not served: %q %v", got, err)
	}
}

func header(kind byte, length uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{kind}, length)
}

func TestBadFrames(t *testing.T) {
	f := start(t, fixtureOptions{policy: func(p *proxy.DatabasePolicy) { p.MessageMax = 1 << 20; p.ParsedMax = 4096 }})
	for _, test := range []struct {
		name string
		send []byte
		want string
	}{
		{"length 0", header('Q', 0), "08P01"},
		{"length 3", header('Q', 3), "08P01"},
		{"length 2^31-1", header('Q', 1<<31-1), "08P01"},
		{"length 2^31", header('P', 1<<31), "08P01"},
		{"length 2^32-1", header('B', 1<<32-1), "08P01"},
		{"over the limit", header('d', 1<<20), "08P01"},
		{"behind a good one", append(fSync().bytes(), header('Q', 3)...), "08P01"},
		{"within a request", append(fParse("", "SELECT 1").bytes(), header('B', 0)...), "08P01"},
		{"unknown type", header('!', 4), "08P01"},
		{"zeros", make([]byte, 64), "08P01"},
		{"password out of turn", frame{'p', []byte("x\x00")}.bytes(), "08P01"},
		{"startup out of turn", startupPacket("postgres", "app"), "08P01"},
		{"Parse without a NUL", frame{'P', []byte("abc")}.bytes(), "08P01"},
		{"Bind without a NUL", frame{'B', []byte("abc")}.bytes(), "08P01"},
		{"empty Describe", frame{kind: 'D'}.bytes(), "08P01"},
		{"empty Close", frame{kind: 'C'}.bytes(), "08P01"},
		{"Terminate", frame{kind: 'X'}.bytes(), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := mustDial(t, f.addr, "app")
			if _, err := c.Write(test.send); err != nil {
				t.Fatal(err)
			}
			// A server reports a malformed body as an error of the statement.
			if _, err := c.Write(append(fSync().bytes(), frame{kind: 'X'}.bytes()...)); err != nil {
				t.Log(err)
			}
			if got := lastWords(t, c); got != test.want {
				t.Errorf("ended with %q, want %q", got, test.want)
			}
			f.waitFree()
			f.alive()
		})
	}
}

func TestBadStartup(t *testing.T) {
	f := start(t, fixtureOptions{})
	packet := func(code uint32, rest string) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
		return append(binary.BigEndian.AppendUint32(b, code), rest...)
	}
	const v30, ssl, gss, cancel = 3 << 16, 80877103, 80877104, 80877102
	for _, test := range []struct {
		name string
		send []byte
		want string
	}{
		{"length 0", make([]byte, 8), "08P01"},
		{"length 7", append([]byte{0, 0, 0, 7}, 0, 3, 0, 0), "08P01"},
		{"over the limit", []byte{0, 0, 0x40, 0, 0, 3, 0, 0}, "08P01"},
		{"negative length", []byte{0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0}, "08P01"},
		{"protocol 1", packet(1<<16, "\x00"), "0A000"},
		{"protocol 2", packet(2<<16, "\x00"), "0A000"},
		{"protocol 4", packet(4<<16, "\x00"), "0A000"},
		{"no end", packet(v30, "user\x00postgres\x00"), "08P01"},
		{"name without a value", packet(v30, "user\x00\x00"), "08P01"},
		{"NUL in a value", packet(v30, "user\x00post\x00gres\x00database\x00app\x00\x00"), "08P01"},
		{"bytes behind the end", packet(v30, "user\x00postgres\x00\x00more\x00\x00"), "08P01"},
		{"unknown database", startupPacket("postgres", "nowhere"), "3D000"},
		{"unknown setting", startupPacket("postgres", "app", "no_such_setting", "1"), "42704"},
		{"bad value", startupPacket("postgres", "app", "work_mem", "much"), "22023"},
		{"bad options", startupPacket("postgres", "app", "options", "-Z"), "42601"},
		{"replication", startupPacket("postgres", "app", "replication", "true"), "0A000"},
		{"refused by the server", startupPacket("nobody", "app"), "28P01"},
		{"short cancel", packet(cancel, "1234"), "08P01"},
		{"cancel of nobody", packet(cancel, "12345678"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if _, err := nc.Write(test.send); err != nil {
				t.Fatal(err)
			}
			if got := lastWords(t, newRaw(nc)); got != test.want {
				t.Errorf("ended with %q, want %q", got, test.want)
			}
			f.waitFree()
		})
	}
	// Encryption that is not offered is refused politely, once.
	for _, requests := range [][]uint32{{gss, ssl}, {ssl, gss}, {ssl}} {
		nc, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		for _, code := range requests {
			var answer [1]byte
			if _, err := nc.Write(packet(code, "")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(nc, answer[:]); err != nil || answer[0] != 'N' {
				t.Fatalf("answer %q, %v", answer, err)
			}
		}
		if err := newRaw(nc).login("postgres", "app"); err != nil {
			t.Error(err)
		}
	}
	f.alive()
}

// withTLS makes the fixture's proxy offer TLS.
func (f *fixture) withTLS() {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		f.t.Fatal(err)
	}
	side := &auth.ServerTLS{Certificate: leaf, Config: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}}, NextProtos: []string{"postgresql"},
	}}
	f.configure(func(s *proxy.Settings) { s.TLS = func() *auth.ServerTLS { return side } })
}

// configure gives the proxy new settings.
func (f *fixture) configure(change func(*proxy.Settings)) {
	s := &proxy.Settings{
		StartupMax: 10000, LoginTimeout: 10 * time.Second, Databases: map[string]*proxy.Database{"app": f.db},
		Policy: func(string, string) proxy.UserPolicy { return *f.pol },
	}
	change(s)
	f.srv.Configure(s)
}

// TestBytesBeforeTLS sends in the clear what only counts under TLS.
func TestBytesBeforeTLS(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.withTLS()
	nc, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	injected := append(startupPacket("postgres", "app"), fQuery("SELECT 'injected'").bytes()...)
	if _, err := nc.Write(append(wire.AppendSSLRequest(nil), injected...)); err != nil {
		t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(rawTimeout)); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(nc) // a reset is as good as an end
	if len(got) == 0 || got[0] != 'E' || !bytes.Contains(got, []byte("C08P01\x00")) || bytes.Contains(got, []byte("injected")) {
		t.Errorf("answer %q, %v", got, err)
	}
	f.waitFree()

	for _, test := range []struct {
		name   string
		direct bool
		alpn   []string
		want   bool
	}{
		{"SSLRequest", false, nil, true},
		{"direct", true, []string{"postgresql"}, true},
		{"direct without ALPN", true, nil, false},
		{"direct with another ALPN", true, []string{"http/1.1"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", f.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			if !test.direct {
				var answer [1]byte
				if _, err := nc.Write(wire.AppendSSLRequest(nil)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(nc, answer[:]); err != nil || answer[0] != 'S' {
					t.Fatalf("answer %q, %v", answer, err)
				}
			}
			// The certificate is the test's own and self-signed.
			c := newRaw(tls.Client(nc, &tls.Config{InsecureSkipVerify: true, NextProtos: test.alpn}))
			err = c.login("postgres", "app")
			if (err == nil) != test.want {
				t.Fatalf("login: %v, want success %v", err, test.want)
			}
			if test.want {
				if got, err := c.converse([]frame{fQuery("SELECT repeat('x', 200000)"), fParse("", "SELECT 1"), fBind("", ""), fExecute("", 0), fSync()}, 7); err != nil || got[len(got)-1] != `Z "I"` {
					t.Errorf("%d messages, %v", len(got), err)
				}
			}
		})
	}
}

// heapBytes is the live heap, after a collection.
func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMillionParses sends tiny messages for which the server owes replies that
// it keeps back.
func TestMillionParses(t *testing.T) {
	f := start(t, fixtureOptions{policy: func(p *proxy.DatabasePolicy) { p.SessionStatements = 1000 }})
	c := mustDial(t, f.addr, "app")
	before := heapBytes()
	one := fParse("", "SELECT 1").bytes()
	n := 1_000_000
	if raceEnabled {
		n = 100_000
	}
	peak := make(chan uint64, 1)
	go func() {
		var highest uint64
		block := bytes.Repeat(one, 1000)
		for i := range n / 1000 {
			if _, err := c.Write(block); err != nil {
				break // the reader finds out
			}
			if i%100 == 50 {
				highest = max(highest, heapBytes())
			}
		}
		_, _ = c.Write(fSync().bytes())
		peak <- highest
	}()
	got := 0
	for {
		kind, body, err := c.receive(6 * rawTimeout)
		if err != nil || kind == 'E' {
			t.Fatalf("after %d replies: %q, %v", got, body, err)
		}
		if kind == 'Z' {
			break
		}
		got++
	}
	if got != n {
		t.Errorf("%d replies, want %d", got, n)
	}
	if p := <-peak; p > before+32<<20 {
		t.Errorf("heap grew from %d to %d bytes", before, p)
	}
	// Statements with names are bounded by number.
	for i := range 1001 {
		if _, err := c.Write(fParse(fmt.Sprintf("s%d", i), "SELECT 1").bytes()); err != nil {
			break
		}
	}
	if _, err := c.Write(fSync().bytes()); err != nil {
		t.Log(err)
	}
	if code := lastWords(t, c); code != "53400" {
		t.Errorf("too many statements end with %q", code)
	}
	f.waitFree()
}

// TestStalledReader has a client that stops reading in the middle of a large
// result.
func TestStalledReader(t *testing.T) {
	f := start(t, fixtureOptions{size: 2})
	before := heapBytes()
	stalled := mustDial(t, f.addr, "app")
	if _, err := stalled.Write(fQuery("SELECT repeat('x', 1000) FROM generate_series(1, 200000)").bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := stalled.until('D', 1); err != nil {
		t.Fatal(err)
	}
	busy := mustDial(t, f.addr, "app")
	for range 200 {
		if got, err := busy.converse([]frame{fQuery("SELECT repeat('y', 10000)")}, 1<<20); err != nil || len(got) < 4 {
			t.Fatalf("another client is affected: %q %v", got, err)
		}
	}
	if now := heapBytes(); now > before+16<<20 {
		t.Errorf("heap grew from %d to %d bytes", before, now)
	}
	if f.db.Shards[0].Pools.Lent() == 0 {
		t.Error("the result was read to its end")
	}
	busy.Close()
	stalled.Close()
	f.waitFree()
	f.alive()
}

// TestVanishingClients drops clients at every stage. The server connection
// comes back each time, without what the client left.
func TestVanishingClients(t *testing.T) {
	bytesOf := func(frames ...frame) (b []byte) {
		for _, f := range frames {
			b = append(b, f.bytes()...)
		}
		return b
	}
	cut := func(f frame) []byte { b := f.bytes(); return b[:len(b)-1] }
	for _, stage := range []struct {
		name string
		send []byte
		wait byte // a message to wait for before vanishing
	}{
		{"idle", nil, 0},
		{"mid-header", []byte{'Q', 0, 0}, 0},
		{"mid-query", cut(fQuery("SELECT 1")), 0},
		{"mid-bind", append(bytesOf(fParse("", "SELECT $1::text")), cut(fBind("", "", "value"))...), 0},
		{"before Sync", bytesOf(fParse("", "SELECT 1"), fBind("", ""), fExecute("", 0), fFlush()), 'C'},
		{"after an error", bytesOf(fExecute("p", 0), fFlush()), 'E'},
		{"in a statement", bytesOf(fQuery("SELECT pg_sleep(100)")), 0},
		{"in a transaction", bytesOf(fQuery("BEGIN; LOCK TABLE vanish"), fQuery("INSERT INTO vanish VALUES (1)")), 'Z'},
		{"in a failed transaction", bytesOf(fQuery("BEGIN; LOCK TABLE vanish; SELECT 1/0")), 'Z'},
		{"in COPY in", bytesOf(fQuery("COPY vanish FROM STDIN"), fCopyData("1\n")), 'G'},
		{"in COPY in, mid-frame", append(bytesOf(fQuery("COPY vanish FROM STDIN")), cut(fCopyData("1\n"))...), 'G'},
		{"in COPY in, extended", bytesOf(fParse("", "COPY vanish FROM STDIN"), fBind("", ""), fExecute("", 0), fFlush(), fCopyData("1\n")), 'G'},
		{"in COPY out", bytesOf(fQuery("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT")), 'd'},
		{"in a result", bytesOf(fQuery("SELECT repeat('x', 1000) FROM generate_series(1, 100000)")), 'D'},
		{"in a large row", bytesOf(fQuery("SELECT repeat('x', 10000000)")), 'T'},
		{"with state", bytesOf(fQuery("CREATE TEMP TABLE tt (x int); SELECT pg_advisory_lock(9)")), 'Z'},
		{"pipelining", bytes.Repeat(bytesOf(fParse("", "SELECT 1"), fBind("", ""), fExecute("", 0), fSync()), 500), 'Z'},
	} {
		t.Run(stage.name, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 1})
			setup := mustDial(t, f.addr, "app")
			if _, err := setup.converse([]frame{fQuery("CREATE TABLE vanish (x int)")}, 1<<20); err != nil {
				t.Fatal(err)
			}
			setup.Close()
			for _, abrupt := range []bool{false, true} {
				c := mustDial(t, f.addr, "app")
				if _, err := c.Write(stage.send); err != nil {
					t.Fatal(err)
				}
				if stage.wait != 0 {
					if _, err := c.until(stage.wait, 1); err != nil {
						t.Fatal(err)
					}
				}
				if strings.Contains(stage.name, "in a statement") {
					waitFor(t, func() bool { return f.db.Shards[0].Pools.Lent() == 1 })
				}
				if abrupt {
					if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
						t.Fatal(err)
					}
				}
				c.Close()
				f.waitFree()
				next := mustDial(t, f.addr, "app")
				got, err := next.converse([]frame{
					fQuery("SELECT count(*) FROM vanish"), fQuery("SELECT pg_advisory_lock(9)"), fQuery("SELECT pg_advisory_unlock(9)"),
				}, 1<<20)
				if all := strings.Join(got, "\n"); err != nil || !strings.Contains(all, `D "\x00\x01\x00\x00\x00\x010"`) || !strings.Contains(all, `D "\x00\x01\x00\x00\x00\x01t"`) {
					t.Errorf("the next client gets %s, %v", all, err)
				}
				next.Close()
				f.waitFree()
			}
		})
	}
}

// TestVanishingWhileQueued drops clients that wait for a server connection.
func TestVanishingWhileQueued(t *testing.T) {
	f := start(t, fixtureOptions{size: 1})
	holder := mustDial(t, f.addr, "app")
	if _, err := holder.Write(fQuery("BEGIN").bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.until('Z', 1); err != nil {
		t.Fatal(err)
	}
	waiting := func() (n int) {
		for _, s := range f.db.Shards[0].Pools.Stats() {
			n += s.Waiting
		}
		return n
	}
	var queued []*rawClient
	for range 5 {
		c := mustDial(t, f.addr, "app")
		if _, err := c.Write(fQuery("SELECT 1").bytes()); err != nil {
			t.Fatal(err)
		}
		queued = append(queued, c)
	}
	waitFor(t, func() bool { return waiting() == 5 })
	for _, c := range queued[:4] {
		c.Close()
	}
	waitFor(t, func() bool { return waiting() == 1 })
	holder.Close()
	if _, err := queued[4].until('Z', 1); err != nil {
		t.Fatal(err)
	}
	queued[4].Close()
	f.waitFree()
}

func TestVanishingDuringLogin(t *testing.T) {
	f := start(t, fixtureOptions{})
	packet := startupPacket("postgres", "app")
	for n := range len(packet) {
		nc, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(packet[:n]); err != nil {
			t.Fatal(err)
		}
		nc.Close()
	}
	nc, err := net.Dial("tcp", f.addr) // and at once after it
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Write(packet); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	f.waitFree()
	f.alive()
}

func TestTimeouts(t *testing.T) {
	const short = 300 * time.Millisecond
	for _, test := range []struct {
		name     string
		timeouts proxy.Timeouts
		send     []frame
		want     string
		ends     bool
	}{
		{"query", proxy.Timeouts{Query: short}, []frame{fQuery("SELECT pg_sleep(100)")}, "57014", false},
		{"query, extended", proxy.Timeouts{Query: short}, []frame{fParse("", "SELECT pg_sleep(100)"), fBind("", ""), fExecute("", 0), fSync()}, "57014", false},
		{"idle in transaction", proxy.Timeouts{IdleInTransaction: short}, []frame{fQuery("BEGIN")}, "25P03", true},
		{"idle in a failed transaction", proxy.Timeouts{IdleInTransaction: short}, []frame{fQuery("BEGIN"), fQuery("SELECT 1/0")}, "25P03", true},
		{"client idle", proxy.Timeouts{ClientIdle: short}, []frame{fQuery("SELECT 1")}, "57P05", true},
		{"client idle with a pinned server", proxy.Timeouts{ClientIdle: short}, []frame{fQuery("CREATE TEMP TABLE tt (x int)")}, "57P05", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := start(t, fixtureOptions{size: 1, user: func(u *proxy.UserPolicy) { u.Timeouts = test.timeouts }})
			c := mustDial(t, f.addr, "app")
			for _, fr := range test.send {
				if _, err := c.Write(fr.bytes()); err != nil {
					t.Fatal(err)
				}
			}
			if test.ends {
				if got := lastWords(t, c); got != test.want {
					t.Errorf("ended with %q, want %s", got, test.want)
				}
				f.waitFree()
				return
			}
			body, err := c.until('E', 1)
			if err != nil || wire.Field(body, 'C') != test.want || wire.Field(body, 'S') != "ERROR" {
				t.Fatalf("error %q, %v", body, err)
			}
			if got, err := c.converse([]frame{fQuery("SELECT 5")}, 1<<20); err != nil || got[len(got)-1] != `Z "I"` {
				t.Errorf("the session does not go on: %q %v", got, err)
			}
		})
	}
}

func TestLoginTimeout(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.configure(func(s *proxy.Settings) { s.LoginTimeout = 200 * time.Millisecond })
	nc, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte{0, 0}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_ = lastWords(t, newRaw(nc)) // PostgreSQL says nothing here either
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("a silent login lasted %v", d)
	}
	// One that has been asked for its password is told.
	nc, err = net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(startupPacket("asked", "app")); err != nil {
		t.Fatal(err)
	}
	if got := lastWords(t, newRaw(nc)); !strings.Contains(got, "57014") {
		t.Errorf("a login that took too long was told %q", got)
	}
}

// Connections that do not log in count too: they cannot take all there is.
func TestSilentConnections(t *testing.T) {
	f := start(t, fixtureOptions{})
	f.configure(func(s *proxy.Settings) { s.MaxClients = 2 })
	in := mustDial(t, f.addr, "app")
	refused := 0
	for range 200 {
		nc, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if err := nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(nc)
		if len(got) > 0 {
			refused++
			if !bytes.Contains(got, []byte("C53300\x00")) {
				t.Errorf("told %q", got)
			}
		}
	}
	if refused < 90 || refused > 110 {
		t.Errorf("%d of 200 silent connections were refused", refused)
	}
	in.do(t, "SELECT 1")
}

func TestStatementMode(t *testing.T) {
	f := start(t, fixtureOptions{size: 1, mode: proxy.ModeStatement})
	c := mustDial(t, f.addr, "app")
	for _, begin := range [][]frame{
		{fQuery("BEGIN")}, {fQuery("START TRANSACTION READ ONLY")}, {fParse("", "BEGIN"), fBind("", ""), fExecute("", 0), fSync()},
	} {
		got, err := c.converse(begin, 1<<20)
		if err != nil || !strings.HasPrefix(got[0], "E ERROR 0A000") || got[len(got)-1] != `Z "I"` {
			t.Errorf("%v: %q %v", begin, got, err)
		}
	}
	if got, err := c.converse([]frame{fQuery("SELECT 1; SELECT 2")}, 1<<20); err != nil || strings.Contains(strings.Join(got[:5], ""), "0A000") {
		t.Errorf("%q %v", got, err)
	}
	if _, err := c.Write(fQuery("SELECT 1; BEGIN").bytes()); err != nil {
		t.Fatal(err)
	}
	if code := lastWords(t, c); code != "0A000" {
		t.Errorf("a hidden BEGIN ends with %q", code)
	}
	f.waitFree()
}

func TestClientLimits(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*fixture)
	}{
		{"in all", func(f *fixture) { f.configure(func(s *proxy.Settings) { s.MaxClients = 2 }) }},
		{"per user", func(f *fixture) { f.pol.MaxClients = 2; f.configure(func(*proxy.Settings) {}) }},
		{"per database", func(f *fixture) { p := *f.db.Policy(); p.MaxClients = 2; f.db.SetPolicy(p) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := start(t, fixtureOptions{})
			test.set(f)
			first := mustDial(t, f.addr, "app")
			mustDial(t, f.addr, "app")
			if _, err := dialRaw(f.addr, "postgres", "app"); err == nil || !strings.Contains(err.Error(), "53300") {
				t.Fatalf("the third client gets %v", err)
			}
			first.Close()
			waitFor(t, func() bool { return f.db.Clients() == 1 })
			mustDial(t, f.addr, "app")
		})
	}
}

// TestQueueLimits fills the pool's queue and then outwaits it.
func TestQueueLimits(t *testing.T) {
	f := start(t, fixtureOptions{size: 1,
		policy: func(p *proxy.DatabasePolicy) { p.WaitTimeout = 300 * time.Millisecond },
		user: func(u *proxy.UserPolicy) {
			u.Pool = pool.Policy{Size: 1, MaxDialing: 1, MaxWaiting: 1, LifeTime: time.Hour, PreparedStatements: 10}
		}})
	holder := mustDial(t, f.addr, "app")
	if _, err := holder.Write(fQuery("BEGIN").bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := holder.until('Z', 1); err != nil {
		t.Fatal(err)
	}
	waits, shed := mustDial(t, f.addr, "app"), mustDial(t, f.addr, "app")
	if _, err := waits.Write(fQuery("SELECT 1").bytes()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		return f.db.Shards[0].Pools.Stats()[0].Waiting == 1
	})
	for _, c := range []*rawClient{shed, waits} {
		if c == shed {
			if _, err := c.Write(fQuery("SELECT 1").bytes()); err != nil {
				t.Fatal(err)
			}
		}
		body, err := c.until('E', 1)
		if err != nil || wire.Field(body, 'C') != "53300" || wire.Field(body, 'S') != "ERROR" {
			t.Errorf("%q, %v", body, err)
		}
		if _, err := c.until('Z', 1); err != nil {
			t.Error(err)
		}
	}
}
