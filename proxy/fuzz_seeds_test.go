package proxy_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"
	"testing"

	"shardproxy/internal/pgtest"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// recorder relays connections to a server and keeps what that says.
type recorder struct {
	target string
	wait   sync.WaitGroup

	mu   sync.Mutex
	said []byte
}

// recorded is a proxy before a real server, with a recorder between the two.
func recorded(t testing.TB, real *pgtest.Database) (*driven, *recorder) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{target: real.Node.Addr()}
	r.wait.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			r.wait.Go(func() { r.relay(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.wait.Wait()
	})
	real.Exec(oracleSchema)
	return drive(t, l.Addr().String(), real, proxy.DriverAuto), r
}

func (r *recorder) relay(proxySide net.Conn) {
	defer proxySide.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	r.wait.Go(func() {
		defer server.Close()
		_, _ = copyAll(server, proxySide, func([]byte) {})
	})
	_, _ = copyAll(proxySide, server, func(p []byte) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.said = append(r.said, p...)
	})
}

func copyAll(to, from net.Conn, see func([]byte)) (int, error) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return n, err
		}
		see(buffer[:n])
		if _, err := to.Write(buffer[:n]); err != nil {
			return n, err
		}
	}
}

// record has a client send the frames and returns what the server says to the
// proxy meanwhile, as a script: it waits where the server has answered all.
func (d *driven) record(t testing.TB, r *recorder, frames []frame) []byte {
	t.Helper()
	d.pools.Retire(0)
	c := d.dial(t)
	defer c.Close()
	if err := c.login("postgres", "app"); err != nil { // the first asks a server
		t.Fatal(err)
	}
	r.mu.Lock()
	r.said = nil
	r.mu.Unlock()
	if _, err := c.converse(frames, 1<<20); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if !d.free() {
		t.Fatalf("%v: does not end", frames)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return scriptOf(r.said)
}

// scriptOf makes a script of a server's words, without its login.
func scriptOf(said []byte) (out []byte) {
	login := true
	for len(said) >= 5 {
		n := min(int(binary.BigEndian.Uint32(said[1:]))+1, len(said))
		kind, body := said[0], said[5:n]
		said = said[n:]
		if login {
			login = kind != wire.MsgReadyForQuery
			continue
		}
		if len(out) == 0 {
			out = record(recordWait, nil)
		}
		out = append(out, record(kind, body)...)
		if (kind == wire.MsgReadyForQuery || kind == wire.MsgCopyInResponse) && len(said) > 0 {
			out = append(out, record(recordWait, nil)...)
		}
	}
	return out
}

type serverSeed struct {
	client []frame
	server []byte
	flags  uint16
}

// serverSeeds are what no server says that is in its right mind.
func serverSeeds() []serverSeed {
	say := func(records ...[]byte) []byte { return append(record(recordWait, nil), bytes.Join(records, nil)...) }
	raw := func(kind byte, length uint32, body string) []byte {
		return record(recordRaw, append(header(kind, length), body...))
	}
	ready := record('Z', []byte("I"))
	done := record('C', []byte("SELECT 1\x00"))
	text := func(kind byte, body string) []byte { return record(kind, []byte(body)) }
	one := []frame{fQuery("SELECT 1")}
	write := []frame{fQuery("INSERT INTO t VALUES (1)")}
	round := append(extended("INSERT INTO t VALUES (1)"), fSync())
	unknown := []frame{fQuery("SELECT pg_advisory_lock(1)")}
	settings := []frame{fQuery("SET work_mem = '3MB'"), fQuery("SELECT 1")}
	cursor := []frame{fQuery("BEGIN"), fQuery("DECLARE cu CURSOR FOR SELECT 1"), fQuery("FETCH 1 FROM cu")}
	copied := []frame{fQuery("COPY c FROM STDIN"), fCopyData("1\ta\n"), fCopyDone()}
	named := []frame{fParse("s1", "SELECT 1"), fDescribe('S', "s1"), fBind("", "s1"), fExecute("", 0), fSync(), fClose('S', "s1"), fSync()}
	return []serverSeed{
		{one, nil, flagAlways},
		{one, nil, flagLogin},
		{one, say(raw('D', 1<<32-1, "")), 0},
		{one, say(raw('D', 100, "half a row")), 0},
		{one, say(raw('Z', 1<<32-1, "")), 0},
		{one, say(raw('C', 64<<20-1, "SELECT")), 0},
		{one, say(raw('C', 64<<20, "SELECT")), 0},
		{one, say(raw('E', 3, "")), 0},
		{one, say(raw('S', 0, "")), 0},
		{one, say(raw(0, 0, "")), 0},
		{one, say(text('Z', "X")), 0},
		{one, say(text('Z', "")), 0},
		{one, say(text('Z', "II")), 0},
		{one, say(ready, ready, ready), 0},
		{one, say(done, done, done, ready), 0},
		{one, say(text('1', ""), ready), 0},
		{one, say(text('n', ""), ready), 0},
		{one, say(text('V', "\x00\x00\x00\x00"), ready), 0},
		{one, say(text('t', "\x00\x00"), ready), 0},
		{one, say(text('R', "\x00\x00\x00\x00"), ready), 0},
		{one, say(text('E', ""), ready), 0},
		{one, say(text('E', "SERROR\x00C42601\x00Mno\x00\x00"), text('E', "SERROR\x00C42601\x00Mno\x00\x00"), ready), 0},
		{one, say(text('E', "SFATAL\x00VFATAL\x00C57P01\x00Mno\x00\x00")), flagAlways},
		{one, say(text('E', "SFATAL\x00VFATAL\x00C08P01\x00Mno\x00\x00")), 0},
		{one, say(text('E', "SPANIC\x00")), flagSession},
		{one, say(text('E', "C25006\x00\x00"), ready), flagAlways},
		{write, say(text('E', "C25006\x00\x00"), ready), flagAlways},
		{one, say(text('N', ""), text('A', ""), text('S', ""), text('S', "DateStyle"), text('S', "DateStyle\x00"), done, ready), 0},
		{one, say(text('S', "DateStyle\x00x\x00"), record(recordRepeat, []byte{255, 255}), done, ready), 0},
		{one, say(text('S', "DateStyle\x00x\x00"), record(recordLong, []byte{255, 255}), done, ready), flagLogin},
		{one, say(text('D', "\x00\x01\x00\x00\x00\x01x"), record(recordRepeat, []byte{255, 255}), done, ready), 0},
		{one, say(text('T', "\x00\x01"), done, ready), 0},
		{one, append(ready, ready...), 0},
		{one, text('E', ""), flagLogin | flagAlways},
		{one, say(done, ready, text('E', "SERROR\x00VERROR\x00C26000\x00Mno\x00\x00")), flagLogin},
		{one, append(ready, ready...), flagLogin},
		{one, say(text('S', "work_mem\x00x\x00"), text('A', "\x00\x00\x00\x01c\x00p\x00"), done, ready), flagLogin},
		{write, say(record(recordRaw, []byte("C\x00\x00\x00")), record(recordPause, nil), record(recordRaw, []byte("\x0fINSERT 0 1\x00Z\x00\x00\x00\x05I"))), 0},
		{write, nil, 0},
		{write, say(text('G', "\x00\x00\x00"), ready), 0},
		{append(one, append(extended("COMMIT"), fQuery("ROLLBACK TO a"), fParse("", "SELECT 2"), fSync())...), say(text('T', "\x00\x01"), record(recordPause, nil)), 0},
		{round, say(text('1', ""), text('D', "\x00\x00"), text('2', ""), done, ready), 0},
		{round, say(text('2', ""), text('1', ""), done, ready), 0},
		{round, say(text('1', ""), text('2', ""), text('s', ""), text('C', "INSERT"), ready), 0},
		{round, say(text('1', ""), text('E', "C22000\x00\x00"), text('2', ""), ready), 0},
		{round, say(text('1', ""), ready), 0},
		{unknown, say(done, ready, record(recordWait, nil), text('D', "\x00\x01\x00\x00\x00\x04zzzz"), done, ready), 0},
		{unknown, say(done, ready, record(recordWait, nil), text('D', "\x00\x01\x00\x00\x00\x047b7d"), done, ready), 0},
		{unknown, say(done, ready, record(recordWait, nil), done, ready), flagGoroutine},
		{unknown, say(done, ready, record(recordWait, nil), raw('D', 1<<32-1, "\x00\x01")), 0},
		{unknown, say(done, ready, record(recordWait, nil), raw('D', 1<<31, "\x00\x01")), 0},
		{unknown, say(done, ready, record(recordWait, nil), text('E', "C57014\x00\x00"), ready), 0},
		{settings, say(text('C', "SET\x00"), ready, record(recordWait, nil), text('C', "SET\x00"), done, ready), 0},
		{settings, say(text('E', "C42704\x00\x00"), ready), flagLogin},
		{cursor, say(text('C', "BEGIN\x00"), text('Z', "T"), record(recordWait, nil), text('Z', "E"), done, ready), 0},
		{copied, say(text('G', "\x00\x00\x00"), record(recordWait, nil), text('C', "COPY 1\x00"), ready), 0},
		{copied, say(text('W', "\x00\x00\x00"), text('G', "\x00\x00\x00"), text('E', "C22000\x00\x00"), text('c', ""), ready), 0},
		{named, say(text('1', ""), text('t', "\x00\x00"), text('T', "\x00\x01c\x00"), record(recordLong, []byte{0, 18}), text('2', ""), done, ready, record(recordWait, nil), text('3', ""), ready), 0},
		{named, say(text('1', ""), raw('T', 1<<31, "\x00\x01")), 0},
		{named, say(text('E', "C26000\x00Mprepared statement \"_sp_1\" does not exist\x00P5\x00\x00"), ready), 0},
	}
}
