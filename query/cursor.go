package query

import (
	"math"
	"strconv"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// DeclareOptions are the words of a DECLARE between the cursor's name and its query.
type DeclareOptions struct {
	Binary, Scroll, NoScroll, Hold bool
	Insensitive, Asensitive        bool
	// Start is where the query begins in the text.
	Start int
}

// ReadDeclare reads the options of a text that begins with DECLARE. ok is false for other texts, and for
// what PostgreSQL does not read.
func ReadDeclare(sql []byte) (o DeclareOptions, ok bool) {
	t := nextToken(sql, 0)
	if !isWord(sql, t, "declare") {
		return o, false
	}
	t = nextToken(sql, t.end) // the name
	for before := false; ; {
		if t = nextToken(sql, t.end); t.kind != tokWord {
			return o, false
		}
		switch {
		case isWord(sql, t, "for"):
			o.Start = nextToken(sql, t.end).start
			return o, true
		case isWord(sql, t, "binary"):
			o.Binary = true
		case isWord(sql, t, "insensitive"):
			o.Insensitive = true
		case isWord(sql, t, "asensitive"):
			o.Asensitive = true
		case isWord(sql, t, "scroll"):
			o.NoScroll, o.Scroll = o.NoScroll || before, o.Scroll || !before
		case isWord(sql, t, "hold"):
			o.Hold = before
		}
		before = isWord(sql, t, "no") || isWord(sql, t, "with")
	}
}

// FetchDirection says how a FETCH counts.
type FetchDirection uint8

// The directions.
const (
	FetchForward FetchDirection = iota
	FetchBackward
	FetchAbsolute
	FetchRelative
)

// FetchAll is the number of rows of FETCH ALL.
const FetchAll = math.MaxInt64

// Fetch is what a FETCH or MOVE asks for.
type Fetch struct {
	Cursor    string
	Direction FetchDirection
	Count     int64
	Move      bool
}

// ReadFetch reads a text that is one FETCH or MOVE; ok is false for other texts. The text has been
// understood before: see Analyze.
func ReadFetch(sql string) (f Fetch, ok bool) {
	if len(sql) > fetchMax {
		return f, false
	}
	tree, err := pg.Parse(sql)
	if err != nil || len(tree.Stmts) != 1 {
		return f, false
	}
	n := tree.Stmts[0].Stmt.GetFetchStmt()
	if n == nil {
		return f, false
	}
	f = Fetch{Cursor: n.Portalname, Count: n.HowMany, Move: n.Ismove}
	switch n.Direction {
	case pg.FetchDirection_FETCH_FORWARD:
	case pg.FetchDirection_FETCH_BACKWARD:
		f.Direction = FetchBackward
	case pg.FetchDirection_FETCH_ABSOLUTE:
		f.Direction = FetchAbsolute
	case pg.FetchDirection_FETCH_RELATIVE:
		f.Direction = FetchRelative
	default:
		return f, false
	}
	return f, true
}

// fetchMax bounds a FETCH, in bytes: what is longer holds comments for the most part, and
// is not shown to the parser here.
const fetchMax = 4 << 10

// AppendTo appends a command that asks for the same of a cursor whose name needs no escapes.
func (f *Fetch) AppendTo(dst []byte, cursor string) []byte {
	word := "FETCH "
	if f.Move {
		word = "MOVE "
	}
	dst = append(dst, word...)
	dst = append(dst, [...]string{"FORWARD ", "BACKWARD ", "ABSOLUTE ", "RELATIVE "}[f.Direction]...)
	if f.Count == FetchAll {
		dst = append(dst, "ALL"...)
	} else {
		dst = strconv.AppendInt(dst, f.Count, 10)
	}
	return append(append(append(dst, ` FROM "`...), cursor...), '"')
}
