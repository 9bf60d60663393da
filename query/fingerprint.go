package query

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"strconv"
	"strings"
)

// Fingerprint tells what a statement is from its text without its values: the text in one way of writing, and a hash of
// it that is the same in every process and version of the program that writes it alike.
type Fingerprint struct {
	// Text is the normalised text, whole: single spaces, words in lower case, no comments, each constant and what names
	// something for a moment only (savepoints, cursors, prepared statements) as $n. It holds no value of a client's. Valid UTF-8.
	Text string
	Hash uint64
}

// String returns the hash as operators see it.
func (f Fingerprint) String() string { return FingerprintName(f.Hash) }

// FingerprintName returns a fingerprint's hash as operators see it: 16 hexadecimal digits.
func FingerprintName(hash uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], hash)
	const digits = "0123456789abcdef"
	out := make([]byte, 0, 16)
	for _, c := range b {
		out = append(out, digits[c>>4], digits[c&15])
	}
	return string(out)
}

// notShown is the text of what the lexer cannot vouch for: where its values begin and end is not certain.
const notShown = "(not understood)"

// FingerprintOf returns the fingerprint of sql. Lists of constants are one whatever their length. It keeps no reference to sql.
func FingerprintOf(sql []byte, opts Options) Fingerprint {
	f := fingerprinter{sql: sql, opts: opts}
	text := f.text()
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // never fails
	return Fingerprint{Text: text, Hash: h.Sum64()}
}

// constantMark stands for a constant or parameter until all are known; no text that is shown holds this byte.
const constantMark = 0

// groupMax bounds the groups that are compared, in bytes: otherwise what nests deeply would take the square of its length.
const groupMax = 4096

// paramMax is the greatest number that a parameter of the protocol can have.
const paramMax = 65535

// fingerprinter writes the normalised text.
type fingerprinter struct {
	sql    []byte
	opts   Options
	out    []byte
	params []int // of each mark: the parameter's number, 0 for a constant
	groups []markedGroup
	prev   token
	word   string // the last token, when it is a word
	names  naming
	closed []closedGroup // the last one of each level
}

// markedGroup is an open parenthesis or bracket.
type markedGroup struct {
	at    int  // its place in the output
	marks int  // how many there were
	list  bool // a list whose length does not count
}

// closedGroup is one that has been closed: its text, and where it, what stands for those like it, and the marks end.
type closedGroup struct {
	text      string
	at, marks int
}

func (f *fingerprinter) text() string {
	if bytes.IndexByte(f.sql, constantMark) >= 0 {
		return f.unknown()
	}
	for pos := 0; ; {
		t := nextToken(f.sql, pos)
		if t.kind == tokEnd {
			break
		}
		pos = t.end
		if t.kind == tokBad || t.backslash && f.opts.BackslashStrings || f.opts.UnsafeEncoding && hasNonASCII(f.sql[t.start:t.end]) {
			return f.unknown()
		}
		f.token(t)
		f.prev = t
	}
	return f.finish()
}

func hasNonASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// unknown is the text of what is not understood: its first word, if that is certain to be a command.
func (f *fingerprinter) unknown() string {
	t := nextToken(f.sql, 0)
	if t.kind == tokWord {
		word := strings.ToLower(string(f.sql[t.start:t.end]))
		switch word {
		case "select", "insert", "update", "delete", "merge", "with", "values", "create", "alter", "drop", "set", "copy", "do", "call", "begin", "comment", "explain", "prepare", "execute":
			return word + " " + notShown
		}
	}
	return notShown
}

func (f *fingerprinter) token(t token) {
	text := f.sql[t.start:t.end]
	switch t.kind {
	case tokWord:
		word := strings.ToLower(string(text))
		if f.names.hides(word, false) {
			f.constant(t, 0)
		} else {
			f.space(t)
			f.out = append(f.out, word...)
		}
		f.word = word
		return
	case tokQuoted, tokUQuoted:
		if f.names.hides(string(text), true) {
			f.constant(t, 0)
		} else {
			f.space(t)
			f.out = append(f.out, text...)
		}
	case tokParam:
		n, err := strconv.Atoi(string(text[1:]))
		if err != nil || n > paramMax {
			n = 0
		}
		f.constant(t, n)
	case tokString, tokEscape, tokNational, tokUString, tokBits, tokHexBits, tokDollar, tokInt, tokFloat:
		f.constant(t, 0)
	case tokOpen:
		f.space(t)
		f.groups = append(f.groups, markedGroup{at: len(f.out), marks: len(f.params), list: text[0] == '[' || f.word == "in"})
		f.out = append(f.out, text...)
	case tokClose:
		f.out = append(f.out, text...)
		f.close()
	case tokSemicolon:
		if len(f.groups) == 0 {
			f.names = naming{}
		}
		f.out = append(f.out, ';')
	default:
		f.names.operator(string(text))
		f.space(t)
		f.out = append(f.out, text...)
	}
	f.word = ""
}

