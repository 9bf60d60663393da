package auth

import (
	"encoding/base64"
	"strings"
	"testing"
)

func FuzzClientFirst(f *testing.F) {
	for _, s := range []string{"n,,n=,r=abc", "y,a=x,n=u,r=abc,x=1", "p=tls-server-end-point,,n=,r=abc", "n,,m=1,n=,r=a", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseClientFirst(b)
		if err != nil {
			if !err.IsFatal() || err.Code != "08P01" && err.Code != "0A000" {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if m.header+m.bare != string(b) || m.nonce == "" || strings.ContainsAny(m.nonce, ", \x00") {
			t.Fatalf("%q: %+v", b, m)
		}
	})
}

func FuzzClientFinal(f *testing.F) {
	proof := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, s := range []string{"c=biws,r=abc,p=" + proof, "c=biws,r=abc,x=1,p=" + proof, "c=,r=,p=", "c=biws,r=abc,p=" + proof + ",", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseClientFinal(b)
		if err != nil {
			if !err.IsFatal() || err.Code != "08P01" {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		// One message has one spelling: what was read makes the message again.
		if got := m.withoutProof + ",p=" + base64.StdEncoding.EncodeToString(m.proof[:]); got != string(b) {
			t.Fatalf("%q was read as %q", b, got)
		}
	})
}

func FuzzSASLInitial(f *testing.F) {
	f.Add([]byte("SCRAM-SHA-256\x00\x00\x00\x00\x03abc"))
	f.Add([]byte("SCRAM-SHA-256-PLUS\x00\xff\xff\xff\xff"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseSASLInitial(b)
		if err == nil && len(m.mechanism)+5+len(m.data) != len(b) {
			t.Fatalf("%q: %+v", b, m)
		}
	})
}

func FuzzPassword(f *testing.F) {
	for _, s := range []string{"secret\x00", "\x00", "", "a\x00b\x00", "abc"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePassword(b)
		if err == nil && (p == "" || p+"\x00" != string(b)) {
			t.Fatalf("%q: %q", b, p)
		}
	})
}

// FuzzExchange plays whatever messages against the exchange: only the password
// may open it.
func FuzzExchange(f *testing.F) {
	keys := mustDerive(f, "pencil", rfcSalt, 1)
	f.Add([]byte("n,,n=,r=abc"), []byte("c=biws,r=abc,p="+base64.StdEncoding.EncodeToString(make([]byte, 32))), false)
	f.Fuzz(func(t *testing.T, first, final []byte, plus bool) {
		x := &scramExchange{keys: keys, hash: make([]byte, 32), plus: plus}
		challenge, err := x.first(first)
		if err != nil {
			return
		}
		// The nonce cannot be guessed: let the fuzzer past that check.
		final = []byte(strings.Replace(string(final), "r="+x.client.nonce+",", "r="+x.nonce+",", 1))
		if got, _ := x.final(final); got != nil {
			t.Fatalf("%q and %q answer %q without the password", first, final, challenge)
		}
	})
}
