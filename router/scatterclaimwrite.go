package router

import (
	"regexp"
	"slices"
	"strings"

	"shardproxy/catalog"
	"shardproxy/query"
)

// A job that is taken and marked in one statement: UPDATE jobs ... WHERE id IN (SELECT id FROM jobs ... LIMIT n FOR UPDATE SKIP LOCKED). The rows
// are locked first, as if the query inside were sent alone, and then written where they are. The write does not see what the query
// saw, but what has been committed since too; so it must be bound to the very rows that are locked, which nobody else can change.

// claiming is a query inside a write that locks up to its LIMIT.
type claiming struct {
	block *block
	link  *sublink // where it stands in an expression
	with  *with    // the WITH query that it is
	leaf  *leaf    // the item of FROM that it is
}

// claiming finds the query that locks rows in a write; nil without a refusal for none.
func (g *gatherer) claiming(b *block) (*claiming, *Refusal) {
	var found []claiming
	for i := range b.links {
		if locksRows(b.links[i].block) {
			found = append(found, claiming{block: b.links[i].block, link: &b.links[i]})
		}
	}
	for _, w := range b.with {
		if locksRows(w.block) && w.cte.Uses > 0 {
			found = append(found, claiming{block: w.block, with: w})
		}
	}
	for _, n := range b.nodes {
		if n.leaf != nil && n.join == nil && n.leaf.rel == nil && n.leaf.with == nil && locksRows(n.leaf.inner) {
			found = append(found, claiming{block: n.leaf.inner, leaf: n.leaf})
		}
	}
	switch {
	case len(found) == 0:
		return nil, nil
	case len(found) > 1 || !g.claims(found[0].block.scope.Select):
		return nil, &Refusal{Reason: reasonCommand, Why: "rows of several shards are locked", Hint: "One query inside may lock rows, with LIMIT and SKIP LOCKED, and without OFFSET."}
	case g.ctx.HiddenSlots > 0:
		return nil, unguarded("a query inside locks rows")
	}
	return &found[0], nil
}

// locksRows reports whether a query locks the rows that it gives.
func locksRows(b *block) bool {
	return b != nil && b.scope.Kind == query.ScopeSelect && b.scope.Select != nil && len(b.scope.Select.Locks) > 0
}

// claimedFor has the rows of the query read first. They must be bound to those that are written.
func (g *gatherer) claimedFor(b *block, target *node, k *claiming) *Refusal {
	refuse := func(why string) *Refusal {
		return &Refusal{Reason: reasonCommand, Why: "a query inside locks rows, and " + why, Hint: "Lock the rows in a statement of their own, and write them by their keys."}
	}
	s := k.block.scope
	if !s.Span.Located() || int(s.Span.End) > len(g.sql) || !k.block.sure || !g.closed(k.block, k.block) {
		return refuse("names something that is not its own, or its place in the text is not certain")
	}
	place := query.Place{Start: int(s.Span.Start), End: int(s.Span.End)}
	sql := place.In(g.sql)
	of := &gatherer{r: g.r, ctx: g.ctx, rel: g.rel, o: g.o, mayClaim: true}
	way, refusal := of.scatter(sql)
	switch {
	case refusal != nil:
		return refusal
	case way.Merge == nil || !way.Merge.Claims:
		return refuse("its rows are not those of a sharded table")
	}
	if !g.ties(b, target, k) {
		return refuse("that these are the rows that are written is not certain: a unique index with the key must be among the columns that it gives and that are compared with them")
	}
	in := Input{Text: sql, Proof: way.Merge.Proof, Plan: way.Merge.Plan, Claim: way.Merge}
	for _, o := range k.block.outputs {
		if o.col.leaf == nil || o.col.leaf.rel == nil || o.name == "" || o.collated {
			return refuse("gives what is no column of its table")
		}
		c := o.col.leaf.rel.columns[o.col.i]
		in.Columns = append(in.Columns, InputColumn{Name: o.name, Collate: c.collate, Cast: c.domain})
	}
	g.claim = k.block
	g.edits = append(g.edits, edit{place, []Piece{{Kind: PieceRows, Input: len(g.out.Inputs)}}})
	g.out.Inputs = append(g.out.Inputs, in)
	return nil
}

