package auth

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"strings"
	"testing"

	"shardproxy/config"
	"shardproxy/wire"
)

func TestRefusals(t *testing.T) {
	cfg := settings(config.MethodReject, plain("app", "secret"))
	cfg.Auth.Rules[0].Addresses = prefixes("10.0.0.0/8", "::/0")
	a := mustNew(t, Options{Config: cfg})
	for _, c := range []struct {
		addr string
		tls  bool
		user string
		want string
	}{
		{"10.0.0.1:5", false, "app", `pg_hba.conf rejects connection for host "10.0.0.1", user "app", database "shop", no encryption`},
		{"[2001:db8::1]:5", true, "app", `pg_hba.conf rejects connection for host "2001:db8::1", user "app", database "shop", SSL encryption`},
		{"192.0.2.1:5", false, "app", `no pg_hba.conf entry for host "192.0.2.1", user "app", database "shop", no encryption`},
		{"", false, "app", `no pg_hba.conf entry for host "[local]", user "app", database "shop", no encryption`},
		{"10.0.0.1:5", false, "", `no PostgreSQL user name specified in startup packet`},
	} {
		conv := client(c.user, "secret")
		if c.addr != "" {
			conv.addr = netip.MustParseAddrPort(c.addr)
		}
		if c.tls {
			conv.tls = &tls.ConnectionState{}
		}
		_, err := login(t, a, conv, c.user)
		if err == nil || err.Code != "28000" || err.Message != c.want || len(conv.shape) != 0 {
			t.Errorf("got %v after %v, want %s", err, conv.shape, c.want)
		}
	}
	a = mustNew(t, Options{Config: settings("no such method", plain("app", "secret"))})
	if _, err := login(t, a, client("app", "secret"), "app"); err == nil || err.Code != "28000" {
		t.Errorf("an unknown method lets in: %v", err)
	}
	a = mustNew(t, Options{Config: settings(config.MethodTrust, plain("app", "secret"))})
	if _, err := login(t, a, client("x", ""), "x"); err == nil || err.Code != "28000" || err.Message != `role "x" does not exist` {
		t.Errorf("trust for an unknown user: %v", err)
	}
}

func TestCleartextNeedsEncryption(t *testing.T) {
	cfg := settings(config.MethodPassword, plain("app", "secret"))
	a := mustNew(t, Options{Config: cfg})
	tcp := netip.MustParseAddrPort("127.0.0.1:9")
	c := client("app", "secret")
	c.addr = tcp
	_, err := login(t, a, c, "app")
	if err == nil || err.Code != "28000" || len(c.shape) != 0 {
		t.Errorf("unencrypted TCP: %v after %v", err, c.shape)
	}
	c = client("app", "secret")
	c.addr, c.tls = tcp, &tls.ConnectionState{}
	if _, err := login(t, a, c, "app"); err != nil {
		t.Errorf("encrypted TCP: %v", err)
	}
	cfg.Auth.AllowCleartext = true
	c = client("app", "secret")
	c.addr = tcp
	if _, err := login(t, mustNew(t, Options{Config: cfg}), c, "app"); err != nil {
		t.Errorf("allowed: %v", err)
	}
}

func TestProtocolViolations(t *testing.T) {
	body := func(b []byte) func(uint32, []byte) ([]byte, error) {
		return func(uint32, []byte) ([]byte, error) { return b, nil }
	}
	for name, c := range map[string]struct {
		method config.Method
		answer func(uint32, []byte) ([]byte, error)
		code   string // with the message, where the code is not enough
	}{
		"unknown mechanism":    {config.MethodSCRAM, body(initial("SCRAM-SHA-1", "n,,n=,r=a")), "08P01 client selected an invalid SASL authentication mechanism"},
		"plus not offered":     {config.MethodSCRAM, body(initial(mechanismSCRAMPlus, "p=tls-server-end-point,,n=,r=a")), "08P01 client selected an invalid SASL authentication mechanism"},
		"no SASL message":      {config.MethodSCRAM, body([]byte("secret\x00")), "08P01"},
		"empty SASL message":   {config.MethodSCRAM, body(initial(mechanismSCRAM, "")), "08P01"},
		"first as final":       {config.MethodSCRAM, body(initial(mechanismSCRAM, "n,,n=,r=a")), "08P01"},
		"too long":             {config.MethodSCRAM, body(make([]byte, maxTokenBytes+1)), "08P01"},
		"empty md5":            {config.MethodMD5, body([]byte("\x00")), "28P01"},
		"unterminated":         {config.MethodMD5, body([]byte("abc")), "08P01"},
		"NUL inside":           {config.MethodPassword, body([]byte("secret\x00x\x00")), "08P01"},
		"empty body":           {config.MethodPassword, body(nil), "08P01"},
		"empty password":       {config.MethodPassword, body([]byte("\x00")), "28P01"},
		"too slow":             {config.MethodSCRAM, func(uint32, []byte) ([]byte, error) { return nil, os.ErrDeadlineExceeded }, "57014"},
		"hang up":              {config.MethodSCRAM, func(uint32, []byte) ([]byte, error) { return nil, errHungUp }, "08006"},
		"another message type": {config.MethodSCRAM, func(uint32, []byte) ([]byte, error) { return nil, wire.Fatal("08P01", "expected SASL response") }, "08P01"},
	} {
		a := mustNew(t, Options{Config: settings(c.method, plain("app", "secret"))})
		_, err := login(t, a, &fakeConversation{answer: c.answer}, "app")
		if err == nil || !strings.HasPrefix(err.Code+" "+err.Message, c.code) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

// TestNoInitialResponse: a client may keep its first message back (RFC 4422).
func TestNoInitialResponse(t *testing.T) {
	a := mustNew(t, Options{Config: settings(config.MethodSCRAM, plain("app", "secret"))})
	scram := &scramClient{password: "secret"}
	c := &fakeConversation{}
	c.answer = func(code uint32, data []byte) ([]byte, error) {
		switch {
		case code == authSASL:
			return []byte(mechanismSCRAM + "\x00\xff\xff\xff\xff"), nil
		case len(data) == 0:
			return []byte(scram.first()), nil
		}
		return []byte(scram.final(string(data))), nil
	}
	if _, err := login(t, a, c, "app"); err != nil || strings.Join(c.shape, "") != "KLLMA" {
		t.Fatalf("%v after %v", err, c.shape)
	}
}

// TestUnverifiedCertificate: a certificate that nobody has verified proves
// nothing, however it came into the connection's state.
func TestUnverifiedCertificate(t *testing.T) {
	a := mustNew(t, Options{Config: settings(config.MethodCert, config.User{Name: "localhost"})})
	leaf := newTestCert(t, ecdsaKey(t, 256), 0).leaf
	c := &fakeConversation{tls: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
	if _, err := login(t, a, c, "localhost"); err == nil || err.Message != "connection requires a valid client certificate" {
		t.Errorf("got %v", err)
	}
	c = &fakeConversation{tls: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}}
	if _, err := login(t, a, c, "localhost"); err != nil {
		t.Errorf("verified: %v", err)
	}
}
