package config

import (
	"errors"
	"fmt"
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
			v.add(filePath, file+" holds more than one line", "the "+key[strings.LastIndexByte(key, '_')+1:]+" is the whole file, without its last line break")
			return
		}
		v.checkSecretMode(file, filePath)
		*secret, path = NewSecret(text), filePath
	}
	if _, given := v.positions[path]; given && secret.Empty() {
		v.add(path, "is empty", "")
	}
	if _, err := ParseVerifier(secret.Reveal()); !errors.Is(err, errVerifierForm) && key == "password" && strings.HasPrefix(section, "users[") {
		v.add(path, "holds a verifier, not a password", "set verifier instead")
	}
	if secret.Reveal() == redacted {
		v.add(path, "is what a printed configuration shows in place of a password", "")
	}
}

// minKeyBytes is the shortest key that nobody finds by trying.
const minKeyBytes = 16

// key fills auth.secret from its file, and refuses what is easily guessed.
func (v *validator) key(a *Auth) {
	v.password("auth", "secret", &a.Secret, a.SecretFile)
	if text := a.Secret.Reveal(); text == "" || text == redacted || len(text) >= minKeyBytes {
		return
	}
	path := "auth.secret"
	if a.SecretFile != "" {
		path = "auth.secret_file"
	}
	v.add(path, fmt.Sprintf("is shorter than %d bytes", minKeyBytes), "such as what openssl rand -hex 32 prints")
}
