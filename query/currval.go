package query

import (
	"bytes"
	"strings"
)

// SequenceRead is a call of currval or lastval whose arguments are constants.
type SequenceRead struct {
	// Start and End are its byte span in the text.
	Start, End int
	// Sequence is the sequence as the text names it for regclass; Table and Column are
	// the arguments of a pg_get_serial_sequence inside instead. All are "" for lastval.
	Sequence, Table, Column string
	// Named is set where the call may give a column of a result its name.
	Named bool
}

// Last reports whether the call is one of lastval.
func (r *SequenceRead) Last() bool { return r.Sequence == "" && r.Table == "" }

// Function returns the name of what is called.
func (r *SequenceRead) Function() string {
	if r.Last() {
		return "lastval"
	}
	return "currval"
}

// MentionsSequences reports whether a text may call currval or lastval: whether either
// name is anywhere in it.
func MentionsSequences(text []byte) bool {
	const val = 3
	for at := 4; at+val <= len(text); at++ {
		i := bytes.IndexAny(text[at:], "vV")
		if i < 0 || at+i+val > len(text) {
			return false
		}
		at += i
		if word := text[at-4 : at+val]; bytes.EqualFold(word, []byte("currval")) || bytes.EqualFold(word, []byte("lastval")) {
			return true
		}
	}
	return false
}

// SequenceReads finds the calls of currval and lastval in a text that is one command and
// is read with standard_conforming_strings on. ok is false when one of them is not
// understood.
func SequenceReads(text []byte) (reads []SequenceRead, ok bool) {
	r := readsReader{text: text}
	r.next()
	for r.t.kind != tokEnd {
		if r.t.kind == tokBad {
			return nil, false
		}
		if !r.isCall() {
			r.clause()
			r.next()
			continue
		}
		read, ok := r.call()
		if !ok {
			return nil, false
		}
		reads = append(reads, read)
	}
	return reads, true
}

// readsReader goes through a text's tokens.
type readsReader struct {
	text []byte
	t    token
	back [2]token // the two before t, the nearest last
	// targets tells for each open parenthesis, and for the text around all, whether
	// what comes is in a list of results.
	targets []bool
	insert  bool // the command is an INSERT: its own SELECT's names do not matter
}

func (r *readsReader) next() {
	r.back[0], r.back[1] = r.back[1], r.t
	r.t = nextToken(r.text, r.t.end)
}

// word returns a token's name when it is one, folded.
func (r *readsReader) word(t token) string {
	switch raw := r.text[t.start:t.end]; t.kind {
	case tokWord:
		return strings.ToLower(string(raw))
	case tokQuoted:
		return strings.ReplaceAll(string(raw[1:len(raw)-1]), `""`, `"`)
	}
	return ""
}

func (r *readsReader) is(text string) bool { return string(r.text[r.t.start:r.t.end]) == text }

// clause notes where in the command the reader is.
func (r *readsReader) clause() {
	if len(r.targets) == 0 {
		r.targets = append(r.targets, false)
	}
	now := &r.targets[len(r.targets)-1]
	switch r.t.kind {
	case tokOpen:
		r.targets = append(r.targets, *now)
	case tokClose:
		if len(r.targets) > 1 {
			r.targets = r.targets[:len(r.targets)-1]
		}
	case tokWord:
		switch r.word(r.t) {
		case "insert":
			r.insert = r.insert || r.back[1].end == 0 // the first word
		case "select":
			*now = !r.insert
		case "returning":
			*now = true
		case "from", "where", "values", "set", "group", "having", "order", "limit", "offset", "window", "union", "intersect", "except", "on":
			*now = false
		}
	}
}

// isCall reports whether the token is the name of one of the functions.
func (r *readsReader) isCall() bool {
	if name := r.word(r.t); name != "currval" && name != "lastval" {
		return false
	}
	if string(r.text[r.back[1].start:r.back[1].end]) == "." && r.word(r.back[0]) != "pg_catalog" {
		return false
	}
	open := nextToken(r.text, r.t.end)
	return open.kind == tokOpen && r.text[open.start] == '('
}

// call reads a call, whose name is the token.
func (r *readsReader) call() (read SequenceRead, ok bool) {
	read.Start = r.t.start
	if string(r.text[r.back[1].start:r.back[1].end]) == "." {
		read.Start = r.back[0].start
	}
	read.Named = len(r.targets) > 0 && r.targets[len(r.targets)-1]
	last := r.word(r.t) == "lastval"
	r.next()
	r.next()
	if !last && !r.argument(&read) {
		return read, false
	}
	if !r.is(")") {
		return read, false
	}
	read.End = r.t.end
	r.next()
	// A window or a filter is an error, which a constant would hide.
	switch r.word(r.t) {
	case "over", "filter", "within":
		return read, false
	}
	return read, true
}

// argument reads the argument of currval.
func (r *readsReader) argument(read *SequenceRead) (ok bool) {
	if r.word(r.t) == "pg_catalog" {
		r.next()
		if !r.is(".") {
			return false
		}
		r.next()
	}
	switch r.word(r.t) {
	case "pg_get_serial_sequence":
		r.next()
		if !r.is("(") {
			return false
		}
		r.next()
		if read.Table, ok = r.constant(); !ok || !r.is(",") || read.Table == "" {
			return false
		}
		r.next()
		if read.Column, ok = r.constant(); !ok || !r.is(")") {
			return false
		}
		r.next()
		return r.casts()
	case "cast":
		r.next()
		if !r.is("(") {
			return false
		}
		r.next()
		if read.Sequence, ok = r.constant(); !ok || r.word(r.t) != "as" {
			return false
		}
		r.next()
		if !r.typeName() || !r.is(")") {
			return false
		}
		r.next()
		return read.Sequence != ""
	}
	read.Sequence, ok = r.constant()
	return ok && read.Sequence != ""
}

// constant reads a plain string with its casts.
func (r *readsReader) constant() (value string, ok bool) {
	raw := r.text[r.t.start:r.t.end]
	if r.t.kind != tokString || r.t.backslash {
		return "", false
	}
	value = strings.ReplaceAll(string(raw[1:len(raw)-1]), "''", "\x00")
	if strings.Contains(value, "'") {
		return "", false // it goes on on another line
	}
	r.next()
	return strings.ReplaceAll(value, "\x00", "'"), r.casts()
}

// casts reads casts to types that leave the value as it is.
func (r *readsReader) casts() bool {
	for r.is("::") {
		r.next()
		if !r.typeName() {
			return false
		}
	}
	return true
}

func (r *readsReader) typeName() bool {
	if r.word(r.t) == "pg_catalog" {
		r.next()
		if !r.is(".") {
			return false
		}
		r.next()
	}
	switch r.word(r.t) {
	case "regclass", "text":
		r.next()
		return true
	}
	return false
}

// ReplaceReads returns the text with its calls replaced: replacements has one text for
// each. Those that are shorter are filled up with spaces, so that places behind them
// stay where they were.
func ReplaceReads(text []byte, reads []SequenceRead, replacements []string) []byte {
	out := make([]byte, 0, len(text)+16)
	at := 0
	for i := range reads {
		r := &reads[i]
		out = append(append(out, text[at:r.Start]...), replacements[i]...)
		for n := len(replacements[i]); n < r.End-r.Start; n++ {
			out = append(out, ' ')
		}
		at = r.End
	}
	return append(out, text[at:]...)
}
