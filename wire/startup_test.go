package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/wire"
)

const (
	cancelCode = 80877102
	sslCode    = 80877103
	gssCode    = 80877104
	startupMax = 10000
)

func packet(code uint32, body string) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(p, code), body...)
}

func TestReadStartup(t *testing.T) {
	secret := strings.Repeat("s", 256)
	for _, test := range []struct {
		name  string
		bytes []byte
		want  *wire.Startup
		code  string // of the refusal
	}{
		{"SSL", packet(sslCode, ""), &wire.Startup{Kind: wire.StartupSSL}, ""},
		{"GSS", packet(gssCode, ""), &wire.Startup{Kind: wire.StartupGSSENC}, ""},
		{"SSL with bytes", packet(sslCode, "x"), nil, "08P01"},
		{"GSS with bytes", packet(gssCode, "x"), nil, "08P01"},
		{"direct TLS", []byte{0x16, 3, 1, 2}, &wire.Startup{Kind: wire.StartupDirectTLS, Head: []byte{0x16, 3, 1, 2}}, ""},
		{"cancel", packet(cancelCode, "\x00\x00\x01\x02abcd"),
			&wire.Startup{Kind: wire.StartupCancel, Cancel: wire.CancelKey{PID: 258, Secret: "abcd"}}, ""},
		{"cancel, longest", packet(cancelCode, "\xff\xff\xff\xff"+secret),
			&wire.Startup{Kind: wire.StartupCancel, Cancel: wire.CancelKey{PID: 1<<32 - 1, Secret: secret}}, ""},
		{"cancel, too short", packet(cancelCode, "\x00\x00\x01\x02abc"), nil, "08P01"},
		{"cancel, too long", packet(cancelCode, "\xff\xff\xff\xff"+secret+"s"), nil, "08P01"},
		{"cancel, empty", packet(cancelCode, ""), nil, "08P01"},
		{"3.0", packet(3<<16, "user\x00u\x00\x00"),
			&wire.Startup{Protocol: wire.Protocol30, Params: []wire.Param{{Name: "user", Value: "u"}}}, ""},
		{"3.0 without anything", packet(3<<16, "\x00"), &wire.Startup{Protocol: wire.Protocol30}, ""},
		{"3.2", packet(3<<16|2, "user\x00u\x00database\x00d\x00\x00"),
			&wire.Startup{Protocol: wire.Protocol32, Params: []wire.Param{{Name: "user", Value: "u"}, {Name: "database", Value: "d"}}}, ""},
		{"3.3", packet(3<<16|3, "\x00"), &wire.Startup{Protocol: wire.Protocol32, Negotiate: true}, ""},
		{"3.9999, as libpq greases", packet(3<<16|9999, "_pq_.test\x00\x00\x00"),
			&wire.Startup{Protocol: wire.Protocol32, Negotiate: true, Unsupported: []string{"_pq_.test"}}, ""},
		{"3.65535", packet(3<<16|0xffff, "\x00"), &wire.Startup{Protocol: wire.Protocol32, Negotiate: true}, ""},
		{"options of the protocol", packet(3<<16, "_pq_.a\x001\x00user\x00u\x00_pq_.b\x002\x00\x00"),
			&wire.Startup{Protocol: wire.Protocol30, Negotiate: true, Unsupported: []string{"_pq_.a", "_pq_.b"},
				Params: []wire.Param{{Name: "user", Value: "u"}}}, ""},
		{"empty value", packet(3<<16, "user\x00\x00\x00"),
			&wire.Startup{Protocol: wire.Protocol30, Params: []wire.Param{{Name: "user"}}}, ""},
		{"no terminator", packet(3<<16, "user\x00u\x00"), nil, "08P01"},
		{"no body", packet(3<<16, ""), nil, "08P01"},
		{"name only", packet(3<<16, "user"), nil, "08P01"},
		{"name and NUL", packet(3<<16, "user\x00"), nil, "08P01"},
		{"value without a NUL", packet(3<<16, "user\x00u"), nil, "08P01"},
		{"bytes behind the terminator", packet(3<<16, "user\x00u\x00\x00x"), nil, "08P01"},
		{"NUL within a value", packet(3<<16, "user\x00a\x00b\x00\x00"), nil, "08P01"},
		{"protocol 0", packet(0, ""), nil, "0A000"},
		{"protocol 2", packet(2<<16, "user"), nil, "0A000"},
		{"protocol 4", packet(4<<16, "\x00"), nil, "0A000"},
		{"a cancel code that is none", packet(1234<<16|5681, ""), nil, "0A000"},
		{"length 0", []byte{0, 0, 0, 0, 0, 3, 0, 0}, nil, "08P01"},
		{"length 4", []byte{0, 0, 0, 4}, nil, "08P01"},
		{"length 7", []byte{0, 0, 0, 7, 0, 3, 0}, nil, "08P01"},
		{"length over the limit", binary.BigEndian.AppendUint32(nil, startupMax+1), nil, "08P01"},
		{"length 2^31", []byte{0x80, 0, 0, 0}, nil, "08P01"},
		{"length 2^32-1", []byte{0xff, 0xff, 0xff, 0xff}, nil, "08P01"},
		{"half a length", []byte{0, 0}, nil, "08P01"},
		{"half a body", packet(3<<16, "user\x00u\x00\x00")[:12], nil, "08P01"},
		{"HTTP", []byte("GET / HTTP/1.1\r\n\r\n"), nil, "08P01"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rest := "what follows belongs to somebody else"
			for _, in := range []io.Reader{
				bytes.NewReader(append(bytes.Clone(test.bytes), rest...)), iotest.OneByteReader(bytes.NewReader(append(bytes.Clone(test.bytes), rest...))),
			} {
				cut := strings.HasPrefix(test.name, "half") || test.name == "length 4"
				if cut {
					in = bytes.NewReader(test.bytes)
				}
				got, err := wire.ReadStartup(in, startupMax)
				if test.code != "" {
					var we *wire.Error
					if !errors.As(err, &we) || we.Code != test.code || !we.IsFatal() {
						t.Fatalf("got %v, want %s", err, test.code)
					}
					continue
				}
				if err != nil || !reflect.DeepEqual(got, test.want) {
					t.Fatalf("got %+v, %v, want %+v", got, err, test.want)
				}
				if left, _ := io.ReadAll(in); string(left) != rest {
					t.Fatalf("read too much: %q is left", left)
				}
			}
		})
	}
	if _, err := wire.ReadStartup(bytes.NewReader(nil), startupMax); err != io.EOF {
		t.Errorf("a peer without a word: %v", err)
	}
	gone := errors.New("gone")
	if _, err := wire.ReadStartup(iotest.ErrReader(gone), startupMax); !errors.Is(err, gone) {
		t.Errorf("a broken peer: %v", err)
	}
}