// ties reports whether the rows that are written have what rows of the query have in the columns of a unique index of one
// table: they are the same, and locked.
func (g *gatherer) ties(b *block, target *node, k *claiming) bool {
	rel := target.leaf.rel
	own := k.block.nodes[0].leaf.rel
	if rel == nil || own == nil || rel.schema != own.schema || rel.name != own.name || target.leaf.ref.Only != k.block.nodes[0].leaf.ref.Only {
		return false
	}
	tied := map[int]bool{}
	pair := func(x, y col) {
		if y.leaf == target.leaf {
			x, y = y, x
		}
		if at, ok := k.of(y); ok && x.leaf == target.leaf && at == x.i {
			tied[x.i] = true
		}
	}
	for i := range b.links {
		l := &b.links[i]
		if l.positive() && len(l.block.outputs) == len(l.link.Test) && (l.block == k.block || k.given(l.block)) {
			for j := range l.link.Test {
				if c, ok := l.tests(b, j); ok {
					pair(c, l.block.outputs[j].col)
				}
			}
		}
	}
	if w := b.scope.Where; w != nil {
		for i := range w.Facts {
			f := &w.Facts[i]
			if f.Kind != query.FactEqual || f.NullSafe || f.Op.Schema != "" || f.Value.Kind != query.ValueColumn || f.Value.Column == nil || f.Value.Detail != nil {
				continue
			}
			x, ok := b.find(f.Column)
			y, also := b.find(f.Value.Column)
			if ok && also {
				pair(x, y)
			}
		}
		g.equalsOne(b, k, pair)
	}
	t, res := g.rel.catalog.Table(rel.schema, rel.name, g.rel.path)
	return res == catalog.Resolved && t != nil && slices.ContainsFunc(t.Indexes, func(x catalog.Index) bool { return uniqueOf(t, &x, rel, tied) })
}

// of follows a column to that of the query's table.
func (k *claiming) of(c col) (int, bool) {
	for range maxBlocks {
		switch l := c.leaf; {
		case l == nil:
			return 0, false
		case l == k.block.nodes[0].leaf:
			return c.i, true
		case l.with != nil && l.with == k.with || l == k.leaf:
			if c.i >= len(k.block.outputs) {
				return 0, false
			}
			c = k.block.outputs[c.i].col
		default:
			return 0, false
		}
	}
	return 0, false
}

// given reports whether a query gives rows of the WITH query that locks, and nothing else.
func (k *claiming) given(b *block) bool {
	return k.with != nil && b.scope.Kind == query.ScopeSelect && len(b.nodes) == 1 && b.nodes[0].leaf != nil && b.nodes[0].leaf.with == k.with
}

// Conditions whose query gives one value, or an array of them.
var (
	equalsQuery = regexp.MustCompile(`^[\s(]*((?:[A-Za-z_][A-Za-z_0-9]*\.)?[A-Za-z_][A-Za-z_0-9]*)\s*=\s*(?:(?i:any)\s*\(\s*(?i:array)\s*)?\(\s*$`)
	closesQuery = regexp.MustCompile(`^[\s)]*$`)
)

// equalsOne finds conditions of the form column = (query) and column = ANY (ARRAY(query)).
func (g *gatherer) equalsOne(b *block, k *claiming, pair func(x, y col)) {
	w := b.scope.Where
	if !w.Span.Located() || int(w.Span.End) > len(g.sql) {
		return
	}
	for i := range b.links {
		l := &b.links[i]
		s := l.block.scope
		if l.link.Clause != query.ClauseWhere || l.link.Kind != query.SublinkScalar && l.link.Kind != query.SublinkArray || len(l.block.outputs) != 1 || !s.Span.Located() ||
			l.block != k.block && !k.given(l.block) {
			continue
		}
		inside := g.sql[s.Span.Start:s.Span.End]
		for _, c := range query.Conjuncts(g.sql[w.Span.Start:w.Span.End], g.opts) {
			before, after, ok := strings.Cut(c.Text, inside)
			m := equalsQuery.FindStringSubmatch(before)
			if !ok || m == nil || !closesQuery.MatchString(after) {
				continue
			}
			name := query.Column{Name: strings.ToLower(m[1])}
			if table, column, ok := strings.Cut(name.Name, "."); ok {
				name.Table, name.Name = table, column
			}
			if x, ok := b.find(&name); ok {
				pair(x, l.block.outputs[0].col)
			}
		}
	}
}

// uniqueOf reports whether an index has each row of a table once, on all shards together, by columns of a set.
func uniqueOf(t *catalog.Table, x *catalog.Index, rel *relation, columns map[int]bool) bool {
	if !x.Unique || !x.Valid || x.Partial || x.Deferrable || !x.Ordinary || len(rel.key) == 0 {
		return false
	}
	has := map[string]bool{}
	for _, n := range x.Keys {
		at := slices.IndexFunc(t.Columns, func(c catalog.Column) bool { return c.Number == n })
		if at < 0 {
			return false
		}
		i := slices.IndexFunc(rel.columns, func(c relationColumn) bool { return c.name == t.Columns[at].Name })
		if i < 0 || !columns[i] {
			return false
		}
		has[t.Columns[at].Name] = true
	}
	return !slices.ContainsFunc(rel.key, func(k int) bool { return !has[rel.columns[k].name] })
}
