package auth

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"shardproxy/wire"
)

// TestRFC7677 replays the RFC's example with the RFC's nonces.
func TestRFC7677(t *testing.T) {
	x := &scramExchange{keys: mustDerive(t, "pencil", rfcSalt, 4096)}
	if _, err := x.first([]byte("n,," + rfcBare)); err != nil {
		t.Fatal(err)
	}
	x.nonce, x.reply = rfcNonce, rfcChallen
	got, err := x.final([]byte(rfcFinal))
	if err != nil || string(got) != rfcServer {
		t.Fatalf("got %q, %v; want %q", got, err, rfcServer)
	}
	if got, err := x.final([]byte(strings.Replace(rfcFinal, "p=dHzb", "p=aHzb", 1))); got != nil || err != nil {
		t.Fatalf("wrong proof: got %q, %v", got, err)
	}
}

// scramClient is a client whose every part a test can bend.
type scramClient struct {
	password string
	header   string // GS2 header, default "n,,"
	binding  []byte // appended to the header in c=
	bare     string
	extra    string // attributes before the proof

	verify string // the server-final-message that must come
}

func (c *scramClient) first() string {
	if c.header == "" {
		c.header = "n,,"
	}
	if c.bare == "" {
		c.bare = "n=,r=clientnonce"
	}
	return c.header + c.bare
}

// final answers a server-first-message.
func (c *scramClient) final(challenge string) string {
	var nonce, salt string
	var iterations int
	for _, f := range strings.Split(challenge, ",") {
		switch f[:2] {
		case "r=":
			nonce = f[2:]
		case "s=":
			salt = f[2:]
		case "i=":
			_, _ = fmt.Sscan(f[2:], &iterations)
		}
	}
	raw, _ := base64.StdEncoding.DecodeString(salt)
	salted := saltedPassword(c.password, raw, iterations)
	proof := hmacSHA256(salted, "Client Key")
	stored := sha256.Sum256(proof)
	without := "c=" + base64.StdEncoding.EncodeToString(append([]byte(c.header), c.binding...)) + ",r=" + nonce + c.extra
	signed := c.bare + "," + challenge + "," + without
	subtle.XORBytes(proof, proof, hmacSHA256(stored[:], signed))
	c.verify = "v=" + base64.StdEncoding.EncodeToString(hmacSHA256(hmacSHA256(salted, "Server Key"), signed))
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof)
}

// saltedPassword is Hi() of RFC 5802; a few iterations follow the RFC's own
// words, many the library, which is faster.
func saltedPassword(password string, salt []byte, iterations int) []byte {
	if iterations > 100 {
		salted, err := pbkdf2.Key(sha256.New, prepPassword(password), salt, iterations, sha256.Size)
		if err != nil {
			panic(err)
		}
		return salted
	}
	key := []byte(prepPassword(password))
	u := hmacSHA256(key, string(salt), "\x00\x00\x00\x01")
	salted := bytes.Clone(u)
	for range iterations - 1 {
		u = hmacSHA256(key, string(u))
		subtle.XORBytes(salted, salted, u)
	}
	return salted
}

