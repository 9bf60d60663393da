package router

import (
	"slices"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"shardproxy/query"
)

// A query whose rows lie on several shards is answered in the cheapest way that is proven
// right. Each shard's answer may be a part of the whole one: then they are merged (see
// Merge). Else what the query needs of its tables is read on their shards, each part as
// small as is proven to do, and the rest of the query is finished by one PostgreSQL over
// what was read: see Input and Piece.

// Scatter says how one text, a query, is answered from several shards. Its texts have the
// parameters of the client's. It is immutable and may be shared.
type Scatter struct {
	// Merge is set when each shard's answer is a part; Inputs and Final are set otherwise. With Each it is a write that every shard runs
	// on the rows that it has, which is explained only.
	Merge  *Merge
	Each   bool
	Inputs []Input
	Final  []Piece
	// Steps is in how many steps the inputs are read when all are of one snapshot; 0 stands for one.
	Steps int
	// Views are the views whose queries were written out, as SQL names: who runs it must own them.
	Views []string
	// Grouped is set when an input has aggregates of parts that Final puts together.
	Grouped bool
	// Copy is set for a COPY TO STDOUT, of which each shard gives its rows: Merge has its text.
	Copy *CopyOut
	// Home is set when Final must run on the home shard.
	Home bool
	// Write is set for an UPDATE or DELETE, which Final is on every shard that it names.
	Write *Written
	// Into is set for an INSERT of the query's rows: all else is about Into.Query.
	Into *Insertion
	// Make is set for a table that is made of the query's rows: all else is about Make.Query.
	Make *Making
	// Why says why the shards' answers are not merged; "" when they are.
	Why string
}

// CopyOut is how the rows of a COPY TO STDOUT stand in its data.
type CopyOut struct {
	// Binary data have a head and an end; Header is set when others begin with a line of names.
	Binary, Header bool
}

// Merge is a query that every shard runs.
type Merge struct {
	// Before and After are the text; a LIMIT goes between them, behind a space.
	Before, After string
	// Keys are the columns behind those of the client's, by which the rows are ordered.
	Keys          []Key
	Limit, Offset Bound
	// Claims is set when the rows are locked up to Limit, and no others may be.
	Claims bool
	// Plan says on which shards it runs; it is that of Proof.
	Proof string
	Plan  *Plan
}

// Key is a column that rows are ordered by.
type Key struct {
	Descending, NullsFirst bool
	// Bytewise is set for text that is surely ordered by its bytes.
	Bytewise bool
}

// Bound is a LIMIT or OFFSET. The zero Bound is none.
type Bound struct {
	Set   bool
	Value int64
	// Param is the number of the parameter that gives it; 0 for none.
	Param int
}

// Input is a query whose rows are gathered. It is proven that all shards of Plan together have
// its rows.
type Input struct {
	Text string
	// Plan is that of Proof, a text with the same rows in it.
	Proof string
	Plan  *Plan
	// Claim is set for the only input of a write when its rows are locked first: it is Text as a merge.
	Claim *Merge
	// Columns are what the rows' columns are called; nil: as the server calls them.
	Columns []InputColumn
	// Step is the step in which it is read, from 0, and Reductions say which of its rows matter.
	Step       int
	Reductions []Reduction
}

// InputColumn is one column of what is gathered.
type InputColumn struct {
	Name string
	// Collate is the column's collation as SQL; "" for that of the database.
	Collate string
	// Cast is the column's type when that is a domain, as SQL; "" for others.
	Cast string
}

// PieceKind says what stands in a place of the text that finishes a query.
type PieceKind uint8

// The kinds of pieces.
const (
	PieceText     PieceKind = iota // Text
	PieceRows                      // SELECT of all columns of Input, by their names
	PieceRecords                   // the rows of Input in FROM, as values of the table's type, which Text names
	PieceParts                     // rows of Input in FROM, as "shardproxy" (c1, c2, ...)
	PieceVisible                   // the columns of Input but for the last Column of them, in a target list
	PieceSum                       // sum of column Column of Input, as the type that it has there
	PieceMean                      // sum of column Column by that of the next one
	PieceVariance                  // the aggregate that Text names, of values whose sum is column Column, that of their squares the next, their number the one behind
)

