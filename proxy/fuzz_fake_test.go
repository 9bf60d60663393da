package proxy_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/wire"
)

// Records of a script that are no frames. A script is what a fake server says:
// records of a kind, two bytes of length and a body. Any other kind is a frame.
const (
	recordWait   = iota // until the proxy has sent something that is answered
	recordRaw           // bytes as they are
	recordRepeat        // the last frame again, as often as the body's two bytes say
	recordLong          // the last frame again, with as many bytes more
	recordPause         // lets the proxy read what was said before
	records
)

// What a fake server does when its script is over.
const (
	thenCloses = iota
	thenServes
	thenIsSilent
	thens
)

const (
	scriptMax  = 1 << 20                // bytes that one script says
	scriptWait = 500 * time.Microsecond // of a recordWait: the proxy may be waiting too
	scriptRest = 200 * time.Microsecond // of a recordPause
)

func record(kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(body))), body...)
}

// speech is what some connections of a fake server say instead of the truth.
type speech struct {
	data  []byte
	conns int // how many connections it is for
	then  int
	more  func() []byte // without end, behind data, unless it is nil
	wait  time.Duration // of a recordWait, if not scriptWait
}

// fakeServer lets everybody in and then speaks by its script, or, without one, as
// a server does whose statements all succeed and return nothing.
type fakeServer struct {
	listener net.Listener
	accepted atomic.Int64 // but for cancel requests

	mu     sync.Mutex
	speech speech
	conns  map[net.Conn]struct{}
	wait   sync.WaitGroup
}

// newFake returns a fake server and the address by which a pool reaches it. It
// listens on a Unix-domain socket, of which there are enough for a million
// connections.
func newFake(t testing.TB) (f *fakeServer, address string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fake") // short, as addresses of sockets must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	f = &fakeServer{listener: l, conns: map[net.Conn]struct{}{}}
	f.wait.Go(f.accept)
	t.Cleanup(func() {
		l.Close()
		f.say(speech{})
		f.wait.Wait()
	})
	return f, dir + ":5432"
}

func (f *fakeServer) accept() {
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conns[c] = struct{}{}
		f.mu.Unlock()
		f.wait.Go(func() {
			defer c.Close()
			f.serve(c)
			f.mu.Lock()
			delete(f.conns, c)
			f.mu.Unlock()
		})
	}
}

// say ends all connections and has the next ones speak by the script.
func (f *fakeServer) say(s speech) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.speech = s
	for c := range f.conns {
		c.Close()
	}
	f.accepted.Store(0)
}

// end ends all connections with a last word.
func (f *fakeServer) end(word []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		_, _ = c.Write(word) // one may have gone already
		c.Close()
	}
}

func (f *fakeServer) next() (speech, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.speech.conns--
	return f.speech, f.speech.conns >= 0
}

// fakeLogin is what PostgreSQL says to a login that needs no password.
func fakeLogin() []byte {
	out := wire.AppendFrame(nil, wire.MsgAuthentication, make([]byte, 4))
	for _, p := range [][2]string{
		{"in_hot_standby", "off"}, {"integer_datetimes", "on"}, {"TimeZone", "UTC"}, {"IntervalStyle", "postgres"},
		{"is_superuser", "on"}, {"application_name", ""}, {"default_transaction_read_only", "off"}, {"client_encoding", "UTF8"},
		{"DateStyle", "ISO, MDY"}, {"standard_conforming_strings", "on"}, {"session_authorization", "postgres"},
		{"server_version", "15.5"}, {"server_encoding", "UTF8"},
	} {
		out = wire.AppendParameterStatus(out, p[0], p[1])
	}
	out = wire.AppendBackendKeyData(out, 4711, []byte("abcd"))
	return wire.AppendReadyForQuery(out, 'I')
}

func (f *fakeServer) serve(c net.Conn) {
	in := bufio.NewReader(c)
	start, err := wire.ReadStartup(in, 1<<20)
	if err != nil || start.Kind != wire.StartupSession {
		return // a cancel request is taken by its end
	}
	f.accepted.Add(1)
	if _, err := c.Write(fakeLogin()); err != nil {
		return
	}
	if s, ok := f.next(); ok && !s.play(c, in) {
		return
	}
	answerAll(c, in)
}