func TestSCRAMExchange(t *testing.T) {
	keys := mustDerive(t, "pencil", rfcSalt, 10)
	hash := bytes.Repeat([]byte{7}, 32)
	plusHeader := "p=tls-server-end-point,,"
	for _, c := range []struct {
		name    string
		client  scramClient
		offered bool // PLUS was
		plus    bool // and chosen
		code    string
		message string
	}{
		{name: "plain", client: scramClient{password: "pencil"}},
		{name: "no binding though offered", client: scramClient{password: "pencil"}, offered: true},
		{name: "y without an offer", client: scramClient{password: "pencil", header: "y,,"}},
		{name: "plus", client: scramClient{password: "pencil", header: plusHeader, binding: hash}, offered: true, plus: true},
		{name: "extensions", client: scramClient{password: "pencil", bare: "n=x,r=abc,z=1", extra: ",x=2,y="}},
		{name: "downgrade", client: scramClient{password: "pencil", header: "y,,"}, offered: true, code: "28000", message: "SCRAM channel binding negotiation error"},
		{name: "plus chosen, n sent", client: scramClient{password: "pencil"}, offered: true, plus: true, code: "08P01"},
		{name: "plus chosen, y sent", client: scramClient{password: "pencil", header: "y,,"}, offered: true, plus: true, code: "08P01"},
		{name: "plus not chosen, p sent", client: scramClient{password: "pencil", header: plusHeader}, offered: true, code: "08P01", message: "malformed SCRAM message"},
		{name: "plus not offered, p sent", client: scramClient{password: "pencil", header: plusHeader, binding: hash}, code: "08P01", message: "malformed SCRAM message"},
		{name: "other binding type", client: scramClient{password: "pencil", header: "p=tls-unique,,", binding: hash}, offered: true, plus: true, code: "08P01", message: "unsupported SCRAM channel-binding type"},
		{name: "another certificate", client: scramClient{password: "pencil", header: plusHeader, binding: bytes.Repeat([]byte{8}, 32)}, offered: true, plus: true, code: "28000", message: "SCRAM channel binding check failed"},
		{name: "header changed", client: scramClient{password: "pencil", binding: []byte("x")}, code: "08P01", message: "unexpected SCRAM channel-binding attribute in client-final-message"},
		{name: "authorization identity", client: scramClient{header: "n,a=root,"}, code: "0A000"},
		{name: "mandatory extension", client: scramClient{bare: "m=ext,n=,r=abc"}, code: "0A000"},
		{name: "wrong password", client: scramClient{password: "pencil2"}, code: "wrong"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := &scramExchange{keys: keys, plus: c.plus}
			if c.offered {
				x.hash = hash
			}
			got, err := play(x, &c.client)
			if c.code == "wrong" {
				if got != nil || err != nil {
					t.Fatalf("got %q, %v", got, err)
				}
				return
			}
			if c.code != "" {
				if err == nil || err.Code != c.code || !err.IsFatal() || c.message != "" && err.Message != c.message {
					t.Fatalf("got %q, %v; want %s %s", got, err, c.code, c.message)
				}
				return
			}
			if err != nil || string(got) != c.client.verify {
				t.Fatalf("got %q, %v; want %q", got, err, c.client.verify)
			}
		})
	}
}

func play(x *scramExchange, c *scramClient) ([]byte, *wire.Error) {
	challenge, err := x.first([]byte(c.first()))
	if err != nil {
		return nil, err
	}
	return x.final([]byte(c.final(string(challenge))))
}

func TestSCRAMNonces(t *testing.T) {
	keys := mustDerive(t, "pencil", rfcSalt, 1)
	seen := map[string]bool{}
	for range 3 {
		x := &scramExchange{keys: keys}
		if _, err := x.first([]byte("n,,n=,r=abc")); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(x.nonce, "abc") || len(x.nonce) != 3+24 || seen[x.nonce] {
			t.Errorf("nonce %q", x.nonce)
		}
		seen[x.nonce] = true
	}
	x := &scramExchange{keys: keys}
	c := &scramClient{password: "pencil"}
	challenge, err := x.first([]byte(c.first()))
	if err != nil {
		t.Fatal(err)
	}
	final := strings.Replace(c.final(string(challenge)), "r=client", "r=clienT", 1)
	if _, err := x.final([]byte(final)); err == nil || err.Code != "08P01" || err.Message != "invalid SCRAM response" {
		t.Errorf("changed nonce: %v", err)
	}
}

func TestMalformedFirst(t *testing.T) {
	for name, s := range map[string]string{
		"empty":                "",
		"flag only":            "n",
		"unknown flag":         "x,,n=,r=abc",
		"long flag":            "nn,,n=,r=abc",
		"p without type":       "p,,n=,r=abc",
		"header not ended":     "n,",
		"junk for authzid":     "n,x,n=,r=abc",
		"no user name":         "n,,r=abc",
		"no nonce":             "n,,n=",
		"empty nonce":          "n,,n=,r=",
		"long nonce":           "n,,n=,r=" + strings.Repeat("a", maxNonceBytes+1),
		"space in nonce":       "n,,n=,r=a b",
		"control in nonce":     "n,,n=,r=a\x01",
		"non-ASCII in nonce":   "n,,n=,r=ä",
		"NUL":                  "n,,n=,r=abc\x00",
		"attribute is a digit": "n,,n=,r=abc,1=x",
		"attribute without =":  "n,,n=,r=abc,x",
		"trailing comma":       "n,,n=,r=abc,",
		"equals missing":       "n,,n,r=abc",
		"too long":             "n,,n=" + strings.Repeat("a", maxTokenBytes) + ",r=abc",
		"order":                "n,,r=abc,n=",
	} {
		if m, err := parseClientFirst([]byte(s)); err == nil || err.Code != "08P01" || !err.IsFatal() {
			t.Errorf("%s: %.40q gives %+v, %v", name, s, m, err)
		}
	}
}

