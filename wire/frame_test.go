package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/wire"
)

func TestErrorOnTheWire(t *testing.T) {
	secret := errors.New("the password is x")
	for _, e := range []*wire.Error{
		wire.Errorf("42601", "syntax error at %q", "x"),
		wire.Fatal("57P01", "going down").WithHint("Try %s.", "again").WithDetail("Since %d.", 5),
		wire.Errorf("XX000", "broken").WithCause(secret),
		{Severity: "PANIC", Code: "XX001", Message: "größe ✓"},
	} {
		want := pgproto3.ErrorResponse{Severity: e.Severity, SeverityUnlocalized: e.Severity, Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
		if e.Severity == "" {
			want.Severity, want.SeverityUnlocalized = "ERROR", "ERROR"
		}
		frames := e.Append([]byte("before"))
		kind, body, err := wire.ReadMessage(bytes.NewReader(frames[6:]), 1000)
		var got pgproto3.ErrorResponse
		if err := errors.Join(err, got.Decode(body)); err != nil || kind != 'E' || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || string(frames[:6]) != "before" {
			t.Errorf("%+v\nwant %+v, %v", got, want, err)
		}
		kind, notice, err := wire.ReadMessage(bytes.NewReader(e.AppendNotice(nil)), 1000)
		if err != nil || kind != 'N' || !bytes.Equal(notice, body) {
			t.Errorf("%c %q, %v", kind, notice, err)
		}
		if bytes.Contains(frames, []byte("password")) {
			t.Error("the cause reaches the client")
		}
		for key, value := range map[byte]string{'C': e.Code, 'M': e.Message, 'D': e.Detail, 'H': e.Hint, 'V': want.Severity, 'X': ""} {
			if got := wire.Field(body, key); got != value {
				t.Errorf("field %c is %q, want %q", key, got, value)
			}
		}
		if e.IsFatal() != (e.Severity != "") || !strings.Contains(e.Error(), e.Code) || !strings.Contains(e.Error(), e.Message) {
			t.Errorf("%v", e)
		}
	}
}

func TestErrorValues(t *testing.T) {
	cause := errors.New("cause")
	base := wire.Errorf("0A000", "no")
	with := base.WithCause(cause).WithHint("h").WithDetail("d")
	if base.Cause != nil || base.Hint != "" || base.Detail != "" {
		t.Error("the original was changed")
	}
	if !errors.Is(with, cause) || !strings.Contains(with.Error(), "cause") {
		t.Errorf("%v", with)
	}
	if got := wire.AsError(fmt.Errorf("outer: %w", with)); got != with {
		t.Errorf("%v", got)
	}
	if got := wire.AsError(cause); got.Code != "XX000" || got.Cause != cause || strings.Contains(got.Message, "cause") {
		t.Errorf("%v", got)
	}
}

// TestAppend compares each frame that we compose with what pgproto3 composes.
func TestAppend(t *testing.T) {
	for _, test := range []struct {
		got  []byte
		want interface {
			Encode([]byte) ([]byte, error)
		}
	}{
		{wire.AppendQuery(nil, "SELECT 'ä'"), &pgproto3.Query{String: "SELECT 'ä'"}},
		{wire.AppendParse(nil, "s1", []byte("SELECT $1\x00\x00\x01\x00\x00\x00\x17")), &pgproto3.Parse{Name: "s1", Query: "SELECT $1", ParameterOIDs: []uint32{23}}},
		{wire.AppendParse(nil, "", []byte("\x00\x00\x00")), &pgproto3.Parse{}},
		{wire.AppendClose(nil, 'S', "s1"), &pgproto3.Close{ObjectType: 'S', Name: "s1"}},
		{wire.AppendClose(nil, 'P', ""), &pgproto3.Close{ObjectType: 'P'}},
		{wire.AppendEmpty(nil, wire.MsgSync), &pgproto3.Sync{}},
		{wire.AppendEmpty(nil, wire.MsgFlush), &pgproto3.Flush{}},
		{wire.AppendEmpty(nil, wire.MsgParseComplete), &pgproto3.ParseComplete{}},
		{wire.AppendEmpty(nil, wire.MsgNoData), &pgproto3.NoData{}},
		{wire.AppendReadyForQuery(nil, 'T'), &pgproto3.ReadyForQuery{TxStatus: 'T'}},
		{wire.AppendCommandComplete(nil, "INSERT 0 1"), &pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")}},
		{wire.AppendParameterStatus(nil, "TimeZone", "UTC"), &pgproto3.ParameterStatus{Name: "TimeZone", Value: "UTC"}},
		{wire.AppendBackendKeyData(nil, 7, []byte("abcd")), &pgproto3.BackendKeyData{ProcessID: 7, SecretKey: []byte("abcd")}},
		{wire.AppendFrame(nil, wire.MsgCopyData, []byte("1\t"), nil, []byte("2\n")), &pgproto3.CopyData{Data: []byte("1\t2\n")}},
		{append(wire.AppendHeader(nil, wire.MsgCopyData, 3), "abc"...), &pgproto3.CopyData{Data: []byte("abc")}},
	} {
		want, err := test.want.Encode(nil)
		if err != nil || !bytes.Equal(test.got, want) {
			t.Errorf("%T: %q, want %q, %v", test.want, test.got, want, err)
		}
	}
}

func TestCString(t *testing.T) {
	for _, test := range []struct {
		in, s, rest string
		ok          bool
	}{
		{"", "", "", false}, {"abc", "", "", false}, {"\x00", "", "", true}, {"a\x00", "a", "", true}, {"a\x00b\x00", "a", "b\x00", true},
	} {
		s, rest, ok := wire.CString([]byte(test.in))
		if string(s) != test.s || string(rest) != test.rest || ok != test.ok {
			t.Errorf("%q: %q %q %v", test.in, s, rest, ok)
		}
	}
}

// FuzzField compares Field with pgproto3's decoder wherever that accepts the body.
func FuzzField(f *testing.F) {
	f.Add([]byte("SERROR\x00C42601\x00Mmessage\x00\x00"))
	f.Add([]byte("C"))
	f.Add([]byte("C\x00\x00"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, key := range []byte("SVCMDHPpqWstcdnFLRX\x00") {
			if got := wire.Field(body, key); strings.ContainsRune(got, 0) || len(got) > len(body) {
				t.Fatalf("%q", got)
			}
		}
		if len(body) == 0 || body[len(body)-1] != 0 || bytes.Contains(body, []byte("\x00\x00\x00")) {
			return
		}
		var m pgproto3.ErrorResponse
		if m.Decode(body) == nil && bytes.Count(body, []byte("C")) == 1 && m.Code != "" && m.Code != wire.Field(body, 'C') {
			t.Errorf("%q: code %q, want %q", body, wire.Field(body, 'C'), m.Code)
		}
	})
}

// FuzzHeader feeds a Conn any bytes; it never claims a frame that is under the
// header's size or over the limit.
func FuzzHeader(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x05x"), 100)
	f.Add([]byte("Q\xff\xff\xff\xff"), 1<<30)
	f.Add([]byte("Q\x00\x00\x00\x03"), 0)
	f.Fuzz(func(t *testing.T, p []byte, limit int) {
		if len(p) == 0 || len(p) > 1000 || limit < 0 {
			return
		}
		c, peer := connPair(t, &wire.Buffers{})
		write(t, peer, p)
		for len(c.Buffered()) < len(p) {
			if err := c.Socket().AwaitReadable(); err != nil {
				t.Fatal(err)
			}
			if err := c.Fill(0); err != nil && err != io.EOF {
				t.Fatal(err)
			}
		}
		kind, size, ok, err := c.Header(limit)
		switch {
		case len(p) < 5:
			if ok || err != nil {
				t.Error(ok, err)
			}
		case err == nil:
			if !ok || kind != p[0] || size < 5 || size > limit || size != int(binary.BigEndian.Uint32(p[1:]))+1 {
				t.Error(kind, size, ok)
			}
		default:
			if n := binary.BigEndian.Uint32(p[1:]); n >= 4 && uint64(n)+1 <= uint64(limit) {
				t.Errorf("refused a good frame: %v", err)
			}
		}
	})
}

// FuzzReadMessage: what it accepts has exactly the length it claims.
func FuzzReadMessage(f *testing.F) {
	f.Add([]byte("p\x00\x00\x00\x07abc"))
	f.Add([]byte("p\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		in := bytes.NewReader(p)
		kind, body, err := wire.ReadMessage(in, 100)
		if err == nil && (kind != p[0] || len(body) > 100 || len(p)-in.Len() != 5+len(body) || !bytes.Equal(body, p[5:5+len(body)])) {
			t.Errorf("%c %q of %q", kind, body, p)
		}
	})
}
