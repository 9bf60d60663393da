package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// ShapeKind says what a command does with the scope or the shape inside it.
type ShapeKind uint8

// The kinds of shapes.
const (
	// ShapeOther is every command that has no kind of its own. Its tables are
	// all that its tree names, wherever; nothing else is known of it.
	ShapeOther       ShapeKind = iota
	ShapeQuery                 // SELECT, VALUES, TABLE, INSERT, UPDATE, DELETE, MERGE
	ShapeExplain               // EXPLAIN of Inner
	ShapePrepare               // PREPARE name AS Inner
	ShapeDeclare               // DECLARE name CURSOR FOR Inner
	ShapeCreateAs              // CREATE TABLE AS and CREATE MATERIALIZED VIEW AS Inner; Tables[0] is made
	ShapeCreateView            // CREATE VIEW AS Inner; Tables[0] is made
	ShapeRefresh               // REFRESH MATERIALIZED VIEW Tables[0]
	ShapeCopy                  // COPY; see Copy
	ShapeTruncate              // TRUNCATE Tables
	ShapeExecute               // EXECUTE with Arguments
	ShapeTransaction           // transaction control, settings and the like: no table, no expression
)

// Shape is what one command states about the rows it needs. It knows no
// catalog: names stay as written, and what could not be understood is marked
// unknown in its place. It is immutable and may be shared, also between texts
// with equal Normal.Key: only its literals' values and byte positions belong
// to the text that it was made from (see Span).
type Shape struct {
	Kind ShapeKind
	// Scope is the command's own, for ShapeQuery.
	Scope *Scope
	// Inner is what EXPLAIN, PREPARE, DECLARE, CREATE ... AS take; for CREATE
	// TABLE AS EXECUTE and EXPLAIN EXECUTE it is a ShapeExecute.
	Inner *Shape
	// Tables are the tables of a command without a scope.
	Tables []*Reference
	// Indexes are those that a definition drops, describes or changes by name.
	Indexes []Name
	Copy    *Copy
	// Arguments are the parameters of EXECUTE.
	Arguments []Value
	// Sublinks are those of a command without a scope; PostgreSQL allows none there.
	Sublinks []*Sublink
	// Analyze is set for EXPLAIN ANALYZE: Inner is run.
	Analyze bool
	// Materialized is set for CREATE MATERIALIZED VIEW.
	Materialized bool
	// Concurrent is set for a command with CONCURRENTLY.
	Concurrent *Concurrent
	// Definition is set for a command that makes or alters a table, or renames a schema.
	Definition *Definition
	// Span is the command; of Inner, the part of the text that is the inner command.
	Span Span
	// Unknown holds the reasons, in words, why the shape does not say all.
	// Scopes have their own.
	Unknown []string
}

// Span is a piece of the text the shape was made from. A span whose End is 0
// is absent, or could not be located exactly.
type Span struct {
	// Start and End are byte positions.
	Start, End int32
	// First and Last number the span's tokens, from the start of the text. They
	// are the same in every text with an equal Normal.Key; see Normal.Locate.
	First, Last int32
}

// Located says whether the span is known.
func (s Span) Located() bool { return s.End > 0 }

// AnalyzeShapes is Analyze, and says too what each command states of its rows:
// one shape per element of Statement.Commands, in their order, none when the
// statement is opaque. The text is parsed once.
func (n *Normal) AnalyzeShapes(sql string, opts Options) (*Statement, []*Shape) {
	var shapes []*Shape
	st := n.analyze(sql, opts, func(tree *pg.ParseResult, commands []Command) {
		t := newShapeText([]byte(sql), n.Literals)
		shapes = make([]*Shape, len(commands))
		for i := range commands {
			b := shaper{text: t}
			shapes[i] = b.shape(tree.Stmts[i].Stmt, t.inside(commands[i].Start, commands[i].End))
		}
	})
	return st, shapes
}

// AnalyzeShapes is like Normal.AnalyzeShapes, with buffers of its own.
func AnalyzeShapes(sql string, opts Options) (*Statement, []*Shape) {
	var n Normal
	return n.AnalyzeShapes(sql, opts)
}

// Locate sets the byte positions of spans, which were made from another text
// with an equal Key, to those in sql. Spans that are not located are left alone.
// It returns false when sql has fewer tokens than the spans number.
func (n *Normal) Locate(sql []byte, spans []*Span) bool {
	n.starts = n.starts[:0]
	for t := nextToken(sql, 0); t.kind != tokEnd; t = nextToken(sql, t.end) {
		n.starts = append(n.starts, [2]int32{int32(t.start), int32(t.end)})
	}
	for _, s := range spans {
		if !s.Located() {
			continue
		}
		if int(s.Last) >= len(n.starts) {
			return false
		}
		s.Start, s.End = n.starts[s.First][0], n.starts[s.Last][1]
	}
	return true
}
