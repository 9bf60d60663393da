package faultproxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// passThrough splits a stream into frames and puts it together again.
func passThrough(t *testing.T, in []byte, opening bool) (out []byte, frames int) {
	t.Helper()
	r := bufio.NewReader(iotest.HalfReader(bytes.NewReader(in)))
	var b bytes.Buffer
	read := readMessage
	if opening {
		read = readOpening
	}
	for {
		m, err := read(r)
		switch {
		case errors.Is(err, io.EOF):
			return b.Bytes(), frames
		case errors.Is(err, errNoFrame):
			if _, err := io.Copy(&b, r); err != nil {
				t.Fatal(err)
			}
			return b.Bytes(), frames
		case errors.Is(err, io.ErrUnexpectedEOF):
			b.Write(append(m.head, m.body...))
			return b.Bytes(), frames
		case err != nil:
			t.Fatal(err)
		}
		frames++
		if err := m.copyTo(&b, r); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		read = readMessage
	}
}

func TestFrames(t *testing.T) {
	big := append([]byte{'D', 0, 3, 0, 4}, bytes.Repeat([]byte{7}, 3<<16)...)
	for _, test := range []struct {
		name    string
		in      string
		opening bool
		frames  int
	}{
		{"nothing", "", false, 0},
		{"two", "S\x00\x00\x00\x04Q\x00\x00\x00\x06a\x00", false, 2},
		{"big", string(big) + "Z\x00\x00\x00\x05I", false, 2},
		{"length 3", "S\x00\x00\x00\x04Q\x00\x00\x00\x03a", false, 1},
		{"length 2^31", "Q\x80\x00\x00\x00a", false, 0},
		{"ends in a head", "S\x00\x00\x00\x04Q\x00\x00", false, 1},
		{"ends in a body", "Q\x00\x00\x00\x09ab", false, 0},
		{"ends in a big body", string(big[:2<<16]), false, 1},
		{"startup", "\x00\x00\x00\x09\x00\x03\x00\x00\x00S\x00\x00\x00\x04", true, 2},
		{"ssl request", "\x00\x00\x00\x08\x04\xd2\x16\x2f", true, 1},
		{"http", "GET / HTTP/1.1\r\n\r\n", true, 0},
	} {
		out, frames := passThrough(t, []byte(test.in), test.opening)
		if string(out) != test.in || frames != test.frames {
			t.Errorf("%s: %d bytes of %d, %d frames, want %d", test.name, len(out), len(test.in), frames, test.frames)
		}
	}
}

func TestOpeningKinds(t *testing.T) {
	for in, want := range map[string]byte{
		"\x00\x00\x00\x08\x04\xd2\x16\x2f":                 SSLRequest,
		"\x00\x00\x00\x08\x04\xd2\x16\x30":                 GSSENCRequest,
		"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01": CancelRequest,
		"\x00\x00\x00\x09\x00\x03\x00\x02\x00":             Startup,
	} {
		m, err := readOpening(bufio.NewReader(strings.NewReader(in + "\x00\x00\x00\x00")))
		if err != nil || m.kind != want {
			t.Errorf("%q: %s, %v; want %s", in, kindName(m.kind), err, kindName(want))
		}
	}
}

// FuzzFrames: whatever comes in goes out unchanged.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("S\x00\x00\x00\x04Q\x00\x00\x00\x06a\x00"), false)
	f.Add([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"), true)
	f.Add([]byte("Q\xff\xff\xff\xff"), false)
	f.Fuzz(func(t *testing.T, in []byte, opening bool) {
		if out, _ := passThrough(t, in, opening); !bytes.Equal(out, in) {
			t.Errorf("%q became %q", in, out)
		}
	})
}

// TestGarbageThroughAProxy: bytes that are no frames reach the other side.
func TestGarbageThroughAProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := Start(t, Options{Target: l.Addr().String()})
	for _, in := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"\x00\x00\x00\x09\x00\x03\x00\x00\x00Q\x00\x00\x00\x03garbage",
		"\x00\x00\x00\x09\x00\x03\x00\x00\x00Q\x00\x00\x00\x09ab",
		"\x00\x00",
	} {
		client, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(client, in); err != nil {
			t.Fatal(err)
		}
		if err := client.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(server)
		if err != nil || string(got) != in {
			t.Errorf("%q became %q, %v", in, got, err)
		}
		server.Close()
		client.Close()
	}
}

// FuzzExpectations: no order of messages blocks or crashes the bookkeeping,
// and Sync with its ReadyForQuery always leads back to quiet.
func FuzzExpectations(f *testing.F) {
	f.Add("PBDES", "12TDCZ")
	f.Add("PBES", "EZ")
	f.Fuzz(func(t *testing.T, client, server string) {
		e := newExpectations()
		for i := range max(len(client), len(server)) {
			if i < len(client) {
				e.sent(client[i])
			}
			if i < len(server) {
				e.received(message{kind: server[i], body: []byte{'I'}})
			}
		}
		e.sent('S')
		e.received(message{kind: 'E'})
		for range len(client) + 1 {
			e.received(message{kind: 'E'})
			e.received(message{kind: 'Z', body: []byte{'I'}})
		}
		if _, skipping, ok := e.waitQuiet(); skipping || !ok {
			t.Errorf("skipping %v, ok %v at the end", skipping, ok)
		}
	})
}

// TestCloseIsPolite: a client that goes on sending after CloseConn sees the end
// of the stream and no reset.
func TestCloseIsPolite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := Start(t, Options{Target: l.Addr().String()})
	p.On(Rule{From: FromServer, Kind: 'Z', Do: CloseConn()})
	client, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for to, frame := range map[net.Conn]string{client: "\x00\x00\x00\x09\x00\x03\x00\x00\x00", server: "Z\x00\x00\x00\x05I"} {
		if _, err := io.WriteString(to, frame); err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
		t.Errorf("read %q, %v; want the end of the stream", rest, err)
	}
	// More than the sockets can hold.
	frames := strings.Repeat("S\x00\x00\x00\x04", 20000)
	for range 200 {
		if _, err := io.WriteString(client, frames); err != nil {
			t.Fatalf("write: %v", err)
		}
	}
	if rest, err := io.ReadAll(server); err != nil || len(rest) != 9 {
		t.Errorf("the server read %q, %v; want the startup message alone", rest, err)
	}
}