// Piece is a part of the text that finishes a query.
type Piece struct {
	Kind  PieceKind
	Text  string
	Input int
	// Column counts from 1, in the order of Input.
	Column int
}

// ScatterOptions leave ways out that turned out not to do.
type ScatterOptions struct {
	// NoMerge: the proxy does not order values as PostgreSQL does. NoGroups: parts of aggregates
	// would be less exact than the whole, or cannot be sent.
	NoMerge, NoGroups bool
	// Explains: the text is not run but explained.
	Explains bool
	// Unlike: the shards may order text otherwise than each other. What they say comes first, or is the least, is
	// not relied on.
	Unlike bool
}

// Scatters reports whether the plan's statement is a query that is answered from several
// shards when it needs them: see Router.Scatter.
func (p *Plan) Scatters() bool { return p.scatters }

// Scatter says how a text is answered whose plan scatters. The error is a *wire.Error.
func (r *Router) Scatter(sql string, ctx Context, o ScatterOptions) (*Scatter, error) {
	c := r.opts.Catalog()
	if c == nil || !c.HasTables() {
		return nil, (&Refusal{Reason: reasonLoading, Why: "the catalog is not loaded yet"}).Error()
	}
	key := scatterKey{sql: sql, ctx: ctx, o: o, version: r.version(c)}
	if s := r.scatters.get(key); s != nil {
		return s, nil
	}
	g := &gatherer{r: r, ctx: ctx, rel: newSchema(r.boundTo(c), ctx), o: o, mayClaim: true}
	s, refusal := g.scatter(sql)
	if refusal == nil && ctx.HiddenSlots > 0 {
		s.Views = g.inlined
		refusal = g.guardAll(s)
	}
	if refusal != nil {
		return nil, refusal.Error()
	}
	r.scatters.put(key, s)
	return s, nil
}

// scatterKey is what a Scatter depends on.
type scatterKey struct {
	sql     string
	ctx     Context
	o       ScatterOptions
	version uint64 // of the catalog
}

// scatterCache keeps the ways of the texts that came last.
type scatterCache struct {
	mu    sync.Mutex
	of    *simplelru.LRU[scatterKey, *Scatter]
	bytes int
}

// Bounds of the cache: its texts, and one text, in bytes, and their number.
const (
	scatterCacheBytes = 4 << 20
	scatterTextBytes  = 64 << 10
	scatterCacheTexts = 1024
)

func newScatterCache() *scatterCache {
	c := &scatterCache{}
	c.of, _ = simplelru.NewLRU(scatterCacheTexts, func(k scatterKey, _ *Scatter) { c.bytes -= len(k.sql) }) // fails for no size only
	return c
}

func (c *scatterCache) get(k scatterKey) *Scatter {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, _ := c.of.Get(k)
	return s
}

func (c *scatterCache) put(k scatterKey, s *Scatter) {
	if len(k.sql) > scatterTextBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of.Contains(k) {
		return
	}
	c.of.Add(k, s)
	for c.bytes += len(k.sql); c.bytes > scatterCacheBytes; {
		c.of.RemoveOldest()
	}
}

