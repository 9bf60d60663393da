package query

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// shape reads one command.
func (sh *shaper) shape(n *pg.Node, r region) *Shape {
	s := &Shape{Span: sh.text.spanOf(r)}
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		s.Kind = ShapeQuery
		s.Scope = sh.query(n, r, nil)
	case *pg.Node_ExplainStmt:
		s.Kind, s.Analyze = ShapeExplain, sh.analyzes(x.ExplainStmt.Options)
		s.Inner = sh.shape(x.ExplainStmt.Query, sh.text.behindExplain(r, len(x.ExplainStmt.Options) > 0))
	case *pg.Node_PrepareStmt:
		s.Kind = ShapePrepare
		s.Inner = sh.shape(x.PrepareStmt.Query, sh.text.behindWord(r, "as"))
	case *pg.Node_DeclareCursorStmt:
		s.Kind = ShapeDeclare
		s.Inner = sh.shape(x.DeclareCursorStmt.Query, sh.text.behindWord(r, "for"))
	case *pg.Node_CreateTableAsStmt:
		sh.createAs(s, x.CreateTableAsStmt, r)
	case *pg.Node_ViewStmt:
		sh.createView(s, x.ViewStmt, r)
	case *pg.Node_RefreshMatViewStmt:
		s.Kind, s.Tables = ShapeRefresh, []*Reference{sh.written(x.RefreshMatViewStmt.Relation)}
	case *pg.Node_CopyStmt:
		sh.copy(s, x.CopyStmt, r)
	case *pg.Node_TruncateStmt:
		s.Kind = ShapeTruncate
		for _, rel := range x.TruncateStmt.Relations {
			s.Tables = append(s.Tables, sh.written(rel.GetRangeVar()))
		}
	case *pg.Node_ExecuteStmt:
		s.Kind = ShapeExecute
		c := sh.loose()
		c.clause = ClauseOther
		s.Arguments = c.values(x.ExecuteStmt.Params)
		s.take(c)
	default:
		sh.other(s, n)
	}
	return s
}

// analyzes says whether EXPLAIN may run its command. An option whose value is
// a literal counts as yes: other texts of the form may have another one.
func (sh *shaper) analyzes(options []*pg.Node) bool {
	for _, o := range options {
		d := o.GetDefElem()
		if i := sh.text.at(d.GetLocation()); d.GetDefname() == "analyze" && sh.text.literal(i+1) >= 0 {
			return true
		}
	}
	return analyzes(options)
}

// other takes the commands that have no shape of their own.
func (sh *shaper) other(s *Shape, n *pg.Node) {
	switch n.GetNode().(type) {
	case *pg.Node_TransactionStmt, *pg.Node_VariableSetStmt, *pg.Node_VariableShowStmt, *pg.Node_DiscardStmt,
		*pg.Node_DeallocateStmt, *pg.Node_FetchStmt, *pg.Node_ClosePortalStmt, *pg.Node_ListenStmt,
		*pg.Node_UnlistenStmt, *pg.Node_NotifyStmt, *pg.Node_ConstraintsSetStmt, *pg.Node_CheckPointStmt:
		s.Kind = ShapeTransaction
	default:
		m := message(n)
		if m == nil {
			s.Unknown = append(s.Unknown, "an empty command")
			return
		}
		s.Unknown = append(s.Unknown, "the command "+string(m.ProtoReflect().Descriptor().Name()))
		s.Concurrent, s.Definition = concurrent(n), sh.define(n)
		tables, indexes := objects(n)
		s.Tables, s.Indexes = append(sh.tables(m), tables...), indexes
	}
}

// objects lists the tables that a command names as objects, which is how DROP and COMMENT do: those that
// are dropped or described, and those that a trigger, a policy or the like of theirs is. indexes are the
// indexes that it is about.
func objects(n *pg.Node) (tables []*Reference, indexes []Name) {
	switch x := n.GetNode().(type) {
	case *pg.Node_DropStmt:
		for _, o := range x.DropStmt.Objects {
			tables, indexes = object(tables, indexes, x.DropStmt.RemoveType, o)
		}
	case *pg.Node_CommentStmt:
		tables, indexes = object(nil, nil, x.CommentStmt.Objtype, x.CommentStmt.Object)
	case *pg.Node_RenameStmt:
		if x.RenameStmt.RenameType == pg.ObjectType_OBJECT_INDEX {
			indexes = []Name{rangeName(x.RenameStmt.Relation)}
		}
	case *pg.Node_AlterTableStmt:
		if x.AlterTableStmt.Objtype == pg.ObjectType_OBJECT_INDEX {
			indexes = []Name{rangeName(x.AlterTableStmt.Relation)}
		}
	}
	return tables, indexes
}

