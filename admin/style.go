package admin

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// styleHash returns the hash of the page's only style element, as a
// Content-Security-Policy names it.
func styleHash(html string) string {
	_, rest, _ := strings.Cut(html, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	sum := sha256.Sum256([]byte(style))
	return base64.StdEncoding.EncodeToString(sum[:])
}