// scatter finds out how the text of a miss is answered from several shards, when it is a
// query that needs them. found is where it would run otherwise.
func (r *Router) scatter(p *Plan, m *miss, shapes []*query.Shape, found *routed) {
	if len(shapes) != 1 || p.Single == nil || m.ctx.Altered && p.Single.Kind != query.KindDDL {
		return
	}
	sql, held := string(m.sql), false
	switch sh := shapes[0]; {
	case sh.Kind == query.ShapeQuery && p.Single.Kind == query.KindSelect:
	case sh.Kind == query.ShapeRefresh || sh.Kind == query.ShapeCreateAs && sh.Materialized:
		found.materialised()
		return
	case p.Single.Kind == query.KindDDL && (sh.Kind == query.ShapeCreateAs || sh.Kind == query.ShapeQuery):
		r.scatterMaking(p, m, sql, found)
		return
	case sh.Kind == query.ShapeExplain && sh.Inner.Kind == query.ShapeQuery:
		o, ok := query.ReadExplain(m.sql)
		if !ok || !slices.Contains([]string{"text", "json", "yaml", "xml"}, o.Format) {
			return
		}
		if sql = sql[o.Start:]; sh.Inner.Scope.Target != nil {
			r.scatterExplained(p, m, sh, sql, found)
			return
		}
	case sh.Kind == query.ShapeDeclare && sh.Inner.Kind == query.ShapeQuery && p.Single.Kind == query.KindDeclare:
		o, ok := query.ReadDeclare(m.sql)
		if !ok {
			return
		}
		sql, held = sql[o.Start:], o.Hold
	case sh.Kind == query.ShapeCopy && !sh.Copy.From && !sh.Copy.File && p.Single.Kind == query.KindCopyTo:
	case sh.Kind == query.ShapeQuery && sh.Scope.Kind == query.ScopeInsert:
		r.scatterInto(p, m, sql, found)
		return
	case sh.Kind == query.ShapeQuery && (sh.Scope.Kind == query.ScopeUpdate || sh.Scope.Kind == query.ScopeDelete):
		r.scatterWrite(p, m, sql, found)
		return
	default:
		return
	}
	refused := found.where == Refused
	switch {
	case refused && found.refusal.Reason != reasonUnbound && found.refusal.Reason != reasonMixed && shapes[0].Kind != query.ShapeCopy:
		return
	case !refused && (found.where != Keyed || oneValue(found.groups) && oneKey(found.groups)):
		return
	}
	g := &gatherer{r: r, ctx: m.ctx, rel: newSchema(r.boundTo(m.catalog), m.ctx), mayClaim: true}
	_, refusal := g.scatter(sql)
	if refusal == nil && held && refused {
		refusal = &Refusal{Reason: reasonCommand, Why: "a cursor WITH HOLD over rows of several shards would outlive the transaction that holds them",
			Hint: "Declare it WITHOUT HOLD and fetch before COMMIT, or keep its rows: CREATE TABLE ... AS, and a cursor over that table."}
	}
	switch {
	case refusal == nil && refused:
		found.where, found.refusal, p.scatters = FanOut, nil, true
	case refusal == nil && !held:
		p.scatters = true
	case refused && refusal != nil:
		found.refusal = refusal
	}
}

// scatterInto is scatter for an INSERT.
func (r *Router) scatterInto(p *Plan, m *miss, sql string, found *routed) {
	refused := found.where == Refused
	if refused {
		switch found.refusal.Reason {
		case reasonUnbound, reasonMixed, reasonNoKey, reasonSequence, reasonReference, reasonFunction, reasonValue:
		default:
			return
		}
	}
	if found.split != nil || !refused && (found.where != Keyed || found.fansOut || oneValue(found.groups) && oneKey(found.groups)) {
		return
	}
	g := &gatherer{r: r, ctx: m.ctx, rel: newSchema(r.boundTo(m.catalog), m.ctx), mayClaim: true}
	s, refusal := g.scatter(sql)
	switch {
	case refusal == nil && s.Into == nil:
	case refusal == nil:
		p.scatters = true
		if refused {
			found.where, found.refusal = FanOut, nil
		}
	case refused && refusal.Reason != reasonUnknown:
		found.refusal = refusal
	}
}

// scatterWrite is scatter for an UPDATE or a DELETE.
func (r *Router) scatterWrite(p *Plan, m *miss, sql string, found *routed) {
	refused := found.where == Refused
	if refused && found.refusal.Reason != reasonUnbound && found.refusal.Reason != reasonMixed ||
		!refused && (found.where != Keyed || found.fansOut || found.move != nil || oneValue(found.groups) && oneKey(found.groups)) {
		return
	}
	g := &gatherer{r: r, ctx: m.ctx, rel: newSchema(r.boundTo(m.catalog), m.ctx), mayClaim: true}
	_, refusal := g.scatter(sql)
	switch {
	case refusal == nil:
		p.scatters = true
		if refused {
			found.where, found.refusal = FanOut, nil
		}
	case refused:
		found.refusal = refusal
	}
}

// gatherer takes one text apart.
type gatherer struct {
	r   *Router
	ctx Context
	rel schema
	o   ScatterOptions

	sql   string
	opts  query.Options
	edits []edit
	out   *Scatter
	plain bool // see plainCollations
	// reducing is about the inputs that are there.
	reducing reducing
	// mentions are the names of all columns that the text names.
	mentions map[string]bool
	// mayClaim is set for a text whose rows the client gets, or that writes.
	mayClaim bool
	// claim is the query inside that locks rows, which is read already.
	claim *block
	// runs are the WITH queries that are run.
	runs  map[*with]bool
	views int
	// inlined are the views whose queries were written out.
	inlined []string
}

