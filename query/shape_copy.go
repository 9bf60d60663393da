package query

import (
	"errors"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// copy reads COPY.
func (sh *shaper) copy(s *Shape, x *pg.CopyStmt, r region) {
	t := sh.text
	s.Kind = ShapeCopy
	k := &Copy{
		From: x.IsFrom, File: x.Filename != "" || x.IsProgram, Program: x.IsProgram,
		Columns: names(x.Attlist), HasColumns: len(x.Attlist) > 0,
	}
	s.Copy = k
	if x.Relation != nil {
		k.Table = sh.tableNamed(x.Relation)
		k.Table.Written = x.IsFrom
	}
	if x.Query != nil {
		body := nowhere
		if r.known() {
			body = t.group(r.lo + 1)
		}
		k.Query = sh.query(x.Query, body, nil)
	}
	for _, o := range x.Options {
		k.Options = append(k.Options, sh.copyOption(s, o.GetDefElem()))
	}
	c := sh.loose()
	where := t.clauses(r, "where").behind(t, "where")
	k.Where = c.condition(x.WhereClause, ClauseWhere, where)
	s.take(c)
}

// copyOption reads one option of COPY.
func (sh *shaper) copyOption(s *Shape, d *pg.DefElem) CopyOption {
	o := CopyOption{Name: d.GetDefname(), HasValue: d.GetArg() != nil, Literal: -1}
	t := sh.text
	switch v := d.GetArg().GetNode().(type) {
	case nil:
	case *pg.Node_String_:
		o.Value = v.String_.Sval
	case *pg.Node_Integer:
		o.Value = strconv.Itoa(int(v.Integer.Ival))
	case *pg.Node_Float:
		o.Value = v.Float.Fval
	case *pg.Node_Boolean:
		o.Value = strconv.FormatBool(v.Boolean.Boolval)
	case *pg.Node_AStar:
		o.Star = true
	case *pg.Node_List:
		o.List = names(v.List.Items)
	default:
		s.Unknown = append(s.Unknown, "an option of COPY")
	}
	if i := t.at(d.GetLocation()); i >= 0 {
		if t.is(i+1, "as") { // of the old syntax: NULL AS ''
			i++
		}
		o.Literal = t.literal(i + 1)
	}
	return o
}

// CopyChange says what RewriteCopy changes.
type CopyChange struct {
	// NoHeader makes HEADER false.
	NoHeader bool
	// Columns, when not empty, are appended to the column list. Without a list they are all
	// the columns that the data will have.
	Columns []string
}

// errCopyText is returned for a COPY whose text cannot be changed exactly.
var errCopyText = errors.New("the text of this COPY cannot be changed exactly")

// RewriteCopy returns sql, which must be one COPY FROM command of a table, with changes: the client's
// text with pieces put in or replaced, and nothing else touched. The result was parsed and
// compared with what it has to mean; the error says that this is not possible.
func RewriteCopy(sql string, opts Options, change CopyChange) (string, error) {
	var n Normal
	var tree *pg.ParseResult
	var commands []Command
	n.analyze(sql, opts, func(p *pg.ParseResult, c []Command) { tree, commands = p, c })
	if tree == nil || len(tree.Stmts) != 1 || len(commands) != 1 {
		return "", errCopyText
	}
	x := tree.Stmts[0].Stmt.GetCopyStmt()
	if x == nil || !x.IsFrom || x.Relation == nil {
		return "", errCopyText
	}
	t := newShapeText([]byte(sql), n.Literals)
	e := copyEdit{text: t, want: proto.CloneOf(x)}
	if change.NoHeader && !e.header(x) || len(change.Columns) > 0 && !e.columns(x, change.Columns) {
		return "", errCopyText
	}
	out := e.apply(sql)
	again, err := pg.Parse(out)
	if err != nil || len(again.Stmts) != 1 || !sameTree(again.Stmts[0].Stmt.GetCopyStmt(), e.want) {
		return "", errCopyText
	}
	return out, nil
}

// copyEdit is what is to be replaced in a text, and the tree that is meant.
type copyEdit struct {
	text  *shapeText
	want  *pg.CopyStmt
	edits []copySplice
}

type copySplice struct {
	start, end int32
	text       string
}

// header makes HEADER false in the list in parentheses, and cuts it out of the old
// syntax, which has no values.
func (e *copyEdit) header(x *pg.CopyStmt) bool {
	t := e.text
	options := e.want.Options[:0]
	for i, o := range x.Options {
		d := o.GetDefElem()
		if d.GetDefname() != "header" {
			options = append(options, e.want.Options[i])
			continue
		}
		at := t.at(d.GetLocation())
		if at < 0 {
			return false
		}
		if !t.opens(at-1) && t.kind(at-1) != tokComma {
			e.edits = append(e.edits, copySplice{t.toks[at].start, t.toks[at].end, ""})
			continue
		}
		last := at
		for !t.closes(last+1) && t.kind(last+1) != tokComma {
			if last++; t.kind(last) == tokEnd {
				return false
			}
		}
		e.edits = append(e.edits, copySplice{t.toks[at].start, t.toks[last].end, "HEADER false"})
		e.want.Options[i].GetDefElem().Arg = pg.MakeStrNode("false")
		options = append(options, e.want.Options[i])
	}
	e.want.Options = options
	return true
}

// columns appends to the column list, or makes one.
func (e *copyEdit) columns(x *pg.CopyStmt, names []string) bool {
	t := e.text
	i := t.at(x.Relation.GetLocation())
	if i < 0 {
		return false
	}
	last := t.name(i)
	if last < 0 {
		return false
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		e.want.Attlist = append(e.want.Attlist, pg.MakeStrNode(name))
	}
	list := strings.Join(quoted, ", ")
	if len(x.Attlist) == 0 {
		end := t.toks[last].end
		e.edits = append(e.edits, copySplice{end, end, " (" + list + ")"})
		return true
	}
	closing := t.pair(last + 1)
	if !t.opens(last+1) || closing < 0 {
		return false
	}
	end := t.toks[closing].start
	e.edits = append(e.edits, copySplice{end, end, ", " + list})
	return true
}

// apply makes the edits, the last of the text first.
func (e *copyEdit) apply(sql string) string {
	for len(e.edits) > 0 {
		last := 0
		for i, s := range e.edits {
			if s.start > e.edits[last].start {
				last = i
			}
		}
		s := e.edits[last]
		sql = sql[:s.start] + s.text + sql[s.end:]
		e.edits = append(e.edits[:last], e.edits[last+1:]...)
	}
	return sql
}

// sameTree compares two trees but for the places in their texts.
func sameTree(a, b proto.Message) bool {
	if !a.ProtoReflect().IsValid() || !b.ProtoReflect().IsValid() {
		return false // nil
	}
	a, b = proto.Clone(a), proto.Clone(b)
	clearLocations(a.ProtoReflect())
	clearLocations(b.ProtoReflect())
	return proto.Equal(a, b)
}
