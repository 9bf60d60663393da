package router

import (
	"slices"
	"strconv"

	"shardproxy/query"
)

// block is a scope with the relations behind its names.
type block struct {
	scope *query.Scope
	text  *text
	// outer is the block whose names are seen inside, nil when there is none.
	outer *block
	roots []*node // the items of FROM
	nodes []*node // all, joins and leaves
	// outerJoin is set when one of the joins is no inner join.
	outerJoin bool
	with      []*with
	// left and right are the branches of a set operation; right is what an INSERT takes its rows from.
	left, right *block
	// leaf stands for a set operation in FROM.
	leaf *leaf
	// columns are those that a bare name, or a star, may mean; complete says that
	// there are no others.
	columns  []visible
	complete bool
	outputs  []visible
	sure     bool // outputs holds all
	where    []fact
	never    bool // no row passes the conditions
	ready    bool // facts are resolved
	links    []sublink
	// building is set while the items of FROM are being read.
	building bool
	// lateral is set for a subquery that sees the first seen nodes of the block around
	// it, those that stand left of it.
	lateral bool
	seen    int
}

// text is what the places of a scope's literals refer to.
type text struct {
	literals []query.Literal
	// fixed is the text itself when it is not the client's: a view's.
	fixed []byte
}

// leaf is an item of FROM that gives rows, or the target of a write.
type leaf struct {
	ref    *query.Reference
	names  []string
	sure   bool // names holds all
	rel    *relation
	inner  *block
	with   *with
	hidden bool // by a join's alias
}

// col is one column of one leaf: a variable of the proof.
type col struct {
	leaf *leaf
	i    int
}

// visible is a column as a block gives it to names, or out. Its col has no leaf
// when it is not one column unchanged.
type visible struct {
	name string
	col  col
	// collated is set for an output with a COLLATE of its own.
	collated bool
}

// node is a leaf or a join.
type node struct {
	parent, left, right *node
	leaf                *leaf
	join                *query.Join
	columns             []visible
	complete            bool
	facts               []fact
}

// with is one query of a WITH clause.
type with struct {
	cte   *query.CTE
	block *block
	// uses holds what each use needs of the outputs.
	uses [][][]value
	// open is set while its own query is being read.
	open bool
}

// sublink is a subquery in an expression.
type sublink struct {
	link  *query.Sublink
	block *block
}

// build reads a scope. outer is the block whose names it sees.
func (p *prover) build(s *query.Scope, outer *block, t *text) *block {
	b := &block{scope: s, outer: outer, text: t, complete: true, sure: true, lateral: p.lateral, seen: p.seen}
	p.lateral = false
	if p.deep++; p.deep > maxBlocks {
		p.refuse(reasonUnknown, "the statement has too many parts")
		return b
	}
	for _, why := range s.Unknown {
		p.refuse(reasonUnknown, "not understood: "+why)
	}
	for _, c := range s.With {
		p.buildWith(b, c)
	}
	switch s.Kind {
	case query.ScopeUnknown:
		p.refuse(reasonUnknown, "the statement has a part that is not understood")
	case query.ScopeSet:
		p.lateral, p.seen = b.lateral, b.seen
		b.left = p.build(s.Set.Left, outer, t)
		p.nameWith(s, b.left)
		p.lateral, p.seen = b.lateral, b.seen
		b.right = p.build(s.Set.Right, outer, t)
	case query.ScopeValues:
	default:
		b.building = true
		p.buildFrom(b)
		b.building = false
	}
	for _, l := range s.Sublinks {
		b.links = append(b.links, sublink{l, p.build(l.Scope, b, t)})
	}
	b.output()
	return b
}

// maxBlocks bounds the blocks of one statement, those of views counted at each use.
const maxBlocks = 10_000

// buildWith reads one query of a WITH clause. It sees what is around the scope, not
// what is in its FROM.
func (p *prover) buildWith(b *block, c *query.CTE) {
	w := &with{cte: c, open: true}
	p.withs[c] = w
	p.lateral, p.seen = b.lateral, b.seen
	w.block = p.build(c.Scope, b.outer, b.text)
	w.open = false
	b.with = append(b.with, w)
}