// edit is a place of the text, and what replaces it.
type edit struct {
	at     query.Place
	pieces []Piece
}

// alone is what is known of a text that stands alone.
type alone struct {
	st       *query.Statement
	shape    *query.Shape
	literals []query.Literal
	found    routed
	plan     *Plan
}

// prove reads a text and finds out where it runs; ok is false when it is not one query. With
// merges its LIMIT and the order of its rows do not count.
func (g *gatherer) prove(sql string, merges bool) (a alone, ok bool) {
	var n query.Normal
	st, shapes := n.AnalyzeShapes(sql, g.opts)
	if st.Opaque || len(shapes) != 1 || shapes[0].Kind != query.ShapeQuery {
		return a, false
	}
	a.st, a.shape, a.literals = st, shapes[0], slices.Clone(n.Literals)
	a.found = routeQuery(g.rel, st, shapes, sql, n.Literals, merges)
	a.plan = &Plan{Statement: st, Where: a.found.where, Refusal: a.found.refusal, groups: a.found.groups, fansOut: a.found.fansOut, Exact: true}
	return a, true
}

// divides reports whether the rows of a query are those that its shards give, and none twice.
func (a *alone) divides() bool {
	f := &a.found
	switch f.where {
	case FanOut:
		return f.fansOut
	case Keyed:
		return f.fansOut || oneValue(f.groups) && oneKey(f.groups)
	case Home, Anywhere:
		return true
	}
	return false
}

// oneKey reports whether all groups, of one value for each column, surely have the same key.
func oneKey(groups []Group) bool {
	return !slices.ContainsFunc(groups, func(g Group) bool {
		return !g.placement.colocated(groups[0].placement) || !slices.EqualFunc(g.columns, groups[0].columns, func(a, b []value) bool {
			return len(a) == len(b) && (len(a) == 0 || a[0].source == b[0].source && a[0].index == b[0].index && a[0].fixed == b[0].fixed &&
				a[0].negative == b[0].negative && a[0].cast == b[0].cast)
		})
	})
}

// routeQuery is route for a query, which may be found to run on several shards.
func routeQuery(rel relations, st *query.Statement, shapes []*query.Shape, sql string, literals []query.Literal, merges bool) routed {
	prove := func(anchors bool) *prover {
		p := &prover{relations: rel, withs: map[*query.CTE]*with{}, params: map[int32]paramUse{}, sql: sql, anchors: anchors, merges: merges}
		p.commands(st, shapes, literals)
		return p
	}
	out := prove(false).routed(shapes)
	if out.where == Refused && out.refusal.Reason != reasonUnbound || out.where != Refused && out.where != Keyed || shapes[0].Scope.Kind != query.ScopeSelect {
		return out
	}
	if out.where == Keyed && oneValue(out.groups) && oneKey(out.groups) {
		return out
	}
	ok, _ := prove(true).fansOut(&st.Commands[0])
	switch {
	case ok && out.where == Refused:
		return routed{where: FanOut, fansOut: true}
	case ok:
		out.fansOut = true
	}
	return out
}

// divides reports whether a query gives, of all rows together, what it gives of the rows
// of each key of one of its tables, or, with none, of its rows one by one; the order of its rows does
// not count, nor with p.merges do LIMIT and OFFSET at the top.
func (p *prover) divides(b *block, l *leaf, top bool) bool {
	s := b.scope
	if s.Kind != query.ScopeSelect || l != nil && len(l.rel.key) == 0 {
		return false
	}
	sel := s.Select
	grouped := sel != nil && sel.Grouped
	if !grouped && (s.Having != nil || p.aggregates(s) || p.aggregatesOutside(b)) {
		return false
	}
	if sel == nil {
		return true
	}
	if sel.Limited() && (!p.merges || !top || sel.WithTies) || sel.Windows || sel.GroupingSets || len(sel.Locks) > 0 && !(p.merges && top) || sel.Into != nil || len(sel.DistinctOn) > 0 {
		return false
	}
	if l == nil {
		return !grouped && !sel.Distinct
	}
	for _, k := range l.rel.key {
		key := col{l, k}
		if grouped && !b.holds(sel.GroupBy, key) {
			return false
		}
		if sel.Distinct && !(b.sure && slices.ContainsFunc(b.outputs, func(v visible) bool { return v.col == key })) {
			return false
		}
	}
	return true
}

