package query

import "bytes"

// maxHintBytes is how far into a text that is not read as a whole a hint is
// looked for.
const maxHintBytes = 1024

// leadingHint reads a comment /* shardproxy: route=primary|replica|auto */ that
// is the first thing in the text, white space aside. Another comment that begins
// with "shardproxy:" is RouteInvalid, anything else no hint.
func leadingHint(sql []byte) Route {
	pos := 0
	for pos < len(sql) && charClass[sql[pos]]&chSpace != 0 {
		pos++
	}
	if pos+1 >= len(sql) || sql[pos] != '/' || sql[pos+1] != '*' {
		return RouteUnset
	}
	end := bytes.Index(sql[pos+2:], []byte("*/"))
	if end < 0 {
		return RouteUnset
	}
	body, ok := bytes.CutPrefix(trimSpace(sql[pos+2:pos+2+end]), []byte("shardproxy"))
	if !ok {
		return RouteUnset
	}
	if body, ok = bytes.CutPrefix(trimSpace(body), []byte(":")); !ok {
		return RouteUnset
	}
	if body, ok = bytes.CutPrefix(trimSpace(body), []byte("route")); !ok {
		return RouteInvalid
	}
	if body, ok = bytes.CutPrefix(trimSpace(body), []byte("=")); !ok {
		return RouteInvalid
	}
	return RouteOf(string(trimSpace(body)))
}

// RouteOf returns the route that a word stands for, RouteInvalid for any other.
func RouteOf(word string) Route {
	switch word {
	case "primary":
		return RoutePrimary
	case "replica":
		return RouteReplica
	case "auto":
		return RouteAuto
	}
	return RouteInvalid
}

// trimSpace cuts ASCII white space at both ends.
func trimSpace(b []byte) []byte {
	for len(b) > 0 && charClass[b[0]]&chSpace != 0 {
		b = b[1:]
	}
	for len(b) > 0 && charClass[b[len(b)-1]]&chSpace != 0 {
		b = b[:len(b)-1]
	}
	return b
}

// String returns the word a client writes for r; "" when it asked for nothing.
func (r Route) String() string {
	switch r {
	case RouteAuto:
		return "auto"
	case RoutePrimary:
		return "primary"
	case RouteReplica:
		return "replica"
	}
	return ""
}

// mark is what a hint adds in front of a key; no other key begins with a comment.
func (r Route) mark() string {
	switch r {
	case RouteAuto:
		return "/*auto*/"
	case RoutePrimary:
		return "/*primary*/"
	case RouteReplica:
		return "/*replica*/"
	case RouteInvalid:
		return "/*invalid*/"
	}
	return ""
}