func object(tables []*Reference, indexes []Name, kind pg.ObjectType, o *pg.Node) ([]*Reference, []Name) {
	words := o.GetList().GetItems()
	switch kind {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW,
		pg.ObjectType_OBJECT_FOREIGN_TABLE, pg.ObjectType_OBJECT_SEQUENCE:
	case pg.ObjectType_OBJECT_INDEX:
		return tables, append(indexes, qualified(words, 0))
	case pg.ObjectType_OBJECT_COLUMN, pg.ObjectType_OBJECT_TABCONSTRAINT, pg.ObjectType_OBJECT_TRIGGER, pg.ObjectType_OBJECT_RULE,
		pg.ObjectType_OBJECT_POLICY:
		if len(words) < 2 {
			return tables, indexes
		}
		words = words[:len(words)-1] // the last is its own name
	default:
		return tables, indexes
	}
	name := qualified(words, 0)
	return append(tables, &Reference{Kind: ReferenceTable, Schema: name.Schema, Name: name.Name, Written: true}), indexes
}

// loose is a scoper for expressions of a command that is no query.
func (sh *shaper) loose() *scoper { return &scoper{sh: sh, s: &Scope{}} }

// take keeps what a loose scope has besides its values.
func (s *Shape) take(c *scoper) {
	s.Sublinks = append(s.Sublinks, c.s.Sublinks...)
	s.Tables = append(s.Tables, c.s.From...)
	s.Unknown = append(s.Unknown, c.s.Unknown...)
	if c.s.Select != nil || c.s.CurrentOf != "" {
		s.Unknown = append(s.Unknown, "an aggregate or a cursor where there is none")
	}
}

func (sh *shaper) written(x *pg.RangeVar) *Reference {
	r := sh.tableNamed(x)
	r.Written = true
	return r
}

// behindExplain returns the command that EXPLAIN is of.
func (t *shapeText) behindExplain(r region, options bool) region {
	if !r.known() || !t.is(r.lo, "explain") {
		return nowhere
	}
	i := r.lo + 1
	if options {
		if t.opens(i) {
			i = t.skip(i)
		}
		for t.is(i, "analyze", "analyse", "verbose") {
			i++
		}
	}
	return region{i, r.hi}
}

// behindWord returns what follows a word.
func (t *shapeText) behindWord(r region, word string) region {
	if i := t.find(r, word); i >= 0 {
		return region{i + 1, r.hi}
	}
	return nowhere
}

// createAs reads CREATE TABLE AS and CREATE MATERIALIZED VIEW.
func (sh *shaper) createAs(s *Shape, x *pg.CreateTableAsStmt, r region) {
	t := sh.text
	s.Kind, s.Materialized = ShapeCreateAs, x.Objtype == pg.ObjectType_OBJECT_MATVIEW
	s.Tables = []*Reference{sh.made(x.Into)}
	body := t.behindWord(r, "as")
	if body.known() && t.is(body.hi-1, "data") { // WITH [NO] DATA
		switch {
		case t.is(body.hi-2, "with"):
			body.hi -= 2
		case t.is(body.hi-2, "no") && t.is(body.hi-3, "with"):
			body.hi -= 3
		}
	}
	s.Inner = sh.shape(x.Query, body)
}

// createView reads CREATE VIEW. A recursive one is another query than its text says.
func (sh *shaper) createView(s *Shape, x *pg.ViewStmt, r region) {
	t := sh.text
	s.Kind = ShapeCreateView
	view := sh.written(x.View)
	view.Columns = names(x.Aliases)
	s.Tables = []*Reference{view}
	body := t.behindWord(r, "as")
	if body.known() && t.find(region{r.lo, body.lo}, "recursive") >= 0 {
		body = nowhere
	}
	if body.known() && t.is(body.hi-1, "option") { // WITH [LOCAL | CASCADED] CHECK OPTION
		switch {
		case t.is(body.hi-3, "with"):
			body.hi -= 3
		case t.is(body.hi-4, "with"):
			body.hi -= 4
		}
	}
	s.Inner = sh.shape(x.Query, body)
}
