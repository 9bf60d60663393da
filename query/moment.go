package query

import (
	"bytes"
	"strings"
)

// Moments is what ReplaceMoment found in a text.
type Moments struct {
	// Count is the number of places that stand for the time of the transaction.
	Count int
	// Returned is set when one stands behind RETURNING: it may name a column of the result.
	Returned bool
}

// ReplaceMoment appends a piece of a text to dst, which begins and ends between tokens,
// with a constant in each place that stands for the time at which the transaction began:
// now(), transaction_timestamp(), CURRENT_TIMESTAMP, LOCALTIMESTAMP, CURRENT_DATE,
// CURRENT_TIME and LOCALTIME. moment is that time as PostgreSQL reads a timestamptz; it
// has no quotes. What is written as a quoted identifier, or behind a schema other than
// pg_catalog, is left as it is.
func ReplaceMoment(dst, piece []byte, moment string) ([]byte, Moments) {
	var found Moments
	var before [3]token // the last tokens, the latest first
	last := 0
	word := func(t token) string {
		if t.kind != tokWord {
			return ""
		}
		return strings.ToLower(string(piece[t.start:t.end]))
	}
	dotted := func(t token) bool { return t.kind == tokPunct && piece[t.start] == '.' && t.end-t.start == 1 }
	returning := false
	for t := nextToken(piece, 0); t.kind != tokEnd && t.kind != tokBad; t = nextToken(piece, t.end) {
		start, end, as := t.start, t.end, ""
		w := word(t)
		switch w {
		case "returning":
			returning = true
		case "now", "transaction_timestamp":
			open := nextToken(piece, t.end)
			shut := nextToken(piece, open.end)
			if open.kind != tokOpen || piece[open.start] != '(' || shut.kind != tokClose {
				break
			}
			if dotted(before[0]) {
				if word(before[1]) != "pg_catalog" || dotted(before[2]) {
					break
				}
				start = before[1].start
			}
			end, as = shut.end, "timestamptz"
		case "current_timestamp", "localtimestamp", "current_time", "localtime", "current_date":
			if dotted(before[0]) || word(before[0]) == "as" {
				break
			}
			as = momentType(w)
			if open := nextToken(piece, t.end); w != "current_date" && open.kind == tokOpen && piece[open.start] == '(' {
				digits := nextToken(piece, open.end)
				shut := nextToken(piece, digits.end)
				if digits.kind == tokInt && shut.kind == tokClose {
					end, as = shut.end, as+"("+string(piece[digits.start:digits.end])+")"
				}
			}
		}
		if as != "" {
			dst = append(dst, piece[last:start]...)
			dst = append(append(append(dst, "('"...), moment...), "'::pg_catalog.timestamptz"...)
			if as != "timestamptz" {
				dst = append(append(dst, "::pg_catalog."...), as...)
			}
			dst = append(dst, ')')
			last = end
			found.Count++
			found.Returned = found.Returned || returning
			t.end = end
		}
		before[0], before[1], before[2] = t, before[0], before[1]
	}
	return append(dst, piece[last:]...), found
}

// momentType is the type of a keyword that stands for the time of the transaction.
func momentType(word string) string {
	switch word {
	case "localtimestamp":
		return "timestamp"
	case "current_time":
		return "timetz"
	case "localtime":
		return "time"
	case "current_date":
		return "date"
	}
	return "timestamptz"
}

// StandsForMoment reports whether a function of PostgreSQL's own gives the time at which
// the transaction began.
func StandsForMoment(f Name) bool {
	return (f.Schema == "" || f.Schema == "pg_catalog") && f.Args == 0 && (f.Name == "now" || f.Name == "transaction_timestamp")
}

// HasMoment reports whether ReplaceMoment would replace anything.
func HasMoment(piece []byte) bool {
	if !bytes.ContainsAny(piece, "tTnN") {
		return false
	}
	_, found := ReplaceMoment(nil, piece, "")
	return found.Count > 0
}
