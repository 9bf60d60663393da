package query

import (
	"fmt"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
)

// shaper builds the shape of one command.
type shaper struct {
	text *shapeText
	// building holds the WITH queries that are being read.
	building []*CTE
}

// cteEnv is the list of WITH queries that a name may stand for, the nearest first.
type cteEnv struct {
	cte  *CTE
	next *cteEnv
}

func (e *cteEnv) find(name string) *CTE {
	for ; e != nil; e = e.next {
		if e.cte.Name == name {
			return e.cte
		}
	}
	return nil
}

// scoper builds one scope.
type scoper struct {
	sh  *shaper
	s   *Scope
	env *cteEnv
	// clause and join say where the expression stands that is being read;
	// conjunct is false under OR.
	clause   Clause
	join     *Join
	conjunct bool
}

// parts returns the scope's tail, made when first asked for.
func (s *Scope) parts() *SelectParts {
	if s.Select == nil {
		s.Select = &SelectParts{}
	}
	return s.Select
}

func (c *scoper) unknown(format string, a ...any) {
	c.s.Unknown = append(c.s.Unknown, fmt.Sprintf(format, a...))
}

// unexpected marks the scope unknown because of a node, and keeps the tables
// that the node names.
func (c *scoper) unexpected(n *pg.Node, place string) {
	m := message(n)
	if m == nil {
		c.unknown("an unknown node in %s", place)
		return
	}
	c.unknown("%s in %s", m.ProtoReflect().Descriptor().Name(), place)
	c.s.From = append(c.s.From, c.sh.tables(m)...)
}

// other takes expressions in places that have no field of their own.
func (c *scoper) other(list ...*pg.Node) {
	if c.s.Other == nil {
		c.s.Other = &Expr{}
	}
	clause := c.clause
	c.clause = ClauseOther
	c.bags(c.s.Other, list)
	c.clause = clause
}

// wordAt returns the word at a position in lower case.
func (sh *shaper) wordAt(location int32) string {
	i := sh.text.at(location)
	if sh.text.kind(i) != tokWord {
		return ""
	}
	b := slices.Clone(sh.text.bytes(i))
	for j, ch := range b {
		if ch-'A' < 26 {
			b[j] = ch | 0x20
		}
	}
	return string(b)
}

// query builds the scope of a query or a writing command.
func (sh *shaper) query(n *pg.Node, r region, env *cteEnv) *Scope {
	c := &scoper{sh: sh, s: &Scope{}, env: env}
	r = sh.text.bare(r)
	c.s.Span = sh.text.spanOf(r)
	switch x := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		c.selectStmt(x.SelectStmt, r)
	case *pg.Node_InsertStmt:
		c.insert(x.InsertStmt, r)
	case *pg.Node_UpdateStmt:
		c.update(x.UpdateStmt, r)
	case *pg.Node_DeleteStmt:
		c.delete(x.DeleteStmt, r)
	case *pg.Node_MergeStmt:
		c.merge(x.MergeStmt, r)
	default:
		c.unexpected(n, "the place of a query")
	}
	return c.s
}

// selectQuery is query for a SELECT that the tree holds without a union around it.
func (sh *shaper) selectQuery(n *pg.SelectStmt, r region, env *cteEnv) *Scope {
	return sh.query(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: n}}, r, env)
}

// with reads a WITH clause and returns the text behind it.
func (c *scoper) with(w *pg.WithClause, r region) region {
	if w == nil {
		return r
	}
	for _, n := range w.Ctes {
		c.s.With = append(c.s.With, c.sh.cteHead(n.GetCommonTableExpr()))
	}
	if w.Recursive {
		for _, cte := range c.s.With {
			c.env = &cteEnv{cte, c.env}
		}
	}
	last := -1
	for i, n := range w.Ctes {
		last = c.cteBody(c.s.With[i], n.GetCommonTableExpr())
		if !w.Recursive {
			c.env = &cteEnv{c.s.With[i], c.env}
		}
	}
	return c.sh.behindWith(last, r)
}

func (sh *shaper) cteHead(x *pg.CommonTableExpr) *CTE {
	cte := &CTE{
		Name: x.GetCtename(), Columns: names(x.GetAliascolnames()),
		Materialized:    x.GetCtematerialized() == pg.CTEMaterialize_CTEMaterializeAlways,
		NotMaterialized: x.GetCtematerialized() == pg.CTEMaterialize_CTEMaterializeNever,
		Search:          x.GetSearchClause() != nil, Cycle: x.GetCycleClause() != nil,
	}
	switch x.GetCtequery().GetNode().(type) {
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		cte.Writes = true
	}
	return cte
}

// cteBody reads the query and returns the token that ends it, -1 when unknown.
func (c *scoper) cteBody(cte *CTE, x *pg.CommonTableExpr) int {
	t := c.sh.text
	first := t.at(x.GetLocation())
	open := first
	if first >= 0 {
		for open = t.skip(first); open < len(t.toks) && !t.is(open, "as"); {
			open = t.skip(open)
		}
		for open++; t.is(open, "not", "materialized"); {
			open++
		}
	}
	body := t.group(open)
	c.sh.building = append(c.sh.building, cte)
	scope := c.sh.query(x.GetCtequery(), body, c.env)
	c.sh.building = c.sh.building[:len(c.sh.building)-1]
	cte.Scope = scope
	if cy := x.GetCycleClause(); cy != nil {
		c.other(cy.CycleMarkValue, cy.CycleMarkDefault)
	}
	if !body.known() {
		return -1
	}
	cte.Span = t.span(first, body.hi)
	if cte.Search || cte.Cycle {
		return -1 - body.hi // words follow
	}
	return body.hi
}

// behindWith returns what follows a WITH clause whose last query ends at last,
// or at -1-last with SEARCH or CYCLE behind it.
func (sh *shaper) behindWith(last int, r region) region {
	if !r.known() || last == -1 {
		return nowhere
	}
	if last >= 0 {
		return region{last + 1, r.hi}
	}
	verb := sh.text.find(region{-1 - last + 1, r.hi}, "select", "values", "table", "insert", "update", "delete", "merge")
	if verb < 0 {
		return nowhere
	}
	return region{verb, r.hi}
}

// names reads a list of strings.
func names(list []*pg.Node) []string {
	if len(list) == 0 {
		return nil
	}
	out := make([]string, len(list))
	for i, n := range list {
		out[i] = n.GetString_().GetSval()
	}
	return out
}

// tables lists all tables that a tree names, WITH names left out where they stand for queries.
func (sh *shaper) tables(m proto.Message) []*Reference {
	var w walker
	w.visit(m)
	out := make([]*Reference, 0, len(w.relations.list))
	for _, n := range w.relations.sorted() {
		out = append(out, &Reference{Kind: ReferenceTable, Schema: n.Schema, Name: n.Name})
	}
	return out
}