// aggregates reports whether a query's own expressions may hold an aggregate.
func (p *prover) aggregates(s *query.Scope) (found bool) {
	if s.Select != nil && s.Select.Aggregates {
		return true
	}
	note := func(c *query.Call) { found = found || !c.Over && p.relations.aggregate(c.Name) }
	for i := range s.Outputs {
		s.Outputs[i].Value.EachCall(note)
	}
	s.Having.EachCall(note)
	if s.Select != nil {
		for i := range s.Select.OrderBy {
			s.Select.OrderBy[i].Value.EachCall(note)
		}
	}
	return found
}

// aggregatesOutside reports whether an aggregate that stands in a query inside b may be one of
// b's own: PostgreSQL takes it for one of the query that its arguments are columns of.
func (p *prover) aggregatesOutside(b *block) bool {
	return slices.ContainsFunc(b.links, func(l sublink) bool { return p.callsOuter(l.block) })
}

// callsOuter reports whether an expression in a query, or inside it, calls an aggregate and
// names a column that is not surely the query's own.
func (p *prover) callsOuter(b *block) bool {
	if b == nil {
		return false
	}
	for _, part := range aggregateParts(b.scope) {
		calls, outer := false, false
		note := func(c *query.Call) { calls = calls || !c.Over && p.relations.aggregate(c.Name) }
		for i := range part.Outputs {
			part.Outputs[i].Value.EachCall(note)
		}
		part.Having.EachCall(note)
		part.EachColumn(func(c *query.Column) {
			found, ok := b.find(c)
			outer = outer || !ok || !slices.ContainsFunc(b.nodes, func(n *node) bool { return n.leaf == found.leaf })
		})
		// What a query in its arguments names counts as well; which expression that stands in is not known.
		if calls && (outer || slices.ContainsFunc(b.links, func(l sublink) bool { return namesOuter(l.block, []*block{b}) })) {
			return true
		}
	}
	return slices.ContainsFunc(b.nodes, func(n *node) bool { return n.leaf != nil && n.join == nil && p.callsOuter(n.leaf.inner) }) ||
		slices.ContainsFunc(b.with, func(w *with) bool { return p.callsOuter(w.block) }) ||
		p.aggregatesOutside(b) || p.callsOuter(b.left) || p.callsOuter(b.right)
}

// namesOuter reports whether a query, or one inside it, names a column that is not surely its own or one
// of the queries around it that are given.
func namesOuter(b *block, around []*block) bool {
	if b == nil {
		return false
	}
	around = append(around[:len(around):len(around)], b)
	outer := false
	b.scope.EachColumn(func(c *query.Column) {
		found, ok := b.find(c)
		outer = outer || !ok || !slices.ContainsFunc(around, func(a *block) bool {
			return slices.ContainsFunc(a.nodes, func(n *node) bool { return n.leaf == found.leaf })
		})
	})
	return outer || namesOuter(b.left, around) || namesOuter(b.right, around) ||
		slices.ContainsFunc(b.nodes, func(n *node) bool { return n.leaf != nil && n.join == nil && namesOuter(n.leaf.inner, around) }) ||
		slices.ContainsFunc(b.with, func(w *with) bool { return namesOuter(w.block, around) }) ||
		slices.ContainsFunc(b.links, func(l sublink) bool { return namesOuter(l.block, around) })
}

// aggregateParts are the expressions of a scope in which aggregates may stand, each alone.
func aggregateParts(s *query.Scope) (out []query.Scope) {
	for i := range s.Outputs {
		out = append(out, query.Scope{Outputs: s.Outputs[i : i+1]})
	}
	out = append(out, query.Scope{Having: s.Having})
	if s.Select != nil {
		for i := range s.Select.OrderBy {
			out = append(out, query.Scope{Outputs: []query.Output{{Value: s.Select.OrderBy[i].Value}}})
		}
	}
	return out
}