func TestStartupGet(t *testing.T) {
	s := &wire.Startup{Params: []wire.Param{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}, {Name: "a", Value: "3"}}}
	if v, ok := s.Get("a"); !ok || v != "3" {
		t.Errorf("%q, the last counts", v)
	}
	if _, ok := s.Get("c"); ok {
		t.Error("found what is not there")
	}
}

// TestPackets compares what we write with what pgproto3 reads.
func TestPackets(t *testing.T) {
	s, err := wire.ReadStartup(bytes.NewReader(packet(3<<16|7, "_pq_.a\x00\x00_pq_.b\x00x\x00\x00")), startupMax)
	if err != nil {
		t.Fatal(err)
	}
	kind, body, err := wire.ReadMessage(bytes.NewReader(s.AppendNegotiate(nil)), 100)
	want := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, wire.Protocol32), 2)
	if err != nil || kind != wire.MsgNegotiateProtocolVersion || string(body) != string(want)+"_pq_.a\x00_pq_.b\x00" {
		t.Errorf("%c %q, %v", kind, body, err)
	}
	key := wire.CancelKey{PID: 77, Secret: "abcd"}
	var cancel pgproto3.CancelRequest
	if err := cancel.Decode(wire.AppendCancelRequest(nil, key)[4:]); err != nil || cancel.ProcessID != 77 || string(cancel.SecretKey) != "abcd" {
		t.Errorf("%+v, %v", cancel, err)
	}
	back, err := wire.ReadStartup(bytes.NewReader(wire.AppendCancelRequest([]byte{}, key)), startupMax)
	if err != nil || back.Cancel != key {
		t.Errorf("%+v, %v", back, err)
	}
	if back, err = wire.ReadStartup(bytes.NewReader(wire.AppendSSLRequest(nil)), startupMax); err != nil || back.Kind != wire.StartupSSL {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestReadMessage(t *testing.T) {
	for _, test := range []struct {
		bytes string
		kind  byte
		body  string
		ok    bool
	}{
		{"p\x00\x00\x00\x04", 'p', "", true},
		{"p\x00\x00\x00\x07abc", 'p', "abc", true},
		{"p\x00\x00\x00\x0e0123456789", 'p', "0123456789", true},
		{"p\x00\x00\x00\x0f0123456789a", 'p', "", false},
		{"p\x00\x00\x00\x03", 'p', "", false},
		{"p\xff\xff\xff\xff", 'p', "", false},
		{"p\x00\x00\x00\x07ab", 'p', "", false},
		{"p\x00\x00", 0, "", false},
		{"", 0, "", false},
	} {
		kind, body, err := wire.ReadMessage(strings.NewReader(test.bytes), 10)
		if (err == nil) != test.ok || kind != test.kind || string(body) != test.body {
			t.Errorf("%q: %c %q %v", test.bytes, kind, body, err)
		}
	}
}

// FuzzReadStartup: no input makes it fail in another way than with an Error or
// the end of the input, and what it accepts it read to the last byte.
func FuzzReadStartup(f *testing.F) {
	f.Add(packet(3<<16, "user\x00u\x00\x00"))
	f.Add(packet(3<<16|9999, "_pq_.x\x00y\x00user\x00u\x00\x00"))
	f.Add(packet(cancelCode, "12345678"))
	f.Add(packet(sslCode, ""))
	f.Add([]byte{0x16, 3, 1, 0})
	f.Fuzz(func(t *testing.T, p []byte) {
		in := bytes.NewReader(p)
		s, err := wire.ReadStartup(in, startupMax)
		var we *wire.Error
		switch {
		case err == nil && s.Kind == wire.StartupSession:
			if used := len(p) - in.Len(); used != int(binary.BigEndian.Uint32(p)) {
				t.Errorf("read %d bytes of a packet of %d", used, binary.BigEndian.Uint32(p))
			}
			for _, param := range s.Params {
				if param.Name == "" || strings.ContainsRune(param.Name+param.Value, 0) || strings.HasPrefix(param.Name, "_pq_.") {
					t.Errorf("%+v", s)
				}
			}
			if len(s.Unsupported) > 0 && !s.Negotiate || s.Protocol>>16 != 3 || s.Protocol > wire.Protocol32 {
				t.Errorf("%+v", s)
			}
		case err == nil:
		case errors.As(err, &we) && we.IsFatal() && len(we.Code) == 5:
		case err == io.EOF && len(p) == 0:
		default:
			t.Errorf("%v", err)
		}
	})
}