func TestMalformedFinal(t *testing.T) {
	proof := base64.StdEncoding.EncodeToString(make([]byte, 32))
	good := "c=biws,r=abc,p=" + proof
	if m, err := parseClientFinal([]byte(good)); err != nil || m.withoutProof != "c=biws,r=abc" || m.nonce != "abc" || m.binding != "biws" {
		t.Fatalf("%+v, %v", m, err)
	}
	for name, s := range map[string]string{
		"empty":             "",
		"no binding":        "r=abc,p=" + proof,
		"no nonce":          "c=biws,p=" + proof,
		"no proof":          "c=biws,r=abc",
		"trailing comma":    good + ",",
		"garbage behind":    good + ",x=1",
		"two proofs":        good + ",p=" + proof,
		"short proof":       "c=biws,r=abc,p=" + proof[:40],
		"long proof":        "c=biws,r=abc,p=" + base64.StdEncoding.EncodeToString(make([]byte, 33)),
		"unpadded proof":    "c=biws,r=abc,p=" + strings.TrimRight(proof, "="),
		"line break":        "c=biws,r=abc,p=" + proof[:10] + "\n" + proof[10:],
		"stray bits":        "c=biws,r=abc,p=" + proof[:42] + "B=",
		"NUL behind":        good + "\x00",
		"empty attribute":   "c=biws,r=abc,,p=" + proof,
		"digit":             "c=biws,r=abc,1=2,p=" + proof,
		"proof without key": "c=biws,r=abc," + proof,
		"too long":          "c=biws,r=abc,x=" + strings.Repeat("a", maxTokenBytes) + ",p=" + proof,
	} {
		if m, err := parseClientFinal([]byte(s)); err == nil || err.Code != "08P01" || !err.IsFatal() {
			t.Errorf("%s: %.60q gives %+v, %v", name, s, m, err)
		}
	}
}

func TestSASLInitial(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want string // data; "-" for none; "!" for an error
	}{
		"with data":      {"SCRAM-SHA-256\x00\x00\x00\x00\x03abc", "abc"},
		"without data":   {"SCRAM-SHA-256\x00\xff\xff\xff\xff", "-"},
		"empty data":     {"SCRAM-SHA-256\x00\x00\x00\x00\x00", ""},
		"empty body":     {"", "!"},
		"no terminator":  {"SCRAM-SHA-256", "!"},
		"no length":      {"SCRAM-SHA-256\x00", "!"},
		"part of length": {"SCRAM-SHA-256\x00\x00\x00\x00", "!"},
		"too short":      {"SCRAM-SHA-256\x00\x00\x00\x00\x04abc", "!"},
		"too long":       {"SCRAM-SHA-256\x00\x00\x00\x00\x02abc", "!"},
		"none with data": {"SCRAM-SHA-256\x00\xff\xff\xff\xffx", "!"},
		"negative":       {"SCRAM-SHA-256\x00\xff\xff\xff\xfe", "!"},
		"2^31":           {"SCRAM-SHA-256\x00\x80\x00\x00\x00x", "!"},
	} {
		m, err := parseSASLInitial([]byte(c.body))
		switch {
		case c.want == "!":
			if err == nil || err.Code != "08P01" {
				t.Errorf("%s: got %+v, %v", name, m, err)
			}
		case err != nil || m.mechanism != "SCRAM-SHA-256" || (m.data == nil) != (c.want == "-") || c.want != "-" && string(m.data) != c.want:
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
}
