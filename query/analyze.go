package query

import (
	"errors"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// DefaultMaxBytes is the length above which a text is not parsed.
const DefaultMaxBytes = 1 << 20

// Options say how a text is to be read. The zero value is right for a session
// with standard_conforming_strings on and an ASCII-safe client encoding.
type Options struct {
	// MaxBytes bounds the text that is parsed; DefaultMaxBytes when 0.
	MaxBytes int
	// BackslashStrings says that standard_conforming_strings is off: a text
	// with a backslash in a plain string is then opaque.
	BackslashStrings bool
	// UnsafeEncoding says that in the client's encoding a byte below 128 may be
	// part of a character (SJIS, BIG5, GBK, UHC, JOHAB, GB18030,
	// SHIFT_JIS_2004): a text with bytes above 127 is then opaque.
	UnsafeEncoding bool
	// Slots, when set, bounds how many texts are in the grammar at once: one
	// place is taken for the time of a parse.
	Slots chan struct{}
}

// Analyze says what sql is. It never fails: a text that it cannot understand is
// Opaque. The result keeps no reference to sql.
func Analyze(sql string, opts Options) *Statement {
	var n Normal
	return n.Analyze(sql, opts)
}

// Analyze is like the function Analyze and scans with the buffers of n.
func (n *Normal) Analyze(sql string, opts Options) *Statement {
	return n.analyze(sql, opts, nil)
}

// analyze shows the tree to also, when that is set and the text was understood.
func (n *Normal) analyze(sql string, opts Options, also func(*pg.ParseResult, []Command)) *Statement {
	limit := opts.MaxBytes
	if limit <= 0 {
		limit = DefaultMaxBytes
	}
	if len(sql) > limit {
		return &Statement{Opaque: true, Hint: leadingHint([]byte(sql[:min(len(sql), maxHintBytes)]))}
	}
	n.Scan([]byte(sql))
	st := &Statement{Hint: n.Hint, Opaque: true}
	if n.refuses(sql, opts) {
		return st
	}
	tree, commands, err := parse(sql, opts)
	if err != nil {
		st.Syntax = syntaxError(err)
		return st
	}
	st.Commands, st.Opaque = commands, false
	if also != nil {
		also(tree, commands)
	}
	return st
}

// refuses says whether the scanned text must not be shown to the grammar.
func (n *Normal) refuses(sql string, opts Options) bool {
	return n.Depth > MaxDepth || n.broken || slowComments(sql) ||
		opts.BackslashStrings && n.Backslashes ||
		opts.UnsafeEncoding && n.NonASCII ||
		strings.IndexByte(sql, 0) >= 0
}

// slowComments finds runs of operator characters that open many comments:
// PostgreSQL's lexer reads the rest of such a run again at each of them, which
// takes minutes for a text of a few hundred kilobytes.
func slowComments(sql string) bool {
	const maxOpened = 64
	opened := 0
	for i := 0; i < len(sql); i++ {
		switch {
		case charClass[sql[i]]&chOp == 0:
			opened = 0
		case sql[i] == '*' && i > 0 && sql[i-1] == '/':
			if opened++; opened > maxOpened {
				return true
			}
		}
	}
	return false
}

// syntaxError returns what the grammar does not know, nil for what it refuses for another reason.
func syntaxError(err error) *SyntaxError {
	var of *parser.Error
	if !errors.As(err, &of) || !strings.HasPrefix(of.Message, "syntax error at ") || of.Cursorpos <= 0 {
		return nil
	}
	return &SyntaxError{Message: of.Message, Position: of.Cursorpos}
}

// errOddTree says that a tree is not as expected.
var errOddTree = errors.New("query: the tree is not as expected")

// parse runs PostgreSQL's grammar and reads the tree. The error says that the text is
// not valid or the tree not as expected.
func parse(sql string, opts Options) (tree *pg.ParseResult, commands []Command, err error) {
	if tree, err = grammar(sql, opts.Slots); err != nil {
		return nil, nil, err
	}
	src := []byte(sql)
	for _, raw := range tree.Stmts {
		start, end := commandSpan(src, int(raw.StmtLocation), int(raw.StmtLen))
		if start < 0 {
			return nil, nil, errOddTree
		}
		c := Command{Start: start, End: end}
		b := builder{src: src, c: &c}
		b.command(message(raw.Stmt))
		commands = append(commands, c)
	}
	return tree, commands, nil
}

func grammar(sql string, slots chan struct{}) (*pg.ParseResult, error) {
	if slots != nil {
		slots <- struct{}{}
		defer func() { <-slots }()
	}
	return pg.Parse(sql)
}

// commandSpan trims a statement's location to its first and last token. A
// length of 0 reaches to the end of the text.
func commandSpan(src []byte, location, length int) (start, end int) {
	limit := len(src)
	if length > 0 {
		limit = location + length
	}
	if location < 0 || location > limit || limit > len(src) {
		return -1, -1
	}
	start = -1
	for t := nextToken(src[:limit], location); t.kind != tokEnd; t = nextToken(src[:limit], t.end) {
		if start < 0 {
			if t.kind == tokSemicolon {
				continue
			}
			start = t.start
		}
		end = t.end
	}
	return start, end
}

// message returns the node inside the union, nil when it is empty.
func message(n *pg.Node) proto.Message {
	if n == nil {
		return nil
	}
	m := n.ProtoReflect()
	fd := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if fd == nil || fd.Kind() != protoreflect.MessageKind {
		return nil
	}
	return m.Get(fd).Message().Interface()
}
