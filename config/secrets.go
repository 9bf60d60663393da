package config

import (
	"encoding/base64"
	"errors"
	"regexp"
	"strconv"
	"strings"
)

// password fills the secret from its file, and reports what cannot be a
// password. key is its setting in the section; the file's has _file behind it.
func (v *validator) password(section, key string, secret *Secret, file string) {
	path, filePath := section+"."+key, section+"."+key+"_file"
	if file != "" {
		if !secret.Empty() {
			v.add(filePath, "there is a "+key+" too", "give one of them")
			return
		}
		text, err := v.readText(file)
		switch {
		case err != nil:
			v.add(filePath, err.Error(), "")
			return
		case text == "":
			v.add(filePath, file+" is empty", "")
			return
		case strings.ContainsAny(text, "\n\r\x00"):
			v.add(filePath, file+" holds more than one line", "the password is the whole file, without its last line break")
			return
		}
		v.checkSecretMode(file, filePath)
		*secret, path = NewSecret(text), filePath
	}
	if _, given := v.positions[path]; given && secret.Empty() {
		v.add(path, "is empty", "")
	}
	if _, err := verifierKind(*secret); err == nil && key == "password" && strings.HasPrefix(section, "users[") {
		v.add(path, "holds a verifier, not a password", "set verifier instead")
	}
	if secret.Reveal() == redacted {
		v.add(path, "is what a printed configuration shows in place of a password", "")
	}
}

var md5Verifier = regexp.MustCompile(`^md5[0-9a-f]{32}$`)

// SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>
var scramVerifier = regexp.MustCompile(`^SCRAM-SHA-256\$([0-9]+):([^$:]+)\$([^$:]+):([^$:]+)$`)

// verifierKind returns the method that made the verifier, scram-sha-256 or
// md5, or an error that says what is wrong with it.
func verifierKind(s Secret) (Method, error) {
	if md5Verifier.MatchString(s.Reveal()) {
		return MethodMD5, nil
	}
	m := scramVerifier.FindStringSubmatch(s.Reveal())
	if m == nil {
		return "", errors.New("it has the form of none")
	}
	if n, err := strconv.ParseInt(m[1], 10, 32); err != nil || n < 1 {
		return "", errors.New("its iteration count is out of range")
	}
	for _, part := range []struct {
		name, text string
		bytes      int
	}{{"salt", m[2], 0}, {"StoredKey", m[3], 32}, {"ServerKey", m[4], 32}} {
		b, err := base64.StdEncoding.DecodeString(part.text)
		if err != nil || part.bytes > 0 && len(b) != part.bytes {
			return "", errors.New("its " + part.name + " is damaged")
		}
	}
	return MethodSCRAM, nil
}