// constant appends a mark. Of a list of nothing else only the first one is kept.
func (f *fingerprinter) constant(t token, param int) {
	if n := len(f.groups); n > 0 && f.groups[n-1].list && f.prev.kind == tokComma {
		g := f.groups[n-1]
		switch string(f.out[g.at+1:]) {
		case "\x00,":
			f.out = append(f.out, " ..."...)
			return
		case "\x00, ...,":
			f.out = f.out[:len(f.out)-1]
			return
		}
	}
	f.space(t)
	f.out = append(f.out, constantMark)
	f.params = append(f.params, param)
}

// close ends a group. One that is as the group before it, with nothing but a comma between, is left out: rows of VALUES.
func (f *fingerprinter) close() {
	n := len(f.groups)
	if n == 0 {
		return
	}
	g := f.groups[n-1]
	f.groups = f.groups[:n-1]
	for len(f.closed) < n {
		f.closed = append(f.closed, closedGroup{})
	}
	f.closed = f.closed[:n] // those within it are over
	last := &f.closed[n-1]
	if len(f.out)-g.at > groupMax {
		*last = closedGroup{}
		return
	}
	text := string(f.out[g.at:])
	if last.text == text {
		switch between := string(f.out[last.at:g.at]); between {
		case ", ", ", ..., ":
			f.out, f.params = append(f.out[:last.at], ", ..."...), f.params[:last.marks]
			return
		}
	}
	*last = closedGroup{text, len(f.out), len(f.params)}
}

// space appends a space unless the two tokens are written together.
func (f *fingerprinter) space(t token) {
	if len(f.out) == 0 {
		return
	}
	p, next := f.prev, f.sql[t.start]
	last := f.sql[p.end-1]
	switch {
	case p.kind == tokOpen, t.kind == tokComma, t.kind == tokClose, t.kind == tokSemicolon,
		p.kind == tokPunct && last != '=', t.kind == tokPunct && f.sql[t.end-1] != '=', next == '[':
		return
	case t.kind == tokOpen && (p.kind == tokWord && !spacedWord(f.word) || p.kind == tokQuoted):
		return
	}
	f.out = append(f.out, ' ')
}

// spacedWord says which words are written apart from the parenthesis behind them.
func spacedWord(w string) bool {
	switch w {
	case "in", "values", "and", "or", "not", "where", "on", "using", "from", "select", "as", "by", "over", "when", "then", "else", "join", "union", "except",
		"intersect", "all", "returning", "set", "filter", "with", "having", "limit", "offset", "like", "is", "between", "conflict", "include", "materialized":
		return true
	}
	return false
}

// finish writes the numbers of the constants, which follow those of the parameters.
func (f *fingerprinter) finish() string {
	next := 0
	for _, p := range f.params {
		next = max(next, p)
	}
	out := make([]byte, 0, len(f.out)+3*len(f.params))
	i := 0
	for _, c := range f.out {
		if c != constantMark {
			out = append(out, c)
			continue
		}
		n := f.params[i]
		if i++; n == 0 {
			next++
			n = next
		}
		out = strconv.AppendInt(append(out, '$'), int64(n), 10)
	}
	return strings.ToValidUTF8(strings.TrimRight(string(out), "; "), "?")
}

// naming says which words of a command name something for a moment only, as savepoints do, or are values.
type naming struct {
	words   int
	first   string
	hiding  bool // all that follows
	setting bool // SET was seen in a definition: behind = or TO is a value
}

// hides takes the next word, or quoted name, of a command and reports whether it is not to be shown.
func (n *naming) hides(word string, quoted bool) bool {
	n.words++
	if n.words == 1 {
		n.first = word
		n.setting = word == "set"
		return false
	}
	if quoted {
		word = ""
	}
	switch n.first {
	case "savepoint", "release":
		return word != "savepoint" || n.words > 2
	case "deallocate", "close", "listen", "unlisten", "notify":
		return word != "prepare" && word != "all"
	case "prepare":
		return n.words == 2 && word != "transaction"
	case "execute", "declare":
		return n.words == 2
	case "rollback":
		hides := n.hiding && word != "savepoint"
		n.hiding = n.hiding || word == "to"
		return hides
	case "fetch", "move":
		hides := n.hiding
		n.hiding = n.hiding || word == "from" || word == "in"
		return hides
	case "set", "alter", "create":
		hides := n.hiding
		n.setting = n.setting || word == "set"
		n.hiding = n.hiding || n.setting && word == "to"
		return hides
	}
	return false
}

// operator takes an operator of a command.
func (n *naming) operator(text string) {
	if n.setting && text == "=" {
		n.hiding = true
	}
}
