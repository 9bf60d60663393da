package query

import pg "github.com/pganalyze/pg_query_go/v6"

// sublink takes a subquery in an expression.
func (c *scoper) sublink(e *Expr, x *pg.SubLink, n *pg.Node) {
	s := &Sublink{}
	t := c.sh.text
	open := t.at(x.Location)
	switch x.SubLinkType {
	case pg.SubLinkType_EXISTS_SUBLINK:
		s.Kind = SublinkExists
		open++
	case pg.SubLinkType_ARRAY_SUBLINK:
		s.Kind = SublinkArray
		open++
	case pg.SubLinkType_EXPR_SUBLINK:
		s.Kind = SublinkScalar
	case pg.SubLinkType_ANY_SUBLINK, pg.SubLinkType_ALL_SUBLINK:
		s.Kind, s.Op = SublinkAny, Name{Name: "=", Args: 2}
		if x.SubLinkType == pg.SubLinkType_ALL_SUBLINK {
			s.Kind = SublinkAll
		}
		if len(x.OperName) > 0 {
			s.Op = qualified(x.OperName, 2)
		}
		open = t.quantified(open)
	default:
		c.unexpected(n, "an expression")
		return
	}
	if row := x.Testexpr.GetRowExpr(); row != nil && !starred(row.Args) {
		s.Test = c.values(row.Args)
	} else if x.Testexpr != nil {
		s.Test = []Value{c.value(x.Testexpr)}
	}
	for i := range s.Test {
		c.absorb(e, &s.Test[i])
	}
	if s.Op.Name != "" {
		addName(&e.Operators, s.Op)
	}
	c.addSublink(e, s, x.Subselect, open)
}

// quantified returns the parenthesis behind IN, NOT IN, op ANY or op ALL at i.
func (t *shapeText) quantified(i int) int {
	switch {
	case i < 0 || t.is(i, "in"):
		return i + 1
	case t.is(i, "not") && t.is(i+1, "in"):
		return i + 2
	case t.is(i, "operator"):
		i = t.skip(i + 1)
	default:
		i++
		for t.is(i, "like", "ilike") {
			i++
		}
	}
	if t.is(i, "any", "some", "all") {
		return i + 1
	}
	return -1
}

func (c *scoper) addSublink(e *Expr, s *Sublink, query *pg.Node, open int) {
	t := c.sh.text
	r := nowhere
	if t.opens(open) {
		r = t.group(open)
		s.Span = t.span(open, t.pair(open))
	}
	s.Clause, s.Join = c.clause, c.join
	s.Scope = c.sh.query(query, r, c.env)
	e.Sublinks = append(e.Sublinks, len(c.s.Sublinks))
	c.s.Sublinks = append(c.s.Sublinks, s)
}