// nameWith tells a recursive query the names of its columns once its first branch is read.
func (p *prover) nameWith(s *query.Scope, first *block) {
	for c, w := range p.withs {
		if c.Scope == s && w.block == nil {
			w.block = first
		}
	}
}

func (p *prover) buildFrom(b *block) {
	s := b.scope
	if s.Kind == query.ScopeMerge {
		p.buildMerge(b)
		return
	}
	if s.Target != nil && s.Kind != query.ScopeInsert {
		b.addRoot(p.node(b, s.Target))
	}
	for _, r := range s.From {
		b.addRoot(p.node(b, r))
	}
	if s.Insert != nil && s.Insert.Source != nil {
		b.right = p.build(s.Insert.Source, b.outer, b.text)
	}
}

// buildMerge reads a MERGE as the outer join that it is.
func (p *prover) buildMerge(b *block) {
	j := &query.Join{Kind: query.JoinInner, On: b.scope.Where}
	for _, w := range b.scope.Merge.When {
		switch {
		case w.Match == query.MergeNotMatchedBySource:
			j.Kind = query.JoinFull
		case w.Match == query.MergeNotMatchedByTarget && j.Kind == query.JoinInner:
			j.Kind = query.JoinLeft
		}
	}
	n := &node{join: j}
	if len(b.scope.From) != 1 || b.scope.Target == nil {
		p.refuse(reasonUnknown, "a MERGE without its source")
		return
	}
	n.left, n.right = p.node(b, b.scope.From[0]), p.node(b, b.scope.Target)
	b.join(n)
	b.addRoot(n)
}

func (b *block) addRoot(n *node) {
	b.roots = append(b.roots, n)
	b.columns = append(b.columns, n.columns...)
	b.complete = b.complete && n.complete
}

// node reads one item of FROM.
func (p *prover) node(b *block, r *query.Reference) *node {
	if r.Kind == query.ReferenceJoin {
		n := &node{join: r.Join}
		n.left, n.right = p.node(b, r.Join.Left), p.node(b, r.Join.Right)
		b.join(n)
		if r.Alias != "" {
			b.alias(n, r)
		}
		return n
	}
	l := &leaf{ref: r}
	n := &node{leaf: l}
	switch r.Kind {
	case query.ReferenceTable:
		l.rel = p.relations.find(r.Schema, r.Name)
		if r.Catalog != "" || l.rel == nil {
			l.rel = &relation{kind: kindSingle, schema: r.Schema, name: r.Name}
			break
		}
		p.expand(b, l)
		for _, c := range l.rel.columns {
			l.names = append(l.names, c.name)
		}
		l.sure = l.rel.columns != nil
	case query.ReferenceCTE:
		l.with = p.withs[r.CTE]
		if l.with == nil {
			p.refuse(reasonUnknown, "a WITH query is used before it stands")
			break
		}
		if l.with.block != nil {
			l.take(l.with.block, r.CTE.Columns)
		}
	case query.ReferenceSubquery:
		outer := b.outer
		if r.Lateral {
			outer = b
		}
		p.seen, p.lateral = len(b.nodes), r.Lateral
		l.inner = p.build(r.Scope, outer, b.text)
		l.take(l.inner, nil)
	case query.ReferenceFunction:
	default:
		p.refuse(reasonUnknown, "an item of FROM that is not understood")
	}
	l.rename(r.Columns)
	for i, name := range l.names {
		n.columns = append(n.columns, visible{name: name, col: col{l, i}})
	}
	n.complete = l.sure
	b.nodes = append(b.nodes, n)
	return n
}

// take names the columns of a query in FROM.
func (l *leaf) take(b *block, names []string) {
	if l.inner == b {
		b.leaf = l
	}
	for _, o := range b.outputs {
		l.names = append(l.names, o.name)
	}
	l.sure = b.sure
	l.rename(names)
}

// rename gives the first columns other names.
func (l *leaf) rename(names []string) {
	for i, name := range names {
		if i < len(l.names) {
			l.names[i] = name
		} else {
			l.names = append(l.names, name)
		}
	}
}

// expand reads a view's query in its place.
func (p *prover) expand(b *block, l *leaf) {
	if l.rel.kind != kindView || l.ref.Written {
		return
	}
	if why := l.rel.view.unsteady; why != "" {
		p.unsteadyView = why
	}
	l.inner = p.build(l.rel.query, nil, &text{l.rel.view.literals, l.rel.view.sql})
}

