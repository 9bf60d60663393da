package exec

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// encodingKind says how an encoding's characters are made of bytes.
type encodingKind uint8

const (
	encodingUnknown encodingKind = iota
	encodingSingle               // one byte a character
	encodingUTF8
	encodingHigh  // several bytes, all above 0x7f
	encodingMixed // several bytes, among them ASCII ones
)

// encodingName brings a name into PostgreSQL's form for comparing names, and
// aliases to one name.
func encodingName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return -1
	}, name)
	if alias := encodingAliases()[name]; alias != "" {
		return alias
	}
	return name
}

func encodingAliases() map[string]string {
	return map[string]string{
		"unicode": "utf8", "mskanji": "sjis", "shiftjis": "sjis", "win932": "sjis", "windows932": "sjis",
		"windows949": "uhc", "win949": "uhc", "windows950": "big5", "win950": "big5", "windows936": "gbk", "win936": "gbk",
		"iso88591": "latin1", "iso88592": "latin2", "iso88593": "latin3", "iso88594": "latin4", "iso88599": "latin5",
		"iso885910": "latin6", "iso885913": "latin7", "iso885914": "latin8", "iso885915": "latin9", "iso885916": "latin10",
		"koi8": "koi8r", "alt": "win866", "windows866": "win866", "windows874": "win874", "abc": "win1258",
		"tcvn": "win1258", "tcvn5712": "win1258", "vscii": "win1258", "win": "win1251",
		"windows1250": "win1250", "windows1251": "win1251", "windows1252": "win1252", "windows1253": "win1253",
		"windows1254": "win1254", "windows1255": "win1255", "windows1256": "win1256", "windows1257": "win1257",
		"windows1258": "win1258",
	}
}

func encodings() map[string]encodingKind {
	kinds := map[string]encodingKind{"utf8": encodingUTF8}
	for kind, names := range map[encodingKind]string{
		encodingSingle: "sqlascii latin1 latin2 latin3 latin4 latin5 latin6 latin7 latin8 latin9 latin10 " +
			"iso88595 iso88596 iso88597 iso88598 koi8r koi8u win866 win874 win1250 win1251 win1252 win1253 " +
			"win1254 win1255 win1256 win1257 win1258",
		encodingHigh:  "eucjp euccn euckr euctw eucjis2004 muleinternal",
		encodingMixed: "sjis big5 gbk uhc gb18030 johab shiftjis2004",
	} {
		for _, name := range strings.Fields(names) {
			kinds[name] = kind
		}
	}
	return kinds
}

// clip cuts text to at most n bytes without cutting a character.
func (d *CopyDialect) clip(text []byte, n int) []byte {
	if len(text) <= n {
		return text
	}
	switch encodings()[d.Encoding] {
	case encodingUTF8:
		for n > 0 && !utf8.RuneStart(text[n]) {
			n--
		}
	case encodingHigh:
		at := 0
		for at < n {
			size := 1
			switch {
			case text[at] == 0x8e && d.Encoding == "euctw":
				size = 4
			case text[at] == 0x8f:
				size = 3
			case text[at] >= 0x80:
				size = 2
			}
			if at+size > n {
				break
			}
			at += size
		}
		n = at
	}
	return text[:n]
}

// damaged returns the first sequence of text that no character of its encoding has, as PostgreSQL
// tells it, and where it is; nil when there is none. Of other encodings than UTF-8 only the zero byte is
// known to be none: the rest is left to the server.
func (d *CopyDialect) damaged(text []byte) (at int, sequence []byte) {
	if encodings()[d.Encoding] != encodingUTF8 {
		if at = bytes.IndexByte(text, 0); at >= 0 {
			return at, text[at : at+1]
		}
		return 0, nil
	}
	for at < len(text) {
		r, size := utf8.DecodeRune(text[at:])
		if text[at] == 0 || r == utf8.RuneError && size <= 1 {
			return at, text[at:min(at+sequenceLength(text[at]), len(text))]
		}
		at += size
	}
	return 0, nil
}

// sequenceLength is the length that a first byte of UTF-8 announces.
func sequenceLength(b byte) int {
	switch {
	case b&0xe0 == 0xc0:
		return 2
	case b&0xf0 == 0xe0:
		return 3
	case b&0xf8 == 0xf0:
		return 4
	}
	return 1
}
