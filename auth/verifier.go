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
	"strings"

	"shardproxy/config"
)

const (
	// scramIterations is PostgreSQL's default of scram_iterations.
	scramIterations = 4096
	scramSaltBytes  = 16
	keyBytes        = sha256.Size

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

// parseVerifier reads what PostgreSQL keeps in rolpassword: exactly one of the
// results is set.
func parseVerifier(s string) (keys *scramKeys, md5hash string, err error) {
	v, err := config.ParseVerifier(s)
	if err != nil || v.MD5 != "" {
		return nil, v.MD5, err
	}
	k := &scramKeys{iterations: v.Iterations, salt: v.Salt}
	copy(k.stored[:], v.StoredKey)
	copy(k.server[:], v.ServerKey)
	return k, "", nil
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