// join sets what a join gives: the merged columns first, then the others.
func (b *block) join(n *node) {
	n.left.parent, n.right.parent = n, n
	n.complete = n.left.complete && n.right.complete
	b.outerJoin = b.outerJoin || n.join.Kind != query.JoinInner
	merged := n.join.Using
	if n.join.Natural {
		merged = nil
		for _, v := range n.left.columns {
			if v.name != "" && slices.ContainsFunc(n.right.columns, func(o visible) bool { return o.name == v.name }) {
				merged = append(merged, v.name)
			}
		}
		// With columns that nobody knows of, nobody knows which are merged.
		if !n.complete {
			merged = nil
		}
	}
	for _, name := range merged {
		l, lok := one(n.left.columns, name)
		r, rok := one(n.right.columns, name)
		v := visible{name: name}
		switch {
		case !lok || !rok:
			n.complete = false
		case n.join.Kind == query.JoinInner || n.join.Kind == query.JoinLeft:
			v.col = l
		case n.join.Kind == query.JoinRight:
			v.col = r
		}
		if lok && rok && l.leaf != nil && r.leaf != nil {
			n.facts = append(n.facts, fact{a: l, b: r, strict: true})
		}
		n.columns = append(n.columns, v)
	}
	for _, side := range []*node{n.left, n.right} {
		for _, v := range side.columns {
			if !slices.Contains(merged, v.name) {
				n.columns = append(n.columns, v)
			}
		}
	}
	b.nodes = append(b.nodes, n)
}

// one returns the column of a name that only one has.
func one(columns []visible, name string) (c col, ok bool) {
	for _, v := range columns {
		if v.name == name {
			if ok {
				return col{}, false
			}
			c, ok = v.col, true
		}
	}
	return c, ok
}

// alias hides what a join is made of behind the join's own name.
func (b *block) alias(n *node, r *query.Reference) {
	n.hide()
	for i, name := range r.Columns {
		if i < len(n.columns) {
			n.columns[i].name = name
		}
	}
	n.leaf = &leaf{ref: r, sure: n.complete}
	for _, v := range n.columns {
		n.leaf.names = append(n.leaf.names, v.name)
	}
}

func (n *node) hide() {
	if n.leaf != nil {
		n.leaf.hidden = true
	}
	if n.join != nil {
		n.left.hide()
		n.right.hide()
	}
}

// output says what the block gives out.
func (b *block) output() {
	s := b.scope
	switch {
	case s.Kind == query.ScopeSet:
		b.outputs, b.sure = b.left.outputs, b.left.sure
		for i := range b.outputs {
			b.outputs = slices.Clone(b.outputs)
			b.outputs[i].col = col{}
		}
		return
	case s.Kind == query.ScopeValues:
		if len(s.Rows) > 0 {
			for i := range s.Rows[0].Values {
				b.outputs = append(b.outputs, visible{name: "column" + strconv.Itoa(i+1)})
			}
		}
		return
	}
	for i := range s.Outputs {
		o := &s.Outputs[i]
		switch {
		case !o.Star:
			v := visible{name: o.Name}
			if o.Value.Kind == query.ValueColumn && o.Value.Column != nil {
				v.col, _ = b.find(o.Value.Column)
				v.collated = o.Value.Collation() != nil
			}
			b.outputs = append(b.outputs, v)
		case len(o.Qualifier) == 0 && o.Value.Kind == query.ValueExpr && o.Value.Expr() == nil:
			b.outputs = append(b.outputs, b.columns...)
			b.sure = b.sure && b.complete
		case len(o.Qualifier) > 0:
			c := query.Column{Table: o.Qualifier[len(o.Qualifier)-1]}
			if len(o.Qualifier) > 1 {
				c.Schema = o.Qualifier[len(o.Qualifier)-2]
			}
			n, doubt := b.named(&c)
			if n == nil || doubt {
				b.sure = false
				return
			}
			b.outputs = append(b.outputs, n.columns...)
			b.sure = b.sure && n.complete
		default:
			b.sure = false
		}
		if !b.sure {
			return // what follows has no known place
		}
	}
}