// play speaks by the script and reports whether the truth comes then.
func (s *speech) play(c net.Conn, in *bufio.Reader) bool {
	asked, stop := make(chan struct{}, 1000), make(chan struct{})
	over := make(chan struct{})
	go func() {
		defer close(over)
		for {
			kind, _, err := wire.ReadMessage(in, 1<<30)
			if err != nil {
				return
			}
			if strings.IndexByte("QSFHcf", kind) >= 0 {
				select {
				case asked <- struct{}{}:
				case <-stop:
				default:
				}
			}
		}
	}()
	alive := s.speak(c, asked)
	if alive && s.more != nil {
		for <-asked; alive; {
			_, err := c.Write(s.more())
			alive = err == nil
		}
	}
	switch {
	case alive && s.then == thenIsSilent:
		<-over
	case alive && s.then == thenServes:
		// The reader is between two frames, or takes one that nobody answers.
		_ = c.SetReadDeadline(time.Now())
		<-over
		return c.SetReadDeadline(time.Time{}) == nil
	}
	close(stop)
	c.Close()
	<-over
	return false
}

// speak writes what the script says; false when nobody listens any more.
func (s *speech) speak(c net.Conn, asked <-chan struct{}) bool {
	var out, last []byte
	total := 0
	flush := func() bool {
		_, err := c.Write(out)
		out = out[:0]
		return err == nil
	}
	for data := s.data; len(data) >= 3 && total < scriptMax; {
		kind := data[0]
		n := min(int(binary.BigEndian.Uint16(data[1:])), len(data)-3)
		body := data[3 : 3+n]
		data = data[3+n:]
		was := len(out)
		switch kind {
		case recordWait:
			if !flush() {
				return false
			}
			was = 0
			select {
			case <-asked:
			case <-time.After(cmp.Or(s.wait, scriptWait)):
			}
		case recordPause:
			if !flush() {
				return false
			}
			was = 0
			<-time.After(scriptRest)
		case recordRaw:
			out = append(out, body...)
		case recordRepeat:
			for range min(number(body), (scriptMax-total)/max(len(last), 1)) {
				out = append(out, last...)
			}
		case recordLong:
			if len(last) > 0 {
				out = wire.AppendFrame(out, last[0], last[5:], bytes.Repeat([]byte{'x'}, number(body)))
			}
		default:
			out = wire.AppendFrame(out, kind, body)
			last = append(last[:0], out[was:]...)
		}
		total += len(out) - was
	}
	return flush()
}

func number(body []byte) int {
	if len(body) < 2 {
		return 1
	}
	return int(binary.BigEndian.Uint16(body))
}

// answerAll serves until the connection ends.
func answerAll(c net.Conn, in *bufio.Reader) {
	tx := byte('I')
	var out []byte
	for {
		kind, body, err := wire.ReadMessage(in, 1<<30)
		if err != nil {
			return
		}
		out, tx = answer(out, kind, body, tx)
		if in.Buffered() == 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

func answer(out []byte, kind byte, body []byte, tx byte) ([]byte, byte) {
	switch kind {
	case wire.MsgParse:
		out = wire.AppendEmpty(out, wire.MsgParseComplete)
	case wire.MsgBind:
		out = wire.AppendEmpty(out, wire.MsgBindComplete)
	case wire.MsgClose:
		out = wire.AppendEmpty(out, wire.MsgCloseComplete)
	case wire.MsgDescribe:
		if len(body) > 0 && body[0] == 'S' {
			out = wire.AppendFrame(out, wire.MsgParameterDescription, []byte{0, 0})
		}
		out = wire.AppendEmpty(out, wire.MsgNoData)
	case wire.MsgExecute:
		out = wire.AppendCommandComplete(out, "SELECT 0")
	case wire.MsgSync:
		out = wire.AppendReadyForQuery(out, tx)
	case wire.MsgFunctionCall:
		out = wire.AppendFrame(out, wire.MsgFunctionCallResponse, []byte{255, 255, 255, 255})
		out = wire.AppendReadyForQuery(out, tx)
	case wire.MsgQuery:
		text := strings.ToUpper(string(body))
		switch {
		case strings.HasPrefix(text, "BEGIN"):
			tx = 'T'
		case strings.HasPrefix(text, "COMMIT"), strings.HasPrefix(text, "ROLLBACK"):
			tx = 'I'
		case strings.Contains(text, "JSON_BUILD_OBJECT"):
			state := hex.EncodeToString([]byte(`{"role":"none","authorization":"postgres"}`))
			out = wire.AppendFrame(out, wire.MsgDataRow, oneColumn(state))
		case strings.Contains(text, "THE END"):
			out = wire.AppendFrame(out, wire.MsgRowDescription, []byte("\x00\x01c\x00"), make([]byte, 18))
			out = wire.AppendFrame(out, wire.MsgDataRow, oneColumn("the end"))
		}
		out = wire.AppendReadyForQuery(wire.AppendCommandComplete(out, "SELECT 0"), tx)
	}
	return out, tx
}

// oneColumn is the body of a row.
func oneColumn(v string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0, 1}, uint32(len(v))), v...)
}
