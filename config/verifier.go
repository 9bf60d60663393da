package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Bounds of a SCRAM verifier.
const (
	// maxIterations bounds the CPU that one check of a cleartext password
	// against a verifier may cost (some seconds); drivers refuse more, too.
	maxIterations    = 10_000_000
	maxSaltBytes     = 1024
	verifierKeyBytes = 32 // of SHA-256
)

// Verifier is what PostgreSQL keeps of a password in pg_authid.rolpassword: an
// md5 hash, or what SCRAM-SHA-256 needs (RFC 5802, section 3).
type Verifier struct {
	// MD5 is the hash with its "md5"; empty for SCRAM, and then the rest is set.
	MD5 string
	// Iterations is at least 1.
	Iterations int
	// Salt has 1 to 1,024 bytes.
	Salt []byte
	// StoredKey and ServerKey have 32 bytes each.
	StoredKey, ServerKey []byte
}

var (
	md5Verifier     = regexp.MustCompile(`^md5[0-9a-f]{32}$`)
	errVerifierForm = errors.New("it has the form of none")
)

// ParseVerifier reads a verifier as PostgreSQL writes it: "md5" and 32
// hexadecimal digits, or SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
// in base64. One value has one spelling. The error reads on from "no
// verifier:" and shows nothing of the text.
func ParseVerifier(text string) (Verifier, error) {
	if md5Verifier.MatchString(text) {
		return Verifier{MD5: text}, nil
	}
	rest, scram := strings.CutPrefix(text, "SCRAM-SHA-256$")
	head, tail, ok1 := strings.Cut(rest, "$")
	count, salt, ok2 := strings.Cut(head, ":")
	stored, server, ok3 := strings.Cut(tail, ":")
	if !scram || !ok1 || !ok2 || !ok3 {
		return Verifier{}, errVerifierForm
	}
	n, err := strconv.ParseUint(count, 10, 31)
	if err != nil || n < 1 || n > maxIterations {
		return Verifier{}, fmt.Errorf("its iteration count is not from 1 to %d", maxIterations)
	}
	v := Verifier{Iterations: int(n)}
	for _, part := range []struct {
		name     string
		to       *[]byte
		text     string
		min, max int
	}{
		{"salt", &v.Salt, salt, 1, maxSaltBytes},
		{"StoredKey", &v.StoredKey, stored, verifierKeyBytes, verifierKeyBytes},
		{"ServerKey", &v.ServerKey, server, verifierKeyBytes, verifierKeyBytes},
	} {
		if *part.to, err = strictBase64(part.text); err != nil || len(*part.to) < part.min || len(*part.to) > part.max {
			return Verifier{}, errors.New("its " + part.name + " is damaged")
		}
	}
	return v, nil
}

// strictBase64 takes no line breaks and no stray bits at the end, as the
// standard decoder does by default.
func strictBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, base64.CorruptInputError(0)
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}
