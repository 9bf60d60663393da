package proxy

import (
	"strings"
	"testing"
)

// TestUnquoted: a value may have quotes of its own, and be cut in its midst: none of it is kept.
func TestUnquoted(t *testing.T) {
	const before = "invalid input syntax for type uuid: "
	for text, want := range map[string]string{
		"nothing in quotes":                                     "nothing in quotes",
		before + `"secret"`:                                     before + `"..."`,
		before + `"{"name": "secret"}"`:                         before + `"..."`,
		`column "a" of table "b" is not`:                        `column "..." is not`,
		before + `"a" secret ` + strings.Repeat("x", 600) + `"`: before + `"..."`,
		"COPY from stdin failed: secret \"a\" and":              "COPY from stdin failed: ...",
		strings.Repeat("é", 300):                                strings.Repeat("é", 250),
	} {
		if got := unquoted(text); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}
