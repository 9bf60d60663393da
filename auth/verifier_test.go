package auth

import (
	"crypto/hmac"
	"encoding/base64"
	"strings"
	"testing"
)

// The example of RFC 7677, section 3: user "user", password "pencil".
const (
	rfcSalt    = "W22ZaJ0SNY7soEsUEjb6gQ=="
	rfcNonce   = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	rfcBare    = "n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcFinal   = "c=biws,r=" + rfcNonce + ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcServer  = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	rfcChallen = "r=" + rfcNonce + ",s=" + rfcSalt + ",i=4096"
)

func mustDerive(t testing.TB, password, salt string, iterations int) *scramKeys {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(salt)
	if err != nil {
		t.Fatal(err)
	}
	k, err := deriveKeys(password, raw, iterations)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVerifierRoundTrip(t *testing.T) {
	for _, password := range []string{"pencil", "", "with$dollar:colon,comma=", "пароль", strings.Repeat("x", 3000)} {
		text := HashPassword(password)
		k, md5, err := parseVerifier(text)
		if err != nil || md5 != "" {
			t.Fatalf("%q: %v", text, err)
		}
		if k.String() != text {
			t.Errorf("printed as %q, was %q", k, text)
		}
		if !mustDerive(t, password, base64.StdEncoding.EncodeToString(k.salt), k.iterations).equal(k) {
			t.Errorf("the keys of %q differ from its verifier's", password)
		}
		if mustDerive(t, password+"x", base64.StdEncoding.EncodeToString(k.salt), k.iterations).equal(k) {
			t.Errorf("another password than %q fits", password)
		}
	}
	if one, two := HashPassword("a"), HashPassword("a"); one == two {
		t.Error("the salt is not random")
	}
}

func TestParseVerifierRefuses(t *testing.T) {
	good := mustDerive(t, "pencil", rfcSalt, 4096).String()
	key := strings.Repeat("A", 43) + "="
	for name, s := range map[string]string{
		"empty":               "",
		"plain":               "secret",
		"md5 upper case":      "md5" + strings.Repeat("A", 32),
		"md5 short":           "md5" + strings.Repeat("a", 31),
		"prefix only":         "SCRAM-SHA-256$",
		"no keys":             "SCRAM-SHA-256$4096:" + rfcSalt,
		"one key":             "SCRAM-SHA-256$4096:" + rfcSalt + "$" + key,
		"no iterations":       strings.Replace(good, "$4096:", "$:", 1),
		"zero iterations":     strings.Replace(good, "$4096:", "$0:", 1),
		"negative iterations": strings.Replace(good, "$4096:", "$-1:", 1),
		"too many iterations": strings.Replace(good, "$4096:", "$10000001:", 1),
		"huge iterations":     strings.Replace(good, "$4096:", "$99999999999999999999:", 1),
		"signed iterations":   strings.Replace(good, "$4096:", "$+4096:", 1),
		"empty salt":          "SCRAM-SHA-256$4096:$" + key + ":" + key,
		"salt not base64":     "SCRAM-SHA-256$4096:!!$" + key + ":" + key,
		"short key":           "SCRAM-SHA-256$4096:" + rfcSalt + "$QUJD:" + key,
		"line break in key":   "SCRAM-SHA-256$4096:" + rfcSalt + "$\n" + key + ":" + key,
		"stray bits in key":   "SCRAM-SHA-256$4096:" + rfcSalt + "$" + strings.Repeat("A", 42) + "B=:" + key,
		"something behind":    good + "x",
		"other hash":          strings.Replace(good, "SHA-256", "SHA-512", 1),
	} {
		if k, md5, err := parseVerifier(s); err == nil {
			t.Errorf("%s: %q gives %v %q", name, s, k, md5)
		} else if len(s) > 60 && strings.Contains(err.Error(), s) {
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
	if _, md5, err := parseVerifier("md5" + strings.Repeat("0a", 16)); err != nil || md5 == "" {
		t.Errorf("md5 hash refused: %v", err)
	}
}

// TestMD5 holds values that other software computed: the manual's
// concat('md5', md5(concat(md5(concat(password, username)), random-salt))).
func TestMD5(t *testing.T) {
	stored := hashMD5("pencil", "user")
	if stored != "md520c46e3762c864548e296b33c3406aa9" {
		t.Errorf("hash %q", stored)
	}
	if got := md5Response(stored, []byte{1, 2, 3, 4}); got != "md54376eb6913b38f9aaff38dc7cf19ca76" {
		t.Errorf("response %q", got)
	}
}

func FuzzParseVerifier(f *testing.F) {
	f.Add("SCRAM-SHA-256$4096:" + rfcSalt + "$" + strings.Repeat("A", 43) + "=:" + strings.Repeat("A", 43) + "=")
	f.Add("md5" + strings.Repeat("0a", 16))
	f.Add("SCRAM-SHA-256$1:A$:")
	f.Fuzz(func(t *testing.T, s string) {
		k, md5, err := parseVerifier(s)
		if err != nil {
			return
		}
		if (k == nil) == (md5 == "") {
			t.Fatalf("%q: keys %v, md5 %q", s, k, md5)
		}
		if k == nil {
			return
		}
		again, _, err := parseVerifier(k.String())
		if err != nil || !again.equal(k) || !hmac.Equal(again.salt, k.salt) || again.iterations != k.iterations {
			t.Fatalf("%q does not survive printing: %v", s, err)
		}
	})
}
