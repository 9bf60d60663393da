package router

import (
	"regexp"
	"slices"

	"shardproxy/query"
)

// PostgreSQL does not plan all that stands in a text: a WITH query that nothing uses, what a constant condition
// leaves out. So what is gathered must not be asked of a server as a query of its own where planning it may be an error.

// running are the WITH queries that may be run: those that the text uses, or one of these does. A
// reference in one that is not run counts for nothing.
func running(top *block) map[*with]bool {
	used := map[*with]bool{}
	var visit func(b *block)
	visit = func(b *block) {
		if b == nil {
			return
		}
		for _, n := range b.nodes {
			if n.leaf == nil || n.join != nil {
				continue
			}
			if w := n.leaf.with; w != nil && !used[w] {
				used[w] = true
				visit(w.block)
			}
			visit(n.leaf.inner)
		}
		for _, l := range b.links {
			visit(l.block)
		}
		for _, w := range b.with {
			if w.cte.Writes && !used[w] {
				used[w] = true
				visit(w.block)
			}
		}
		visit(b.left)
		visit(b.right)
	}
	visit(top)
	return used
}

// leaves notes a WITH query that is not run. It stays as it stands, for the server that finishes the query reads it, and has to
// know its tables.
func (g *gatherer) leaves(w *with) {
	w.block.each(func(l *leaf) { g.out.Home = g.out.Home || l.rel.kind == kindSingle })
}

// surelyPlanned reports whether PostgreSQL plans a query whatever stands around it. It does not plan a FULL JOIN whose condition is
// other than equalities, and may be able to when it knows more.
func (g *gatherer) surelyPlanned(b *block) bool {
	if b == nil {
		return true
	}
	for _, n := range b.nodes {
		if n.join != nil && n.join.Kind == query.JoinFull && n.join.On != nil && !g.equates(n.join.On) ||
			n.leaf != nil && n.join == nil && n.leaf.rel == nil && !g.surelyPlanned(n.leaf.inner) {
			return false
		}
	}
	return g.surelyPlanned(b.left) && g.surelyPlanned(b.right) &&
		!slices.ContainsFunc(b.links, func(l sublink) bool { return !g.surelyPlanned(l.block) }) &&
		!slices.ContainsFunc(b.with, func(w *with) bool { return !g.surelyPlanned(w.block) })
}

// equality is a conjunct that says that two columns are equal.
var equality = regexp.MustCompile(`^[ \t\r\n(]*([A-Za-z_0-9]+)\.[A-Za-z_0-9]+\s*=\s*([A-Za-z_0-9]+)\.[A-Za-z_0-9]+[ \t\r\n)]*$`)

// equates reports whether a condition says of columns of two tables that they are equal, and nothing else.
func (g *gatherer) equates(c *query.Condition) bool {
	if !c.Span.Located() || int(c.Span.End) > len(g.sql) {
		return false
	}
	all := query.Conjuncts(g.sql[c.Span.Start:c.Span.End], g.opts)
	return len(all) > 0 && !slices.ContainsFunc(all, func(k query.Conjunct) bool {
		m := equality.FindStringSubmatch(k.Text)
		return m == nil || m[1] == m[2]
	})
}
