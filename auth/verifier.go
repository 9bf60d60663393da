package auth

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// scramIterations is PostgreSQL's default of scram_iterations.
	scramIterations = 4096
	// maxIterations bounds the CPU that one check of a cleartext password
	// against a verifier may cost (some seconds); drivers refuse more, too.
	maxIterations  = 10_000_000
	scramSaltBytes = 16
	maxSaltBytes   = 1024
	keyBytes       = sha256.Size

	verifierPrefix = "SCRAM-SHA-256$"
)

// scramKeys is a SCRAM-SHA-256 verifier: all that the server side of the
// exchange needs (RFC 5802, section 3).
type scramKeys struct {
	iterations int
	salt       []byte
	stored     [keyBytes]byte
	server     [keyBytes]byte
}

// deriveKeys computes the verifier of a password. It costs iterations times
// two rounds of SHA-256, about a millisecond for 4,096.
// The only error is a salt that is too short for a FIPS-only process.
func deriveKeys(password string, salt []byte, iterations int) (*scramKeys, error) {
	salted, err := pbkdf2.Key(sha256.New, prepPassword(password), salt, iterations, keyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive SCRAM keys: %w", err)
	}
	client := hmacSHA256(salted, "Client Key")
	k := &scramKeys{iterations: iterations, salt: salt, stored: sha256.Sum256(client)}
	copy(k.server[:], hmacSHA256(salted, "Server Key"))
	return k, nil
}

// equal compares the keys in constant time.
func (k *scramKeys) equal(o *scramKeys) bool {
	return subtle.ConstantTimeCompare(k.stored[:], o.stored[:])&
		subtle.ConstantTimeCompare(k.server[:], o.server[:]) == 1
}

func (k *scramKeys) String() string {
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s%d:%s$%s:%s", verifierPrefix, k.iterations, b64(k.salt), b64(k.stored[:]), b64(k.server[:]))
}

func hmacSHA256(key []byte, parts ...string) []byte {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write([]byte(p))
	}
	return mac.Sum(nil)
}

// HashPassword returns the SCRAM-SHA-256 verifier of a password with a random
// salt, as PostgreSQL stores it in rolpassword and as the configuration takes it.
func HashPassword(password string) string {
	salt := make([]byte, scramSaltBytes)
	rand.Read(salt) // never fails: crypto/rand ends the process instead
	keys, err := deriveKeys(password, salt, scramIterations)
	if err != nil {
		panic("auth: " + err.Error()) // a salt of 16 bytes is long enough everywhere
	}
	return keys.String()
}

var errVerifier = errors.New("neither a SCRAM-SHA-256 verifier nor an md5 hash")

// parseVerifier reads what PostgreSQL keeps in rolpassword: exactly one of the
// results is set.
func parseVerifier(s string) (keys *scramKeys, md5hash string, err error) {
	if isMD5(s) {
		return nil, s, nil
	}
	rest, ok := strings.CutPrefix(s, verifierPrefix)
	if !ok {
		return nil, "", errVerifier
	}
	head, tail, ok1 := strings.Cut(rest, "$")
	count, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(tail, ":")
	if !ok1 || !ok2 || !ok3 {
		return nil, "", fmt.Errorf("%w: want SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey", errVerifier)
	}
	keys, err = buildKeys(count, salt, stored, server)
	return keys, "", err
}

func buildKeys(count, salt, stored, server string) (*scramKeys, error) {
	n, err := strconv.ParseUint(count, 10, 31)
	if err != nil || n < 1 || n > maxIterations {
		return nil, fmt.Errorf("%w: iterations must be 1 to %d", errVerifier, maxIterations)
	}
	k := &scramKeys{iterations: int(n)}
	if k.salt, err = decodeBase64(salt); err != nil || len(k.salt) == 0 || len(k.salt) > maxSaltBytes {
		return nil, fmt.Errorf("%w: bad salt", errVerifier)
	}
	for _, f := range []struct {
		dst  *[keyBytes]byte
		text string
	}{{&k.stored, stored}, {&k.server, server}} {
		b, err := decodeBase64(f.text)
		if err != nil || len(b) != keyBytes {
			return nil, fmt.Errorf("%w: a key is not %d bytes of base64", errVerifier, keyBytes)
		}
		copy(f.dst[:], b)
	}
	return k, nil
}

var errBase64 = errors.New("invalid base64")

// decodeBase64 is strict: the standard decoder skips line breaks and, without
// Strict, ignores stray bits at the end, so that one value has many spellings.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// isMD5 reports whether s has the form of PostgreSQL's md5 password hash.
func isMD5(s string) bool {
	if len(s) != 3+2*md5.Size || s[:3] != "md5" {
		return false
	}
	for _, c := range []byte(s[3:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// hashMD5 is what PostgreSQL stores with password_encryption = md5.
func hashMD5(password, user string) string {
	sum := md5.Sum([]byte(password + user))
	return "md5" + hex.EncodeToString(sum[:])
}

// md5Response is what a client answers to an md5 challenge with the salt.
func md5Response(stored string, salt []byte) string {
	sum := md5.Sum(append([]byte(strings.TrimPrefix(stored, "md5")), salt...))
	return "md5" + hex.EncodeToString(sum[:])
}
